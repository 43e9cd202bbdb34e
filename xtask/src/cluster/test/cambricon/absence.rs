//! A pod that ends and is followed by nobody: once it is proven that it is gone, its instance is unmade in the driver, and
//! nothing that was made for it is left.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use super::node::{MEM, Mlu};
use crate::cluster::process::wait_for;
use crate::cluster::test::pod::one;
use crate::cluster::test::world::{PATIENCE, World};

/// The most that a container may have.
const LARGEST: u32 = 16;

/// The card has 47 GiB to give, and is full; one of three pods ends.
pub(crate) fn unmade(mlu: &Mlu) -> Result<String> {
    let world = mlu.world();
    impatient(world)?;
    for (name, gib) in [("a", LARGEST), ("b", LARGEST), ("c", 47 - 2 * LARGEST)] {
        world.create(&one(name, &[(MEM, gib)]))?;
        world.wait_running(name)?;
        mlu.checked(name, "main")?;
    }
    world.create(&one("more", &[(MEM, 1)]))?;
    world.insufficient("more", MEM)?;
    world.delete("more")?;
    let before = mlu.instances(0)?;
    ensure!(before.len() == 3, "the card has {before:?}");
    let gone = mlu.checked("a", "main")?.claim_id()?.to_owned();
    let kept: Vec<_> = before.into_iter().filter(|i| i["name"] != gone.as_str()).collect();
    let files = files(world, &gone);
    for file in &files {
        ensure!(file.exists(), "of {gone}, which is in use, there is no {}", file.display());
    }

    world.delete("a")?;
    wait_for("release of the claim", PATIENCE, || {
        Ok(world.claims()?.iter().all(|c| c["claim"] != gone.as_str()).then_some(()))
    })?;
    let now = mlu.instances(0)?;
    ensure!(now == kept, "the card has {now:?}, not {kept:?}");
    for file in &files {
        ensure!(!file.exists(), "of {gone}, which is released, there is {}", file.display());
    }
    let word = format!("its pod is gone; releasing claim={gone}");
    ensure!(world.agent_log()?.contains(&word), "{gone} was not released because of its absence");

    world.create(&one("next", &[(MEM, LARGEST)]))?;
    world.wait_running("next")?;
    let next = mlu.checked("next", "main")?;
    ensure!(next.claim_id()? != gone, "the next pod has the claim of the one before");
    ensure!(mlu.memory(0, next.claim_id()?)? == u64::from(LARGEST) << 30, "it has another size");
    ensure!(mlu.instances(0)?.len() == 3, "the card has {:?}", mlu.instances(0)?);
    for name in ["b", "c"] {
        world.ran_on(name)?;
        mlu.checked(name, "main")?;
    }
    Ok("2 of 3 instances were left, and a third was made again".into())
}

/// Starts the agent anew, so that it takes no minute's silence for its proof.
fn impatient(world: &World) -> Result<()> {
    world.cluster.node.signal("agent", "TERM")?;
    world.wait_within(MEM, 0..=0)?;
    world.start_agent_with(&["--absence-ms=1000"])?;
    world.wait_within(MEM, 1..)
}

/// What the agent writes for a claim: its spec, and what its container sees.
fn files(world: &World, claim: &str) -> [PathBuf; 2] {
    let spec = format!("/run/cdi/vgpu.dev-claim_{claim}.json");
    [world.cluster.node.inside(&spec), world.setup.state.join("claims").join(claim)]
}
