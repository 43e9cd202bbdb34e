//! The agent with its real backend for GPUs, on a stand-in for NVML with MIG: capabilities of one instance and no other, the
//! driver's libraries by mounts and hooks, instances that outlive the agent. And on one of driver 615: memory limits by
//! cgroup, shares by MPS.

mod limits;
mod node;
mod r615;
mod shares;

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use crate::cluster::test::Scenario;
use crate::cluster::test::flag::Flagged;
use crate::cluster::test::pod::{one, pod};

use node::{Gpu, HALF, SEVENTH, prober};
use r615::R615;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "gpu-instances", run: |world| Gpu::tried(world, instances) },
    Scenario { name: "gpu-restarts", run: |world| Gpu::tried(world, restarts) },
    Scenario { name: "gpu-memory-limits", run: |world| R615::tried(world, limits::limits) },
    Scenario { name: "gpu-mps", run: |world| R615::tried(world, shares::shares) },
];

/// A card in seven, another in halves: each container has the rights of one instance; who comes after waits.
fn instances(gpu: &Gpu) -> Result<String> {
    let world = gpu.world();
    let names = ["a", "b", "c", "d", "e", "f", "g"];
    world.create(&pod("sevenths", names.map(|name| prober(name, SEVENTH)).into()))?;
    world.create(&pod("halves", ["a", "b"].map(|name| prober(name, HALF)).into()))?;
    let mut all = BTreeSet::new();
    for (pod, names) in [("sevenths", &names[..]), ("halves", &names[..2])] {
        world.wait_running(pod)?;
        for name in names {
            let (_, instance) = gpu.checked(pod, name)?;
            gpu.linked(pod, name)?;
            ensure!(all.insert(instance), "{name} of {pod} has {instance:?} as another has");
        }
    }
    let there: BTreeSet<_> = gpu.instances()?.into_keys().collect();
    ensure!(there == all, "the driver has {there:?}, and containers {all:?}");
    for (pod, resource) in [("eighth", SEVENTH), ("third", HALF)] {
        world.create(&one(pod, &[(resource, 1)]))?;
        world.insufficient(pod, resource)?;
    }
    ensure!(gpu.instances()?.len() == 9, "the driver has {:?}", gpu.instances()?);
    world.delete("halves")?;
    world.wait_running("third")?;
    gpu.checked("third", "main")?;
    Ok("7 and 2 instances, each one container's".into())
}

/// The agent is killed under running containers; each starts again and has what it had, and others get others.
fn restarts(gpu: &Gpu) -> Result<String> {
    let world = gpu.world();
    let pod = Flagged::run(world, "two", &[("a", SEVENTH, 1), ("b", HALF, 1)])?;
    let before = [gpu.checked("two", "a")?, gpu.checked("two", "b")?];
    world.cluster.node.signal("agent", "KILL")?;
    world.wait_within(SEVENTH, 0..=0)?;
    world.start_agent()?;
    world.wait_within(SEVENTH, 7..)?;
    world.ran_on("two")?;
    for (container, (seen, instance)) in ["a", "b"].into_iter().zip(&before) {
        pod.raise(world, container)?;
        let (after, now) = gpu.checked("two", container)?;
        ensure!(after.claim == seen.claim, "{container} has {}", after.claim);
        ensure!(now == *instance, "{container} had {instance:?} and has {now:?}");
    }
    world.create(&one("next", &[(SEVENTH, 1)]))?;
    world.wait_running("next")?;
    let (_, next) = gpu.checked("next", "main")?;
    ensure!(before.iter().all(|(_, instance)| *instance != next), "{next:?} is another's");
    ensure!(gpu.instances()?.len() == 3, "the driver has {:?}", gpu.instances()?);
    Ok("each container has the instance that it had".into())
}
