//! Memory limits of containers, which the driver keeps by cgroup: from the spec by the hook and the agent to the driver.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::r615::{QUARTERS, R615, TURN, hierarchy};
use crate::cluster::process::wait_for;
use crate::cluster::test::pod::one;
use crate::cluster::test::world::PATIENCE;

/// Two containers of a card, each limited by its own cgroup; another tool's changes do not stay, and a limit ends with its
/// container.
pub(crate) fn limits(gpu: &R615) -> Result<String> {
    let world = gpu.world();
    ensure!(gpu.limits()?.is_empty(), "limits before any container: {:?}", gpu.limits()?);
    let mut all = Vec::new();
    for (pod, turns) in [("first", 1), ("second", 3)] {
        all.push(limited(gpu, pod, turns)?);
        in_force(gpu, &all)?;
    }
    world.create(&one("more", &[(TURN, 1)]))?;
    world.insufficient("more", TURN)?;

    let elsewhere = [Some(100), None];
    for ((cgroup, _), mib) in all.iter().zip(elsewhere) {
        gpu.changed_elsewhere(cgroup, mib)?;
        // The driver takes the change at the agent's next call.
        wait_for("repair of a limit", PATIENCE, || {
            let log = world.agent_log()?;
            let repaired = log.lines().filter(|l| l.contains("it is set again"));
            let its = cgroup.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            Ok(repaired.filter(|l| l.contains(its)).count().gt(&0).then_some(()))
        })?;
        in_force(gpu, &all)?;
    }
    world.ran_on("first")?;
    world.ran_on("second")?;

    world.delete("first")?;
    all.remove(0);
    world.wait_running("more")?;
    all.push(cgroup_of(gpu, "more", 1)?);
    lifted(gpu, &all)?;
    for pod in ["second", "more"] {
        world.delete(pod)?;
    }
    lifted(gpu, &[])?;
    Ok(format!("{} and {} MiB, and none at the end", QUARTERS[0], 3 * QUARTERS[0]))
}

/// Runs a pod; gives its container's cgroup and the MiB that it may have.
fn limited(gpu: &R615, pod: &str, turns: u32) -> Result<(PathBuf, u64)> {
    gpu.world().create(&one(pod, &[(TURN, turns)]))?;
    gpu.world().wait_running(pod)?;
    cgroup_of(gpu, pod, turns)
}

/// The cgroup of a pod's container that sees its claim, and the MiB that it is told it may have.
fn cgroup_of(gpu: &R615, pod: &str, turns: u32) -> Result<(PathBuf, u64)> {
    let seen = gpu.checked(pod, "main", 0)?;
    let mib = u64::from(turns) * QUARTERS[0];
    let told = seen.grant("size")?;
    ensure!(told.contains(&format!("{mib}Mi")), "pod {pod} is told of {told}, not {mib}Mi");
    let status = gpu.world().pod(pod)?["status"]["containerStatuses"][0].clone();
    let id = status["containerID"].as_str().and_then(|id| id.rsplit('/').next());
    let id = id.with_context(|| format!("pod {pod} has no container: {status}"))?;
    let cgroup = found(hierarchy(), id);
    let cgroup = cgroup.with_context(|| format!("the container {id} of {pod} has no cgroup"))?;
    // Who is in it is in the same cgroup of its other hierarchies: it is the kubelet's own.
    let pids = std::fs::read_to_string(cgroup.join("cgroup.procs"))?;
    ensure!(pids.lines().next().is_some(), "nobody is in {}", cgroup.display());
    let within = format!("/{}", cgroup.strip_prefix(hierarchy())?.display());
    for pid in pids.lines() {
        // One may have ended.
        let Ok(table) = std::fs::read_to_string(format!("/proc/{pid}/cgroup")) else { continue };
        let all: BTreeSet<&str> = table
            .lines()
            .filter(|line| line.contains(":memory:") || line.starts_with("0::"))
            .filter_map(|line| line.rsplit_once(':'))
            .map(|(_, path)| path)
            .collect();
        ensure!(all == BTreeSet::from([&*within]), "{pid} is in {all:?}, not in {within}");
    }
    Ok((cgroup, mib))
}

/// The group of that name below.
fn found(group: &Path, name: &str) -> Option<PathBuf> {
    let below = std::fs::read_dir(group).ok()?.filter_map(|e| Some(e.ok()?.path()));
    below.filter(|path| path.is_dir()).find_map(|path| {
        let is_it = path.file_name().is_some_and(|n| n.to_string_lossy().contains(name));
        if is_it { Some(path) } else { found(&path, name) }
    })
}

fn in_force(gpu: &R615, expected: &[(PathBuf, u64)]) -> Result<()> {
    let (now, expected) = (gpu.limits()?, expected.iter().cloned().collect());
    ensure!(now == expected, "the driver has {now:?} in force, not {expected:?}");
    Ok(())
}

/// Waits until only these are in force.
fn lifted(gpu: &R615, left: &[(PathBuf, u64)]) -> Result<()> {
    let lifted = wait_for("end of a limit", PATIENCE, || {
        Ok((gpu.limits()?.len() <= left.len()).then_some(()))
    });
    lifted.with_context(|| format!("in force are {:?}", gpu.limits()))?;
    in_force(gpu, left)
}
