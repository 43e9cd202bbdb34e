//! A new agent starts before the old one has ended.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::cluster::process::wait_for;
use crate::cluster::test::Scenario;
use crate::cluster::test::agent_pod::{daemon_set, import, ready_pod, template};
use crate::cluster::test::pod::one;
use crate::cluster::test::world::{PATIENCE, World, why};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "upgrade-of-the-process", run: process },
    Scenario { name: "upgrade-of-the-daemonset", run: of_the_daemon_set },
];

/// Another program file, as a package manager leaves it; it waits for the state folder and takes over.
fn process(world: &World) -> Result<String> {
    world.create(&one("runs", &[("vgpu.dev/mig", 1)]))?;
    world.wait_running("runs")?;
    let before = world.checked("runs", "main")?;
    let node = &world.cluster.node;
    // Of the same name: a reboot of the node finds the agent by it.
    let dir = node.layout.dir.join("new");
    std::fs::create_dir_all(&dir)?;
    let program = dir.join("vgpu-plugin");
    std::fs::copy(world.agent(), &program).context("cannot copy the agent")?;
    node.spawn("agent-new", &program, world.agent_args())?;
    // Both live now; the old one still serves.
    world.create(&one("meanwhile", &[("vgpu.dev/mig", 1)]))?;
    world.wait_running("meanwhile")?;
    world.checked("meanwhile", "main")?;
    ensure!(node.runs("agent-new"), "the new agent did not wait:\n{}", node.log_tail("agent-new"));
    let began = Instant::now();
    node.signal("agent", "TERM")?;
    node.rename("agent-new", "agent")?;
    wait_for("registration by the new agent", PATIENCE, || {
        ensure!(node.runs("agent"), "the new agent ended:\n{}", node.log_tail("agent-new"));
        let log = std::fs::read_to_string(node.layout.log("agent-new")).unwrap_or_default();
        Ok((log.matches("registered, the kubelet").count() >= 4).then_some(()))
    })?;
    let gap = began.elapsed().as_secs_f64();
    world.wait_served()?;
    after(world, before.claim_id()?)?;
    Ok(format!("old one told to end, to all four resources registered by the new one: {gap:.2} s"))
}

/// As `maxSurge: 1` does: the new pod is there before the old one is told to end.
fn of_the_daemon_set(world: &World) -> Result<String> {
    let images = ["vgpu.dev/agent:1", "vgpu.dev/agent:2"];
    for image in images {
        import(world, image)?;
    }
    world.cluster.node.signal("agent", "TERM")?;
    let made = daemon_set(template(world, images[0]));
    world.cluster.api.create("/apis/apps/v1/namespaces/default/daemonsets", &made)?;
    let old = ready_pod(world, images[0])?;
    world.wait_served()?;
    world.create(&one("runs", &[("vgpu.dev/mig", 1)]))?;
    world.wait_running("runs")?;
    let before = world.checked("runs", "main")?;
    let path = "/apis/apps/v1/namespaces/default/daemonsets/agent";
    let mut changed = world.cluster.api.get(path)?;
    changed["spec"]["template"]["spec"]["containers"][0]["image"] = json!(images[1]);
    let began = Instant::now();
    world.cluster.api.replace(path, &changed)?;
    let new = ready_pod(world, images[1])?;
    let mut both = false;
    wait_for("end of the old agent's pod", PATIENCE, || {
        let there = world.cluster.api.find(&format!("/api/v1/namespaces/default/pods/{old}"))?;
        both |= there.is_some();
        Ok(there.is_none().then_some(()))
    })?;
    ensure!(both, "the old pod was gone before the new one was there: no overlap");
    world.wait_served()?;
    let took = began.elapsed().as_secs_f64();
    let pod = world.pod(&new)?;
    let restarts = &pod["status"]["containerStatuses"][0]["restartCount"];
    ensure!(*restarts == 0, "the new agent was started {restarts} times more: {}", why(&pod));
    after(world, before.claim_id()?)?;
    Ok(format!("image changed to served by the new pod: {took:.1} s"))
}

/// Who ran keeps its own, and others are served.
fn after(world: &World, claim: &str) -> Result<()> {
    world.create(&one("after", &[("vgpu.dev/mig", 1)]))?;
    world.create(&one("after-units", &[("vgpu.dev/mlu-memory", 2)]))?;
    for name in ["after", "after-units"] {
        world.wait_running(name)?;
        world.checked(name, "main")?;
    }
    let held = world.claim_of("runs")?;
    ensure!(held["claim"] == claim, "the pod that ran holds {held}");
    let running = world.pod("runs")?;
    ensure!(
        running["status"]["containerStatuses"][0]["restartCount"] == 0,
        "the pod that ran was started again"
    );
    Ok(())
}
