//! `PART-8` to `PART-10`: how much fits.

use vgpu_core::{
    Bytes, Change, ComputeKind, Device, Error, ErrorKind, Form, ModeChange, Partition, PlacedBy,
    SchemeInfo, Size, Sizing, Target,
};

use crate::context::{
    Context, Outcome, Stop, brief, claim, domain, ensure, mode_order, refused, share,
};
use crate::orders::{self, Wish};

/// Parts that a card is filled with before the suite gives up; a guard, not a promise.
const MOST_PARTS: usize = 512;

/// `PART-8`.
pub(crate) fn exhausted(cx: &Context<'_>) -> Outcome {
    let card = cx.entered()?;
    let info = cx.info(&card)?;
    let there = cx.backend.partitions(&card.id)?;
    let full = fill(cx, &card)?;
    let before = cx.backend.partitions(&card.id)?;
    let one_more = match full {
        Some(error) => error,
        // The description says that nothing has a place, and the driver must say so too.
        None => {
            let order = cx.order(&card, &anywhere(&card, info)?)?;
            refused(cx.backend.create(&order), ErrorKind::Exhausted, "a part more than fits")?
        }
    };
    ensure!(one_more.kind == ErrorKind::Exhausted, "a full card says: {one_more}");
    let after = cx.backend.partitions(&card.id)?;
    ensure!(before == after, "a create on a full card changed its parts to {}", brief(&after));
    if let Some(distinct) = info.range().and_then(|r| r.distinct) {
        // Those that were there before are somebody's.
        for part in after.iter().filter(|p| !there.contains(p)) {
            cx.backend.destroy(&part.id)?;
        }
        too_many_sizes(cx, &card, distinct.get())?;
    }
    Ok(())
}

/// `PART-9`.
pub(crate) fn never_too_much(cx: &Context<'_>) -> Outcome {
    let card = cx.entered()?;
    let info = cx.info(&card)?;
    cx.make(&card)?;
    // Everything that could be laid over the first part, and what would exceed the card with it.
    let mut wishes = vec![anywhere(&card, info)?];
    if let Some(range) = info.range() {
        let memory = orders::most(&card, range).memory;
        let size = Size { memory, ..orders::least(range) };
        wishes.extend(orders::sized(&card, range, &size, &[]));
        let size = Size { compute: orders::most(&card, range).compute, ..orders::least(range) };
        wishes.extend(orders::sized(&card, range, &size, &[]));
    }
    if let Sizing::Profiles(table) = &info.sizing {
        wishes.extend(table.iter().filter_map(|p| orders::placed(&card, info, p, &[])));
    }
    for wish in wishes {
        // Whether it is refused is another clause's business.
        let _made = cx.backend.create(&cx.order(&card, &wish)?);
        fits(&card, info, &cx.backend.partitions(&card.id)?)?;
    }
    fill(cx, &card)?;
    fits(&card, info, &cx.backend.partitions(&card.id)?)
}

/// `PART-10`.
pub(crate) fn declared_works(cx: &Context<'_>) -> Outcome {
    cx.may_change()?;
    let card = cx.card()?;
    let info = cx.info(&card)?;
    let idle = matches!(info.mode.enter, Change::IdleDevice | Change::IdleNode);
    if !info.mode.active && !idle {
        // Ordering it is all that can be done here: it becomes pending.
        let order = mode_order(&card.id, Some(&info.scheme), &info.mode);
        let change = supported(cx.backend.set_mode(&order), "entering the mode")?;
        let pending = matches!(change, Some(ModeChange::AfterReset | ModeChange::AfterReboot));
        ensure!(pending || change.is_none(), "a mode that asks for a reset came to {change:?}");
        if pending {
            // Nobody resets the card, and nobody shall find another mode when somebody does.
            let present = |s: &&SchemeInfo| s.mode.active && s.mode.leave != Change::Live;
            let present = card.schemes.iter().find(present).map(|s| &s.scheme);
            let back = cx.backend.set_mode(&mode_order(&card.id, present, &info.mode))?;
            ensure!(back == ModeChange::Done, "taking a pending mode back came to {back:?}");
        }
        return Ok(());
    }
    if info.form == Form::Shared {
        let grant = share(&card.id, info, &domain());
        let target = Target { claim: claim(), grant };
        supported(cx.backend.edits(&[target]), "showing a share")?;
        return Ok(());
    }
    let card = cx.entered()?;
    let info = cx.info(&card)?;
    let wishes: Vec<Wish> = match &info.sizing {
        Sizing::Profiles(table) => {
            let held = cx.backend.partitions(&card.id)?;
            table.iter().filter_map(|p| orders::placed(&card, info, p, &held)).collect()
        }
        Sizing::Range(range) => [orders::least(range), orders::most(&card, range)]
            .iter()
            .filter_map(|size| orders::sized(&card, range, size, &[]))
            .collect(),
        Sizing::Turns | Sizing::Whole => Vec::new(),
    };
    for wish in wishes {
        let what = format!("making {:?}", wish.shape);
        let made = supported(cx.backend.create(&cx.order(&card, &wish)?), &what)?;
        if let Some(made) = made {
            cx.backend.destroy(&made.id)?;
        }
    }
    Ok(())
}

/// Makes the smallest parts until no more has a place (`None`), or the driver refuses one.
fn fill(cx: &Context<'_>, card: &Device) -> Outcome<Option<Error>> {
    for _ in 0..MOST_PARTS {
        let order = match cx.smallest(card) {
            Err(Stop::Skip(_)) => return Ok(None),
            order => order?,
        };
        if let Err(e) = cx.backend.create(&order) {
            return Ok(Some(e));
        }
    }
    Err(Stop::Fail(format!("{MOST_PARTS} parts fit on the card and no end is in sight")))
}

/// The smallest part at the first place of all, taken or not.
fn anywhere(card: &Device, info: &SchemeInfo) -> Outcome<Wish> {
    orders::smallest(card, info, &[])
        .ok_or_else(|| Stop::Fail(format!("nothing fits an empty card by {}", info.scheme)))
}

/// One size more than may live at once.
fn too_many_sizes(cx: &Context<'_>, card: &Device, distinct: u32) -> Outcome {
    let info = cx.info(card)?;
    let Some(range) = info.range() else { return Ok(()) };
    for n in 0..=distinct {
        let mut size = orders::least(range);
        match (&mut size.memory, range.memory) {
            (Some(memory), Some(grid)) => *memory = Bytes(memory.0 + u64::from(n) * grid.step.0),
            _ => return Ok(()),
        }
        let held = cx.backend.partitions(&card.id)?;
        let Some(wish) = orders::sized(card, range, &size, &held) else { return Ok(()) };
        let result = cx.backend.create(&cx.order(card, &wish)?);
        if n == distinct || result.is_err() {
            let what = format!("size {} of {distinct} that may live at once", n + 1);
            refused(result, ErrorKind::Exhausted, &what)?;
            return Ok(());
        }
    }
    Ok(())
}

/// Whether these parts lie side by side and the card holds them all.
fn fits(card: &Device, info: &SchemeInfo, parts: &[Partition]) -> Outcome {
    for (i, a) in parts.iter().enumerate() {
        for b in &parts[i + 1..] {
            let over = a.placement.overlaps(&b.placement);
            ensure!(
                !over,
                "{} at {:?} and {} at {:?} overlap",
                a.id,
                a.placement,
                b.id,
                b.placement
            );
            ensure!(a.id != b.id, "two parts are called {}", a.id);
        }
    }
    let memory: u64 = parts.iter().filter_map(|p| p.size.memory).map(|m| m.0).sum();
    ensure!(memory <= card.memory.0, "parts of {} on a card of {}", Bytes(memory), card.memory);
    if info.guarantees.compute_kind == ComputeKind::Partition
        && let Some(grid) = info.range().and_then(|r| r.compute)
    {
        let units: u32 = parts.iter().filter_map(|p| p.size.compute).map(|c| c.units).sum();
        ensure!(units <= grid.of.get(), "parts of {units} units on a card of {}", grid.of);
    }
    if let Some(max) = info.max {
        ensure!(parts.len() <= max.get() as usize, "{} parts where {max} may be", parts.len());
    }
    let planned = info.range().is_some_and(|r| r.placed_by == PlacedBy::Planner);
    for part in parts.iter().filter(|_| planned) {
        let placed = !matches!(part.placement, vgpu_core::Placement::Driver);
        ensure!(placed, "{} was placed by us and is listed as placed by the driver", part.id);
    }
    Ok(())
}

/// Fails for `Unsupported`; any other error is another clause's business.
fn supported<T>(result: vgpu_core::Result<T>, what: &str) -> Outcome<Option<T>> {
    match result {
        Err(e) if e.kind == ErrorKind::Unsupported => {
            Err(Stop::Fail(format!("{what} is declared and unsupported: {e}")))
        }
        other => Ok(other.ok()),
    }
}
