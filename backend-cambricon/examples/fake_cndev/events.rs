//! Sets of events, and waiting on them.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::abi::{EventData, INVALID_ARGUMENT, TIMEOUT, UNINITIALIZED, VERSION};
use crate::world::{self, Answer, TICK};

/// An opaque pointer in C; here a number that nobody may look behind.
pub(crate) type Set = usize;

static SETS: Mutex<BTreeMap<Set, Watch>> = Mutex::new(BTreeMap::new());

struct Watch {
    /// The driver's start that it was made under.
    starts: u64,
    cards: BTreeMap<usize, u64>,
    told: HashSet<String>,
}

pub(crate) fn create(starts: u64) -> Set {
    let mut sets = lock();
    let set = 0xe000_0000 + sets.keys().next_back().map_or(0, |last| last - 0xe000_0000 + 1);
    sets.insert(set, Watch { starts, cards: BTreeMap::new(), told: HashSet::new() });
    set
}

pub(crate) fn destroy(set: Set) -> Answer<()> {
    lock().remove(&set).map(drop).ok_or(INVALID_ARGUMENT)
}

pub(crate) fn register(set: Set, card: usize, types: u64) -> Answer<()> {
    // What happened before somebody watched is told to nobody.
    let before = world::with("cndevRegisterEvents", |_, state| {
        let of_card = state.events.iter().filter(|e| e.card == card);
        Ok(of_card.map(|e| e.id.clone()).collect::<Vec<_>>())
    })?;
    let mut sets = lock();
    let watch = sets.get_mut(&set).ok_or(INVALID_ARGUMENT)?;
    watch.told.extend(before);
    watch.cards.insert(card, types);
    Ok(())
}

/// Waits for an event of a set; other calls go on meanwhile. Less than 0 milliseconds wait for good.
pub(crate) fn wait(set: Set, milliseconds: i32) -> Answer<EventData> {
    let start = Instant::now();
    let patience = u64::try_from(milliseconds).map_or(Duration::MAX, Duration::from_millis);
    loop {
        let found = world::with("cndevEventWait", |scenario, state| {
            let mut sets = lock();
            let watch = sets.get_mut(&set).ok_or(INVALID_ARGUMENT)?;
            if watch.starts != state.starts {
                return Err(UNINITIALIZED);
            }
            let new = state.events.iter().find(|event| {
                watch.cards.get(&event.card).is_some_and(|types| types & 1 != 0)
                    && !watch.told.contains(&event.id)
            });
            let Some(event) = new else { return Ok(None) };
            watch.told.insert(event.id.clone());
            let device = scenario.cards.get(event.card).map_or(-1, |card| card.handle);
            Ok(Some((device, event.data)))
        })?;
        if let Some((device, data)) = found {
            return Ok(EventData {
                version: VERSION.cast_unsigned(),
                device,
                data,
                kind: 1,
                at: 0,
                compute_instance: 0,
                instance: 0,
                spare: [0; 8],
            });
        }
        let left = patience.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Err(TIMEOUT);
        }
        thread::sleep(left.min(TICK));
    }
}

fn lock() -> MutexGuard<'static, BTreeMap<Set, Watch>> {
    SETS.lock().unwrap_or_else(PoisonError::into_inner)
}
