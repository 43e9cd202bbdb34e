//! What is refused, with which words, and that nothing is taken by halves.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use vgpu_backend_mock::{Action, At, Op, Rule};
use vgpu_core::ErrorKind;

use crate::cluster::process::wait_for;
use crate::cluster::test::Scenario;
use crate::cluster::test::pod::{one, pod, prober};
use crate::cluster::test::world::{PATIENCE, World, why};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "more-than-any-card-has", run: too_much },
    Scenario { name: "no-card-is-left", run: none_left },
    Scenario { name: "two-resources-at-once", run: two_resources },
    Scenario { name: "prestart-fails-then-heals", run: fails_then_heals },
    Scenario { name: "prestart-slow", run: slow },
    Scenario { name: "deleted-during-prestart", run: deleted_during },
];

/// The scheduler lets it pass, since the node has so many units; the agent may not give them.
fn too_much(world: &World) -> Result<String> {
    world.wait_allocatable(&[("vgpu.dev/mlu-memory", 81)])?;
    world.create(&one("too-much", &[("vgpu.dev/mlu-memory", 17)]))?;
    let failed = world.wait_pod("too-much", "refusal", |p| Ok(p["status"]["phase"] == "Failed"))?;
    let said = why(&failed);
    ensure!(failed["status"]["reason"] == "UnexpectedAdmissionError", "refused by {said}");
    ensure!(said.contains("16"), "the refusal does not name the bound: {said}");
    ensure!(world.claim_of("too-much").is_err(), "a refused pod holds a claim");
    Ok(format!("\"{said}\""))
}

fn none_left(world: &World) -> Result<String> {
    world.create(&one("first", &[("vgpu.dev/gpu", 1)]))?;
    world.wait_running("first")?;
    world.create(&one("second", &[("vgpu.dev/gpu", 1)]))?;
    let waiting = world.wait_pod("second", "word of the scheduler", |p| {
        Ok(p["status"]["conditions"].as_array().is_some_and(|c| !c.is_empty()))
    })?;
    ensure!(why(&waiting).contains("Insufficient vgpu.dev/gpu"), "it says {}", why(&waiting));
    world.delete("first")?;
    world.wait_running("second")?;
    let seen = world.checked("second", "main")?;
    seen.grant("scheme")
}

/// Each resource is admitted alone; the start is refused with a word that a user can read, nothing is made for either,
/// and all of it is free again when the pod goes. In two containers of one pod both are served.
fn two_resources(world: &World) -> Result<String> {
    let (gpu, mig) = (("vgpu.dev/gpu", 1), ("vgpu.dev/mig", 1));
    let card = world.machine.devices()?.swap_remove(1);
    world.create(&pod("both", vec![prober("main", &[gpu, mig])]))?;
    world.wait_pod("both", "refusal", |p| {
        let waits = &p["status"]["containerStatuses"][0]["state"]["waiting"];
        ensure!(p["status"]["phase"] != "Running", "it runs");
        Ok(waits["reason"] == "CreateContainerConfigError")
    })?;
    let mut said = String::new();
    wait_for("event that says why", PATIENCE, || {
        let events = world.events("both")?;
        let word = |e: &&String| e.contains("vgpu.dev/gpu") && e.contains("vgpu.dev/mig");
        said = events.iter().find(word).cloned().unwrap_or_default();
        Ok((!said.is_empty()).then_some(()))
    })?;
    ensure!(said.contains("a container of its own"), "the event does not say what to do: {said}");
    let uid = world.pod("both")?["metadata"]["uid"].clone();
    let held = world.claims()?;
    let held: Vec<_> = held.iter().filter(|c| c["holder"]["uid"] == uid).collect();
    ensure!(
        held.iter().all(|c| c["state"] == "allocated" && c["grants"] == json!([])),
        "something was made for it: {held:?}"
    );
    world.delete("both")?;
    world.create(&pod("apart", vec![prober("a", &[gpu]), prober("b", &[mig])]))?;
    world.wait_running("apart")?;
    let (a, b) = (world.checked("apart", "a")?, world.checked("apart", "b")?);
    ensure!(a.grant("scheme")? == "whole" && b.grant("scheme")? == "mig", "one has the other's");
    let part = b.grant("part")?;
    ensure!(
        world.machine.truth(&card)?.iter().any(|p| p.id.as_str() == part),
        "the part {part} is not on the card"
    );
    Ok(format!("\"{}\"", said.split_once("desc = ").map_or(said.as_str(), |(_, why)| why)))
}

fn fails_then_heals(world: &World) -> Result<String> {
    let card = world.machine.devices()?.swap_remove(1);
    let faults = world.machine.faults();
    let fails =
        Rule::new(At::Start(Op::Create), Action::Fail(ErrorKind::Vendor)).on(&card).times(None);
    let rule = faults.add(fails)?;
    world.create(&one("heals", &[("vgpu.dev/mig", 1)]))?;
    let waiting = world.wait_pod("heals", "failed start", |p| {
        let waits = &p["status"]["containerStatuses"][0]["state"]["waiting"];
        Ok(waits["reason"] == "CreateContainerConfigError")
    })?;
    let said = why(&waiting);
    ensure!(said.contains("PreStartContainer"), "it says {said}");
    faults.take_back(rule)?;
    let began = std::time::Instant::now();
    world.wait_running("heals")?;
    world.checked("heals", "main")?;
    Ok(format!("healed after {:.1} s; \"{said}\"", began.elapsed().as_secs_f64()))
}

fn slow(world: &World) -> Result<String> {
    let card = world.machine.devices()?.swap_remove(1);
    let latency = Action::Latency(Duration::from_secs(12));
    world.machine.faults().add(Rule::new(At::Start(Op::Create), latency).on(&card))?;
    world.create(&one("slow", &[("vgpu.dev/mig", 1)]))?;
    world.create(&one("beside", &[("vgpu.dev/dcu", 1)]))?;
    world.wait_running("beside")?;
    let pod = world.pod("slow")?;
    ensure!(pod["status"]["phase"] == "Pending", "the slow pod is {} already", why(&pod));
    world.wait_running("slow")?;
    world.checked("slow", "main")?;
    Ok("another card's pod started meanwhile".into())
}

/// The part is made for a pod that is gone; the next pod with these ids must get its own.
fn deleted_during(world: &World) -> Result<String> {
    let card = world.machine.devices()?.swap_remove(1);
    let hang = world.machine.faults().hang(Op::Create, &card)?;
    world.create(&one("gone", &[("vgpu.dev/mig", 1)]))?;
    wait_for("hanging call", PATIENCE, || Ok(world.machine.faults().is_hanging()?.then_some(())))?;
    world.delete_later("gone")?;
    std::thread::sleep(Duration::from_secs(2));
    world.machine.faults().take_back(hang)?;
    world.delete("gone")?;
    let names: Vec<String> = (0..7).map(|n| format!("after-{n}")).collect();
    for name in &names {
        world.create(&one(name, &[("vgpu.dev/mig", 1)]))?;
    }
    for name in &names {
        world.wait_running(name)?;
        let seen = world.checked(name, "main")?;
        ensure!(
            world.claim_of(name)?["claim"] == seen.claim["claim"],
            "{name} sees another's claim"
        );
    }
    let parts = world.machine.truth(&card)?.len();
    ensure!(parts == 7, "the card has {parts} parts for seven pods");
    Ok("all seven parts served after it".into())
}
