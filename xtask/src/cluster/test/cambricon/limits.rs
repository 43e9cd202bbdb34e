//! What the driver has no more of: 64 instances to a card, of 16 sizes.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::node::{Mlu, SLOT};
use crate::cluster::config::NODE;
use crate::cluster::image::IMAGE;
use crate::cluster::test::pod::{one, pod, prober};
use crate::cluster::test::world::{World, why};

/// Pods of eight containers with a slot each.
fn eights(world: &World, pods: usize) -> Result<Vec<(String, String)>> {
    let names: Vec<String> = (0..pods).map(|n| format!("eight-{n}")).collect();
    let containers: Vec<String> = (0..8).map(|n| format!("c{n}")).collect();
    for name in &names {
        let eight = containers.iter().map(|c| prober(c, &[(SLOT, 1)]));
        world.create(&pod(name, eight.collect()))?;
    }
    let mut all = Vec::new();
    for name in names {
        world.wait_running(&name)?;
        all.extend(containers.iter().map(|c| (name.clone(), c.clone())));
    }
    Ok(all)
}

/// All run, each with its own; one more is refused by the scheduler, and by the kubelet where the scheduler is not asked.
pub(crate) fn instances(mlu: &Mlu) -> Result<String> {
    let world = mlu.world();
    let mut nodes = BTreeSet::new();
    for (pod, container) in eights(world, 8)? {
        let seen = mlu.checked(&pod, &container)?;
        nodes.extend(seen.cards().into_iter().filter(|n| n.contains("caps")).map(str::to_owned));
    }
    ensure!(nodes.len() == 64, "64 containers see {nodes:?}");
    ensure!(mlu.instances(1)?.len() == 64, "the card has {:?}", mlu.instances(1)?);
    let held = world.claims()?.len();
    world.create(&one("more", &[(SLOT, 1)]))?;
    let said = world.insufficient("more", SLOT)?;
    let mut bound = one("bound", &[(SLOT, 1)]);
    bound["spec"]["nodeName"] = json!(NODE);
    world.create(&bound)?;
    let failed = world.wait_pod("bound", "refusal", |p| Ok(p["status"]["phase"] == "Failed"))?;
    ensure!(why(&failed).contains(SLOT), "the kubelet says {}", why(&failed));
    world.event("bound", &[SLOT])?;
    ensure!(world.claim_of("bound").is_err(), "a refused pod holds a claim");
    ensure!(world.claims()?.len() == held, "there are claims besides the {held}");
    ensure!(mlu.instances(1)?.len() == 64, "the card has {:?}", mlu.instances(1)?);
    world.delete("eight-0")?;
    world.wait_running("more")?;
    mlu.checked("more", "main")?;
    let now = mlu.instances(1)?.len();
    ensure!(now <= 64, "the card has {now} instances");
    Ok(format!("\"{said}\"; \"{}\"", why(&failed)))
}

/// A card has one offer, so an admin's resizes make its sizes differ; the last is taken by a tool that is not ours.
pub(crate) fn sizes(mlu: &Mlu) -> Result<String> {
    let world = mlu.world();
    let mut parts = Vec::new();
    for (pod, container) in eights(world, 2)? {
        parts.push(mlu.checked(&pod, &container)?.grant("part")?);
    }
    // A slot has two steps of memory; from three on there are fifteen other sizes, and the slot's.
    let steps = |n: usize| format!("{}Mi", 256 * n);
    for (n, part) in parts.iter().enumerate().take(15) {
        mlu.resize(part, &steps(n + 3))?;
    }
    ensure!(mlu.sizes(1)? == (16, 16), "the card has {:?}", mlu.sizes(1)?);
    let refused = mlu.resize(&parts[0], &steps(18)).err().map(|e| format!("{e:#}"));
    let refused = refused.unwrap_or_default();
    ensure!(refused.contains("16") && refused.contains("size"), "it says {refused:?}");
    // By way of a size that lives, the last one becomes the sixteenth; no slot's size is left.
    for n in [3, 18] {
        mlu.resize(&parts[15], &steps(n))?;
    }
    ensure!(mlu.sizes(1)? == (16, 16), "the card has {:?}", mlu.sizes(1)?);
    world.wait_within(SLOT, 0..=16)?;
    world.create(&one("more", &[(SLOT, 1)]))?;
    world.insufficient("more", SLOT)?;
    ensure!(mlu.sizes(1)? == (16, 16), "something was made for it: {:?}", mlu.sizes(1)?);
    // Two sizes become one, and there is room for the slot's.
    mlu.resize(&parts[15], &steps(3))?;
    world.wait_running("more")?;
    let more = mlu.checked("more", "main")?.grant("part")?;
    ensure!(mlu.sizes(1)? == (17, 16), "the card has {:?}", mlu.sizes(1)?);

    // A pod has its slot from the kubelet, and the size goes to somebody else before its instance is made: another tool
    // asks the driver itself. The agent's own tool would be refused.
    let flag = late(world)?;
    mlu.resize(&more, &steps(3))?;
    let refused = mlu.resize(&more, &steps(18)).err().map(|e| format!("{e:#}"));
    let refused = refused.unwrap_or_default();
    ensure!(refused.contains("promised"), "it says {refused:?}");
    let before = mlu.instances(1)?;
    mlu.change(|s| resized_elsewhere(&mut s["cards"][1]))?;
    ensure!(mlu.sizes(1)? == (17, 16), "the card has {:?}", mlu.sizes(1)?);
    std::fs::write(flag, "")?;
    let said = world.event("late", &["size", "16"])?;
    ensure!(mlu.sizes(1)? == (17, 16), "something was made for it: {:?}", mlu.sizes(1)?);
    mlu.change(|s| s["cards"][1]["instances"] = json!(before))?;
    world.wait_running("late")?;
    mlu.checked("late", "main")?;
    ensure!(mlu.sizes(1)? == (18, 16), "the card has {:?}", mlu.sizes(1)?);
    Ok(format!("\"{}\"", said.split_once("desc = ").map_or(said.as_str(), |(_, why)| why)))
}

/// One more size, in the place of profiles that nobody has.
fn resized_elsewhere(card: &mut Value) {
    const OTHER: u32 = 99;
    if let Some(last) = card["instances"].as_array_mut().and_then(|all| all.last_mut()) {
        last["profile"] = json!(OTHER);
    }
    let made = card["instances"].as_array().cloned().unwrap_or_default();
    let used: Vec<Value> = made.iter().map(|i| i["profile"].clone()).collect();
    if let Some(profiles) = card["profiles"].as_array_mut() {
        profiles.push(json!({"id": OTHER, "percent": 1, "memory": 5_u64 << 30}));
        profiles.retain(|p| used.contains(&p["id"]));
    }
}

/// A pod that has its slot from the kubelet, and needs the instance only when its first container has ended: when the
/// file is there that is given back.
fn late(world: &World) -> Result<std::path::PathBuf> {
    let flags = world.cluster.node.layout.dir.join("flags/late");
    if flags.exists() {
        std::fs::remove_dir_all(&flags)?;
    }
    std::fs::create_dir_all(&flags)?;
    let mut made = one("late", &[(SLOT, 1)]);
    made["spec"]["initContainers"] = json!([{
        "name": "waits",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": ["/bin/sh", "-c", "while ! test -e /flags/go; do sleep 1; done"],
        "volumeMounts": [{"name": "flags", "mountPath": "/flags", "readOnly": true}],
    }]);
    made["spec"]["volumes"] = json!([{"name": "flags", "hostPath": {"path": flags}}]);
    world.create(&made)?;
    world.wait_pod("late", "first container", |p| {
        Ok(p["status"]["initContainerStatuses"][0]["state"]["running"].is_object())
    })?;
    Ok(flags.join("go"))
}
