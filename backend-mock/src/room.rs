//! What still fits on a card, as its driver sees it.

use vgpu_core::{
    Bytes, ComputeShare, CreateOrder, ErrorKind, PlacedBy, Placement, Scheme, Shape, Size, Sizing,
};

use crate::Result;
use crate::schemes;
use crate::session::Refusal;
use crate::state::{Card, State};

/// A part that fits: how large it becomes and where it lies.
pub(crate) struct Fit {
    pub(crate) size: Size,
    pub(crate) placement: Placement,
}

/// Whether the card still has room for what is ordered.
pub(crate) fn fit(state: &State, card: &Card, order: &CreateOrder) -> Result<Fit, Refusal> {
    let device = schemes::describe(state, card);
    let info = device.scheme(order.scheme())?;
    if !info.mode.active {
        return Err(Refusal::no(
            ErrorKind::Invalid,
            format!("{} left the mode of {} since the order was made", card.id, info.scheme),
        ));
    }
    if info.max.is_some_and(|max| card.parts.len() >= max.get() as usize) {
        return Err(full(format!("the card holds {} parts already", card.parts.len())));
    }
    if overlaps(card, order.placement()) {
        return Err(full("another part lies there".into()));
    }
    let size = match (order.shape(), &info.sizing) {
        (Shape::Size(size), Sizing::Range(_)) => *size,
        (Shape::Profile(id), Sizing::Profiles(_)) => match info.profile(id) {
            Some(profile) => {
                counters_left(card, info, profile, &device.counters)?;
                profile.size
            }
            None => return Err(unknown_shape()),
        },
        _ => return Err(unknown_shape()),
    };
    room_for(card, &info.scheme, &size, device.memory, None)?;
    let placement = match (order.placement(), info.range().map(|r| r.placed_by)) {
        (Placement::Driver, Some(PlacedBy::Driver)) if info.scheme == Scheme::VDCU => {
            Placement::Units(free_units(card, size.compute)?)
        }
        (placement, _) => placement.clone(),
    };
    Ok(Fit { size, placement })
}

/// Whether memory and compute of `size` are left, not counting the part `but`.
pub(crate) fn room_for(
    card: &Card,
    scheme: &Scheme,
    size: &Size,
    memory: Bytes,
    but: Option<&vgpu_core::PartitionId>,
) -> Result<(), Refusal> {
    let others = || card.parts.iter().map(|p| &p.listed).filter(|p| Some(&p.id) != but);
    let held: u64 = others().filter_map(|p| p.size.memory).map(|m| m.0).sum();
    let asked = size.memory.map_or(0, |m| m.0);
    if held.saturating_add(asked) > memory.0 {
        let left = Bytes(memory.0.saturating_sub(held));
        return Err(full(format!("{} asked, {left} of memory left", Bytes(asked))));
    }
    // Profiles bound compute by their slices.
    if *scheme == Scheme::MIG || *scheme == Scheme::MIM || *scheme == Scheme::HCU_MIG {
        return Ok(());
    }
    let Some(ComputeShare { units, of }) = size.compute else { return Ok(()) };
    let held: u32 = others().filter_map(|p| p.size.compute).map(|c| c.units).sum();
    if held.saturating_add(units) > of.get() {
        let left = of.get().saturating_sub(held);
        return Err(full(format!("{units} compute units asked, {left} of {of} left")));
    }
    Ok(())
}

/// The lowest units that no part has.
pub(crate) fn free_units(card: &Card, share: Option<ComputeShare>) -> Result<Vec<u64>, Refusal> {
    let Some(share) = share else { return Ok(Vec::new()) };
    let mut mask = vec![0_u64; share.of.get().div_ceil(64) as usize];
    let mut left = share.units;
    for unit in 0..share.of.get() {
        let (word, bit) = ((unit / 64) as usize, 1_u64 << (unit % 64));
        let taken = card.parts.iter().any(|p| match &p.listed.placement {
            Placement::Units(other) => other.get(word).is_some_and(|w| w & bit != 0),
            _ => false,
        });
        if left > 0 && !taken {
            mask[word] |= bit;
            left -= 1;
        }
    }
    if left > 0 { Err(full(format!("{left} compute units too few are left"))) } else { Ok(mask) }
}

/// A no for want of room.
pub(crate) fn full(why: String) -> Refusal {
    Refusal::no(ErrorKind::Exhausted, why)
}

fn overlaps(card: &Card, placement: &Placement) -> bool {
    card.parts.iter().any(|p| p.listed.placement.overlaps(placement))
}

fn counters_left(
    card: &Card,
    info: &vgpu_core::SchemeInfo,
    profile: &vgpu_core::Profile,
    has: &[(vgpu_core::CounterId, u64)],
) -> Result<(), Refusal> {
    for (counter, asked) in &profile.uses {
        let total = has.iter().find(|(c, _)| c == counter).map_or(0, |(_, n)| *n);
        let held: u64 = card
            .parts
            .iter()
            .filter_map(|p| match &p.listed.shape {
                Some(Shape::Profile(id)) => info.profile(id),
                _ => None,
            })
            .flat_map(|p| &p.uses)
            .filter(|(c, _)| c == counter)
            .map(|(_, n)| n)
            .sum();
        if held + asked > total {
            return Err(full(format!("{} of {total} {counter} are taken", held)));
        }
    }
    Ok(())
}

fn unknown_shape() -> Refusal {
    Refusal::no(ErrorKind::Invalid, "the card has no such profile or size".to_owned())
}
