//! A kubelet whose folder lies elsewhere, and a container runtime that ignores CDI names.

use anyhow::{Result, ensure};

use crate::cluster::process::wait_for;
use crate::cluster::test::Scenario;
use crate::cluster::test::pod::one;
use crate::cluster::test::world::{PATIENCE, World};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "kubelet-dir-elsewhere", run: kubelet_dir },
    Scenario { name: "runtime-without-cdi", run: without_cdi },
];

/// `--root-dir` moves the PodResources socket, and not the folder of device plugins, which is a constant of the kubelet.
fn kubelet_dir(world: &World) -> Result<String> {
    let node = &world.cluster.node;
    node.signal("kubelet", "KILL")?;
    node.signal("agent", "TERM")?;
    world.cluster.start_kubelet_with(&["--root-dir=/var/lib/elsewhere"])?;
    let there = |path: &str| node.inside(path).exists();
    wait_for("sockets of the kubelet", PATIENCE, || {
        Ok((there("/var/lib/elsewhere/pod-resources/kubelet.sock")
            && there("/var/lib/kubelet/device-plugins/kubelet.sock"))
        .then_some(()))
    })?;
    let outcome = served_elsewhere(world);
    node.signal("kubelet", "KILL")?;
    if node.runs("agent") {
        node.signal("agent", "TERM")?;
    }
    outcome
}

fn served_elsewhere(world: &World) -> Result<String> {
    let before = world.agent_log()?.len();
    // A folder in which no kubelet is: said, and waited for.
    world.start_agent_with(&["--kubelet-dir=/var/lib/nowhere"])?;
    let mut said = String::new();
    wait_for("word of the agent on a kubelet that is not there", PATIENCE, || {
        let log = world.agent_log()?;
        let word = log[before..].lines().find(|l| l.contains("/var/lib/nowhere"));
        said = word.unwrap_or_default().to_owned();
        Ok(word.map(drop))
    })?;
    world.cluster.node.signal("agent", "TERM")?;
    world.start_agent_with(&[
        "--kubelet-dir=/var/lib/kubelet",
        "--pod-resources-socket=/var/lib/elsewhere/pod-resources/kubelet.sock",
    ])?;
    world.wait_served()?;
    world.create(&one("elsewhere", &[("vgpu.dev/mig", 1)]))?;
    world.wait_running("elsewhere")?;
    let seen = world.checked("elsewhere", "main")?;
    let claim = world.claim_of("elsewhere")?;
    ensure!(claim["claim"] == seen.claim["claim"], "the agent holds {claim}");
    world.delete("elsewhere")?;
    Ok(format!("\"{}\"", said.split_once("  ").map_or(said.as_str(), |(_, word)| word.trim())))
}

/// Nothing is registered, and the log says why: containers would start without their devices.
fn without_cdi(world: &World) -> Result<String> {
    let node = &world.cluster.node;
    node.signal("agent", "TERM")?;
    let socket = node.layout.dir.join("old-runtime.sock");
    if socket.exists() {
        std::fs::remove_file(&socket)?;
    }
    let at = socket.display().to_string();
    node.spawn("old-runtime", &world.programs.old_runtime, [&at])?;
    let before = world.agent_log()?.len();
    world.start_agent_with(&[&format!("--runtime-endpoint={at}")])?;
    let mut said = String::new();
    let waited = wait_for("word of the agent on the runtime", PATIENCE, || {
        let log = world.agent_log()?;
        let word = log[before..].lines().find(|l| l.contains("nothing is registered"));
        said = word.unwrap_or_default().to_owned();
        Ok(word.map(drop))
    });
    let zero = waited.and_then(|()| {
        world.wait_allocatable(&[("vgpu.dev/gpu", 0), ("vgpu.dev/mig", 0), ("vgpu.dev/dcu", 0)])
    });
    let registered = world.agent_log()?[before..].contains("registered with the kubelet resource");
    node.signal("old-runtime", "KILL")?;
    node.signal("agent", "TERM")?;
    zero?;
    ensure!(!registered, "it registered all the same");
    ensure!(said.contains("1.6.20") && said.contains("CDI"), "the log says {said}");
    Ok(format!("\"{}\"", said.split_once("why=").map_or(said.as_str(), |(_, why)| why)))
}
