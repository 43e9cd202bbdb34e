//! How fast pods start: without any resource, with that of a device plugin that does next to nothing, and with ours; on
//! the same node in the same run, in turn.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::config::NODE;
use crate::cluster::process::wait_for;
use crate::cluster::test::Scenario;
use crate::cluster::test::pod::{STAY, container, pod};
use crate::cluster::test::restarts::spread;
use crate::cluster::test::setup::Looks;
use crate::cluster::test::world::{PATIENCE, World, why};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "pace-1", run: |world| pace(world, 1, 2) },
    Scenario { name: "pace-10", run: |world| pace(world, 10, 1) },
    Scenario { name: "pace-50", run: |world| pace(world, 50, 1) },
];

/// The least work by which pods could be compared: no probe, which does more where it sees more.
const TELL: &str = "cat /etc/vgpu/claim.json 2>/dev/null || cat /etc/hostname\n";

/// What a pod asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    Nothing,
    /// Of a device plugin that answers with the name of one CDI device: what the kubelet and the runtime take for any.
    Trivial,
    Ours,
}

impl Asks {
    const ALL: [Self; 3] = [Self::Nothing, Self::Trivial, Self::Ours];

    fn limits(self) -> &'static [(&'static str, u32)] {
        match self {
            Self::Nothing => &[],
            Self::Trivial => &[("trivial.dev/slot", 1)],
            // The dearest way of ours: a part that is made at the start, and a hook.
            Self::Ours => &[("vgpu.dev/mlu-memory", 1)],
        }
    }
}

/// Starts so many pods at once of each kind, in so many cycles.
fn pace(world: &World, count: usize, cycles: usize) -> Result<String> {
    serve_trivial(world)?;
    // As people run it: other scenarios have it look at cards and kubelet each second.
    let measured =
        world.restart_agent(Looks::AsShipped).and_then(|()| rounds_of(world, count, cycles));
    world.cluster.node.signal("trivial", "TERM")?;
    world.restart_agent(Looks::EachSecond)?;
    measured
}

fn rounds_of(world: &World, count: usize, cycles: usize) -> Result<String> {
    // The first of a kind pays for what later ones find in a cache.
    for asks in Asks::ALL {
        start(world, &format!("warm-{asks:?}"), count.min(10), asks)?;
    }
    let mut times = Asks::ALL.map(|asks| (asks, Vec::new()));
    let mut agent = Vec::new();
    // Who comes later finds the remains of who came before, and is slower for it: in a cycle each is first, second and
    // third once.
    for round in 0..cycles * Asks::ALL.len() {
        for turn in 0..times.len() {
            let (asks, times) = &mut times[(round + turn) % Asks::ALL.len()];
            let before = agent_time(world)?;
            times.push(start(world, &format!("{asks:?}-{round}"), count, *asks)?);
            if *asks == Asks::Ours {
                let count = u32::try_from(count).context("fewer pods")?;
                agent.push((agent_time(world)? - before) / count);
            }
        }
    }
    let [plain, trivial, ours] = times.map(|(_, times)| spread(&times));
    agent.sort_unstable();
    let middle = agent.get(agent.len() / 2).map_or(0.0, Duration::as_secs_f64);
    Ok(format!(
        "no resource {plain}, a trivial plugin's {trivial}, ours {ours}; the agent's processor time for a pod's life {:.0} ms",
        middle * 1e3
    ))
}

/// Starts the other plugin, with its CDI device, and waits until the kubelet has its ids.
fn serve_trivial(world: &World) -> Result<()> {
    let node = &world.cluster.node;
    let spec = json!({
        "cdiVersion": "0.5.0",
        "kind": "trivial.dev/slot",
        "devices": [{"name": "any", "containerEdits": {"deviceNodes": [{"path": "/dev/cambricon_ctl"}]}}],
    });
    std::fs::write(node.inside("/run/cdi").join("trivial.json"), spec.to_string())
        .context("cannot write the CDI spec of the trivial plugin")?;
    let args = ["/var/lib/kubelet", "trivial.dev/slot", "64", "trivial.dev/slot=any"];
    node.spawn("trivial", &world.programs.trivial, args)?;
    wait_for("ids of the trivial plugin", PATIENCE, || {
        let node = world.cluster.api.get(&format!("/api/v1/nodes/{NODE}"))?;
        Ok((node["status"]["allocatable"]["trivial.dev/slot"] == "64").then_some(()))
    })
}

/// Makes so many pods at once, waits until all run, and then for their end.
fn start(world: &World, stem: &str, count: usize, asks: Asks) -> Result<Duration> {
    let stem = stem.to_lowercase();
    let names: BTreeSet<String> = (0..count).map(|n| format!("{stem}-{n}")).collect();
    let script = format!("{TELL}{STAY}");
    let all: Vec<&String> = names.iter().collect();
    let began = Instant::now();
    std::thread::scope(|scope| {
        let makers = all.chunks(count.div_ceil(8)).map(|some| {
            let script = &script;
            scope.spawn(move || {
                some.iter().try_for_each(|name| {
                    world.create(&pod(name, vec![container("main", script, asks.limits())]))
                })
            })
        });
        let makers: Vec<_> = makers.collect();
        makers.into_iter().try_for_each(|m| m.join().expect("a maker of pods does not panic"))
    })?;
    let mut waiting = names.clone();
    let path = "/api/v1/namespaces/default/pods?watch=1";
    let watched = world.cluster.api.watch(path, |change| {
        let object = &change["object"];
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        ensure!(!(names.contains(name) && failed(object)), "pod {name}: {}", why(object));
        if object["status"]["phase"] == "Running" {
            waiting.remove(name);
        }
        Ok(waiting.is_empty().then(|| began.elapsed()))
    });
    let took =
        watched.with_context(|| format!("{} pods do not run: {waiting:?}", waiting.len()))?;
    if asks == Asks::Ours {
        each_has_its_own(world, &names)?;
    }
    names.iter().try_for_each(|name| world.delete_later(name))?;
    names.iter().try_for_each(|name| world.delete(name))?;
    Ok(took)
}

/// What a container reads is the claim that the agent has for it.
fn each_has_its_own(world: &World, names: &BTreeSet<String>) -> Result<()> {
    for name in names {
        let claim = world.claim_of(name)?;
        let own = wait_for("word of the container", PATIENCE, || {
            let text = world.log(name, "main").unwrap_or_default();
            Ok(serde_json::from_str::<Value>(&text).ok())
        });
        let own = own.with_context(|| format!("pod {name} prints no claim"))?;
        ensure!(claim["claim"] == own["claim"], "{name} sees another's claim");
    }
    Ok(())
}

fn failed(pod: &Value) -> bool {
    pod["status"]["phase"] == "Failed"
}

/// The processor time that the agent took since it was started.
fn agent_time(world: &World) -> Result<Duration> {
    let node = &world.cluster.node;
    let stat = node.inside(&format!("/proc/{}/stat", node.number("agent")?));
    let text = std::fs::read_to_string(&stat)
        .with_context(|| format!("cannot read {}", stat.display()))?;
    ticks(&text).map(|ticks| Duration::from_millis(ticks * 10)).context("the agent's stat is cut")
}

/// The hundredths of a second in user and kernel mode, from `/proc/<pid>/stat`.
fn ticks(stat: &str) -> Option<u64> {
    // The name stands in brackets and may hold anything; the state is the first field behind it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    let mut time = || times.next()?.parse::<u64>().ok();
    Some(time()? + time()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_took_user_and_kernel_time() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 900 0 3 0 42 8 0 0 20 0 5 0 100 1 2";
        assert_eq!(ticks(stat), Some(50));
        assert_eq!(ticks("7 (a) S 1"), None);
    }
}
