//! Exact packing on one card: slots of a placement table, and masks of compute units.

use crate::device::Device;
use crate::guarantee::ComputeKind;
use crate::order::Placement;
use crate::plan::Held;
use crate::scheme::{Profile, SchemeInfo, Slots};
use crate::size::ComputeShare;

/// Where a profile goes: the free placement that leaves the most room for the rest of the table.
pub(super) fn slots(
    device: &Device,
    table: &[Profile],
    profile: &Profile,
    held: &[&Held],
) -> Option<Slots> {
    let short = profile.uses.iter().any(|(counter, needs)| {
        let used: u64 = held.iter().map(|h| h.uses(device, counter)).sum();
        used.saturating_add(*needs) > device.counter(counter)
    });
    if short {
        return None;
    }
    profile
        .placements
        .iter()
        .filter(|p| is_free(**p, held))
        .map(|p| (room_beside(*p, table, held), *p))
        .max_by(|(a, p), (b, q)| a.cmp(b).then_with(|| q.cmp(p)))
        .map(|(_, p)| p)
}

/// A mask of `share.units` free units: the lowest ones, disjoint from all held by construction.
pub(super) fn mask(share: ComputeShare, held: &[&Held]) -> Option<Vec<u64>> {
    let words = share.of.get().div_ceil(64) as usize;
    let mut taken = vec![0u64; words];
    for h in held {
        if let Placement::Units(units) = &h.placement {
            taken.iter_mut().zip(units).for_each(|(word, bits)| *word |= bits);
        }
    }
    let mut mask = vec![0u64; words];
    let mut missing = share.units;
    for unit in 0..share.of.get() {
        let (word, bit) = (unit as usize / 64, 1u64 << (unit % 64));
        if missing > 0 && taken[word] & bit == 0 {
            mask[word] |= bit;
            missing -= 1;
        }
    }
    (missing == 0).then_some(mask)
}

/// Whether a part with units of its own would lie beside one that shares all units, or the other way
/// round: where a share is a partition, such a neighbour would run on units that are another's.
pub(super) fn mixes(info: &SchemeInfo, held: &[&Held], has_units: bool) -> bool {
    info.guarantees.compute_kind == ComputeKind::Partition
        && info.range().is_some()
        && held.iter().any(|h| h.size.compute.is_some() != has_units)
}

fn is_free(slots: Slots, held: &[&Held]) -> bool {
    held.iter().all(|h| !h.placement.overlaps(&Placement::Slots(slots)))
}

/// How much could still be placed beside `taken`: free placements, larger profiles counting more.
fn room_beside(taken: Slots, table: &[Profile], held: &[&Held]) -> u64 {
    let free = |p: &Slots| !p.overlaps(taken) && is_free(*p, held);
    let weigh = |p: &Slots| u64::from(p.len) * u64::from(p.len);
    table.iter().flat_map(|t| &t.placements).filter(|p| free(p)).map(weigh).sum()
}
