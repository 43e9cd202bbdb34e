//! Unit pods fill a node in pieces, through the real scheduler, which knows only the sum.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use vgpu_core::plan::units::{Bounds, CardRoom, advertise};

use crate::cluster::process::wait_for;
use crate::cluster::test::Scenario;
use crate::cluster::test::pod::{STAY, container, pod};
use crate::cluster::test::world::{PATIENCE, World, why};

pub(crate) const SCENARIOS: &[Scenario] =
    &[Scenario { name: "units-in-fragments", run: |world| fragments(world, 0x5eed_1e55) }];

const RESOURCE: &str = "vgpu.dev/mlu-memory";
/// As the offer has it.
const LARGEST: u64 = 16;
/// Units of each of the two cards.
const CARD: u64 = 48;

/// What the scheduler admits, a card can serve: no pod may fail, however the cards were filled before.
fn fragments(world: &World, seed: u64) -> Result<String> {
    let mut random = seed;
    let mut next = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    wait_free(world, &BTreeMap::new())?;
    let mut running: BTreeMap<String, u64> = BTreeMap::new();
    let (mut ran, mut waited) = (0, 0);
    for round in 0..3 {
        let mut refused = 0;
        for n in 0.. {
            let size = 1 + next(LARGEST);
            let name = format!("unit-{round}-{n}");
            if start(world, &name, size).with_context(|| format!("seed {seed:#x}"))? {
                running.insert(name, size);
                ran += 1;
                continue;
            }
            world.delete(&name)?;
            waited += 1;
            refused += 1;
            if refused == 3 {
                break;
            }
        }
        let gone: Vec<String> = running.keys().filter(|_| next(2) == 0).cloned().collect();
        gone.iter().try_for_each(|name| world.delete_later(name))?;
        for name in gone {
            world.delete(&name)?;
            running.remove(&name);
        }
        // A pod's end is learned from the kubelet's list; until then its units count as held.
        wait_free(world, &running).with_context(|| format!("seed {seed:#x}"))?;
    }
    Ok(format!("{ran} ran, {waited} waited, none failed; seed {seed:#x}"))
}

/// Whether it runs; otherwise the scheduler has said that the node has too few.
fn start(world: &World, name: &str, size: u64) -> Result<bool> {
    let script = format!("cat /etc/vgpu/claim.json; {STAY}");
    let limits = [(RESOURCE, u32::try_from(size)?)];
    world.create(&pod(name, vec![container("main", &script, &limits)]))?;
    let mut last = String::new();
    let runs = wait_for("answer", PATIENCE, || {
        let pod = world.pod(name)?;
        last = why(&pod);
        match pod["status"]["phase"].as_str() {
            Some("Failed") => bail!("{size} units were admitted and then refused: {last}"),
            Some("Running") => Ok(Some(true)),
            _ => Ok(last.contains("Insufficient").then_some(false)),
        }
    });
    let runs = runs.with_context(|| format!("{name}: {last}"))?;
    if runs {
        let claim = world.claim_of(name)?;
        let told = claim["grants"][0]["size"].as_str().unwrap_or_default();
        ensure!(told.contains(&format!("{size}Gi")), "{name} of {size} units holds {claim}");
    }
    Ok(runs)
}

/// Waits until the node tells what is right for these pods: their units, and of the rest what any one request finds on
/// one card.
fn wait_free(world: &World, running: &BTreeMap<String, u64>) -> Result<()> {
    let mut used: BTreeMap<String, u64> = BTreeMap::new();
    for card in world.machine.devices_of(&vgpu_core::Vendor::CAMBRICON)? {
        used.insert(card.to_string(), 0);
    }
    for (name, size) in running {
        let claim = world.claim_of(name)?;
        let card = claim["grants"][0]["device"].as_str().context("a grant without a card")?;
        *used.get_mut(card).context("a card of another vendor")? += size;
    }
    let rooms: Vec<CardRoom> =
        used.values().map(|used| CardRoom { units: CARD - used, ..CardRoom::default() }).collect();
    let bounds = Bounds { smallest: 1, largest: LARGEST };
    let held: u64 = running.values().sum();
    world.wait_allocatable(&[(RESOURCE, held + advertise(&rooms, bounds))])
}
