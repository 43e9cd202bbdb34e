//! The library: whether it is started, who may call, how long a call takes, and which card a handle is.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::abi::{
    IN_PROBLEM, INVALID_ARGUMENT, INVALID_DEVICE_ID, NO_DRIVER, NO_PERMISSION, NOT_FOUND,
    NOT_SUPPORTED, UNINITIALIZED, UNKNOWN,
};
use crate::scenario::{self, Era, Scenario};
use crate::state::{self, State, Store};

/// A call's answer, or the library's code for its failure.
pub(crate) type Answer<T> = Result<T, i32>;

/// How often a slow or waiting call looks at the state.
pub(crate) const TICK: Duration = Duration::from_millis(5);

static WORLD: Mutex<Option<World>> = Mutex::new(None);

struct World {
    scenario: Scenario,
    store: Store,
    /// The driver's start that the library was started on; none while it is not started.
    started: Option<u64>,
    slow: Vec<String>,
}

/// One card, while nobody else changes the machine.
pub(crate) struct Here<'w> {
    pub(crate) era: Era,
    pub(crate) index: usize,
    pub(crate) card: &'w scenario::Card,
    pub(crate) state: &'w mut state::Card,
}

/// Starts the library: the scenario is read the first time.
pub(crate) fn start() -> Answer<()> {
    pause("cndevInit", None);
    let mut guard = lock();
    if guard.is_none() {
        *guard = Some(World::read().map_err(|why| complain(&why))?);
    }
    let world = guard.as_mut().ok_or(NO_DRIVER)?;
    let (down, starts, code) =
        world.state(|s| (s.down, s.starts, failing(s, "cndevInit", None)))?;
    if down {
        world.started = None;
        return Err(NO_DRIVER);
    }
    code?;
    world.started = Some(starts);
    Ok(())
}

pub(crate) fn stop() -> Answer<()> {
    let mut guard = lock();
    let world = guard.as_mut().ok_or(UNINITIALIZED)?;
    world.started.take().map(drop).ok_or(UNINITIALIZED)
}

/// A call that is of no card.
pub(crate) fn with<T>(
    function: &str,
    answer: impl FnOnce(&Scenario, &mut State) -> Answer<T>,
) -> Answer<T> {
    pause(function, None);
    locked(function, None, false, answer)
}

/// A call on a card; `changes` for one that changes something.
pub(crate) fn on<T>(
    function: &str,
    handle: i32,
    changes: bool,
    answer: impl FnOnce(Here<'_>) -> Answer<T>,
) -> Answer<T> {
    let index = index_of(|card| card.handle == handle)?;
    at(function, index, changes, answer)
}

/// A call on an instance, by its handle.
pub(crate) fn on_instance<T>(
    function: &str,
    handle: i32,
    changes: bool,
    answer: impl FnOnce(Here<'_>, i32) -> Answer<T>,
) -> Answer<T> {
    let index = index_of(|card| card.minor.cast_signed() == handle & 0xff)?;
    at(function, index, changes, |here| answer(here, handle >> 8))
}

/// The handle of the card with this index.
pub(crate) fn handle_at(index: i32) -> Answer<i32> {
    let function = "cndevGetDeviceHandleByIndex";
    let found = usize::try_from(index).map_err(|_below| INVALID_ARGUMENT)?;
    let handle = with(function, |scenario, _| {
        scenario.cards.get(found).map(|card| card.handle).ok_or(INVALID_ARGUMENT)
    })?;
    at(function, found, false, |_| Ok(handle))
}

/// Of two cards.
pub(crate) fn pair<T>(
    function: &str,
    one: i32,
    other: i32,
    answer: impl FnOnce(&scenario::Card, &scenario::Card) -> Answer<T>,
) -> Answer<T> {
    on(function, one, false, |_| Ok(()))?;
    on(function, other, false, |_| Ok(()))?;
    with(function, |scenario, _| {
        let find = |handle| scenario.cards.iter().find(|c| c.handle == handle);
        let (one, other) =
            (find(one).ok_or(INVALID_DEVICE_ID)?, find(other).ok_or(INVALID_DEVICE_ID)?);
        answer(one, other)
    })
}

/// Refuses what the scenario's release does not have.
pub(crate) fn since(era: Era) -> Answer<()> {
    let guard = lock();
    let world = guard.as_ref().ok_or(UNINITIALIZED)?;
    self::era(world.scenario.era, era)
}

/// The same, where the release is at hand.
pub(crate) fn era(has: Era, wants: Era) -> Answer<()> {
    if has < wants { Err(NOT_SUPPORTED) } else { Ok(()) }
}

fn at<T>(
    function: &str,
    index: usize,
    changes: bool,
    answer: impl FnOnce(Here<'_>) -> Answer<T>,
) -> Answer<T> {
    pause(function, Some(index));
    let mut dies = false;
    let outcome = locked(function, Some(index), changes, |scenario, state| {
        let permitted = state.permitted;
        let (card, now) = (&scenario.cards[index], &mut state.cards[index]);
        if now.lost {
            return Err(IN_PROBLEM);
        }
        if now.crash_after == Some(0) {
            return Err(UNKNOWN);
        }
        if changes && !permitted {
            return Err(NO_PERMISSION);
        }
        let answered = answer(Here { era: scenario.era, index, card, state: &mut *now });
        if changes && answered.is_ok() {
            now.crash_after = now.crash_after.map(|left| left.saturating_sub(1));
            if now.die_after.is_some() {
                now.die_after = now.die_after.and_then(|left| left.checked_sub(1));
                dies = now.die_after.is_none_or(|left| left == 0);
            }
            if dies {
                now.die_after = None;
            }
        }
        answered
    });
    if dies {
        // As by SIGKILL: nothing of the caller runs any more.
        std::process::abort();
    }
    outcome
}

fn locked<T>(
    function: &str,
    index: Option<usize>,
    changes: bool,
    answer: impl FnOnce(&Scenario, &mut State) -> Answer<T>,
) -> Answer<T> {
    let mut guard = lock();
    let world = guard.as_mut().ok_or(UNINITIALIZED)?;
    let (started, scenario) = (world.started, &world.scenario);
    let act = |state: &mut State| {
        if state.down {
            return Err(NO_DRIVER);
        }
        if started != Some(state.starts) {
            return Err(UNINITIALIZED);
        }
        failing(state, function, index)?;
        answer(scenario, state)
    };
    let outcome = match changes {
        true => world.store.change(act),
        false => world.store.look(|state| act(&mut state.clone())),
    };
    outcome.map_err(|why| complain(&why))?
}

fn failing(state: &State, function: &str, index: Option<usize>) -> Answer<()> {
    let rule = state.fail.iter().find(|rule| {
        rule.function == function
            && (rule.card == index || (rule.card.is_none() && index.is_some()))
    });
    rule.map_or(Ok(()), |rule| Err(rule.code))
}

fn index_of(is: impl Fn(&scenario::Card) -> bool) -> Answer<usize> {
    let guard = lock();
    let world = guard.as_ref().ok_or(UNINITIALIZED)?;
    world.scenario.cards.iter().position(is).ok_or(INVALID_DEVICE_ID)
}

pub(crate) fn by_pci(address: &str) -> Answer<i32> {
    let function = "cndevGetDeviceHandleByPciBusId";
    let handle = with(function, |scenario, _| {
        let found = scenario.cards.iter().find(|card| card.pci == address);
        found.map(|card| card.handle).ok_or(NOT_FOUND)
    })?;
    on(function, handle, false, |_| Ok(handle))
}

impl World {
    fn read() -> Result<Self, String> {
        let name = std::env::var("FAKE_CNDEV").map_err(|_unset| {
            let presets = crate::presets::NAMES.join(", ");
            format!("FAKE_CNDEV is not set; name a preset ({presets}) or a YAML file in it")
        })?;
        let scenario = Scenario::named(&name)?;
        let store = Store::open(&scenario)?;
        Ok(Self { scenario, store, started: None, slow: Vec::new() })
    }

    fn state<T>(&mut self, look: impl FnOnce(&State) -> T) -> Answer<T> {
        self.store.look(look).map_err(|why| complain(&why))
    }
}

/// Takes as long as the state says, and looks again and again, so that a change of it ends a call that hangs.
fn pause(function: &str, index: Option<usize>) {
    let name = index.map_or_else(|| function.to_owned(), |index| format!("{function}@{index}"));
    let start = Instant::now();
    let mut told = false;
    loop {
        let left = {
            let mut guard = lock();
            let Some(world) = guard.as_mut() else { return };
            let asked = world.state(|s| s.latency_ms.get(&name).copied()).unwrap_or_default();
            let whole = Duration::from_millis(asked.unwrap_or(0));
            let left = whole.saturating_sub(start.elapsed());
            let slow = !left.is_zero();
            if slow != told {
                told = slow;
                match world.slow.iter().position(|n| *n == name) {
                    Some(at) if !slow => drop(world.slow.remove(at)),
                    _ if slow => world.slow.push(name.clone()),
                    _ => {}
                }
                world.store.tell_slow(&world.slow);
            }
            left
        };
        if left.is_zero() {
            return;
        }
        thread::sleep(left.min(TICK));
    }
}

/// Says on stderr what is wrong with the scenario; there is no other way out of a C library.
fn complain(why: &str) -> i32 {
    eprintln!("fake_cndev: {why}");
    NO_DRIVER
}

fn lock() -> MutexGuard<'static, Option<World>> {
    // The world is whole between statements that can panic, and a fake that answers is better than one that does not.
    WORLD.lock().unwrap_or_else(PoisonError::into_inner)
}
