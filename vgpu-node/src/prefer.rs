//! Which of the free ids a container should get: a hint that the kubelet follows when it is complete.

use std::collections::{BTreeMap, BTreeSet};

use vgpu_core::Link;
use vgpu_core::id::{DeviceId, SlotId};
use vgpu_core::plan::Policy;

use crate::offer::OfferKind;
use crate::slots::Resource;

/// What the kubelet asks.
#[derive(Debug, Clone)]
pub struct Preference<'p> {
    /// Ids that are free and healthy, in its eyes, those of `must` included or not.
    pub available: &'p [SlotId],
    /// Ids that will be given in any case.
    pub must: &'p [SlotId],
    /// How many ids in all.
    pub count: usize,
    /// Ids of claims whose pods seem to be gone: taking them again ends those claims at once.
    pub stale: &'p BTreeSet<SlotId>,
    /// How near the cards are.
    pub links: &'p [Link],
}

/// A complete answer, or none: the kubelet then picks at random and Allocate checks.
pub fn prefer(resource: &Resource, ask: &Preference<'_>) -> Vec<SlotId> {
    let mut groups: BTreeMap<&DeviceId, Vec<&SlotId>> = BTreeMap::new();
    let must: BTreeSet<&SlotId> = ask.must.iter().collect();
    let usable = ask.available.iter().filter(|id| resource.slots(id).is_some());
    for id in usable.filter(|id| !must.contains(id)) {
        groups.entry(&id.device).or_default().push(id);
    }
    for ids in groups.values_mut() {
        ids.sort_by_key(|id| (!ask.stale.contains(id), id.n));
        ids.dedup();
    }
    let Some(missing) = ask.count.checked_sub(must.len()) else { return Vec::new() };
    let on: BTreeSet<&DeviceId> = must.iter().map(|id| &id.device).collect();
    let policy = resource.offer.policy;
    let chosen = match (&resource.offer.kind, on.len()) {
        // Two of `must` on one card are refused in any case; a hint would not help.
        (_, cards) if resource.offer.distinct => {
            let apart = apart(&groups, &on, missing, policy);
            apart.filter(|_| cards == must.len())
        }
        (OfferKind::Whole, _) => nearest(&groups, &on, ask.links, missing),
        (_, 0) => one_card(&groups, missing, policy),
        (_, 1) => groups
            .iter()
            .find(|(device, ids)| on.contains(*device) && ids.len() >= missing)
            .map(|(_, ids)| ids[..missing].to_vec()),
        _ => None,
    };
    let several =
        !matches!(resource.offer.kind, OfferKind::Unit { .. }) && !resource.offer.distinct;
    let chosen = chosen.or_else(|| several.then(|| fewest(&groups, &on, missing)).flatten());
    match chosen {
        Some(ids) => must.into_iter().chain(ids).cloned().collect(),
        None => Vec::new(),
    }
}

/// The card that fits best: the fullest one when packing, the emptiest one when spreading.
fn one_card<'p>(
    groups: &BTreeMap<&DeviceId, Vec<&'p SlotId>>,
    missing: usize,
    policy: Policy,
) -> Option<Vec<&'p SlotId>> {
    let fitting = groups.values().filter(|ids| ids.len() >= missing);
    let best = match policy {
        Policy::Binpack => fitting.min_by_key(|ids| ids.len()),
        Policy::Spread => fitting.rev().max_by_key(|ids| ids.len()),
    };
    best.map(|ids| ids[..missing].to_vec())
}

/// One id of each of so many cards: of the fullest ones when packing, the emptiest when spreading.
fn apart<'p>(
    groups: &BTreeMap<&DeviceId, Vec<&'p SlotId>>,
    on: &BTreeSet<&DeviceId>,
    missing: usize,
    policy: Policy,
) -> Option<Vec<&'p SlotId>> {
    let others = groups.iter().filter(|(device, _)| !on.contains(*device));
    let mut others: Vec<&[&SlotId]> = others.map(|(_, ids)| ids.as_slice()).collect();
    match policy {
        Policy::Binpack => others.sort_by_key(|ids| ids.len()),
        Policy::Spread => others.sort_by_key(|ids| std::cmp::Reverse(ids.len())),
    }
    let ids: Vec<&SlotId> =
        others.into_iter().filter_map(|ids| ids.first().copied()).take(missing).collect();
    (ids.len() == missing).then_some(ids)
}

/// Whole cards, each next one nearest to those already chosen.
fn nearest<'p>(
    groups: &BTreeMap<&'p DeviceId, Vec<&'p SlotId>>,
    on: &BTreeSet<&'p DeviceId>,
    links: &[Link],
    missing: usize,
) -> Option<Vec<&'p SlotId>> {
    let score = |a: &DeviceId, b: &DeviceId| {
        let joins = |l: &&Link| (l.a == *a && l.b == *b) || (l.a == *b && l.b == *a);
        links.iter().find(joins).map_or(0, Link::score)
    };
    let mut left: Vec<(&DeviceId, &SlotId)> =
        groups.iter().filter_map(|(device, ids)| Some((*device, *ids.first()?))).collect();
    let mut chosen: Vec<&DeviceId> = on.iter().copied().collect();
    let mut ids = Vec::new();
    if chosen.is_empty() && missing > 1 {
        // Start with the card that has the best neighbours, so that a pair is a near pair.
        let near = |d: &DeviceId| -> u32 {
            let mut scores: Vec<u32> =
                left.iter().filter(|(o, _)| *o != d).map(|(o, _)| score(d, o)).collect();
            scores.sort_unstable_by_key(|s| std::cmp::Reverse(*s));
            scores.iter().take(missing - 1).sum()
        };
        let best = (0..left.len()).rev().max_by_key(|i| near(left[*i].0))?;
        let (device, id) = left.remove(best);
        chosen.push(device);
        ids.push(id);
    }
    while ids.len() < missing {
        let near = |d: &DeviceId| chosen.iter().map(|c| score(c, d)).sum::<u32>();
        let best = (0..left.len()).rev().max_by_key(|i| near(left[*i].0))?;
        let (device, id) = left.remove(best);
        chosen.push(device);
        ids.push(id);
    }
    Some(ids)
}

/// As few cards as possible, the fullest groups first; slices only.
fn fewest<'p>(
    groups: &BTreeMap<&DeviceId, Vec<&'p SlotId>>,
    on: &BTreeSet<&DeviceId>,
    missing: usize,
) -> Option<Vec<&'p SlotId>> {
    let mut order: Vec<(&&DeviceId, &Vec<&SlotId>)> = groups.iter().collect();
    order.sort_by_key(|(device, ids)| (!on.contains(**device), std::cmp::Reverse(ids.len())));
    let ids: Vec<&SlotId> =
        order.into_iter().flat_map(|(_, ids)| ids.iter().copied()).take(missing).collect();
    (ids.len() == missing).then_some(ids)
}
