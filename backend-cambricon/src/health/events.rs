//! Events as the driver raises them: one set for all cards, opened when somebody waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::thread;
use std::time::{Duration, Instant};

use vgpu_core::Result;
use vgpu_core::health::{Event, Health as _, Meaning, Subject};

use crate::api::{CndevEvents, CndevFailure, RawEvent};
use crate::backend::CambriconBackend;
use crate::convert;

/// The set, and whom it watches. Its mutex is held while somebody waits, and nothing else takes it.
#[derive(Debug, Default)]
pub(crate) struct Events {
    set: Option<Box<dyn CndevEvents>>,
    watched: BTreeSet<u32>,
    /// Cards that could not be watched, and until when they are left alone.
    unwatched: BTreeMap<u32, Instant>,
    /// The library has no events; when to ask again.
    none_until: Option<Instant>,
}

impl CambriconBackend {
    /// Waits for events; where nothing can be watched the time just passes, and `check` tells how cards are.
    pub(crate) fn wait_for_events(&self, timeout: Duration) -> Result<Vec<Event>> {
        let end = Instant::now() + timeout.min(LONGEST_WAIT);
        // A panic in between leaves a set that is still good for waiting.
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = self.watch(&mut events).and_then(|()| next(&mut events, end));
        drop_if_failed(&mut events, &outcome);
        drop(events);
        match outcome {
            Ok(raw) => Ok(raw.iter().map(|event| self.told(event)).collect()),
            Err(failure) => {
                let left = end.saturating_duration_since(Instant::now());
                thread::sleep(left.min(self.options.pause));
                Err(convert::error(&failure))
            }
        }
    }

    /// Opens the set if there is none, and adds the cards that are not in it.
    fn watch(&self, events: &mut Events) -> std::result::Result<(), CndevFailure> {
        let now = Instant::now();
        if events.none_until.is_some_and(|until| now < until) {
            return Ok(());
        }
        events.none_until = None;
        let mut set = match events.set.take() {
            Some(set) => set,
            None => match self.api().open_events() {
                Ok(set) => set,
                Err(failure) if failure.is_unsupported() => {
                    events.none_until = Some(now + self.options.watch_again);
                    return Ok(());
                }
                Err(failure) => return Err(failure),
            },
        };
        for index in 0..self.api().device_count()? {
            let left_alone = events.unwatched.get(&index).is_some_and(|until| now < *until);
            if events.watched.contains(&index) || left_alone {
                continue;
            }
            match self.add(&mut *set, index) {
                Ok(true) => {
                    events.unwatched.remove(&index);
                    events.watched.insert(index);
                    // So that it has a name when it falls off.
                    self.cards.name(index);
                }
                Err(failure) if convert::is_of_the_driver(&failure) => return Err(failure),
                Ok(false) | Err(_) => {
                    events.unwatched.insert(index, now + self.options.watch_again);
                }
            }
        }
        events.set = Some(set);
        Ok(())
    }

    /// Whether the card has events that we understand and is now watched for them.
    fn add(
        &self,
        set: &mut dyn CndevEvents,
        index: u32,
    ) -> std::result::Result<bool, CndevFailure> {
        let types = self.api().supported_event_types(index)?;
        if types & XID == 0 {
            return Ok(false);
        }
        set.register(index, XID).map(|()| true)
    }

    /// What an XID means is not public, so that the card is asked how it is; it is suspect at least.
    fn told(&self, raw: &RawEvent) -> Event {
        let what = match raw.event_type {
            XID => format!("xid {}", raw.data),
            other => format!("event {other:#x} (unknown to this version), {}", raw.data),
        };
        let of = raw.instance.map(|id| format!(", instance {id}")).unwrap_or_default();
        let cause = what + &of;
        let Some(device) = raw.index.and_then(|index| self.cards.name(index)) else {
            return Event::now(Subject::Vendor, Meaning::Suspect, cause);
        };
        let now = self.check(&device).ok().and_then(|events| events.into_iter().next());
        let subject = Subject::Device(device);
        match now.filter(|now| now.meaning > Meaning::Suspect) {
            Some(now) => Event::now(subject, now.meaning, format!("{cause}; {}", now.cause)),
            None => Event::now(subject, Meaning::Suspect, cause),
        }
    }
}

/// The next event and what else is there already, or nothing at the end of the time.
fn next(events: &mut Events, end: Instant) -> std::result::Result<Vec<RawEvent>, CndevFailure> {
    let left = || end.saturating_duration_since(Instant::now());
    let Some(set) = events.set.as_mut().filter(|_| !events.watched.is_empty()) else {
        thread::sleep(left());
        return Ok(Vec::new());
    };
    let mut raw = Vec::new();
    let mut patience = left();
    while raw.len() < MOST_AT_ONCE {
        match set.wait(patience) {
            Ok(Some(event)) => raw.push(event),
            Ok(None) => break,
            // What came before is told first; the next wait meets the failure again.
            Err(_) if !raw.is_empty() => break,
            Err(failure) => return Err(failure),
        }
        patience = Duration::ZERO;
    }
    Ok(raw)
}

/// A set that failed is given up: the library may have been started anew, and knows it no more.
fn drop_if_failed<T>(events: &mut Events, outcome: &std::result::Result<T, CndevFailure>) {
    if outcome.is_err() {
        events.set = None;
        events.watched.clear();
        events.unwatched.clear();
    }
}

/// So that the end of the time can always be computed.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);
/// A storm comes in pieces of this many, so that a waiter gets something at all.
const MOST_AT_ONCE: usize = 256;
const XID: u64 = 1;
