//! What the kubelet is told: every id, and whether it is healthy.
//!
//! An id that a claim holds is as healthy as its card and part. Of the free ones only so many are
//! healthy as really fit: a scheduler that counts must not be promised what no card can give.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use vgpu_core::Device;
use vgpu_core::id::{DeviceId, PartitionId, SlotId};
use vgpu_core::plan::units::{CardRoom, advertise};
use vgpu_core::plan::{Held, Inventory, Policy, Want, plan_all};
use vgpu_core::scheme::{Scheme, Sizing};

use crate::claim::{Claim, Claims, Stage};
use crate::offer::{OfferKind, ResourceName};
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

/// All ids of all resources.
pub type Listing = BTreeMap<ResourceName, Vec<Slot>>;

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
}

/// The list of every resource: the layout's, and those that claims still hold though no offer has
/// them any more.
pub fn of(layout: &Layout, cards: &BTreeMap<DeviceId, CardView<'_>>, claims: &Claims) -> Listing {
    let mut listing: Listing = layout
        .resources
        .iter()
        .map(|(name, resource)| (name.clone(), of_resource(resource, cards, claims)))
        .collect();
    let mut added: HashSet<&SlotId> = HashSet::new();
    for claim in claims.iter().filter(|c| !c.superseded && !c.absent) {
        let offered = layout.resources.get(&claim.record.resource);
        for id in &claim.record.ids {
            if offered.is_some_and(|r| r.slots(id).is_some()) || !added.insert(id) {
                continue;
            }
            let card = cards.get(&id.device);
            listing.entry(claim.record.resource.clone()).or_default().push(Slot {
                id: id.clone(),
                healthy: card.is_some_and(|c| c.open) && sound(claim, cards),
                numa: card.and_then(|c| c.device.numa),
            });
        }
    }
    listing
}

/// What one card can still give of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Free {
    /// Ids that no claim holds, in order.
    pub ids: Vec<SlotId>,
    /// How much of them fits.
    pub room: CardRoom,
}

/// What every open card can still give of a resource.
pub fn free(
    resource: &Resource,
    cards: &BTreeMap<DeviceId, CardView<'_>>,
    claims: &Claims,
) -> BTreeMap<DeviceId, Free> {
    let mut free = BTreeMap::new();
    for (id, slots) in &resource.cards {
        let Some(card) = cards.get(id).filter(|c| c.open) else { continue };
        let mine: Vec<&Claim> = claims
            .iter()
            .filter(|c| c.record.ids.iter().any(|slot| slot.device == *id))
            .filter(|c| !gone(c))
            .collect();
        let taken: HashSet<&SlotId> = mine.iter().flat_map(|c| &c.record.ids).collect();
        let ids: Vec<SlotId> = (0..slots.count)
            .map(|n| SlotId { device: id.clone(), shape: slots.shape.clone(), n })
            .filter(|id| !taken.contains(id))
            .collect();
        let room = room(resource, card, slots, &mine, ids.len() as u64);
        free.insert(id.clone(), Free { ids, room });
    }
    free
}

fn of_resource(
    resource: &Resource,
    cards: &BTreeMap<DeviceId, CardView<'_>>,
    claims: &Claims,
) -> Vec<Slot> {
    let free = free(resource, cards, claims);
    let given = give(resource, &free);
    let mut held: HashMap<&SlotId, bool> = HashMap::new();
    for claim in claims.iter().filter(|c| !gone(c)) {
        for id in &claim.record.ids {
            // Two claims on an id: the older one is superseded and only its end is awaited.
            let ok = held.entry(id).or_insert(true);
            *ok = *ok && sound(claim, cards);
        }
    }
    resource
        .ids()
        .map(|id| {
            let card = cards.get(&id.device);
            let healthy = card.is_some_and(|c| c.open)
                && held.get(&id).copied().unwrap_or_else(|| given.contains(&id));
            Slot { id, healthy, numa: card.and_then(|c| c.device.numa) }
        })
        .collect()
}

/// Which free ids are told to be healthy.
fn give<'f>(resource: &Resource, free: &'f BTreeMap<DeviceId, Free>) -> HashSet<&'f SlotId> {
    let mut left = match &resource.offer.kind {
        OfferKind::Unit { bounds, .. } => {
            let rooms: Vec<CardRoom> = free.values().map(|f| f.room).collect();
            advertise(&rooms, *bounds)
        }
        _ => u64::MAX,
    };
    let mut cards: Vec<&Free> = free.values().collect();
    // The roomiest card first: whatever the sum admits at once fits on one card.
    cards.sort_by_key(|f| std::cmp::Reverse(f.room.units));
    let mut given = HashSet::new();
    for card in cards {
        let units = card.room.units.min(left);
        left -= units;
        given.extend(card.ids.iter().take(usize::try_from(units).unwrap_or(usize::MAX)));
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
    let Ok(info) = card.device.scheme(&slots.scheme) else { return none };
    let Ok((held, open)) = taken(card, claims) else { return none };
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
            units: slots::parts_left(card.device, info, range, size, &refs).min(most),
            requests: None,
        },
        _ => CardRoom { units: simulate(resource, card, slots, held, open, most), requests: None },
    }
}

/// What is taken on a card: by other tools, by claims that were decided, and by claims that are only
/// allocated. The last are told apart where their place is not decided yet (profiles).
fn taken(card: &CardView<'_>, claims: &[&Claim]) -> Result<(Vec<Held>, u32), String> {
    let mut held = card.foreign.clone();
    let mut open = 0;
    for claim in claims {
        let decided = claim.record.grants.iter().filter(|g| *g.device() == card.device.id);
        held.extend(decided.map(|g| g.held.clone()));
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
                held.push(paper(card.device, &wanted.scheme, size, claim));
            }
        }
    }
    Ok((held, open))
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
