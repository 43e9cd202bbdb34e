//! The agent with its real backend for MLUs, on a stand-in for libcndev: instances that outlive it, exact nodes, limits,
//! kills, and PID namespaces that are the kernel's. `vgpu-plugin/tests/cambricon` plays the same on the in-process kubelet.

mod absence;
mod limits;
mod mim;
mod namespaces;
mod node;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::cluster::process::wait_for;
use crate::cluster::test::Scenario;
use crate::cluster::test::flag::Flagged;
use crate::cluster::test::pod::{one, pod, prober};
use crate::cluster::test::world::PATIENCE;

use node::{MEM, Mlu, WHOLE};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "mlu-two-on-a-card", run: |world| Mlu::tried(world, two_on_a_card) },
    Scenario { name: "mlu-three-cards", run: |world| Mlu::tried(world, three_cards) },
    Scenario { name: "mlu-resize", run: |world| Mlu::tried(world, resize) },
    Scenario { name: "mlu-restarts", run: |world| Mlu::tried(world, restarts) },
    Scenario { name: "mlu-kill-between", run: |world| Mlu::tried(world, kill_between) },
    Scenario { name: "mlu-64-instances", run: |world| Mlu::tried(world, limits::instances) },
    Scenario { name: "mlu-17-sizes", run: |world| Mlu::tried(world, limits::sizes) },
    Scenario { name: "mlu-unmade", run: |world| Mlu::tried(world, absence::unmade) },
    Scenario { name: "mlu-mim", run: |world| Mlu::tried(world, mim::instances) },
    Scenario { name: "mlu-host-pid", run: |world| Mlu::tried(world, namespaces::hosts) },
    Scenario { name: "mlu-shared-pid", run: |world| Mlu::tried(world, namespaces::shared) },
];

/// Each container has an instance of its own size, and neither sees the other's.
fn two_on_a_card(mlu: &Mlu) -> Result<String> {
    let world = mlu.world();
    world.create(&pod("two", vec![prober("a", &[(MEM, 4)]), prober("b", &[(MEM, 6)])]))?;
    world.wait_running("two")?;
    let mut parts = Vec::new();
    for (container, gib) in [("a", 4), ("b", 6)] {
        let seen = mlu.checked("two", container)?;
        let told = seen.grant("size")?;
        ensure!(told.contains(&format!("{gib}Gi")), "{container} is told of {told}");
        let has = mlu.memory(0, seen.claim_id()?)?;
        ensure!(has == gib << 30, "{container} has an instance of {has} bytes");
        parts.push(seen.grant("part")?);
    }
    ensure!(mlu.instances(0)?.len() == 2, "the card has {:?}", mlu.instances(0)?);
    Ok(parts.join(", "))
}

/// All three in one container, with no other card's nodes; who comes after waits for them.
fn three_cards(mlu: &Mlu) -> Result<String> {
    let world = mlu.world();
    world.create(&one("three", &[(WHOLE, 3)]))?;
    world.wait_running("three")?;
    let seen = mlu.checked("three", "main")?;
    let grants = seen.claim["grants"].as_array().map_or(0, Vec::len);
    ensure!(grants == 3, "it has {grants} cards");
    ensure!(seen.cards().len() == 7, "it sees {:?}", seen.cards());
    world.create(&one("fourth", &[(WHOLE, 1)]))?;
    world.insufficient("fourth", WHOLE)?;
    world.delete("three")?;
    world.wait_running("fourth")?;
    mlu.checked("fourth", "main")?;
    Ok(format!("{} nodes", seen.cards().len()))
}

/// An admin gives a living instance more; its container runs on, and reads of it when it starts again.
fn resize(mlu: &Mlu) -> Result<String> {
    let world = mlu.world();
    let pod = Flagged::run(world, "grows", &[("main", MEM, 4)])?;
    let before = mlu.checked("grows", "main")?;
    let (part, claim) = (before.grant("part")?, before.claim_id()?);
    let node = world.allocatable()?.get(MEM).copied().unwrap_or_default();
    let said = mlu.resize(&part, "8Gi")?;
    ensure!(said.contains(&part) && said.contains("8Gi"), "it says {said}");
    ensure!(mlu.memory(0, claim)? == 8 << 30, "the driver has {:?}", mlu.instances(0)?);
    world.wait_within(MEM, ..node)?;
    for (memory, word) in [("100Mi", "256Mi"), ("60Gi", "60Gi")] {
        let refused = mlu.resize(&part, memory).err().map(|e| format!("{e:#}"));
        let refused = refused.unwrap_or_else(|| format!("{memory} was given"));
        ensure!(refused.contains(word), "of {memory} it says {refused}");
    }
    ensure!(mlu.memory(0, claim)? == 8 << 30, "the driver has {:?}", mlu.instances(0)?);
    world.ran_on("grows")?;
    pod.raise(world, "main")?;
    let after = mlu.checked("grows", "main")?;
    ensure!(after.claim_id()? == claim && after.grant("part")? == part, "it has {}", after.claim);
    ensure!(after.grant("size")?.contains("8Gi"), "it is told of {}", after.grant("size")?);
    Ok(format!("\"{}\"", said.trim()))
}

/// The agent is killed, and then the driver started anew, under running containers; each starts again and has what it had.
fn restarts(mlu: &Mlu) -> Result<String> {
    let world = mlu.world();
    let pod = Flagged::run(world, "two", &[("a", MEM, 4), ("b", MEM, 6)])?;
    let before = [mlu.checked("two", "a")?, mlu.checked("two", "b")?];
    let instances = mlu.instances(0)?;
    world.cluster.node.signal("agent", "KILL")?;
    world.wait_within(MEM, 0..=0)?;
    world.start_agent()?;
    world.wait_within(MEM, 11..)?;
    world.ran_on("two")?;
    pod.raise(world, "a")?;
    mlu.change(|s| s["starts"] = json!(s["starts"].as_u64().unwrap_or(1) + 1))?;
    pod.raise(world, "b")?;
    for (container, before) in ["a", "b"].into_iter().zip(&before) {
        let after = mlu.checked("two", container)?;
        ensure!(
            after.claim == before.claim,
            "{container} had {} and has {}",
            before.claim,
            after.claim
        );
        ensure!(after.cards() == before.cards(), "{container} sees {:?}", after.cards());
    }
    ensure!(mlu.instances(0)? == instances, "the card has {:?}", mlu.instances(0)?);
    world.create(&one("next", &[(MEM, 3)]))?;
    world.wait_running("next")?;
    mlu.checked("next", "main")?;
    ensure!(mlu.instances(0)?.len() == 3, "the card has {:?}", mlu.instances(0)?);
    Ok("each container has the instance that it had".into())
}

/// The agent dies when the driver has made the profile and no instance of it yet.
fn kill_between(mlu: &Mlu) -> Result<String> {
    let world = mlu.world();
    world.create(&one("first", &[(MEM, 1)]))?;
    world.wait_running("first")?;
    mlu.checked("first", "main")?;
    mlu.change(|s| s["cards"][0]["die_after"] = json!(1))?;
    world.create(&one("second", &[(MEM, 3)]))?;
    wait_for("end of the agent", PATIENCE, || {
        Ok((!world.cluster.node.runs("agent")).then_some(()))
    })?;
    ensure!(mlu.instances(0)?.len() == 1, "the card has {:?}", mlu.instances(0)?);
    let left = mlu.profiles(0)?;
    world.start_agent()?;
    world.wait_running("second")?;
    let seen = mlu.checked("second", "main")?;
    ensure!(mlu.memory(0, seen.claim_id()?)? == 3 << 30, "it has another size");
    ensure!(mlu.instances(0)?.len() == 2, "the card has {:?}", mlu.instances(0)?);
    let now = mlu.profiles(0)?;
    ensure!(now == left, "{left} profiles were left, and there are {now}");
    world.ran_on("first")?;
    Ok(format!("the one of {left} profiles that was left is used"))
}
