//! What changes between two looks at the host's files, and the events of ROCm SMI.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use vgpu_core::health::{Event, Meaning, Subject};
use vgpu_core::{DeviceId, Result};

use crate::backend::HygonBackend;
use crate::health::{Reading, causes};
use crate::host;

/// What was seen last.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    cards: BTreeMap<DeviceId, Seen>,
    /// Cards whose events the library was asked for, by its numbers.
    asked: BTreeSet<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    answers: std::result::Result<(), String>,
    errors: Option<u64>,
}

impl HygonBackend {
    /// Takes the present as what is known; only what changes from here on is an event.
    pub(crate) fn begin_watch(&self) {
        let now = self.seen();
        self.watch().cards = now;
    }

    pub(crate) fn wait_for_events(&self, timeout: Duration) -> Result<Vec<Event>> {
        let until = Instant::now() + timeout;
        loop {
            self.same_driver()?;
            let events = self.changes();
            let left = until.saturating_duration_since(Instant::now());
            if !events.is_empty() || left.is_zero() {
                return Ok(events);
            }
            if let Some(event) = self.told(left.min(self.options.look)) {
                return Ok(vec![event]);
            }
        }
    }

    /// One event of the library, or nothing after `pause`.
    fn told(&self, pause: Duration) -> Option<Event> {
        let Some(smi) = &self.cards.smi else {
            thread::sleep(pause);
            return None;
        };
        for address in host::cards(&self.cards.tree) {
            let Ok(Some(index)) = smi.index(&address) else { continue };
            let new = self.watch().asked.insert(index);
            if new && smi.api.watch(index).is_err() {
                // Asked again at the next look: a driver may not be up yet.
                self.watch().asked.remove(&index);
            }
        }
        if self.watch().asked.is_empty() {
            thread::sleep(pause);
            return None;
        }
        match smi.api.next_event(pause) {
            Ok(Some(event)) => {
                let id = DeviceId::new(smi.address(event.index)?).ok()?;
                let (meaning, cause) = causes::event(event.kind);
                Some(Event::now(Subject::Device(id), meaning, cause))
            }
            Ok(None) => None,
            Err(_) => {
                // It may fail at once, again and again.
                thread::sleep(pause);
                None
            }
        }
    }

    fn changes(&self) -> Vec<Event> {
        // Read without the lock: reading a card may hang.
        let now = self.seen();
        let before = std::mem::replace(&mut self.watch().cards, now.clone());
        let mut events = Vec::new();
        let event = |id: &DeviceId, meaning, cause: String| {
            Event::now(Subject::Device(id.clone()), meaning, cause)
        };
        for (id, seen) in &now {
            let old = before.get(id);
            match (&seen.answers, old.map(|old| &old.answers)) {
                (Ok(()), Some(Ok(()))) | (Err(_), Some(Err(_))) => {}
                (Ok(()), _) => events.push(event(id, Meaning::Changed, "it is there".into())),
                (Err(why), _) => events.push(event(id, Meaning::Lost, why.clone())),
            }
            let counts = (seen.errors, old.and_then(|old| old.errors));
            if let (Some(count), Some(before)) = counts
                && count > before
            {
                let (meaning, cause) = causes::uncorrected(count);
                events.push(event(id, meaning, cause));
            }
        }
        events
    }

    fn seen(&self) -> BTreeMap<DeviceId, Seen> {
        let (found, lost) = self.cards.look();
        let answering = found.iter().map(|card| {
            let errors = match self.errors(card) {
                Reading::Told(count) => Some(count),
                Reading::Absent | Reading::Failed(_) => None,
            };
            (card.id.clone(), Seen { answers: Ok(()), errors })
        });
        let silent = lost.iter().filter_map(|lost| {
            let seen = Seen { answers: Err(lost.reason.to_string()), errors: None };
            Some((DeviceId::new(lost.name.as_str()).ok()?, seen))
        });
        answering.chain(silent).collect()
    }

    fn watch(&self) -> MutexGuard<'_, Watch> {
        // What was seen is whole after every statement, so a panic elsewhere does not spoil it.
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
