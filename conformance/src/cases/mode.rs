//! `PART-3` to `PART-5`: modes.

use vgpu_core::{Change, Device, DeviceId, ErrorKind, Form, ModeChange, ModeOrder, Subject};

use crate::context::{
    Context, Outcome, Stop, brief, ensure, enterable, mode_order, nobody, refused,
};
use crate::fixture::Support;

/// `PART-3`.
pub(crate) fn present_mode(cx: &Context<'_>) -> Outcome {
    let card = cx.entered()?;
    let info = cx.info(&card)?;
    if info.form == Form::Shared && info.mode.leave == Change::Live {
        cx.may_change()?;
    }
    let order = mode_order(&card.id, Some(&info.scheme), &info.mode);
    let held = cx.backend.partitions(&card.id)?;
    if held.is_empty() {
        // A mode may serve one domain; from here on it is the suite's.
        let change = cx.backend.set_mode(&order)?;
        ensure!(change == ModeChange::Done, "entering the present mode came to {change:?}");
    }
    if info.form == Form::Carved {
        cx.make(&card)?;
    }
    let before = cx.backend.partitions(&card.id)?;
    let change = cx.backend.set_mode(&order)?;
    ensure!(change == ModeChange::Done, "entering the present mode came to {change:?}");
    let after = cx.backend.partitions(&card.id)?;
    ensure!(before == after, "entering the present mode changed the parts to {}", brief(&after));
    ensure!(is_active(cx)?, "entering the present mode left it");
    Ok(())
}

/// `PART-4`.
pub(crate) fn wrong_cards(cx: &Context<'_>) -> Outcome {
    cx.may_change()?;
    let card = cx.card()?;
    let info = cx.info(&card)?;
    if info.mode.leave == Change::Live && info.mode.enter == Change::Live {
        return Err(Stop::Skip("the card is always in this mode".into()));
    }
    // In the mode, the order is to leave it; else to enter it.
    let wanted = (!info.mode.active).then_some(&info.scheme);
    let before = (is_active(cx)?, cx.backend.partitions(&card.id)?);
    let mut fewer: Vec<DeviceId> = info.mode.affects.clone();
    fewer.pop();
    let mut more = info.mode.affects.clone();
    more.push(nobody());
    for affected in [fewer, more] {
        let order = ModeOrder { affected, ..mode_order(&card.id, wanted, &info.mode) };
        let what = format!("a mode order that names {:?}", order.affected);
        refused(cx.backend.set_mode(&order), ErrorKind::Invalid, &what)?;
    }
    let after = (is_active(cx)?, cx.backend.partitions(&card.id)?);
    ensure!(before == after, "a refused mode order changed the card");
    Ok(())
}

/// `PART-5`.
pub(crate) fn not_under_use(cx: &Context<'_>) -> Outcome {
    let card = cx.card()?;
    enterable(&cx.info(&card)?.mode)?;
    let card = cx.entered()?;
    let info = cx.info(&card)?;
    if info.mode.leave == Change::Live {
        return Err(Stop::Skip("it is the default mode, which is left for no other".into()));
    }
    let leave = mode_order(&card.id, None, &info.mode);
    let mut tried = false;
    if cx.backend.partitions(&card.id)?.is_empty()
        && let Some(faults) = cx.fixture.faults()
        && faults.hold(&Subject::Device(card.id.clone()), 1)? == Support::Played
    {
        stays(cx, &card, &leave, "leaving the mode under a process")?;
        let Support::Played = faults.hold(&Subject::Device(card.id.clone()), 0)? else {
            return Err(Stop::Fail("a process was played and does not end".into()));
        };
        tried = true;
    }
    if info.form == Form::Carved {
        cx.make(&card)?;
        stays(cx, &card, &leave, "leaving the mode under a part")?;
        tried = true;
    }
    if tried { Ok(()) } else { Err(Stop::Skip("no process can be played here".into())) }
}

fn stays(cx: &Context<'_>, card: &Device, leave: &ModeOrder, what: &str) -> Outcome {
    let before = cx.backend.partitions(&card.id)?;
    refused(cx.backend.set_mode(leave), ErrorKind::Busy, what)?;
    ensure!(is_active(cx)?, "{what} was refused, and the mode was left");
    let after = cx.backend.partitions(&card.id)?;
    ensure!(before == after, "{what} was refused, and changed the parts to {}", brief(&after));
    Ok(())
}

fn is_active(cx: &Context<'_>) -> Outcome<bool> {
    let card = cx.card()?;
    Ok(cx.info(&card)?.mode.active)
}
