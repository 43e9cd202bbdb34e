//! Changing a card's mode, with each vendor's rules.

use vgpu_core::{Change, DeviceId, Error, ErrorKind, Holders, ModeChange, ModeOrder, Scheme};

use crate::Result;
use crate::machine::Stop;
use crate::schemes::describe;
use crate::session::{Refusal, Session};
use crate::state::{Card, Mode, State};

/// Puts a card, or all that the mode affects, into a mode.
pub(crate) fn set(session: &Session<'_>, order: &ModeOrder) -> Result<ModeChange, Stop> {
    let died = session.peek(&order.device, |_, card| Ok(is_dead_mode_of(card, order)))?;
    if died {
        let call = order.scheme.as_ref().map_or("whole", Scheme::as_str);
        session.call(switch(call), &order.device, |state| {
            let mode = state.card_mut(&order.device)?.mode.as_mut();
            mode.into_iter().for_each(|mode| mode.dead = false);
            Ok(())
        })?;
        return Ok(ModeChange::Done);
    }
    let step = session.peek(&order.device, |state, card| Ok(plan(state, card, order)?))?;
    let Some(step) = step else { return Ok(ModeChange::Done) };
    session.call(step.call, &order.device, |state| {
        for device in &step.affects {
            idle(state.card(device)?)?;
        }
        for device in &step.affects {
            let card = state.card_mut(device)?;
            if step.change == Change::DeviceReset {
                card.pending = Some(step.mode.clone());
            } else {
                card.pending = None;
                card.mode.clone_from(&step.mode);
                card.sizes.clear();
            }
        }
        Ok(())
    })?;
    Ok(match step.change {
        Change::DeviceReset => ModeChange::AfterReset,
        Change::Reboot => ModeChange::AfterReboot,
        Change::Live | Change::IdleDevice | Change::IdleNode => ModeChange::Done,
    })
}

/// Whether the order asks for the card's own mode, and what serves it died: it comes back with all
/// that is on the card.
fn is_dead_mode_of(card: &Card, order: &ModeOrder) -> bool {
    let same = |mode: &&Mode| {
        mode.dead && order.scheme.as_ref() == Some(&mode.scheme) && order.domain == mode.domain
    };
    card.mode.as_ref().is_some_and(|mode| same(&mode))
}

/// A mode change that is to be made.
struct Step {
    mode: Option<Mode>,
    change: Change,
    affects: Vec<DeviceId>,
    call: &'static str,
}

/// What the order comes to; `None` if the card is as wanted already.
fn plan(state: &State, card: &Card, order: &ModeOrder) -> Result<Option<Step>> {
    let device = describe(state, card);
    // A scheme that uses the card as it is needs the default mode.
    let wanted = match &order.scheme {
        None => None,
        Some(scheme) => {
            let info = device.scheme(scheme)?;
            let own = *scheme != Scheme::WHOLE
                && *scheme != Scheme::TIME_SLICE
                && *scheme != Scheme::VDCU;
            own.then_some(info)
        }
    };
    let current = card.mode.as_ref().map(|m| device.scheme(&m.scheme)).transpose()?;
    let mut affects = vec![card.id.clone()];
    for info in [wanted, current].into_iter().flatten() {
        if info.mode.affects.len() > affects.len() {
            affects.clone_from(&info.mode.affects);
        }
    }
    same_cards(&order.affected, &affects, card)?;
    let is_mps = |s: &Scheme| *s == Scheme::MPS || *s == Scheme::MPS_STATIC;
    let mode = match wanted {
        None => None,
        Some(info) if is_mps(&info.scheme) && order.domain.is_none() => {
            return Err(Error::new(
                ErrorKind::Invalid,
                "an MPS daemon serves one trust domain; name it in the mode order",
            )
            .with("device", &card.id));
        }
        Some(info) => {
            let domain = order.domain.clone().filter(|_| is_mps(&info.scheme));
            Some(Mode { scheme: info.scheme.clone(), domain, dead: false })
        }
    };
    if card.mode == mode && card.pending.as_ref().is_none_or(|p| *p == mode) {
        return Ok(None);
    }
    let change = if card.mode == mode {
        // Only a pending change is taken back.
        Change::Live
    } else {
        let enter = wanted.map(|info| info.mode.enter);
        enter.max(current.map(|info| info.mode.leave)).unwrap_or(Change::Live)
    };
    let named = wanted.or(current).map_or("whole", |info| info.scheme.as_str());
    Ok(Some(Step { mode, change, affects, call: switch(named) }))
}

fn same_cards(named: &[DeviceId], affects: &[DeviceId], card: &Card) -> Result<()> {
    let same = named.len() == affects.len() && affects.iter().all(|d| named.contains(d));
    if same {
        return Ok(());
    }
    let list = |ids: &[DeviceId]| ids.iter().map(DeviceId::as_str).collect::<Vec<_>>().join(" ");
    Err(Error::new(
        ErrorKind::Invalid,
        format!(
            "the mode of {} changes [{}], and the order names [{}]; empty and name exactly those",
            card.id,
            list(affects),
            list(named)
        ),
    ))
}

/// Whether nothing is in the way on this card.
fn idle(card: &Card) -> Result<(), Refusal> {
    if let Some(why) = &card.lost {
        return Err(Refusal::no(ErrorKind::Lost, format!("{} does not answer: {why}", card.id)));
    }
    if !card.parts.is_empty() {
        let why = format!("{} parts are on {}; destroy them first", card.parts.len(), card.id);
        return Err(Refusal::no(ErrorKind::Busy, why));
    }
    let held =
        card.holders > 0 || card.parts.iter().any(|p| p.listed.holders != Holders::Processes(0));
    if held {
        let why = format!("{} processes hold {}; end them first", card.holders, card.id);
        return Err(Refusal::no(ErrorKind::Busy, why));
    }
    Ok(())
}

/// The call that switches a scheme's mode on or off.
fn switch(scheme: &str) -> &'static str {
    match scheme {
        "hcu-mig" => "nvmlSetSystemMigMode",
        "mig" => "nvmlDeviceSetMigMode",
        "mim" => "cndevSetMimMode",
        "mps" | "mps-static" => "nvidia-cuda-mps-control",
        "smlu" => "cndevSetSMLUMode",
        _ => "default mode",
    }
}
