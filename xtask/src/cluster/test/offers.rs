//! What each kind of offer gives a container.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};

use crate::cluster::test::Scenario;
use crate::cluster::test::pod::{one, pod, prober};
use crate::cluster::test::world::World;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "allocatable", run: allocatable },
    Scenario { name: "whole-card", run: whole_card },
    Scenario { name: "slice-mig", run: slice_mig },
    Scenario { name: "slice-dcu", run: slice_dcu },
    Scenario { name: "units", run: units },
    Scenario { name: "as-vgpu-edits", run: as_vgpu_edits },
    Scenario { name: "without-our-resource", run: without },
    Scenario { name: "seven-parts-of-a-card", run: seven_parts },
];

fn allocatable(world: &World) -> Result<String> {
    // Two cards of 48 units, at most 16 a container: one card may be left with 15 that serve nobody (ADR 4).
    world.wait_allocatable(&[
        ("vgpu.dev/gpu", 1),
        ("vgpu.dev/mig", 7),
        ("vgpu.dev/dcu", 8),
        ("vgpu.dev/mlu-memory", 81),
    ])?;
    Ok(String::new())
}

fn whole_card(world: &World) -> Result<String> {
    world.create(&one("whole", &[("vgpu.dev/gpu", 1)]))?;
    world.wait_running("whole")?;
    let seen = world.checked("whole", "main")?;
    ensure!(seen.grant("scheme")? == "whole", "the scheme is {}", seen.grant("scheme")?);
    ensure!(seen.nodes.contains_key("/dev/nvidia0"), "no /dev/nvidia0 in {:?}", seen.cards());
    let holder = world.claim_of("whole")?;
    ensure!(
        holder["claim"] == seen.claim["claim"]
            && holder["holder"]["uid"] == world.pod("whole")?["metadata"]["uid"],
        "the agent holds {holder}, the container sees {}",
        seen.claim
    );
    Ok(format!("{} nodes", seen.cards().len()))
}

fn slice_mig(world: &World) -> Result<String> {
    world.create(&one("mig", &[("vgpu.dev/mig", 1)]))?;
    world.wait_running("mig")?;
    let seen = world.checked("mig", "main")?;
    ensure!(seen.grant("scheme")? == "mig", "the scheme is {}", seen.grant("scheme")?);
    let caps: Vec<&str> = seen.cards().into_iter().filter(|n| n.contains("nvidia-caps")).collect();
    ensure!(caps.len() == 2, "a MIG part has two capabilities, not {caps:?}");
    Ok(caps.join(" "))
}

fn slice_dcu(world: &World) -> Result<String> {
    world.create(&one("dcu", &[("vgpu.dev/dcu", 1)]))?;
    world.wait_running("dcu")?;
    let seen = world.checked("dcu", "main")?;
    ensure!(seen.grant("scheme")? == "vdcu", "the scheme is {}", seen.grant("scheme")?);
    for path in ["/etc/vdev/docker/vdev0.conf", "/opt/hyhal", "/etc/vgpu/claim.json"] {
        ensure!(
            seen.mounts.get(path).is_some_and(|o| o.split(',').any(|o| o == "ro")),
            "{path} is not mounted read-only: {:?}",
            seen.mounts.get(path)
        );
    }
    Ok(String::new())
}

fn units(world: &World) -> Result<String> {
    world.create(&one("units", &[("vgpu.dev/mlu-memory", 10)]))?;
    world.wait_running("units")?;
    let seen = world.checked("units", "main")?;
    ensure!(seen.grant("scheme")? == "smlu", "the scheme is {}", seen.grant("scheme")?);
    let size = seen.grant("size")?;
    ensure!(size.contains("10Gi"), "ten units are {size}");
    Ok(size)
}

/// What the container sees, what the runtime was told and what `vgpu edits` shows of the same part are one thing.
fn as_vgpu_edits(world: &World) -> Result<String> {
    let kinds =
        [("vgpu.dev/gpu", 1), ("vgpu.dev/mig", 1), ("vgpu.dev/dcu", 1), ("vgpu.dev/mlu-memory", 5)];
    let mut compared = Vec::new();
    for (resource, count) in kinds {
        let name = resource.trim_start_matches("vgpu.dev/");
        world.create(&one(name, &[(resource, count)]))?;
        world.wait_running(name)?;
        let seen = world.checked(name, "main")?;
        let claim = seen.claim_id()?;
        let shown = world.vgpu_edits(&world.claim_of(name)?)?;
        seen.matches(&shown).with_context(|| format!("{name}, by vgpu edits"))?;
        let told = world.spec(claim)?;
        let [mut told, shown] =
            [&told, &shown].map(|spec| spec["devices"][0]["containerEdits"].clone());
        // Only a claim has this file; what is in it `matches` cannot know.
        let mounts = told["mounts"].as_array_mut().context("no mounts, not even claim.json")?;
        mounts.retain(|mount| mount["containerPath"] != "/etc/vgpu/claim.json");
        if mounts.is_empty() {
            told.as_object_mut().context("edits are an object")?.remove("mounts");
        }
        ensure!(told == shown, "the runtime was told {told}, vgpu edits shows {shown}");
        let parts: usize = shown
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(_, v)| Some(v.as_array()?.len()))
            .sum();
        compared.push(format!("{name} {parts}"));
    }
    Ok(format!("edits compared: {}", compared.join(", ")))
}

fn without(world: &World) -> Result<String> {
    world.create(&one("without", &[]))?;
    world.wait_running("without")?;
    let seen = world.seen("without", "main")?;
    ensure!(seen.cards().is_empty(), "a pod that asked for nothing sees {:?}", seen.cards());
    ensure!(seen.claim.is_null(), "a pod that asked for nothing sees {}", seen.claim);
    Ok(String::new())
}

/// As many as the card has, each its own; then once more on the same ids.
fn seven_parts(world: &World) -> Result<String> {
    for round in ["first", "second"] {
        let names: Vec<String> = (0..7).map(|n| format!("{round}-{n}")).collect();
        for name in &names {
            world.create(&pod(name, vec![prober("main", &[("vgpu.dev/mig", 1)])]))?;
        }
        let mut parts = BTreeSet::new();
        for name in &names {
            world.wait_running(name)?;
            let seen = world.checked(name, "main")?;
            let holder = world.claim_of(name)?;
            ensure!(holder["claim"] == seen.claim["claim"], "{name} sees another's claim");
            parts.insert(seen.grant("part")?);
        }
        ensure!(parts.len() == 7, "seven pods share {parts:?}");
        names.iter().try_for_each(|name| world.delete_later(name))?;
        names.iter().try_for_each(|name| world.delete(name))?;
    }
    Ok("twice on the same ids".into())
}
