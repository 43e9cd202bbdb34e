//! The kubelet and the agent end and come back, with pods running and pods waiting.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::cluster::process::wait_for;
use crate::cluster::test::Scenario;
use crate::cluster::test::pod::one;
use crate::cluster::test::world::{PATIENCE, World, why};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "kubelet-restart", run: kubelet_restart },
    Scenario { name: "agent-kill-9", run: agent_kill },
    Scenario { name: "agent-kill-in-create", run: agent_kill_in_create },
    Scenario { name: "agent-restart-in-order", run: agent_restart },
    Scenario { name: "reboot", run: reboot },
];

/// Pods that were bound while the kubelet was away are admitted about 0.8 s after it comes back: whoever registers
/// later loses them for good.
fn kubelet_restart(world: &World) -> Result<String> {
    world.create(&one("runs", &[("vgpu.dev/mig", 1)]))?;
    world.wait_running("runs")?;
    let before = world.checked("runs", "main")?;
    let (mut times, mut told) = (Vec::new(), Vec::new());
    for round in 0..3 {
        world.cluster.node.signal("kubelet", "KILL")?;
        let heartbeat = world.heartbeat()?;
        let names: Vec<String> = (0..4).map(|n| format!("waits-{round}-{n}")).collect();
        for name in &names {
            world.create(&one(name, &[("vgpu.dev/mlu-memory", 1)]))?;
        }
        for name in &names {
            world.wait_pod(name, "node", |p| Ok(p["spec"]["nodeName"].is_string()))?;
        }
        let began = Instant::now();
        world.cluster.start_kubelet()?;
        let full = wait_for("word of the new kubelet", PATIENCE, || {
            let mig = world.allocatable()?.get("vgpu.dev/mig").copied();
            Ok((world.heartbeat()? != heartbeat && mig == Some(7)).then(|| began.elapsed()))
        });
        told.push(full?);
        for name in &names {
            world.wait_running(name)?;
        }
        times.push(began.elapsed());
        for name in &names {
            world.checked(name, "main")?;
        }
        names.iter().try_for_each(|name| world.delete(name))?;
    }
    let running = world.pod("runs")?;
    ensure!(
        running["status"]["containerStatuses"][0]["restartCount"] == 0,
        "the pod that ran was started again"
    );
    let claim = world.claim_of("runs")?;
    ensure!(claim["claim"] == before.claim["claim"], "the pod that ran holds {claim}");
    world.wait_allocatable(&[("vgpu.dev/gpu", 1), ("vgpu.dev/mig", 7)])?;
    Ok(format!(
        "12 of 12 admitted; kubelet start to allocatable {}, to 4 more running {}",
        spread(&told),
        spread(&times)
    ))
}

fn agent_kill(world: &World) -> Result<String> {
    world.create(&one("runs", &[("vgpu.dev/mig", 1)]))?;
    world.wait_running("runs")?;
    let before = world.checked("runs", "main")?;
    let mut times = Vec::new();
    for round in 0..3 {
        world.cluster.node.signal("agent", "KILL")?;
        wait_for("empty node", PATIENCE, || {
            let left = world.allocatable()?;
            Ok((left.get("vgpu.dev/mig") == Some(&0)).then_some(()))
        })?;
        let began = Instant::now();
        world.start_agent()?;
        world.wait_allocatable(&[("vgpu.dev/gpu", 1), ("vgpu.dev/mig", 7)])?;
        times.push(began.elapsed());
        let name = format!("next-{round}");
        world.create(&one(&name, &[("vgpu.dev/mig", 1)]))?;
        world.wait_running(&name)?;
        let next = world.checked(&name, "main")?;
        ensure!(next.grant("part")? != before.grant("part")?, "two pods share a part");
        let claim = world.claim_of("runs")?;
        ensure!(claim["claim"] == before.claim["claim"], "the pod that ran holds {claim}");
    }
    Ok(format!("agent start to allocatable {}", spread(&times)))
}

/// The driver has made the part, and the agent dies before it knows.
fn agent_kill_in_create(world: &World) -> Result<String> {
    use vgpu_backend_mock::{Action, At, Op, Rule};
    let card = world.machine.devices()?.swap_remove(1);
    let dies = Rule::new(At::CallsOf(Op::Create), Action::AbortAfter).on(&card);
    world.machine.faults().add(dies)?;
    world.create(&one("survives", &[("vgpu.dev/mig", 1)]))?;
    wait_for("end of the agent", PATIENCE, || {
        Ok((!world.cluster.node.runs("agent")).then_some(()))
    })?;
    world.start_agent()?;
    world.wait_running("survives")?;
    let seen = world.checked("survives", "main")?;
    let parts = world.machine.truth(&card)?;
    let whole =
        parts.iter().filter(|p| p.id.as_str() == seen.grant("part").unwrap_or_default()).count();
    ensure!(whole == 1, "the card has {parts:?}, the container {}", seen.claim);
    Ok(format!("{} part(s) on the card", parts.len()))
}

fn agent_restart(world: &World) -> Result<String> {
    world.create(&one("runs", &[("vgpu.dev/gpu", 1)]))?;
    world.wait_running("runs")?;
    let before = world.checked("runs", "main")?;
    world.cluster.node.signal("agent", "TERM")?;
    ensure!(!world.specs()?.is_empty(), "an orderly end withdrew the spec of a running container");
    world.start_agent()?;
    world.wait_allocatable(&[("vgpu.dev/gpu", 1)])?;
    let claim = world.claim_of("runs")?;
    ensure!(claim["claim"] == before.claim["claim"], "the pod that ran holds {claim}");
    Ok(String::new())
}

/// CDI folder empty, parts gone, another boot id; the kubelet asks for no allocation again, only for PreStart.
fn reboot(world: &World) -> Result<String> {
    // Two on one card, whose mode is gone too: neither may wait for the other to let go of it.
    let pods = ["mig", "mig-too", "units"];
    world.create(&one("mig", &[("vgpu.dev/mig", 1)]))?;
    world.create(&one("mig-too", &[("vgpu.dev/mig", 1)]))?;
    world.create(&one("units", &[("vgpu.dev/mlu-memory", 4)]))?;
    let mut before = Vec::new();
    for name in pods {
        world.wait_running(name)?;
        before.push(world.checked(name, "main")?);
    }
    world.cluster.reboot()?;
    world.machine.faults().reboot()?;
    ensure!(world.specs()?.is_empty(), "/run/cdi outlived the reboot");
    let began = Instant::now();
    world.start_agent()?;
    world.cluster.start_kubelet()?;
    for (name, before) in pods.into_iter().zip(before) {
        world.wait_pod(name, "second run", |pod| {
            let status = &pod["status"]["containerStatuses"][0];
            ensure!(pod["status"]["phase"] != "Failed", "it failed: {}", why(pod));
            Ok(status["restartCount"] == 1 && status["state"]["running"].is_object())
        })?;
        let after = world.checked(name, "main")?;
        ensure!(after.claim_id()? == before.claim_id()?, "{name} has another claim");
        ensure!(after.grant("size")? == before.grant("size")?, "{name} has another size");
    }
    let seconds = began.elapsed().as_secs_f64();
    Ok(format!("all three run again {seconds:.1} s after kubelet and agent were started"))
}

/// Least, middle and most.
pub(crate) fn spread(times: &[Duration]) -> String {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let text = |t: Option<&Duration>| format!("{:.2}", t.map_or(0.0, Duration::as_secs_f64));
    format!(
        "{}/{}/{} s (n={})",
        text(sorted.first()),
        text(sorted.get(sorted.len() / 2)),
        text(sorted.last()),
        sorted.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_least_middle_most() {
        let times = [3, 1, 2].map(Duration::from_secs);
        assert_eq!(spread(&times), "1.00/2.00/3.00 s (n=3)");
        assert_eq!(spread(&[]), "0.00/0.00/0.00 s (n=0)");
    }
}
