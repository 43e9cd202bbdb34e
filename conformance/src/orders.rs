//! Orders made from nothing but a card's own description.

use vgpu_core::{
    Bytes, ComputeShare, Device, Partition, PlacedBy, Placement, Profile, Range, SchemeInfo, Shape,
    Size, Sizing,
};

/// What may be ordered, and where.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) shape: Shape,
    pub(crate) placement: Placement,
}

/// The smallest part that still has a place, as far as the description and the list tell.
pub(crate) fn smallest(device: &Device, info: &SchemeInfo, held: &[Partition]) -> Option<Wish> {
    if info.max.is_some_and(|max| held.len() >= max.get() as usize) {
        return None;
    }
    match &info.sizing {
        Sizing::Profiles(table) => {
            let mut table: Vec<&Profile> = table.iter().collect();
            table.sort_by_key(|p| (p.size.memory, p.uses.iter().map(|(_, n)| *n).sum::<u64>()));
            table.into_iter().find_map(|p| placed(device, info, p, held))
        }
        Sizing::Range(range) => sized(device, range, &least(range), held),
        Sizing::Turns | Sizing::Whole => None,
    }
}

/// A profile where no other part lies and its counters are left.
pub(crate) fn placed(
    device: &Device,
    info: &SchemeInfo,
    profile: &Profile,
    held: &[Partition],
) -> Option<Wish> {
    let left = profile.uses.iter().all(|(counter, asked)| {
        let taken: u64 = held
            .iter()
            .filter_map(|p| match &p.shape {
                Some(Shape::Profile(id)) => info.profile(id),
                _ => None,
            })
            .flat_map(|p| &p.uses)
            .filter(|(c, _)| c == counter)
            .map(|(_, n)| n)
            .sum();
        taken + asked <= device.counter(counter)
    });
    let free = |placement: &Placement| held.iter().all(|p| !p.placement.overlaps(placement));
    let mut places = profile.placements.iter().map(|slots| Placement::Slots(*slots));
    let placement = places.find(|p| left && free(p))?;
    Some(Wish { shape: Shape::Profile(profile.id.clone()), placement })
}

/// A size, with units that no other part has where we must pick them.
pub(crate) fn sized(
    device: &Device,
    range: &Range,
    size: &Size,
    held: &[Partition],
) -> Option<Wish> {
    let taken: u64 = held.iter().filter_map(|p| p.size.memory).map(|m| m.0).sum();
    if taken + size.memory.map_or(0, |m| m.0) > device.memory.0 {
        return None;
    }
    let placement = match range.placed_by {
        PlacedBy::Driver => Placement::Driver,
        PlacedBy::Planner => Placement::Units(free_units(size.compute, held)?),
    };
    Some(Wish { shape: Shape::Size(*size), placement })
}

/// The least size on a grid.
pub(crate) fn least(range: &Range) -> Size {
    let compute = range.compute.map(|grid| {
        let units = grid.min.max(1).div_ceil(grid.step.get()) * grid.step.get();
        ComputeShare { units, of: grid.of }
    });
    let memory = range.memory.map(|grid| {
        let step = grid.step.0.max(1);
        Bytes(grid.min.0.max(1).div_ceil(step) * step)
    });
    Size { compute, memory }
}

/// The largest size on a grid that the card can hold.
pub(crate) fn most(device: &Device, range: &Range) -> Size {
    let compute = range.compute.map(|grid| {
        let units = grid.of.get() / grid.step.get() * grid.step.get();
        ComputeShare { units, of: grid.of }
    });
    let memory = range.memory.map(|grid| {
        let step = grid.step.0.max(1);
        Bytes(device.memory.0 / step * step)
    });
    Size { compute, memory }
}

/// The lowest units that no part has, one bit each.
fn free_units(share: Option<ComputeShare>, held: &[Partition]) -> Option<Vec<u64>> {
    let Some(share) = share else { return Some(Vec::new()) };
    let mut mask = vec![0_u64; share.of.get().div_ceil(64) as usize];
    let mut left = share.units;
    for unit in 0..share.of.get() {
        let (word, bit) = ((unit / 64) as usize, 1_u64 << (unit % 64));
        let taken = held.iter().any(|p| match &p.placement {
            Placement::Units(other) => other.get(word).is_some_and(|w| w & bit != 0),
            _ => false,
        });
        if left > 0 && !taken {
            mask[word] |= bit;
            left -= 1;
        }
    }
    (left == 0).then_some(mask)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use vgpu_core::scheme::{ComputeGrid, MemoryGrid};

    use super::*;

    fn range() -> Range {
        let n = |n| NonZeroU32::new(n).expect("not 0");
        Range {
            compute: Some(ComputeGrid { min: 3, step: n(2), of: n(99) }),
            memory: Some(MemoryGrid { min: Bytes(5), step: Bytes(4) }),
            distinct: None,
            placed_by: PlacedBy::Planner,
        }
    }

    #[test]
    fn least_and_most_lie_on_the_grid() {
        let range = range();
        let least = least(&range);
        assert_eq!(least.compute.expect("a share").units, 4);
        assert_eq!(least.memory, Some(Bytes(8)));
        for size in [least, range.round_up(&least).expect("on the grid")] {
            assert!(range.compute.is_some_and(|g| g.has(size.compute.expect("a share"))));
            assert!(range.memory.is_some_and(|g| g.has(size.memory.expect("memory"))));
        }
    }

    #[test]
    fn units_are_picked_around_those_that_are_taken() {
        let of = NonZeroU32::new(70).expect("not 0");
        let share = |units| Some(ComputeShare { units, of });
        let mask = free_units(share(66), &[]).expect("room");
        assert_eq!(mask, [u64::MAX, 0b11]);
        assert!(free_units(share(71), &[]).is_none());
    }
}
