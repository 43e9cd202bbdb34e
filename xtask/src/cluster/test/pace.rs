//! How fast pods start, with our resource and without, on the same node in the same run.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::cluster::test::Scenario;
use crate::cluster::test::pod::{PROBE, STAY, container, pod};
use crate::cluster::test::restarts::spread;
use crate::cluster::test::world::{World, why};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "pace-1", run: |world| pace(world, 1, 9) },
    Scenario { name: "pace-10", run: |world| pace(world, 10, 5) },
    Scenario { name: "pace-50", run: |world| pace(world, 50, 5) },
];

const OURS: &[(&str, u32)] = &[("vgpu.dev/mlu-memory", 1)];

fn pace(world: &World, count: usize, rounds: usize) -> Result<String> {
    // The first of a kind pays for what later ones find in a cache.
    start(world, "warm-plain", count.min(10), &[])?;
    start(world, "warm-ours", count.min(10), OURS)?;
    let mut plain = Vec::new();
    let mut ours = Vec::new();
    for round in 0..rounds {
        // Whoever comes second finds the remains of the first: they take turns.
        let turns = if round % 2 == 0 { [true, false] } else { [false, true] };
        for is_plain in turns {
            if is_plain {
                plain.push(start(world, &format!("plain-{round}"), count, &[])?);
            } else {
                ours.push(start(world, &format!("ours-{round}"), count, OURS)?);
            }
        }
    }
    let listed = |all: &[Duration]| {
        all.iter().map(|t| format!("{:.2}", t.as_secs_f64())).collect::<Vec<_>>().join(" ")
    };
    Ok(format!(
        "without {}, with {}; in turn {} | {}",
        spread(&plain),
        spread(&ours),
        listed(&plain),
        listed(&ours)
    ))
}

/// Makes so many pods at once, waits until all run, and then for their end.
fn start(world: &World, stem: &str, count: usize, limits: &[(&str, u32)]) -> Result<Duration> {
    let names: BTreeSet<String> = (0..count).map(|n| format!("{stem}-{n}")).collect();
    // The same work in both, or the two could not be compared.
    let script = format!("{PROBE}{STAY}");
    let all: Vec<&String> = names.iter().collect();
    let began = Instant::now();
    std::thread::scope(|scope| {
        let makers = all.chunks(count.div_ceil(8)).map(|some| {
            let script = &script;
            scope.spawn(move || {
                some.iter().try_for_each(|name| {
                    world.create(&pod(name, vec![container("main", script, limits)]))
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
    if !limits.is_empty() {
        for name in &names {
            let seen = world.checked(name, "main")?;
            let claim = world.claim_of(name)?;
            ensure!(claim["claim"] == seen.claim["claim"], "{name} sees another's claim");
        }
    }
    names.iter().try_for_each(|name| world.delete_later(name))?;
    names.iter().try_for_each(|name| world.delete(name))?;
    Ok(took)
}

fn failed(pod: &Value) -> bool {
    pod["status"]["phase"] == "Failed"
}
