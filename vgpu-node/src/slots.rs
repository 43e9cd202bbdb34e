//! Offers laid over cards: which ids there are, what each means, and why a card has none.

use std::collections::BTreeMap;
use std::sync::Arc;

use vgpu_core::id::{ClaimId, DeviceId, SlotId};
use vgpu_core::plan::layout::layout;
use vgpu_core::plan::units::Unit;
use vgpu_core::plan::{Held, Inventory, Policy, Request, Selector, Sizes, Want, plan, plan_all};
use vgpu_core::scheme::{Range, Scheme, SchemeInfo, Sizing};
use vgpu_core::size::{ComputeShare, Size};
use vgpu_core::{Device, Error, ErrorKind, Result};

use crate::offer::{Lifecycle, Offer, OfferKind, ResourceName, Slice};
use crate::pool::CardLayout;

/// Every offer laid over every card.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    /// By resource.
    pub resources: BTreeMap<ResourceName, Resource>,
    /// The cards that have a layout of parts made ahead.
    pub pools: BTreeMap<DeviceId, CardLayout>,
}

/// One offer, laid over the cards.
#[derive(Debug, Clone)]
pub struct Resource {
    /// The offer.
    pub offer: Offer,
    /// The cards that serve it.
    pub cards: BTreeMap<DeviceId, CardSlots>,
    /// The selected cards that do not, with the reason.
    pub unfit: BTreeMap<DeviceId, String>,
}

/// What one card gives to one resource when it is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardSlots {
    /// How the card is split for it.
    pub scheme: Scheme,
    /// The shape in its ids.
    pub shape: Arc<str>,
    /// How many ids, numbered from 0.
    pub count: u32,
    /// What one id asks for.
    pub want: Want,
}

impl Layout {
    /// Lays the offers over the cards.
    ///
    /// # Errors
    /// `Invalid` for two offers of one name, or two that one card could serve: a card has one offer,
    /// so that what is free of one never depends on the other. Two wide selectors are fine where
    /// each card's mode leaves it only one of the two. Offers of different profiles share a card whose
    /// layout has both, since the layout says how many there are of each. As well for a layout that no
    /// placement reaches, or two that select one card; `Unsupported` for one of a scheme that a card
    /// lacks.
    pub fn of(offers: &[Offer], layouts: &[CardLayout], devices: &[&Device]) -> Result<Self> {
        let pools = pools(layouts, devices)?;
        let mut resources: BTreeMap<ResourceName, Resource> = BTreeMap::new();
        let mut taken: BTreeMap<(&DeviceId, Option<Arc<str>>), &ResourceName> = BTreeMap::new();
        for offer in offers {
            let mut resource =
                Resource { offer: offer.clone(), cards: BTreeMap::new(), unfit: BTreeMap::new() };
            for device in devices.iter().filter(|d| offer.select.selects(d)) {
                let laid = match (offer.lifecycle, pools.get(&device.id)) {
                    (Lifecycle::OnDemand, None) => lay(offer, device),
                    (Lifecycle::OnDemand, Some(_)) => Err(
                        "the card has a layout, of which only offers with lifecycle pooled take"
                            .into(),
                    ),
                    (Lifecycle::Pooled, layout) => lay_pooled(offer, device, layout),
                };
                let slots = match laid {
                    Ok(slots) => slots,
                    Err(why) => {
                        resource.unfit.insert(device.id.clone(), why);
                        continue;
                    }
                };
                let shape = pools.contains_key(&device.id).then(|| slots.shape.clone());
                if let Some(other) = taken.insert((&device.id, shape), &offer.resource) {
                    return Err(overlap(&device.id, other, &offer.resource));
                }
                resource.cards.insert(device.id.clone(), slots);
            }
            if resources.insert(offer.resource.clone(), resource).is_some() {
                let why = format!("two offers are named {}; rename one", offer.resource);
                return Err(Error::new(ErrorKind::Invalid, why));
            }
        }
        Ok(Self { resources, pools })
    }
}

impl Resource {
    /// The card's slots that an id names, if the id is one of this resource.
    pub fn slots(&self, id: &SlotId) -> Option<&CardSlots> {
        self.cards.get(&id.device).filter(|c| c.shape == id.shape && id.n < c.count)
    }

    /// Every id, in order.
    pub fn ids(&self) -> impl Iterator<Item = SlotId> + '_ {
        self.cards.iter().flat_map(|(device, card)| {
            (0..card.count).map(|n| SlotId { device: device.clone(), shape: card.shape.clone(), n })
        })
    }
}

fn overlap(device: &DeviceId, one: &ResourceName, other: &ResourceName) -> Error {
    Error::new(
        ErrorKind::Invalid,
        format!(
            "{one} and {other} both select card {device}, which could serve either; narrow the \
             select of one of them"
        ),
    )
}

/// Which card has which layout; each is tried on an empty card.
fn pools(layouts: &[CardLayout], devices: &[&Device]) -> Result<BTreeMap<DeviceId, CardLayout>> {
    let mut pools: BTreeMap<DeviceId, CardLayout> = BTreeMap::new();
    for wish in layouts {
        for device in devices.iter().filter(|d| wish.select.selects(d)) {
            layout(device, &wish.scheme, &wish.parts, &[])
                .map_err(|e| e.with("layout of", &device.id))?;
            if pools.insert(device.id.clone(), wish.clone()).is_some() {
                let why = format!("two layouts select card {}; narrow one of them", device.id);
                return Err(Error::new(ErrorKind::Invalid, why));
            }
        }
    }
    Ok(pools)
}

/// What a card's layout has for an offer.
fn lay_pooled(
    offer: &Offer,
    device: &Device,
    wish: Option<&CardLayout>,
) -> std::result::Result<CardSlots, String> {
    let OfferKind::Slice(Slice::Profile(profile)) = &offer.kind else {
        return Err("only parts of a profile are made ahead".into());
    };
    let Some(wish) = wish else {
        return Err(format!("no layout selects the card, so no {profile} is made ahead on it"));
    };
    let count = wish.count(profile);
    if count == 0 {
        return Err(format!("the card's layout has no {profile}"));
    }
    if !offer.schemes.is_empty() && !offer.schemes.contains(&wish.scheme) {
        return Err(format!("the card's layout is of {}, which the offer leaves out", wish.scheme));
    }
    let info = device.scheme(&wish.scheme).map_err(|e| e.message)?;
    if let Some((axis, has, asked)) = info.guarantees.shortfall(&offer.minimum) {
        return Err(format!("{} enforces {axis} at level {has}, {asked} was asked", wish.scheme));
    }
    let want = Want::Profile(profile.clone());
    Ok(CardSlots { scheme: wish.scheme.clone(), shape: profile.to_string().into(), count, want })
}

/// What an empty card gives.
fn lay(offer: &Offer, device: &Device) -> std::result::Result<CardSlots, String> {
    let empty = Inventory { devices: vec![device.clone()], links: vec![] };
    let wants = wants(offer, device)?;
    let mut first = None;
    for (info, shape, want, most) in wants {
        let ask = ask(offer, device, want.clone(), &info.scheme);
        match plan(&empty, &[], &ask, Policy::Binpack) {
            // The strongest way is the one that was hoped for; its reason is told.
            Err(refusal) => {
                let reason = refusal.reasons.into_iter().next();
                first = first.or(reason.map(|reason| reason.why.to_string()));
            }
            Ok(_) => {
                let count = match &offer.kind {
                    OfferKind::Unit { .. } => most,
                    _ => how_many(&empty, &ask, info, most),
                };
                let (scheme, shape) = (info.scheme.clone(), shape.into());
                return Ok(CardSlots { scheme, shape, count, want });
            }
        }
    }
    Err(first.unwrap_or_else(|| no_way(offer, device)))
}

/// Why no scheme of the card could be asked at all.
fn no_way(offer: &Offer, device: &Device) -> String {
    let there: Vec<&str> = device.schemes.iter().map(|info| info.scheme.as_str()).collect();
    let missing = offer.schemes.iter().find(|s| !there.contains(&s.as_str()));
    if let (Some(scheme), OfferKind::Slice(_) | OfferKind::Unit { .. }) = (missing, &offer.kind) {
        return format!("{scheme} is not among the card's schemes ({})", there.join(", "));
    }
    match &offer.kind {
        OfferKind::Slice(Slice::Profile(profile)) => {
            let profiles = device.schemes.iter().filter_map(|info| match &info.sizing {
                Sizing::Profiles(profiles) => Some(profiles),
                _ => None,
            });
            let names: Vec<String> = profiles.flatten().map(|p| p.id.to_string()).collect();
            format!("the card has no profile {profile} (it has {})", names.join(", "))
        }
        OfferKind::Unit { .. } => {
            format!("none of the card's schemes ({}) has sizes by memory", there.join(", "))
        }
        _ => format!("none of the card's schemes ({}) serves the offer", there.join(", ")),
    }
}

/// The request of one id on one card, under one scheme.
pub(crate) fn ask(offer: &Offer, device: &Device, want: Want, scheme: &Scheme) -> Request {
    Request {
        claim: ClaimId::new("layout").expect("a claim id"),
        want,
        count: 1,
        selector: Selector { devices: vec![device.id.clone()], ..Selector::default() },
        minimum: offer.minimum,
        schemes: vec![scheme.clone()],
        domain: offer.domain.clone(),
        modes: offer.modes(),
    }
}

type Way<'d> = (&'d SchemeInfo, String, Want, u32);

/// The ways in which one id could be had of a card, best first: scheme, shape, want, most of them.
fn wants<'d>(offer: &Offer, device: &'d Device) -> std::result::Result<Vec<Way<'d>>, String> {
    let mut infos: Vec<&SchemeInfo> = match offer.schemes.as_slice() {
        [] => device.schemes.iter().collect(),
        liked => liked
            .iter()
            .filter_map(|s| device.schemes.iter().find(|info| info.scheme == *s))
            .collect(),
    };
    if offer.schemes.is_empty() {
        infos.sort_by_key(|info| std::cmp::Reverse(info.guarantees.strength()));
    }
    let mut ways = Vec::new();
    let mut why = None;
    for info in infos {
        match way(offer, device, info) {
            Ok(Some((shape, want, most))) => ways.push((info, shape, want, most)),
            Ok(None) => {}
            Err(e) => why = why.or(Some(format!("{}: {e}", info.scheme))),
        }
    }
    match (ways.is_empty(), why) {
        (true, Some(why)) => Err(why),
        _ => Ok(ways),
    }
}

fn way(
    offer: &Offer,
    device: &Device,
    info: &SchemeInfo,
) -> std::result::Result<Option<(String, Want, u32)>, String> {
    const MANY: u32 = 4_096;
    let sizing = &info.sizing;
    Ok(match &offer.kind {
        OfferKind::Whole => (*sizing == Sizing::Whole).then(|| ("whole".into(), Want::Whole, 1)),
        OfferKind::Slice(_) if *sizing == Sizing::Whole => None,
        OfferKind::Slice(Slice::Profile(id)) => {
            info.profile(id).map(|_| (id.to_string(), Want::Profile(id.clone()), MANY))
        }
        OfferKind::Slice(Slice::Equal(slots)) => {
            let size = equal(device, info, slots.get())?;
            Some((slots.to_string(), Want::AtLeast(size), slots.get()))
        }
        OfferKind::Slice(Slice::Sized { memory, compute_percent }) => {
            let hundred = std::num::NonZeroU32::new(100).expect("not zero");
            let compute = compute_percent.map(|units| ComputeShare { units, of: hundred });
            let size = Size { memory: Some(*memory), compute };
            let shape = match compute_percent {
                None => memory.to_string(),
                Some(p) => format!("{memory}-{p}c"),
            };
            Some((shape, Want::AtLeast(size), MANY))
        }
        OfferKind::Unit { unit, bounds } => {
            let Some(range) = info.range() else { return Ok(None) };
            let total = unit.total(device);
            if total < bounds.smallest {
                return Err(format!(
                    "the card has {total} units of {}, less than the smallest request of {}",
                    unit.memory, bounds.smallest
                ));
            }
            let size = unit.size(device, range, 1)?;
            let count = u32::try_from(total).unwrap_or(u32::MAX);
            if count > 50_000 {
                return Err(format!(
                    "{count} units of {} are too many; choose larger",
                    unit.memory
                ));
            }
            Some((unit.memory.to_string(), Want::AtLeast(size), count))
        }
    })
}

/// One of `slots` equal parts: memory and compute rounded down to the grid, so that all of them fit.
fn equal(device: &Device, info: &SchemeInfo, slots: u32) -> std::result::Result<Size, String> {
    let Some(range) = info.range() else {
        return match &info.sizing {
            Sizing::Turns => Ok(Size::ANY),
            _ => Ok(Size {
                memory: None,
                compute: Some(ComputeShare {
                    units: 1,
                    of: std::num::NonZeroU32::new(slots).expect("offers have at least one slot"),
                }),
            }),
        };
    };
    let memory = range.memory.map(|grid| {
        let step = grid.step.0.max(1);
        vgpu_core::Bytes(device.memory.0 / u64::from(slots) / step * step)
    });
    let compute = range.compute.map(|grid| {
        let step = grid.step.get();
        ComputeShare { units: grid.of.get() / slots / step * step, of: grid.of }
    });
    let short = memory.is_some_and(|m| m.0 == 0) || compute.is_some_and(|c| c.units == 0);
    if short {
        return Err(format!("one of {slots} equal parts is less than its grid allows"));
    }
    Ok(Size { compute, memory })
}

/// How many of `ask` an empty card gives, up to `most`.
fn how_many(empty: &Inventory, ask: &Request, info: &SchemeInfo, most: u32) -> u32 {
    let most = most.min(info.max.map_or(u32::MAX, |max| max.get()));
    match (&info.sizing, &ask.want) {
        (Sizing::Turns, _) => return most,
        (Sizing::Range(range), Want::AtLeast(size)) => {
            let fit = parts_left(&empty.devices[0], info, range, size, &[], &Sizes::default());
            return u32::try_from(fit).unwrap_or(u32::MAX).min(most);
        }
        _ => {}
    }
    let fits = |n: u32| {
        let asks = vec![ask.clone(); n as usize];
        plan_all(empty, &[], &asks, Policy::Binpack).is_ok()
    };
    (1..=most.min(64)).take_while(|n| fits(*n)).last().unwrap_or(0)
}

/// How many more claims a scheme's own limit allows.
pub(crate) fn slots_left(info: &SchemeInfo, taken: usize) -> u64 {
    info.max.map_or(u64::MAX, |max| u64::from(max.get()).saturating_sub(taken as u64))
}

/// How many parts of one size still fit, by the sums and by the `sizes` of what is held.
pub(crate) fn parts_left(
    device: &Device,
    info: &SchemeInfo,
    range: &Range,
    size: &Size,
    held: &[&Held],
    sizes: &Sizes,
) -> u64 {
    let Ok(size) = range.round_up(size) else { return 0 };
    let mut left = slots_left(info, held.len());
    if let Some(each) = size.memory.filter(|m| m.0 > 0) {
        let taken: u64 = held.iter().filter_map(|h| h.size.memory).map(|m| m.0).sum();
        left = left.min(device.memory.0.saturating_sub(taken) / each.0);
    }
    if let Some(each) = size.compute.filter(|c| c.units > 0) {
        let taken: u64 =
            held.iter().filter_map(|h| h.size.compute).map(|c| u64::from(c.units)).sum();
        left = left.min(u64::from(each.of.get()).saturating_sub(taken) / u64::from(each.units));
    }
    match range.distinct {
        Some(max) if !sizes.take(&size, max) => 0,
        _ => left,
    }
}

/// What a claim's ids ask for together, on each card: one want, or several where the scheme's parts
/// cannot grow (profiles).
pub(crate) fn together(
    resource: &Resource,
    device: &Device,
    slots: &CardSlots,
    count: u32,
) -> std::result::Result<Vec<Want>, String> {
    let info = device.scheme(&slots.scheme).map_err(|e| e.message)?;
    match (&resource.offer.kind, &slots.want, &info.sizing) {
        (OfferKind::Unit { unit, .. }, _, Sizing::Range(range)) => {
            Ok(vec![Want::AtLeast(Unit::size(unit, device, range, count.into())?)])
        }
        (_, Want::AtLeast(size), Sizing::Range(_)) => {
            Ok(vec![Want::AtLeast(times(*size, count).ok_or("the size overflows")?)])
        }
        (_, want, Sizing::Turns) => Ok(vec![want.clone()]),
        (_, want, _) => Ok(vec![want.clone(); count as usize]),
    }
}

fn times(size: Size, count: u32) -> Option<Size> {
    let memory = match size.memory {
        Some(m) => Some(vgpu_core::Bytes(m.0.checked_mul(count.into())?)),
        None => None,
    };
    let compute = match size.compute {
        Some(c) => Some(ComputeShare { units: c.units.checked_mul(count)?, of: c.of }),
        None => None,
    };
    Some(Size { compute, memory })
}
