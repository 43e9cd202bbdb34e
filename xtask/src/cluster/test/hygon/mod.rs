//! The agent with its real backend for DCUs, on a prepared host and stand-ins for the vendor's libraries, which are called
//! in a child: exact nodes, virtual DCUs that outlive agent and child, and the file by which a container knows its own.

mod node;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::cluster::process::wait_for;
use crate::cluster::test::Scenario;
use crate::cluster::test::flag::Flagged;
use crate::cluster::test::pod::{one, pod};
use crate::cluster::test::world::PATIENCE;

use node::{Dcu, QUARTER, WHOLE, prober};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "dcu-whole", run: |world| Dcu::tried(world, whole) },
    Scenario { name: "dcu-quarters", run: |world| Dcu::tried(world, quarters) },
    Scenario { name: "dcu-restarts", run: |world| Dcu::tried(world, restarts) },
    Scenario { name: "dcu-child-dies", run: |world| Dcu::tried(world, child_dies) },
];

/// Two cards in one container, with no other's nodes; who comes after waits for them.
fn whole(dcu: &Dcu) -> Result<String> {
    let world = dcu.world();
    world.create(&one("two", &[(WHOLE, 2)]))?;
    world.wait_running("two")?;
    let seen = dcu.checked("two", "main")?;
    ensure!(seen.cards().len() == 6, "it sees {:?}", seen.cards());
    ensure!(!seen.mounts.keys().any(|m| m.contains("vdev")), "it has a virtual DCU");
    world.create(&one("third", &[(WHOLE, 1)]))?;
    world.insufficient("third", WHOLE)?;
    world.delete("two")?;
    world.wait_running("third")?;
    let seen = dcu.checked("third", "main")?;
    ensure!(seen.cards().len() == 4, "it sees {:?}", seen.cards());
    Ok("6 nodes of two cards, 4 of one".into())
}

/// All eight: each container reads its own and nothing of a neighbour's, and no unit is two's; a ninth waits.
fn quarters(dcu: &Dcu) -> Result<String> {
    let world = dcu.world();
    let names = ["a", "b", "c", "d"];
    for pod_name in ["first", "second"] {
        world.create(&pod(pod_name, names.map(|name| prober(name, QUARTER)).into()))?;
    }
    let mut all = Vec::new();
    for pod_name in ["first", "second"] {
        world.wait_running(pod_name)?;
        for name in names {
            all.push(dcu.conf(pod_name, name)?);
        }
    }
    ensure!(dcu.confs()?.len() == 8, "the driver has {:?}", dcu.confs()?);
    for (n, one) in all.iter().enumerate() {
        ensure!(one.says("mem") == "16380 MiB", "a quarter has {}", one.says("mem"));
        let units: u32 = one.mask()?.iter().map(|word| word.count_ones()).sum();
        ensure!(units == 30, "a quarter has {units} units");
        for other in all.iter().skip(n + 1) {
            let same_card = one.says("PciBusId") == other.says("PciBusId");
            let overlap = one.mask()?.iter().zip(other.mask()?).any(|(a, b)| a & b != 0);
            ensure!(!(same_card && overlap), "{one:?} and {other:?} share units");
        }
    }
    world.create(&one("ninth", &[(QUARTER, 1)]))?;
    world.insufficient("ninth", QUARTER)?;
    ensure!(dcu.confs()?.len() == 8, "the driver has {:?}", dcu.confs()?);
    Ok("8 of 30 units and 16380 MiB each".into())
}

/// The agent is killed, and then its child, under running containers; each starts again and has what it had.
fn restarts(dcu: &Dcu) -> Result<String> {
    let world = dcu.world();
    let pod = Flagged::run(world, "two", &[("a", QUARTER, 1), ("b", QUARTER, 1)])?;
    let before = [dcu.checked("two", "a")?, dcu.checked("two", "b")?];
    let confs = dcu.confs()?;
    ensure!(confs.len() == 2, "the driver has {confs:?}");
    world.cluster.node.signal("agent", "KILL")?;
    world.wait_within(QUARTER, 0..=0)?;
    world.start_agent()?;
    world.wait_within(QUARTER, 8..)?;
    world.ran_on("two")?;
    pod.raise(world, "a")?;
    let first = dcu.child()?;
    world.cluster.node.output("/bin/kill".as_ref(), ["-KILL", &first.to_string()])?;
    pod.raise(world, "b")?;
    for (container, before) in ["a", "b"].into_iter().zip(&before) {
        let after = dcu.checked("two", container)?;
        let (had, has) = (&before.claim, &after.claim);
        ensure!(had == has, "{container} had {had} and has {has}");
        ensure!(after.cards() == before.cards(), "{container} sees {:?}", after.cards());
    }
    ensure!(dcu.confs()?.len() == 2, "the driver has {:?}", dcu.confs()?);
    ensure!(dcu.child()? != first, "the child was not ended");
    world.create(&pod_of_one("next"))?;
    world.wait_running("next")?;
    dcu.conf("next", "main")?;
    ensure!(dcu.confs()?.len() == 3, "the driver has {:?}", dcu.confs()?);
    Ok("each container has the virtual DCU that it had".into())
}

/// The library ends its process when it has made a virtual DCU: the agent lives, and the pod gets that very one.
fn child_dies(dcu: &Dcu) -> Result<String> {
    let world = dcu.world();
    let first = dcu.child()?;
    dcu.control(&json!({"kill_after": 1}))?;
    world.create(&pod_of_one("survives"))?;
    wait_for("end of the child", PATIENCE, || {
        Ok(dcu.child().is_ok_and(|child| child != first).then_some(()))
    })?;
    dcu.control(&json!({}))?;
    world.wait_running("survives")?;
    dcu.conf("survives", "main")?;
    ensure!(dcu.confs()?.len() == 1, "the driver has {:?}", dcu.confs()?);
    world.ran_on("survives")?;
    Ok("one virtual DCU, of the attempt that was cut off".into())
}

fn pod_of_one(name: &str) -> serde_json::Value {
    pod(name, vec![prober("main", QUARTER)])
}
