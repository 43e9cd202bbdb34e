//! Another configuration while pods use what the last one offered.

use anyhow::{Result, ensure};

use crate::cluster::test::Scenario;
use crate::cluster::test::flag::Flagged;
use crate::cluster::test::pod::one;
use crate::cluster::test::world::{World, why};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "reload-reshapes-an-offer", run: |world| undone(world, reshape) },
    Scenario { name: "reload-removes-an-offer", run: |world| undone(world, remove) },
    Scenario { name: "reload-with-a-mistake", run: |world| undone(world, mistake) },
];

const TAKEN: &str = "took the configuration";
const KEPT: &str = "kept the last good configuration";

/// Puts the usual offers back, whatever came of it.
fn undone(world: &World, scenario: fn(&World) -> Result<String>) -> Result<String> {
    let outcome = scenario(world);
    let back = world.offers().and_then(|offers| world.reload(&offers, TAKEN));
    let figures = outcome?;
    back?;
    Ok(figures)
}

/// Quarters of a card become halves: the quarter that is in use stays one, also when its container starts again.
fn reshape(world: &World) -> Result<String> {
    world.wait_allocatable(&[("vgpu.dev/dcu", 8)])?;
    let quarter = Flagged::run(world, "quarter", &[("main", "vgpu.dev/dcu", 1)])?;
    let before = world.checked("quarter", "main")?;
    let offers = world.offers()?.replace("slots: 4", "slots: 2");
    world.reload(&offers, TAKEN)?;
    // Two cards: one with a quarter taken and room for one half, one with two halves. The quarter itself is closed: else
    // the kubelet would give it on the moment its pod ends.
    world.wait_allocatable(&[("vgpu.dev/dcu", 3)])?;
    // The scheduler counts the quarter's request among them, so one half waits for its end.
    for n in 0..2 {
        let name = format!("half-{n}");
        world.create(&one(&name, &[("vgpu.dev/dcu", 1)]))?;
        world.wait_running(&name)?;
        let seen = world.checked(&name, "main")?;
        ensure!(seen.grant("size")? != before.grant("size")?, "a half is {}", seen.grant("size")?);
    }
    quarter.raise(world, "main")?;
    let after = world.checked("quarter", "main")?;
    for field in ["part", "size"] {
        ensure!(after.grant(field)? == before.grant(field)?, "the quarter's {field} is another");
    }
    ensure!(after.claim_id()? == before.claim_id()?, "the quarter has another claim");
    world.delete("quarter")?;
    world.wait_allocatable(&[("vgpu.dev/dcu", 4)])?;
    for name in ["half-2", "half-3"] {
        world.create(&one(name, &[("vgpu.dev/dcu", 1)]))?;
        world.wait_running(name)?;
        world.checked(name, "main")?;
    }
    Ok("a quarter in use beside two halves, and two more once it was gone".into())
}

/// What is not offered any more is not given any more; who has it keeps it, also when its container starts again.
fn remove(world: &World) -> Result<String> {
    let keeps = Flagged::run(world, "keeps", &[("main", "vgpu.dev/mig", 1)])?;
    let before = world.checked("keeps", "main")?;
    let offers = world.offers()?;
    let (head, rest) = offers.split_once("- resource: vgpu.dev/mig").unwrap_or((&offers, ""));
    let (_, tail) = rest.split_once("\n- ").unwrap_or(("", ""));
    world.reload(&format!("{head}- {tail}"), TAKEN)?;
    // What is held is still listed, and closed: else the kubelet would give it on the moment its pod ends.
    world.wait_allocatable(&[("vgpu.dev/mig", 0), ("vgpu.dev/gpu", 1), ("vgpu.dev/dcu", 8)])?;
    world.create(&one("late", &[("vgpu.dev/mig", 1)]))?;
    let waits = world.wait_pod("late", "word of the scheduler", |p| {
        Ok(p["status"]["conditions"].as_array().is_some_and(|c| !c.is_empty()))
    })?;
    ensure!(why(&waits).contains("Insufficient vgpu.dev/mig"), "it says {}", why(&waits));
    keeps.raise(world, "main")?;
    let after = world.checked("keeps", "main")?;
    ensure!(after.claim_id()? == before.claim_id()?, "it has another claim");
    ensure!(after.grant("part")? == before.grant("part")?, "it has another part");
    world.delete("keeps")?;
    // When the last one is gone so is the resource; the kubelet keeps its name, with 0.
    world.wait_allocatable(&[("vgpu.dev/mig", 0)])?;
    let waits = world.pod("late")?;
    ensure!(waits["status"]["phase"] == "Pending", "the late pod is {}", why(&waits));
    world.reload(&offers, TAKEN)?;
    world.wait_running("late")?;
    world.checked("late", "main")?;
    Ok("kept by who had it, and served again once it was offered again".into())
}

/// Two offers for one card: the last good configuration stays, and the log says why.
fn mistake(world: &World) -> Result<String> {
    world.create(&one("runs", &[("vgpu.dev/gpu", 1)]))?;
    world.wait_running("runs")?;
    let before = world.allocatable()?;
    let offers = world.offers()? + "- {resource: vgpu.dev/all, kind: whole}\n";
    world.reload(&offers, KEPT)?;
    world.create(&one("next", &[("vgpu.dev/dcu", 1)]))?;
    world.wait_running("next")?;
    ensure!(world.allocatable()? == before, "the node tells {:?}", world.allocatable()?);
    let log = world.agent_log()?;
    let word = log.lines().rev().find(|l| l.contains(KEPT)).unwrap_or_default();
    ensure!(word.contains("vgpu.dev/all"), "the log does not name the offer: {word}");
    Ok(String::new())
}
