//! What the kubelet is told: every id, and whether it is healthy.
//!
//! An id that a claim holds is as healthy as its card and part, unless it is not offered any more. Of
//! the free ones only so many are healthy as really fit: a scheduler that counts must not be promised
//! what no card can give.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use vgpu_core::Device;
use vgpu_core::id::{DeviceId, PartitionId, ProfileId, SlotId};
use vgpu_core::plan::units::{CardRoom, advertise};
use vgpu_core::plan::{Held, Inventory, Policy, Sizes, Want, plan_all};
use vgpu_core::scheme::{Scheme, Sizing};

use crate::claim::{Claim, Claims, GrantRecord, Stage};
use crate::offer::{Lifecycle, OfferKind, ResourceName};
use crate::slots::{self, CardSlots, Layout, Resource};

/// One id, as the kubelet is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The id.
    pub id: SlotId,
    /// Whether it may be given, or still serves whoever has it.
    pub healthy: bool,
    /// The NUMA node of its card.
    pub numa: Option<u32>,
}

/// All ids of all resources. A list is shared, so that a change of one copies no other.
pub type Listing = BTreeMap<ResourceName, Arc<[Slot]>>;

/// What a card is like right now, as far as giving goes.
#[derive(Debug, Clone)]
pub struct CardView<'v> {
    /// The card as last scanned.
    pub device: &'v Device,
    /// Whether anything may be given on it.
    pub open: bool,
    /// Parts of other tools on it.
    pub foreign: Vec<Held>,
    /// Parts on it that are not well, though the card is.
    pub ailing: BTreeSet<PartitionId>,
    /// Parts that were made ahead and can be given, by profile.
    pub pooled: BTreeMap<ProfileId, u64>,
}

/// What becomes of ids that are held and not offered any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// They are told unhealthy, which those who run do not feel: else the kubelet would give them on the
    /// moment their pod ends, before we can know that it has.
    Closed,
    /// They stay healthy: a kubelet that has just started admits its pods again, after a reboot too, and
    /// a pod whose id is not healthy then fails for good.
    Kept,
}

/// The list of every resource: those of the layout, and those of which claims still hold ids though no
/// offer has them any more.
pub fn of(
    layout: &Layout,
    cards: &BTreeMap<DeviceId, CardView<'_>>,
    claims: &Claims,
    drained: Drained,
) -> Listing {
    let held = claims.iter().filter(|c| !gone(c)).map(|c| &c.record.resource);
    let names: BTreeSet<&ResourceName> = layout.resources.keys().chain(held).collect();
    let list = |name: &ResourceName| {
        let offered = layout.resources.get(name);
        one(name, offered, cards, claims, drained).into()
    };
    names.into_iter().map(|name| (name.clone(), list(name))).collect()
}

/// The list of one resource: the ids that are offered, and those that claims still hold though the offer
/// has them no more.
pub fn one(
    name: &ResourceName,
    offered: Option<&Resource>,
    cards: &BTreeMap<DeviceId, CardView<'_>>,
    claims: &Claims,
    drained: Drained,
) -> Vec<Slot> {
    let mut list = offered.map(|resource| of_offer(resource, cards, claims)).unwrap_or_default();
    let mut added: HashSet<&SlotId> = HashSet::new();
    for claim in claims.iter().filter(|c| !gone(c) && c.record.resource == *name) {
        for id in &claim.record.ids {
            if offered.is_some_and(|r| r.slots(id).is_some()) || !added.insert(id) {
                continue;
            }
            let card = cards.get(&id.device);
            list.push(Slot {
                id: id.clone(),
                healthy: drained == Drained::Kept
                    && card.is_some_and(|c| c.open)
                    && sound(claim, cards),
                numa: card.and_then(|c| c.device.numa),
            });
        }
    }
    list
}

/// How much every open card can still give of a resource.
pub fn free<'r>(
    resource: &'r Resource,
    cards: &BTreeMap<DeviceId, CardView<'_>>,
    claims: &Claims,
) -> BTreeMap<&'r DeviceId, CardRoom> {
    let all = look(resource, cards, claims).into_iter();
    all.filter_map(|now| Some((now.device, now.room?))).collect()
}

/// One card of a resource: which of its ids are held, and how much of the others fits.
struct CardNow<'r> {
    device: &'r DeviceId,
    slots: &'r CardSlots,
    /// By number: none for a free id, else whether it still serves whoever holds it.
    held: Vec<Option<bool>>,
    /// None where nothing may be given.
    room: Option<CardRoom>,
}

fn look<'r>(
    resource: &'r Resource,
    cards: &BTreeMap<DeviceId, CardView<'_>>,
    claims: &Claims,
) -> Vec<CardNow<'r>> {
    let mut on: BTreeMap<&DeviceId, Vec<&Claim>> =
        resource.cards.keys().map(|device| (device, Vec::new())).collect();
    for claim in claims.iter().filter(|c| !gone(c)) {
        // Ids are in order, so those of a card stand together.
        let mut last = None;
        for id in &claim.record.ids {
            if last.replace(&id.device) != Some(&id.device)
                && let Some(claims) = on.get_mut(&id.device)
            {
                claims.push(claim);
            }
        }
    }
    let now = |(device, slots): (&'r DeviceId, &'r CardSlots)| {
        let claims = &on[device];
        let held = held(device, slots, claims, cards);
        let free = held.iter().filter(|h| h.is_none()).count() as u64;
        let card = cards.get(device).filter(|c| c.open);
        let room = card.map(|card| room(resource, card, slots, claims, free));
        CardNow { device, slots, held, room }
    };
    resource.cards.iter().map(now).collect()
}

fn held(
    device: &DeviceId,
    slots: &CardSlots,
    claims: &[&Claim],
    cards: &BTreeMap<DeviceId, CardView<'_>>,
) -> Vec<Option<bool>> {
    let mut held = vec![None; slots.count as usize];
    for claim in claims {
        let ok = sound(claim, cards);
        let here = |id: &&SlotId| id.device == *device && id.shape == slots.shape;
        for id in claim.record.ids.iter().filter(here) {
            if let Some(slot) = held.get_mut(id.n as usize) {
                // Two claims on an id: the older one is superseded and only its end is awaited.
                *slot = Some(slot.unwrap_or(true) && ok);
            }
        }
    }
    held
}

fn of_offer(
    resource: &Resource,
    cards: &BTreeMap<DeviceId, CardView<'_>>,
    claims: &Claims,
) -> Vec<Slot> {
    let all = look(resource, cards, claims);
    let mut list = Vec::with_capacity(all.iter().map(|now| now.held.len()).sum());
    for (now, mut given) in all.iter().zip(give(resource, &all)) {
        let card = cards.get(now.device);
        let open = card.is_some_and(|c| c.open);
        for (n, held) in (0..).zip(&now.held) {
            let serves = held.unwrap_or(given > 0);
            if held.is_none() {
                given = given.saturating_sub(1);
            }
            let id = SlotId { device: now.device.clone(), shape: now.slots.shape.clone(), n };
            let numa = card.and_then(|c| c.device.numa);
            list.push(Slot { id, healthy: open && serves, numa });
        }
    }
    list
}

/// How many of each card's free ids are told to be healthy.
fn give(resource: &Resource, all: &[CardNow<'_>]) -> Vec<u64> {
    let mut left = match &resource.offer.kind {
        OfferKind::Unit { bounds, .. } => {
            let rooms: Vec<CardRoom> = all.iter().filter_map(|now| now.room).collect();
            advertise(&rooms, *bounds)
        }
        _ => u64::MAX,
    };
    let units = |i: &usize| all[*i].room.map_or(0, |room| room.units);
    let mut order: Vec<usize> = (0..all.len()).collect();
    // The roomiest card first: whatever the sum admits at once fits on one card.
    order.sort_by_key(|i| Reverse(units(i)));
    let mut given = vec![0; all.len()];
    for i in order {
        given[i] = units(&i).min(left);
        left -= given[i];
    }
    given
}

/// Nothing is held for it: the kubelet gave its ids to another, or does not list it any more. What
/// was made for it is taken down before anything else is made on its card.
fn gone(claim: &Claim) -> bool {
    claim.absent || claim.superseded
}

fn sound(claim: &Claim, cards: &BTreeMap<DeviceId, CardView<'_>>) -> bool {
    let stuck = claim.record.stage == Stage::Releasing && claim.trouble.is_some();
    let mut parts = claim.record.grants.iter().filter_map(|g| Some((g.device(), g.part()?)));
    let ails = parts.any(|(card, part)| cards.get(card).is_some_and(|c| c.ailing.contains(part)));
    !matches!(claim.record.stage, Stage::Broken(_)) && !stuck && !ails
}

fn room(
    resource: &Resource,
    card: &CardView<'_>,
    slots: &CardSlots,
    claims: &[&Claim],
    most: u64,
) -> CardRoom {
    let none = CardRoom { units: 0, requests: Some(0) };
    if let (Lifecycle::Pooled, Want::Profile(profile)) = (resource.offer.lifecycle, &slots.want) {
        let idle = card.pooled.get(profile).copied().unwrap_or(0);
        let units = idle.saturating_sub(promised(&card.device.id, profile, claims)).min(most);
        return CardRoom { units, requests: None };
    }
    let Ok(info) = card.device.scheme(&slots.scheme) else { return none };
    let Ok(Taken { held, sizes, open }) = taken(card, claims) else { return none };
    let domain = Some(&resource.offer.domain);
    let stranger = |h: &Held| h.domain.as_ref() != domain && !info.keeps_strangers_apart();
    if held.iter().any(|h| h.scheme != slots.scheme || stranger(h)) {
        return none;
    }
    let refs: Vec<&Held> = held.iter().collect();
    match (&resource.offer.kind, &info.sizing, &slots.want) {
        (OfferKind::Unit { unit, bounds }, _, _) => {
            let mut room = unit.room(card.device, info, &refs, *bounds);
            room.units = room.units.min(most);
            room
        }
        (_, Sizing::Turns | Sizing::Whole, _) => {
            CardRoom { units: slots::slots_left(info, held.len()).min(most), requests: None }
        }
        (_, Sizing::Range(range), Want::AtLeast(size)) => CardRoom {
            units: slots::parts_left(card.device, info, range, size, &refs, &sizes).min(most),
            requests: None,
        },
        _ => CardRoom { units: simulate(resource, card, slots, held, open, most), requests: None },
    }
}

/// How many parts of a profile are allocated and not taken yet.
fn promised(device: &DeviceId, profile: &ProfileId, claims: &[&Claim]) -> u64 {
    let open = claims.iter().filter(|c| c.record.grants.is_empty());
    let wants = open.flat_map(|c| &c.record.wanted).filter(|w| w.device == *device);
    let like = |want: &&Want| **want == Want::Profile(profile.clone());
    wants.flat_map(|w| &w.wants).filter(like).count() as u64
}

/// What is taken on a card: by other tools, by claims that were decided, and by claims that are only
/// allocated. The last are told apart where their place is not decided yet (profiles).
struct Taken {
    held: Vec<Held>,
    /// Of what is held: what is there, and what is to be.
    sizes: Sizes,
    /// Parts of profiles that are only allocated.
    open: u32,
}

fn taken(card: &CardView<'_>, claims: &[&Claim]) -> Result<Taken, String> {
    let mut made = card.foreign.clone();
    let mut promised = Vec::new();
    let mut open = 0;
    for claim in claims {
        let there = |grant: &&GrantRecord| {
            grant.part().is_some() && !matches!(claim.record.stage, Stage::Broken(_))
        };
        for grant in claim.record.grants.iter().filter(|g| *g.device() == card.device.id) {
            // What is intended may not be made yet, and what was lost is nowhere.
            let of = if there(&grant) { &mut made } else { &mut promised };
            of.push(grant.held.clone());
        }
        if !claim.record.grants.is_empty() {
            continue;
        }
        for wanted in claim.record.wanted.iter().filter(|w| w.device == card.device.id) {
            let info = card.device.scheme(&wanted.scheme).map_err(|e| e.message)?;
            for want in &wanted.wants {
                let size = match (want, &info.sizing) {
                    (_, Sizing::Profiles(_)) => {
                        open += 1;
                        continue;
                    }
                    (Want::AtLeast(size), Sizing::Range(range)) => range.round_up(size)?,
                    _ => vgpu_core::Size::ANY,
                };
                promised.push(paper(card.device, &wanted.scheme, size, claim));
            }
        }
    }
    let of = |held: &[Held]| held.iter().map(|h| h.size).collect::<Vec<_>>();
    let sizes = Sizes::new(of(&made), of(&promised));
    Ok(Taken { held: made.into_iter().chain(promised).collect(), sizes, open })
}

fn paper(device: &Device, scheme: &Scheme, size: vgpu_core::Size, claim: &Claim) -> Held {
    Held {
        device: device.id.clone(),
        scheme: scheme.clone(),
        size,
        placement: vgpu_core::Placement::Driver,
        profile: None,
        domain: Some(claim.record.domain.clone()),
    }
}

/// How many more parts of a profile fit beside what is there and what is allocated.
fn simulate(
    resource: &Resource,
    card: &CardView<'_>,
    slots: &CardSlots,
    held: Vec<Held>,
    open: u32,
    most: u64,
) -> u64 {
    let one = Inventory { devices: vec![card.device.clone()], links: vec![] };
    let ask = slots::ask(&resource.offer, card.device, slots.want.clone(), &slots.scheme);
    let fits = |n: u64| {
        let asks = vec![ask.clone(); (n + u64::from(open)) as usize];
        plan_all(&one, &held, &asks, Policy::Binpack).is_ok()
    };
    let most = most.min(64);
    (1..=most).take_while(|n| fits(*n)).last().unwrap_or(0)
}
