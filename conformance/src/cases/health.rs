//! `HLTH-*`: readings and events.

use std::time::Duration;

use vgpu_core::{Backend, ErrorKind, Event, Form, Grant, Meaning, Subject};

use crate::context::{Context, Outcome, Stop, ensure, nobody, played, refused};
use crate::fixture::Support;

/// Times that the suite asks for an empty list before it gives up; a guard, not a promise.
const MOST_WAITS: u32 = 100;

/// `HLTH-1`.
pub(crate) fn says_how_it_is(cx: &Context<'_>) -> Outcome {
    let id = cx.id()?;
    let first = first_of(cx, id)?;
    let told = first.meaning == Meaning::Good || !first.cause.is_empty();
    ensure!(told, "{id} is {} for no reason", first.meaning);
    let Some(faults) = cx.fixture.faults() else { return Ok(()) };
    ensure!(first.meaning == Meaning::Good, "a sound card is {}: {}", first.meaning, first.cause);
    played(faults.condition(id, Meaning::NeedsReset)?)?;
    let ill = first_of(cx, id)?;
    ensure!(ill.meaning != Meaning::Good, "a card that needs a reset is good");
    ensure!(!ill.cause.is_empty(), "a card that needs a reset is {} for no reason", ill.meaning);
    played(faults.condition(id, Meaning::Good)?)
}

/// `HLTH-2`.
pub(crate) fn unknown_card(cx: &Context<'_>) -> Outcome {
    let checked = cx.backend.check(&nobody());
    refused(checked, ErrorKind::NotFound, "the health of an unknown card").map(drop)
}

/// `HLTH-3`.
pub(crate) fn silent_is_lost(cx: &Context<'_>) -> Outcome {
    let id = cx.id()?;
    let neighbours = cx.neighbours()?;
    played(cx.faults()?.lose(id)?)?;
    let told = first_of(cx, id)?;
    ensure!(told.meaning == Meaning::Lost, "a silent card is {}: {}", told.meaning, told.cause);
    for other in neighbours {
        let told = first_of(cx, &other)?;
        let fine = told.meaning == Meaning::Good;
        ensure!(fine, "with {id} silent, {other} is {}: {}", told.meaning, told.cause);
    }
    Ok(())
}

/// `HLTH-4`.
pub(crate) fn good_again(cx: &Context<'_>) -> Outcome {
    let id = cx.id()?;
    let faults = cx.faults()?;
    played(faults.lose(id)?)?;
    let lost = first_of(cx, id)?;
    ensure!(lost.meaning == Meaning::Lost, "a silent card is {}", lost.meaning);
    played(faults.restore(id)?)?;
    let back = first_of(cx, id)?;
    ensure!(back.meaning == Meaning::Good, "back again, it is {}: {}", back.meaning, back.cause);
    ensure!(cx.card()?.id == *id, "back again, it is not scanned");
    Ok(())
}

/// `HLTH-5`.
pub(crate) fn empty_wait(cx: &Context<'_>) -> Outcome {
    cx.returns("waiting without events", |backend| drained(backend))??;
    Ok(())
}

/// `HLTH-6`.
pub(crate) fn events_once(cx: &Context<'_>) -> Outcome {
    let id = cx.id()?;
    let faults = cx.faults()?;
    cx.returns("waiting without events", |backend| drained(backend))??;
    let mut declined = None;
    let mut told = 0;
    for meaning in [Meaning::TenantFault, Meaning::Suspect, Meaning::NeedsReset] {
        // Not every vendor tells by its events whose fault it was.
        if let Support::Declined(why) = faults.event(id, meaning)? {
            declined = Some(why);
            continue;
        }
        told += 1;
        let wait = |backend: &dyn Backend| {
            let mut events = Vec::new();
            for _ in 0..MOST_WAITS {
                let new = backend.wait(Duration::from_millis(20))?;
                // An empty list after the event means that no more come.
                if new.is_empty() && !events.is_empty() {
                    break;
                }
                events.extend(new);
            }
            vgpu_core::Result::Ok(events)
        };
        let events: Vec<Event> = cx.returns("waiting for an event", wait)??;
        ensure!(!events.is_empty(), "the driver's event never came");
        ensure!(events.len() == 1, "one event came as {}: {events:?}", events.len());
        let event = &events[0];
        ensure!(event.subject.device().as_ref() == Some(id), "about {:?}", event.subject);
        ensure!(!event.cause.is_empty(), "an event without a cause: {event:?}");
        ensure!(event.meaning == meaning, "{meaning} was sent, {} came", event.meaning);
    }
    match (told, declined) {
        (0, Some(why)) => Err(Stop::Skip(why)),
        _ => Ok(()),
    }
}

/// `HLTH-7`.
pub(crate) fn bounded_use(cx: &Context<'_>) -> Outcome {
    let card = cx.card()?;
    let info = cx.info(&card)?;
    let used = cx.backend.usage(&Subject::Device(card.id.clone()))?;
    let memory = used.memory.is_none_or(|m| m <= card.memory);
    ensure!(memory, "{:?} in use on a card of {}", used.memory, card.memory);
    ensure!(used.busy_ppm.is_none_or(|b| b <= 1_000_000), "busy {:?} ppm", used.busy_ppm);
    if info.form == Form::Shared {
        return Ok(());
    }
    let target = cx.targets(1)?.pop().map(|t| t.grant);
    let Some(Grant::Part(id)) = target else {
        return Err(Stop::Skip("there is no part to read".into()));
    };
    let listed = cx.backend.partitions(&card.id)?;
    let Some(part) = listed.into_iter().find(|p| p.id == id) else {
        return Err(Stop::Fail(format!("{id} is not listed")));
    };
    let used = cx.backend.usage(&Subject::Part(id))?;
    if let Some(limit) = used.limit {
        ensure!(part.size.memory == Some(limit), "{} granted, the limit is {limit}", part.size);
    }
    let within = match (used.memory, part.size.memory) {
        (Some(memory), Some(limit)) => memory <= limit,
        _ => true,
    };
    ensure!(within, "{:?} in use in a part of {}", used.memory, part.size);
    ensure!(used.busy_ppm.is_none_or(|b| b <= 1_000_000), "busy {:?} ppm", used.busy_ppm);
    Ok(())
}

fn first_of(cx: &Context<'_>, id: &vgpu_core::DeviceId) -> Outcome<Event> {
    let events = cx.backend.check(id)?;
    let Some(first) = events.into_iter().next() else {
        return Err(Stop::Fail(format!("checking {id} says nothing")));
    };
    let about = first.subject == Subject::Device(id.clone());
    ensure!(about, "the first word of {id} is about {:?}", first.subject);
    Ok(first)
}

/// Reads events until none come.
fn drained(backend: &dyn Backend) -> Outcome {
    let mut last = Vec::new();
    for _ in 0..MOST_WAITS {
        last = backend.wait(Duration::from_millis(5))?;
        if last.is_empty() {
            return Ok(());
        }
    }
    Err(Stop::Fail(format!("events come without end, the last {last:?}")))
}
