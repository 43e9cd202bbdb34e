//! Events as the driver raises them: one set for all cards, opened when somebody waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::thread;
use std::time::{Duration, Instant};

use vgpu_core::health::{Event, Meaning, Subject};
use vgpu_core::{DeviceId, Result};

use crate::api::{FIELD_RECOVERY_ACTION, NvmlEventSet, NvmlFailure, RawEvent};
use crate::backend::NvidiaBackend;
use crate::convert;
use crate::health::xid::{self, XID_RECOVERY_ACTION};

/// The set, and whom it watches. Its mutex is held while somebody waits, and nothing else takes it.
#[derive(Debug, Default)]
pub(crate) struct Events {
    set: Option<Box<dyn NvmlEventSet>>,
    watched: BTreeSet<u32>,
    /// Cards that could not be watched, and until when they are left alone.
    unwatched: BTreeMap<u32, Instant>,
    /// Cards that a set watched which was given up since.
    before: BTreeSet<u32>,
    /// The library has no events; when to ask again.
    none_until: Option<Instant>,
}

impl NvidiaBackend {
    /// Waits for events. A card that was watched and turns out lost when the set is made anew is an
    /// event too; where nothing can be watched the time just passes, and `check` tells how cards are.
    pub(crate) fn wait_for_events(&self, timeout: Duration) -> Result<Vec<Event>> {
        let timeout = timeout.min(LONGEST_WAIT);
        let end = Instant::now() + timeout;
        // A panic in between leaves a set that is still good for waiting.
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = self.watch(&mut events).and_then(|told| match told.is_empty() {
            true => self.next(&mut events, end),
            false => Ok(told),
        });
        match outcome {
            Ok(told) => Ok(told),
            Err(failure) => self.recover(&mut events, &failure, end),
        }
    }

    /// Opens the set if there is none, and adds the cards that are not in it.
    fn watch(&self, events: &mut Events) -> std::result::Result<Vec<Event>, NvmlFailure> {
        let now = Instant::now();
        if events.none_until.is_some_and(|until| now < until) {
            return Ok(Vec::new());
        }
        events.none_until = None;
        if events.set.is_none() {
            match self.api().open_event_set() {
                Ok(set) => events.set = Some(set),
                Err(failure) if failure.is_unsupported() => {
                    events.none_until = Some(now + self.options.watch_again);
                    return Ok(Vec::new());
                }
                Err(failure) => return Err(failure),
            }
        }
        let mut told = Vec::new();
        for index in 0..self.api().device_count()? {
            let left_alone = events.unwatched.get(&index).is_some_and(|until| now < *until);
            if events.watched.contains(&index) || left_alone {
                continue;
            }
            match self.add(events, index) {
                Ok(true) => {
                    events.unwatched.remove(&index);
                    events.before.remove(&index);
                    events.watched.insert(index);
                    // So that it has a name when it falls off.
                    self.cards.name(index);
                }
                Ok(false) => {
                    events.unwatched.insert(index, now + self.options.watch_again);
                }
                Err(failure) if convert::is_of_the_driver(&failure) => return Err(failure),
                Err(failure) => {
                    events.unwatched.insert(index, now + self.options.watch_again);
                    told.extend(self.fell_off(events, index, &failure));
                }
            }
        }
        Ok(told)
    }

    /// Whether the card has events that we understand and is now watched for them.
    fn add(&self, events: &mut Events, index: u32) -> std::result::Result<bool, NvmlFailure> {
        let Some(set) = &mut events.set else {
            return Ok(false);
        };
        let added = match self.api().supported_event_types(index) {
            Ok(types) if types & UNDERSTOOD == 0 => return Ok(false),
            Ok(types) => set.register(index, types & UNDERSTOOD),
            Err(failure) => Err(failure),
        };
        match added {
            Ok(()) => Ok(true),
            Err(failure) if failure.is_unsupported() => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// The event of a card that was watched before and is gone, once.
    fn fell_off(&self, events: &mut Events, index: u32, failure: &NvmlFailure) -> Option<Event> {
        if !failure.is_lost() || !events.before.remove(&index) {
            return None;
        }
        let subject = subject(self.cards.name(index));
        Some(Event::now(subject, Meaning::Lost, failure.to_string()))
    }

    /// The next event and what else is there already, or nothing at the end of the time.
    fn next(
        &self,
        events: &mut Events,
        end: Instant,
    ) -> std::result::Result<Vec<Event>, NvmlFailure> {
        let left = end.saturating_duration_since(Instant::now());
        let Some(set) = events.set.as_mut().filter(|_| !events.watched.is_empty()) else {
            thread::sleep(left);
            return Ok(Vec::new());
        };
        let mut raw: Vec<RawEvent> = set.wait(left)?.into_iter().collect();
        while !raw.is_empty() && raw.len() < MOST_AT_ONCE {
            match set.wait(Duration::ZERO) {
                Ok(Some(event)) => raw.push(event),
                Ok(None) => break,
                // What was read is told first; the next wait makes the set anew.
                Err(_) => {
                    events.forget();
                    break;
                }
            }
        }
        Ok(raw.iter().map(|event| self.told(event)).collect())
    }

    /// After a failed wait: the set is given up. A lost card is looked for at once, since NVML only
    /// says that there is one; everything else is told after a pause.
    fn recover(
        &self,
        events: &mut Events,
        failure: &NvmlFailure,
        end: Instant,
    ) -> Result<Vec<Event>> {
        events.forget();
        if failure.is_lost()
            && let Ok(told) = self.watch(events)
            && !told.is_empty()
        {
            return Ok(told);
        }
        let left = end.saturating_duration_since(Instant::now());
        thread::sleep(left.min(self.options.pause));
        Err(convert::error(failure))
    }

    fn told(&self, raw: &RawEvent) -> Event {
        let Some(index) = raw.index else {
            let cause = format!("{} of a card that is not watched", named(raw));
            return Event::now(Subject::Vendor, Meaning::Suspect, cause);
        };
        let (meaning, cause) = self.meaning(index, raw);
        let card = self.cards.name(index);
        // What asks for a reset is about the whole card, whoever was on it.
        let part = match (&card, raw.gpu_instance) {
            (Some(card), Some(gpu)) if meaning < Meaning::Resetting => {
                self.part_of_instance(card, gpu)
            }
            _ => None,
        };
        let subject = part.map_or_else(|| subject(card), Subject::Part);
        Event::now(subject, meaning, cause + &instances(raw))
    }

    fn meaning(&self, index: u32, raw: &RawEvent) -> (Meaning, String) {
        let says = named(raw);
        let asks_recovery = matches!(raw.event_type, UNAVAILABLE | RECOVERY_ACTION)
            || (raw.event_type == XID && raw.data == XID_RECOVERY_ACTION);
        if asks_recovery
            && let Ok(action @ 1..) = self.api().field_value(index, FIELD_RECOVERY_ACTION)
        {
            let (meaning, what) = xid::recovery_action(action);
            return (meaning, format!("{says}, recovery action {action}: {what}"));
        }
        let meaning = match raw.event_type {
            XID => xid::xid(raw.data).meaning,
            MIG_CONFIG => Meaning::Changed,
            UNAVAILABLE => Meaning::Lost,
            DOUBLE_BIT | DRAM_RETIRED | DRAM_NOT_RETIRED | FATAL_POISON => Meaning::NeedsReset,
            _ => Meaning::Suspect,
        };
        (meaning, says)
    }
}

impl Events {
    /// Gives the set up; whom it watched is remembered until it is watched again or told lost.
    fn forget(&mut self) {
        self.set = None;
        self.unwatched.clear();
        self.before.append(&mut self.watched);
    }
}

/// So that the end of the time can always be computed.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);
/// A storm comes in pieces of this many, so that a waiter gets something at all.
const MOST_AT_ONCE: usize = 256;

const DOUBLE_BIT: u64 = 0x2;
const XID: u64 = 0x8;
const MIG_CONFIG: u64 = 0x100;
const SINGLE_BIT_STORM: u64 = 0x200;
const DRAM_RETIRED: u64 = 0x400;
const DRAM_NOT_RETIRED: u64 = 0x800;
const POISON: u64 = 0x1000;
const FATAL_POISON: u64 = 0x2000;
const UNAVAILABLE: u64 = 0x4000;
const RECOVERY_ACTION: u64 = 0x8000;

/// What is asked for. Not each corrected bit, nor clocks and power: they say nothing of health.
const UNDERSTOOD: u64 = DOUBLE_BIT
    | XID
    | MIG_CONFIG
    | SINGLE_BIT_STORM
    | DRAM_RETIRED
    | DRAM_NOT_RETIRED
    | POISON
    | FATAL_POISON
    | UNAVAILABLE
    | RECOVERY_ACTION;

fn named(raw: &RawEvent) -> String {
    let name = match raw.event_type {
        XID => {
            let row = xid::xid(raw.data);
            return format!("xid {} ({}; {})", raw.data, row.name, row.action.words());
        }
        DOUBLE_BIT => "double bit memory error",
        MIG_CONFIG => "MIG configuration changed",
        SINGLE_BIT_STORM => "storm of single bit memory errors",
        DRAM_RETIRED => "memory retired",
        DRAM_NOT_RETIRED => "memory could not be retired",
        POISON => "poisoned memory was read",
        FATAL_POISON => "poisoned memory was read, fatal",
        UNAVAILABLE => "the card is unavailable",
        RECOVERY_ACTION => "recovery action changed",
        _ => "unknown to this version",
    };
    format!("event {:#x} ({name})", raw.event_type)
}

/// Which MIG instance it was, for the one who reads it and for the parts to come.
fn instances(raw: &RawEvent) -> String {
    let gpu = raw.gpu_instance.map(|id| format!(", GPU instance {id}"));
    let compute = raw.compute_instance.map(|id| format!(", compute instance {id}"));
    gpu.into_iter().chain(compute).collect()
}

/// A card without a name cannot be told from the others.
fn subject(name: Option<DeviceId>) -> Subject {
    name.map_or(Subject::Vendor, Subject::Device)
}
