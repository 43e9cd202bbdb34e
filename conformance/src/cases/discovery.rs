//! `DISC-*`: what a scan says.

use std::collections::BTreeSet;

use vgpu_core::{Device, Profile, Range, Scan, Scheme, SchemeInfo, Sizing, Slots};

use crate::context::{Context, Outcome, Stop, ensure, played};

/// `DISC-1`.
pub(crate) fn unique_ids(cx: &Context<'_>) -> Outcome {
    let scan = cx.backend.scan()?;
    let mut seen = BTreeSet::new();
    let lost = scan.lost.iter().map(|l| l.name.as_str());
    for name in scan.devices.iter().map(|d| d.id.as_str()).chain(lost) {
        ensure!(seen.insert(name.to_owned()), "{name} is there twice");
    }
    Ok(())
}

/// `DISC-2`.
pub(crate) fn stable_ids(cx: &Context<'_>) -> Outcome {
    let names = |scan: Scan| {
        let known: BTreeSet<(String, String)> =
            scan.devices.into_iter().map(|d| (d.id.to_string(), d.model)).collect();
        known
    };
    let first = names(cx.backend.scan()?);
    let again = names(cx.backend.scan()?);
    ensure!(first == again, "a second scan names {again:?}, the first {first:?}");
    let reopened = names(cx.fixture.open()?.scan()?);
    ensure!(first == reopened, "opened anew it names {reopened:?}, before {first:?}");
    Ok(())
}

/// `DISC-3`.
pub(crate) fn no_contradiction(cx: &Context<'_>) -> Outcome {
    let device = cx.card()?;
    ensure!(device.memory.0 > 0, "{} has no memory", device.id);
    for info in &device.schemes {
        let said = |why: String| Stop::Fail(format!("{}: {why}", info.scheme));
        match &info.sizing {
            Sizing::Profiles(table) => table_fits(&device, info, table).map_err(said)?,
            Sizing::Range(range) => range_fits(&device, range).map_err(said)?,
            Sizing::Turns | Sizing::Whole => {}
        }
    }
    Ok(())
}

/// `DISC-4`.
pub(crate) fn lost_alone(cx: &Context<'_>) -> Outcome {
    let id = cx.id()?;
    let before = cx.backend.scan()?;
    played(cx.faults()?.lose(id)?)?;
    let scan = cx.backend.scan()?;
    ensure!(scan.devices.iter().all(|d| d.id != *id), "the silent card {id} seems to answer");
    let Some(lost) = scan.lost.iter().find(|l| l.name == id.as_str()) else {
        return Err(Stop::Fail(format!("the silent card {id} is not told as lost")));
    };
    ensure!(!lost.reason.message.is_empty(), "no reason is given for the silent card {id}");
    for other in before.devices.iter().filter(|d| d.id != *id) {
        let there = scan.devices.iter().any(|d| d.id == other.id);
        ensure!(there, "with {id} silent, {} is gone too", other.id);
    }
    Ok(())
}

/// `DISC-5`.
pub(crate) fn schemes_once(cx: &Context<'_>) -> Outcome {
    let device = cx.card()?;
    let mut seen = BTreeSet::new();
    for info in &device.schemes {
        ensure!(seen.insert(info.scheme.clone()), "{} is declared twice", info.scheme);
        let affects = &info.mode.affects;
        ensure!(affects.contains(&device.id), "the mode of {} leaves its card out", info.scheme);
        let unique: BTreeSet<_> = affects.iter().collect();
        ensure!(unique.len() == affects.len(), "the mode of {} names a card twice", info.scheme);
    }
    ensure!(seen.contains(&Scheme::WHOLE), "the card as it is is not declared");
    Ok(())
}

/// `DISC-6`.
pub(crate) fn pairs_once(cx: &Context<'_>) -> Outcome {
    check_pairs(cx)?;
    // Where a card can be silenced, its pairs are left out and the call still answers.
    if let Some(faults) = cx.fixture.faults()
        && let Some(first) = cx.backend.scan()?.devices.first()
        && faults.lose(&first.id)? == crate::fixture::Support::Played
    {
        check_pairs(cx)?;
    }
    Ok(())
}

fn check_pairs(cx: &Context<'_>) -> Outcome {
    let scan = cx.backend.scan()?;
    let answering: BTreeSet<_> = scan.devices.into_iter().map(|d| d.id).collect();
    let mut seen = BTreeSet::new();
    for link in cx.backend.topology()? {
        ensure!(link.a != link.b, "{} is joined to itself", link.a);
        for end in [&link.a, &link.b] {
            ensure!(answering.contains(end), "{end} is joined and was not scanned");
        }
        let (a, b) = (link.a.clone().min(link.b.clone()), link.a.max(link.b));
        ensure!(seen.insert((a.clone(), b.clone())), "{a} and {b} are listed twice");
    }
    Ok(())
}

fn table_fits(device: &Device, info: &SchemeInfo, table: &[Profile]) -> Result<(), String> {
    if table.is_empty() {
        return Err("the profile table is empty".into());
    }
    for (i, profile) in table.iter().enumerate() {
        let id = &profile.id;
        if table[..i].iter().any(|p| p.id == *id) {
            return Err(format!("profile {id} is there twice"));
        }
        let Some(memory) = profile.size.memory.filter(|m| m.0 > 0) else {
            return Err(format!("profile {id} holds no memory"));
        };
        if let Some(share) = profile.size.compute
            && (share.units == 0 || share.units > share.of.get())
        {
            return Err(format!("profile {id} has compute {share}"));
        }
        if profile.placements.is_empty() {
            return Err(format!("profile {id} can lie nowhere"));
        }
        for slots in &profile.placements {
            if slots.len == 0 || slots.start.checked_add(slots.len).is_none() {
                return Err(format!("profile {id} lies at {slots}"));
            }
        }
        // As many as can lie beside one another must fit the card together.
        let beside = u64::from(side_by_side(&profile.placements));
        if memory.0.saturating_mul(beside) > device.memory.0 {
            return Err(format!("{beside} of {id} hold more than the card's {}", device.memory));
        }
        for (counter, uses) in &profile.uses {
            if *uses > device.counter(counter) {
                let has = device.counter(counter);
                return Err(format!("profile {id} uses {uses} {counter}, the card has {has}"));
            }
        }
    }
    if info.max.is_some_and(|max| max.get() == 0) {
        return Err("no part may live".into());
    }
    Ok(())
}

/// How many of these places do not touch one another; greedy by end is exact for intervals.
fn side_by_side(places: &[Slots]) -> u32 {
    let mut places = places.to_vec();
    places.sort_by_key(|s| u64::from(s.start) + u64::from(s.len));
    let mut last: Option<Slots> = None;
    let mut n = 0;
    for place in places {
        if last.is_none_or(|l| !l.overlaps(place)) {
            last = Some(place);
            n += 1;
        }
    }
    n
}

fn range_fits(device: &Device, range: &Range) -> Result<(), String> {
    if range.compute.is_none() && range.memory.is_none() {
        return Err("neither compute nor memory can be set".into());
    }
    if let Some(grid) = range.compute {
        let multiple = grid.min.is_multiple_of(grid.step.get());
        if grid.min == 0 || grid.min > grid.of.get() || grid.step > grid.of || !multiple {
            return Err(format!("compute goes from {} by {} to {}", grid.min, grid.step, grid.of));
        }
    }
    if let Some(grid) = range.memory {
        if grid.step.0 == 0 || grid.min.0 == 0 || !grid.min.0.is_multiple_of(grid.step.0) {
            return Err(format!("memory goes from {} by {}", grid.min, grid.step));
        }
        if grid.min > device.memory {
            return Err(format!("the least memory, {}, is more than the card's", grid.min));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_side_by_side_are_counted_exactly() {
        let places = |list: &[(u32, u32)]| -> Vec<Slots> {
            list.iter().map(|(start, len)| Slots::new(*start, *len)).collect()
        };
        assert_eq!(side_by_side(&places(&[(0, 4), (4, 4)])), 2);
        assert_eq!(side_by_side(&places(&[(0, 2), (1, 2), (2, 2), (4, 2), (6, 2)])), 4);
        assert_eq!(side_by_side(&places(&[(0, 8), (3, 1), (4, 1)])), 2);
        assert_eq!(side_by_side(&[]), 0);
    }
}
