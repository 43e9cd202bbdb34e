//! MIM: hardware instances at places of a card's table.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use vgpu_scenarios::cambricon::card;

use super::node::Mlu;
use crate::cluster::test::pod::{pod, prober};

/// Thirds of card 5.
const MIM: &str = "vgpu.dev/mim";
const CARD: usize = 5;

/// Offered while the agent runs: each container has an instance at a place of its own; who comes after waits, and what it
/// gets is made when what was there is unmade.
pub(crate) fn instances(mlu: &Mlu) -> Result<String> {
    let world = mlu.world();
    let offer = format!(
        "- {{resource: {MIM}, kind: slice, profile: 2m.16gb, schemes: [mim], select: {{devices: [{}]}}}}\n",
        card(CARD)
    );
    world.reload(&offer, "took the configuration")?;
    world.wait_within(MIM, 3..)?;
    let created = |name: &str, containers: &[&str]| {
        world.create(&pod(name, containers.iter().map(|c| prober(c, &[(MIM, 1)])).collect()))
    };
    created("two", &["a", "b"])?;
    created("one", &["a"])?;
    let mut before = BTreeSet::new();
    for (pod, container) in [("two", "a"), ("two", "b"), ("one", "a")] {
        world.wait_running(pod)?;
        before.insert(checked(mlu, pod, container)?);
    }
    ensure!(made(mlu)? == before, "the driver has {:?}, not {before:?}", made(mlu)?);
    created("next", &["a", "b"])?;
    world.insufficient("next", MIM)?;
    ensure!(made(mlu)? == before, "something was made for it: {:?}", made(mlu)?);

    world.delete("two")?;
    world.wait_running("next")?;
    let mut after = BTreeSet::from([checked(mlu, "one", "a")?]);
    after.extend([checked(mlu, "next", "a")?, checked(mlu, "next", "b")?]);
    ensure!(made(mlu)? == after, "the driver has {:?}, not {after:?}", made(mlu)?);
    let kept = before.intersection(&after).count();
    ensure!(kept == 1, "{kept} of {before:?} are among {after:?}");
    world.ran_on("one")?;
    Ok("three thirds at places of their own; two were unmade for others".into())
}

/// What a container has, which is one of the driver's instances: its claim.
fn checked(mlu: &Mlu, pod: &str, container: &str) -> Result<String> {
    let seen = mlu.checked(pod, container)?;
    let told = seen.grant("size")?;
    let third = (48_640_u64 << 20) / 3;
    ensure!(told.contains(&format!("{third}B")), "{container} of pod {pod} is told of {told}");
    let scheme = seen.grant("scheme")?;
    ensure!(scheme == "mim", "{container} of pod {pod} is told of {scheme}");
    Ok(seen.claim_id()?.to_owned())
}

/// The claims of the card's instances, each two slices at a place of its own.
fn made(mlu: &Mlu) -> Result<BTreeSet<String>> {
    let all = mlu.instances(CARD)?;
    let places: BTreeSet<i64> = all.iter().filter_map(|i| i["start"].as_i64()).collect();
    let fits = places.len() == all.len() && places.iter().all(|start| [0, 2, 4].contains(start));
    ensure!(fits, "instances lie at {places:?}: {all:?}");
    let names = all.iter().map(|i| i["name"].as_str().map(str::to_owned));
    names.collect::<Option<_>>().with_context(|| format!("one has no name: {all:?}"))
}
