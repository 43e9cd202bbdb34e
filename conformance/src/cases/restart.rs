//! `BACK-1` to `BACK-4`: what is left after a crash, a restart, a reboot.

use vgpu_core::ownership::Intent;
use vgpu_core::{
    CreateOrder, Device, ErrorKind, Ownership, Partition, PartitionState, Placement, Shape,
};

use crate::context::{Context, Outcome, Stop, brief, claim, ensure, ids, played};
use crate::fixture::Support;

/// `BACK-1`.
pub(crate) fn recognised(cx: &Context<'_>) -> Outcome {
    let card = cx.entered()?;
    // A part of another tool lies beside ours, where one can be played.
    if let Some(faults) = cx.fixture.faults() {
        let order = cx.smallest(&card)?;
        faults.foreign(&order)?;
    }
    for after in 1..=2 {
        let before = cx.backend.partitions(&card.id)?;
        let order = match cx.smallest(&card) {
            Err(Stop::Skip(_)) => break,
            order => order?,
        };
        let intent = intent(cx, &card, order, &before)?;
        let made = crashed(cx, &card, &intent.order, after)?;
        let listed = cx.fixture.open()?.partitions(&card.id)?;
        let new: Vec<&Partition> = listed.iter().filter(|p| !before.contains(p)).collect();
        let found = intent.recognise(&listed);
        ensure!(
            new.len() <= 1 && new.first().copied() == found,
            "the crash left {}, and {} is taken for ours",
            brief(new.iter().copied()),
            brief(found)
        );
        if let Some(made) = &made {
            ensure!(found.is_some_and(|f| f.id == made.id), "{} is not recognised", made.id);
        }
        if made.is_none() && new.is_empty() {
            // The crash left nothing, so the same order can be carried out; then it is recognised.
            cx.backend.sweep(&card.id, &ids(&before))?;
            let made = cx.backend.create(&intent.order)?;
            let listed = cx.fixture.open()?.partitions(&card.id)?;
            let found = intent.recognise(&listed);
            ensure!(found.is_some_and(|f| f.id == made.id), "{} is not recognised", made.id);
        }
        // Another intent, whose call never was, recognises nothing.
        if let Some(never) = never_made(cx, &card, &intent, &listed)? {
            let found = never.recognise(&listed);
            ensure!(
                found.is_none(),
                "an order that was never made is recognised as {}",
                brief(found)
            );
        }
    }
    Ok(())
}

/// `BACK-2`.
pub(crate) fn same_after_reopening(cx: &Context<'_>) -> Outcome {
    let card = cx.entered()?;
    cx.make(&card)?;
    let before = cx.backend.partitions(&card.id)?;
    let after = cx.fixture.open()?.partitions(&card.id)?;
    ensure!(before == after, "opened anew it lists {}, before {}", brief(&after), brief(&before));
    Ok(())
}

/// `BACK-3`.
pub(crate) fn again_after_interruption(cx: &Context<'_>) -> Outcome {
    let card = cx.entered()?;
    cx.faults()?;
    for after in 1..=3 {
        let before = cx.backend.partitions(&card.id)?;
        let order = match cx.smallest(&card) {
            Err(Stop::Skip(_)) => break,
            order => order?,
        };
        let intent = intent(cx, &card, order, &before)?;
        crashed(cx, &card, &intent.order, after)?;
        let backend = cx.fixture.open()?;
        backend.sweep(&card.id, &ids(&before))?;
        // A part that was made to the end is adopted, or, as here, unmade.
        let listed = backend.partitions(&card.id)?;
        if let Some(whole) = intent.recognise(&listed) {
            let complete = whole.state == PartitionState::Complete;
            ensure!(complete, "swept, the crash still leaves {whole:?}");
            backend.destroy(&whole.id)?;
        }
        let left = backend.partitions(&card.id)?;
        ensure!(left == before, "swept, the card has {}, before {}", brief(&left), brief(&before));
        let again = backend.create(&intent.order);
        let made = again.map_err(|e| Stop::Fail(format!("after call {after} and a sweep: {e}")))?;
        let listed = backend.partitions(&card.id)?;
        ensure!(listed.contains(&made), "made again, {} is not listed", made.id);
        backend.destroy(&made.id)?;
    }
    Ok(())
}

/// `BACK-4`.
pub(crate) fn after_reboot(cx: &Context<'_>) -> Outcome {
    let card = cx.entered()?;
    let faults = cx.faults()?;
    let made = cx.make(&card)?;
    // Seen before, so that a backend that remembers has something to remember.
    cx.backend.partitions(&card.id)?;
    played(faults.reboot()?)?;
    let backend = cx.fixture.open()?;
    let listed = backend.partitions(&card.id)?;
    for part in &listed {
        ensure!(part.holders.is_free(), "after a reboot, processes hold {}", part.id);
        // What the driver holds it can unmake; a memory of it cannot be unmade.
        match backend.destroy(&part.id) {
            Err(e) if e.kind == ErrorKind::NotFound => {
                return Err(Stop::Fail(format!("{} is listed and not there: {e}", part.id)));
            }
            result => result?,
        }
    }
    let left = backend.partitions(&card.id)?;
    ensure!(left.is_empty(), "{} was made; after a reboot and destroy: {}", made.id, brief(&left));
    Ok(())
}

/// Plays a crash after so many vendor calls of a create; the part, if the create came to its end.
fn crashed(
    cx: &Context<'_>,
    card: &Device,
    order: &CreateOrder,
    after: u32,
) -> Outcome<Option<Partition>> {
    let Some(faults) = cx.fixture.faults() else {
        return Ok(Some(cx.backend.create(order)?));
    };
    if faults.interrupt(&card.id, after)? != Support::Played {
        return Ok(Some(cx.backend.create(order)?));
    }
    let made = cx.backend.create(order);
    faults.heal()?;
    Ok(made.ok())
}

fn intent(
    cx: &Context<'_>,
    card: &Device,
    order: CreateOrder,
    before: &[Partition],
) -> Outcome<Intent> {
    let ownership = cx.info(card)?.ownership;
    Ok(Intent { order, ownership, seen: ids(before) })
}

/// An intent like the one that was made, for another claim and, where places count, another place.
fn never_made(
    cx: &Context<'_>,
    card: &Device,
    made: &Intent,
    listed: &[Partition],
) -> Outcome<Option<Intent>> {
    let info = cx.info(card)?;
    let placement = match info.ownership {
        Ownership::Tag | Ownership::Difference => made.order.placement().clone(),
        Ownership::Placement => match crate::orders::smallest(card, info, listed) {
            Some(wish) if matches!(wish.placement, Placement::Driver) => return Ok(None),
            Some(wish) => {
                let order = cx.order(card, &wish)?;
                return Ok(Some(Intent { order, ..made.clone() }));
            }
            None => return Ok(None),
        },
    };
    let shape: Shape = made.order.shape().clone();
    let order = CreateOrder::admit(card, &info.scheme, shape, placement, claim())?;
    Ok(Some(Intent { order, ownership: info.ownership, seen: ids(listed) }))
}
