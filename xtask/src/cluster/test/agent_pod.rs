//! The agent as a pod, as a DaemonSet makes it.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::cluster::image::AGENT_IMAGE;
use crate::cluster::process::wait_for;
use crate::cluster::test::Scenario;
use crate::cluster::test::pod::{one, pod};
use crate::cluster::test::world::{PATIENCE, World};

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario { name: "agent-as-pod", run: agent_as_pod }];

/// It takes over from the agent on the host, with the same state, and gives it back.
fn agent_as_pod(world: &World) -> Result<String> {
    world.create(&one("before", &[("vgpu.dev/mig", 1)]))?;
    world.wait_running("before")?;
    let before = world.checked("before", "main")?;
    world.cluster.import(AGENT_IMAGE, &[world.agent()])?;
    world.cluster.node.signal("agent", "TERM")?;
    wait_units(world, |n| n == 0)?;
    world.create(&agent(world))?;
    world.wait_running("agent")?;
    wait_units(world, |n| n > 0)?;
    world.create(&one("units", &[("vgpu.dev/mlu-memory", 2)]))?;
    world.create(&one("mig", &[("vgpu.dev/mig", 1)]))?;
    for name in ["units", "mig"] {
        world.wait_running(name)?;
        world.checked(name, "main")?;
    }
    let claim = world.claim_of("before")?;
    ensure!(claim["claim"] == before.claim["claim"], "the pod that ran holds {claim}");
    Ok("from an image of ours; the host's claims taken over".into())
}

/// Until the node itself tells so, the scheduler goes by what was before.
fn wait_units(world: &World, are_so: impl Fn(u64) -> bool) -> Result<()> {
    wait_for("change of what the node has", PATIENCE, || {
        let units = world.allocatable()?.get("vgpu.dev/mlu-memory").copied();
        Ok(units.is_some_and(&are_so).then_some(()))
    })
}

fn agent(world: &World) -> Value {
    let dir = world.cluster.node.layout.dir.display().to_string();
    let name = world.agent().file_name().unwrap_or_default().to_string_lossy();
    let program = format!("/bin/{name}");
    let places = ["/var/lib/kubelet", "/var/lib/vgpu", "/run/cdi", "/run/containerd", &dir];
    let volumes = places
        .iter()
        .enumerate()
        .map(|(n, path)| json!({"name": format!("place-{n}"), "hostPath": {"path": path}}));
    let mounts = places
        .iter()
        .enumerate()
        .map(|(n, path)| json!({"name": format!("place-{n}"), "mountPath": path}));
    let mut command = vec![program];
    command.extend(world.agent_args());
    let mut made = pod(
        "agent",
        vec![json!({
            "name": "agent",
            "image": AGENT_IMAGE,
            "imagePullPolicy": "Never",
            "command": command,
            "volumeMounts": mounts.collect::<Vec<_>>(),
        })],
    );
    made["spec"]["hostNetwork"] = json!(true);
    made["spec"]["priorityClassName"] = json!("system-node-critical");
    made["spec"]["volumes"] = volumes.collect();
    made
}
