//! `PART-1`, `PART-2`, `PART-6`, `PART-7`, `PART-11` to `PART-14`: making and unmaking.

use vgpu_core::{
    BackendExt, Bytes, ComputeShare, CreateOrder, ErrorKind, Partition, PartitionState, Placement,
    Range, SchemeInfo, Shape, Size, Subject,
};

use crate::context::{Context, Outcome, Stop, brief, ensure, ids, nobody, played, refused};
use crate::fixture::During;

/// Vendor calls of one create, at most; a guard, not a promise.
const MOST_CALLS: u32 = 32;

/// `PART-1`.
pub(crate) fn listed_as_returned(cx: &Context<'_>) -> Outcome {
    let card = cx.entered()?;
    let made = cx.make(&card)?;
    let listed = cx.backend.partition(&made.id)?;
    ensure!(listed == made, "created as {made:?}, listed as {listed:?}");
    Ok(())
}

/// `PART-2`.
pub(crate) fn unknown_card(cx: &Context<'_>) -> Outcome {
    let listed = cx.backend.partitions(&nobody());
    refused(listed, ErrorKind::NotFound, "listing the parts of an unknown card").map(drop)
}

/// `PART-6`.
pub(crate) fn covers_order(cx: &Context<'_>) -> Outcome {
    let card = cx.entered()?;
    let info = cx.info(&card)?;
    for _ in 0..2 {
        let order = match cx.smallest(&card) {
            Err(Stop::Skip(_)) => break,
            order => order?,
        };
        let made = cx.backend.create(&order)?;
        let asked = size_of(info, &order);
        ensure!(made.size.covers(&asked), "{asked} ordered, {} made", made.size);
        // `covers` lets an absent limit pass; one that was ordered must be there.
        let axes = (asked.memory.is_some(), asked.compute.is_some());
        let kept = (made.size.memory.is_some(), made.size.compute.is_some());
        ensure!((axes.0 <= kept.0) && (axes.1 <= kept.1), "{asked} ordered, limits {}", made.size);
        ensure!(made.device == card.id && made.scheme == info.scheme, "made elsewhere: {made:?}");
        let place = order.placement();
        let where_ordered = *place == Placement::Driver || made.placement == *place;
        ensure!(where_ordered, "ordered at {place:?}, made at {:?}", made.placement);
        ensure!(made.state == PartitionState::Complete, "made and not complete: {made:?}");
        let tag = made.tag.as_ref();
        ensure!(tag.is_none_or(|t| t == order.claim()), "made with another's tag: {made:?}");
    }
    Ok(())
}

/// `PART-7`.
pub(crate) fn all_or_nothing(cx: &Context<'_>) -> Outcome {
    let card = cx.entered()?;
    let faults = cx.faults()?;
    let before = cx.backend.partitions(&card.id)?;
    for nth in 1..=MOST_CALLS {
        let order = cx.smallest(&card)?;
        played(faults.fail(&card.id, During::Create, nth, ErrorKind::Vendor)?)?;
        let result = cx.backend.create(&order);
        faults.heal()?;
        if let Ok(made) = result {
            ensure!(nth > 1, "the first vendor call was to fail, and {} was made", made.id);
            return Ok(());
        }
        let left = cx.backend.partitions(&card.id)?;
        let whole = |p: &&Partition| p.state != PartitionState::Half && !before.contains(p);
        let new: Vec<&Partition> = left.iter().filter(whole).collect();
        ensure!(new.is_empty(), "call {nth} of the create failed and left {}", brief(new));
        cx.backend.sweep(&card.id, &ids(&before))?;
        let swept = cx.backend.partitions(&card.id)?;
        ensure!(swept == before, "call {nth} failed; swept, the card has {}", brief(&swept));
    }
    Err(Stop::Fail(format!("a create makes more than {MOST_CALLS} vendor calls")))
}

/// `PART-11`.
pub(crate) fn resized(cx: &Context<'_>) -> Outcome {
    let card = cx.entered()?;
    let info = cx.info(&card)?;
    let made = cx.make(&card)?;
    let (Some(_), Some(range)) = (info.resize, info.range()) else {
        let result = cx.backend.resize(&made.id, &made.size);
        refused(result, ErrorKind::Unsupported, "resizing what declares no resize")?;
        let listed = cx.backend.partition(&made.id)?;
        ensure!(listed == made, "a refused resize made {listed:?} of {made:?}");
        return Ok(());
    };
    let larger = larger(range, &made.size);
    let changed = cx.backend.resize(&made.id, &larger)?;
    let same = changed.id == made.id && changed.handle == made.handle;
    ensure!(same, "resized, {made:?} became {changed:?}");
    ensure!(changed.size == larger, "{larger} asked, {} made", changed.size);
    let listed = cx.backend.partition(&made.id)?;
    ensure!(listed == changed, "resized to {changed:?}, listed as {listed:?}");
    if let (Some(grid), Some(memory)) = (range.memory, larger.memory)
        && grid.step.0 > 1
    {
        let off = Size { memory: Some(Bytes(memory.0 + 1)), ..larger };
        refused(cx.backend.resize(&made.id, &off), ErrorKind::Invalid, "a size off the grid")?;
        let listed = cx.backend.partition(&made.id)?;
        ensure!(listed == changed, "a refused resize made {listed:?}");
    }
    Ok(())
}

/// `PART-12`.
pub(crate) fn destroyed(cx: &Context<'_>) -> Outcome {
    let card = cx.entered()?;
    let before = cx.backend.partitions(&card.id)?;
    let made = cx.make(&card)?;
    cx.backend.destroy(&made.id)?;
    let after = cx.backend.partitions(&card.id)?;
    ensure!(after == before, "made and destroyed {}, the card has {}", made.id, brief(&after));
    refused(cx.backend.destroy(&made.id), ErrorKind::NotFound, "a second destroy")?;
    if let Some(faults) = cx.fixture.faults() {
        let made = cx.make(&card)?;
        if faults.vanish(&made.id)? == crate::fixture::Support::Played {
            refused(cx.backend.destroy(&made.id), ErrorKind::NotFound, "a vanished part")?;
        }
    }
    Ok(())
}

/// `PART-13`.
pub(crate) fn held(cx: &Context<'_>) -> Outcome {
    let card = cx.entered()?;
    let faults = cx.faults()?;
    let made = cx.make(&card)?;
    let subject = Subject::Part(made.id.clone());
    played(faults.hold(&subject, 2)?)?;
    let listed = cx.backend.partition(&made.id)?;
    ensure!(!listed.holders.is_free(), "held by processes, it is listed as free");
    refused(cx.backend.destroy(&made.id), ErrorKind::Busy, "destroying a held part")?;
    let still = cx.backend.partition(&made.id)?;
    ensure!(still == listed, "a refused destroy made {still:?} of {listed:?}");
    played(faults.hold(&subject, 0)?)?;
    cx.backend.destroy(&made.id)?;
    Ok(())
}

/// `PART-14`.
pub(crate) fn swept(cx: &Context<'_>) -> Outcome {
    let card = cx.entered()?;
    let kept = cx.make(&card)?;
    let unnamed = cx.make(&card).ok();
    if let Some(faults) = cx.fixture.faults() {
        for after in 1..=2 {
            let order = match cx.smallest(&card) {
                Err(Stop::Skip(_)) => break,
                order => order?,
            };
            if faults.interrupt(&card.id, after)? == crate::fixture::Support::Played {
                // Whether it got to the end is what the list tells.
                let _interrupted = cx.backend.create(&order);
                faults.heal()?;
            }
        }
        if let Ok(order) = cx.smallest(&card) {
            faults.foreign(&order)?;
        }
    }
    let before = cx.backend.partitions(&card.id)?;
    let expected: Vec<&Partition> =
        before.iter().filter(|p| p.state != PartitionState::Half || p.id == kept.id).collect();
    cx.backend.sweep(&card.id, std::slice::from_ref(&kept.id))?;
    let after = cx.backend.partitions(&card.id)?;
    ensure!(
        after.iter().eq(expected.iter().copied()),
        "swept from {} to {}",
        brief(&before),
        brief(&after)
    );
    ensure!(after.contains(&kept), "the part to keep was swept");
    ensure!(unnamed.is_none_or(|p| after.contains(&p)), "a complete part was swept");
    let nothing = cx.backend.sweep(&card.id, std::slice::from_ref(&kept.id))?;
    ensure!(nothing.is_empty(), "a second sweep still finds {nothing:?}");
    Ok(())
}

/// What an order asks for.
fn size_of(info: &SchemeInfo, order: &CreateOrder) -> Size {
    match order.shape() {
        Shape::Size(size) => *size,
        Shape::Profile(id) => info.profile(id).map_or(Size::ANY, |p| p.size),
    }
}

/// One step more of memory, or of compute where memory cannot be set.
fn larger(range: &Range, size: &Size) -> Size {
    match (range.memory, size.memory, range.compute, size.compute) {
        (Some(grid), Some(memory), _, _) => {
            Size { memory: Some(Bytes(memory.0 + grid.step.0)), ..*size }
        }
        (_, _, Some(grid), Some(share)) => Size {
            compute: Some(ComputeShare { units: share.units + grid.step.get(), of: share.of }),
            ..*size
        },
        _ => *size,
    }
}
