//! The machine as it is now: the scenario, what the control file made of it, and who waits for events.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::abi::{
    DRIVER_NOT_LOADED, FUNCTION_NOT_FOUND, GPU_IS_LOST, Handle, INVALID_ARGUMENT, NOT_FOUND,
    NOT_SUPPORTED, SUCCESS, TIMEOUT, UNINITIALIZED, UNKNOWN,
};
use crate::die::{self, Death};
use crate::mig::MigState;
use crate::orders::{self, Order};
use crate::scenario::{Card, Control, Event, Scenario, State};
use crate::store::{Kept, Store};

/// A call's answer, or NVML's code for its failure.
pub(crate) type Answer<T> = Result<T, u32>;

static WORLD: Mutex<Option<World>> = Mutex::new(None);

/// How often a sleeping or waiting call looks at the control file.
const TICK: Duration = Duration::from_millis(10);

/// Handles are numbers beyond these, so that one kind is never taken for the other or for null.
const FIRST_MIG: Handle = 0xa000_0000;
const FIRST_COMPUTE: Handle = 0xb000_0000;
const FIRST_INSTANCE: Handle = 0xc000_0000;
const FIRST_CARD: Handle = 0xd000_0000;
const FIRST_SET: Handle = 0xe000_0000;

pub(crate) struct World {
    users: u32,
    pub(crate) scenario: Scenario,
    /// The cards with the control file's patches.
    cards: Vec<Arc<Card>>,
    control: Control,
    control_text: String,
    calls: HashMap<(String, Option<u32>), u64>,
    started: Instant,
    waits: u64,
    sets: BTreeMap<Handle, Set>,
    next_set: Handle,
    delivered: HashSet<Delivered>,
    kept: Store,
    /// Calls that are being slow now.
    slow: Vec<String>,
    /// Calls that were candidates for a death, by its id.
    pub(crate) met: HashMap<String, u64>,
}

#[derive(Default)]
struct Set {
    registered: HashMap<u32, u64>,
    queue: VecDeque<Event>,
}

/// Which events were given out: by place in the scenario, by id in the control file.
#[derive(PartialEq, Eq, Hash)]
enum Delivered {
    Controlled(String),
    Scripted(usize),
}

/// Starts NVML: the scenario is read by the first of its users.
pub(crate) fn start(function: &str) -> Answer<()> {
    {
        let mut guard = lock();
        let users = guard.as_ref().map_or(0, |world| world.users);
        if users == 0 {
            let mut world = World::read().map_err(|why| complain(&why))?;
            // Calls are counted for the whole process, so that "the first start fails" is over at the second.
            world.calls = guard.take().map(|old| old.calls).unwrap_or_default();
            *guard = Some(world);
        }
    }
    pause(function);
    let mut guard = lock();
    let world = guard.as_mut().ok_or(DRIVER_NOT_LOADED)?;
    world.poll();
    world.admit(function, None)?;
    if world.scenario.init != SUCCESS {
        return Err(world.scenario.init);
    }
    world.users += 1;
    Ok(())
}

pub(crate) fn stop() -> Answer<()> {
    let mut guard = lock();
    let world = guard.as_mut().filter(|world| world.users > 0).ok_or(UNINITIALIZED)?;
    world.users -= 1;
    Ok(())
}

/// A call that is of no card.
pub(crate) fn with<T>(function: &str, answer: impl FnOnce(&mut World) -> Answer<T>) -> Answer<T> {
    pause(function);
    let mut guard = lock();
    let world = guard.as_mut().filter(|world| world.users > 0).ok_or(UNINITIALIZED)?;
    world.poll();
    world.admit(function, None)?;
    answer(world)
}

/// A call on a card: the card as it is now, unless it is lost.
pub(crate) fn card(function: &str, handle: Handle) -> Answer<Arc<Card>> {
    let index = handle.checked_sub(FIRST_CARD).ok_or(INVALID_ARGUMENT)?;
    pause(&format!("{function}@{index}"));
    with(function, |world| {
        let card = Arc::clone(world.cards.get(index).ok_or(INVALID_ARGUMENT)?);
        world.admit(function, u32::try_from(index).ok())?;
        if card.state == State::Lost { Err(GPU_IS_LOST) } else { Ok(card) }
    })
}

pub(crate) fn index_of(handle: Handle) -> Answer<u32> {
    let index = handle.checked_sub(FIRST_CARD).ok_or(INVALID_ARGUMENT)?;
    u32::try_from(index).map_err(|_too_large| INVALID_ARGUMENT)
}

/// The second half of a call that was let through by [`card`].
pub(crate) fn locked<T>(answer: impl FnOnce(&mut World) -> Answer<T>) -> Answer<T> {
    let mut guard = lock();
    answer(guard.as_mut().filter(|world| world.users > 0).ok_or(UNINITIALIZED)?)
}

/// Waits for an event of a set; other calls go on meanwhile.
pub(crate) fn wait(function: &str, set: Handle, timeout: Duration) -> Answer<(Handle, Event)> {
    with(function, |world| {
        world.waits += 1;
        Ok(())
    })?;
    let start = Instant::now();
    loop {
        {
            let mut guard = lock();
            let world = guard.as_mut().filter(|world| world.users > 0).ok_or(UNINITIALIZED)?;
            world.poll();
            world.deliver();
            let queue = &mut world.sets.get_mut(&set).ok_or(INVALID_ARGUMENT)?.queue;
            if let Some(event) = queue.pop_front() {
                return Ok((handle(event.card), event));
            }
        }
        let left = timeout.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Err(TIMEOUT);
        }
        thread::sleep(left.min(TICK));
    }
}

impl World {
    fn read() -> Result<Self, String> {
        let name = std::env::var("FAKE_NVML").map_err(|_unset| {
            format!(
                "FAKE_NVML is not set; name a preset ({}) or a YAML file in it",
                crate::presets::NAMES.join(", ")
            )
        })?;
        let scenario = Scenario::named(&name)?;
        let cards = scenario.cards.iter().cloned().map(Arc::new).collect();
        Ok(Self {
            users: 0,
            cards,
            control: Control::default(),
            control_text: String::new(),
            calls: HashMap::new(),
            started: Instant::now(),
            waits: 0,
            sets: BTreeMap::new(),
            next_set: FIRST_SET,
            delivered: HashSet::new(),
            kept: Store::new(scenario.state.clone(), scenario.host_root.clone()),
            scenario,
            slow: Vec::new(),
            met: HashMap::new(),
        })
    }

    pub(crate) fn count(&self) -> u32 {
        let present = u32::try_from(self.cards.len()).unwrap_or(u32::MAX);
        self.scenario.device_count.unwrap_or(present)
    }

    pub(crate) fn handle_by_index(&self, index: u32) -> Answer<Handle> {
        let at = usize::try_from(index).map_err(|_too_large| INVALID_ARGUMENT)?;
        let card = self.cards.get(at).ok_or(INVALID_ARGUMENT)?;
        match (card.state, card.handle_code) {
            (State::Lost, _) => Err(GPU_IS_LOST),
            (State::Ok, SUCCESS) => Ok(handle(index)),
            (State::Ok, code) => Err(code),
        }
    }

    pub(crate) fn handle_by_uuid(&self, uuid: &[u8]) -> Answer<Handle> {
        let at = self.cards.iter().position(|card| card.uuid.as_bytes() == uuid);
        let index = at.and_then(|at| u32::try_from(at).ok()).ok_or(NOT_FOUND)?;
        self.handle_by_index(index)
    }

    pub(crate) fn create_set(&mut self) -> Handle {
        self.next_set += 1;
        self.sets.insert(self.next_set, Set::default());
        self.next_set
    }

    pub(crate) fn free_set(&mut self, set: Handle) -> Answer<()> {
        self.sets.remove(&set).map(|_freed| ()).ok_or(INVALID_ARGUMENT)
    }

    pub(crate) fn register(&mut self, set: Handle, card: u32, types: u64) -> Answer<()> {
        let at = usize::try_from(card).map_err(|_too_large| INVALID_ARGUMENT)?;
        let supported = self.cards.get(at).ok_or(INVALID_ARGUMENT)?.supported_events;
        let set = self.sets.get_mut(&set).ok_or(INVALID_ARGUMENT)?;
        if types & !supported != 0 {
            return Err(NOT_SUPPORTED);
        }
        *set.registered.entry(card).or_default() |= types;
        Ok(())
    }

    /// Reads or changes MIG.
    pub(crate) fn mig<T>(&mut self, call: impl FnOnce(&mut MigState) -> T) -> Answer<T> {
        self.kept(|kept| call(&mut kept.mig))
    }

    /// Reads or changes what outlives the process.
    pub(crate) fn kept<T>(&mut self, call: impl FnOnce(&mut Kept) -> T) -> Answer<T> {
        self.kept.with(&self.cards, call).map_err(|why| {
            eprintln!("fake_nvml: the state is not kept: {why}");
            UNKNOWN
        })
    }

    pub(crate) fn cards(&self) -> &[Arc<Card>] {
        &self.cards
    }

    pub(crate) fn orders(&self) -> &[Order] {
        &self.control.orders
    }

    pub(crate) fn deaths(&self) -> &[Death] {
        &self.control.die
    }

    /// An event that comes of a call and not of the scenario; nobody who asks later is told.
    pub(crate) fn raise(&mut self, card: u32, event_type: u64) {
        let asked =
            |set: &&mut Set| set.registered.get(&card).is_some_and(|types| types & event_type != 0);
        for set in self.sets.values_mut().filter(asked) {
            set.queue.push_back(Event::of(card, event_type));
        }
    }

    /// Counts a call and says whether the scenario lets it through.
    fn admit(&mut self, function: &str, card: Option<u32>) -> Answer<()> {
        if self.scenario.lacks.iter().any(|lacking| lacking == function) {
            return Err(FUNCTION_NOT_FOUND);
        }
        let calls = self.calls.entry((function.to_owned(), card)).or_default();
        *calls += 1;
        let mut rules = self.scenario.fail.iter().chain(&self.control.fail);
        let rule = rules.find(|rule| {
            rule.function == function
                && rule.card == card
                && rule.nth.is_none_or(|nth| nth == *calls)
        });
        if let Some(rule) = rule {
            return Err(rule.code);
        }
        if let Some(card) = card {
            die::judge(self, function, card);
        }
        Ok(())
    }

    /// Reads the control file and, when its text is another than the last, makes the cards anew.
    fn poll(&mut self) {
        let Some(path) = &self.scenario.control else {
            return;
        };
        // A file that is not there says nothing, as an empty one.
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if text == self.control_text {
            return;
        }
        match Control::parse(&text).and_then(|control| Ok((self.patched(&control)?, control))) {
            Ok((cards, control)) => {
                self.cards = cards;
                let changes = &control.cgroup_limits;
                // What cannot be kept is told where it fails.
                let _told = self.kept(|kept| changes.iter().for_each(|c| kept.limits.change(c)));
                self.control = control;
            }
            // The last good one stays; a writer that does not rename may be in the middle of it.
            Err(why) => {
                complain(&format!("control file {} is not used: {why}", path.display()));
            }
        }
        self.control_text = text;
        orders::carry_out(self);
    }

    fn patched(&self, control: &Control) -> Result<Vec<Arc<Card>>, String> {
        let mut cards = self.scenario.cards.clone();
        for (index, patch) in &control.cards {
            let card = usize::try_from(*index).ok().and_then(|index| cards.get_mut(index));
            let card = card.ok_or_else(|| format!("card {index} is not there"))?;
            *card = card.patched(patch).map_err(|e| format!("card {index}: {e}"))?;
        }
        Ok(cards.into_iter().map(Arc::new).collect())
    }

    /// Puts what is due into the queue of every set that asked for it; what nobody asked for yet stays.
    fn deliver(&mut self) {
        let scripted = self.scenario.events.iter().enumerate();
        let scripted = scripted.map(|(at, event)| (Delivered::Scripted(at), event));
        let controlled = self.control.events.iter();
        let controlled = controlled.map(|event| (Delivered::Controlled(event.id.clone()), event));
        for (key, event) in scripted.chain(controlled) {
            let early = event.after_ms.map(Duration::from_millis) > Some(self.started.elapsed())
                || event.on_wait > Some(self.waits);
            if early || self.delivered.contains(&key) {
                continue;
            }
            let asked = |set: &&mut Set| {
                set.registered.get(&event.card).is_some_and(|types| types & event.event_type != 0)
            };
            let mut wanted = false;
            for set in self.sets.values_mut().filter(asked) {
                set.queue.push_back(event.clone());
                wanted = true;
            }
            if wanted {
                self.delivered.insert(key);
            }
        }
    }

    /// Keeps the list of calls that are being slow in a file beside the control file.
    fn tell_slow(&mut self, function: &str, slow: bool) {
        match self.slow.iter().position(|name| name == function) {
            Some(at) if !slow => drop(self.slow.remove(at)),
            _ if slow => self.slow.push(function.to_owned()),
            _ => {}
        }
        if let Some(control) = &self.scenario.control {
            let text: String = self.slow.iter().map(|name| format!("{name}\n")).collect();
            if let Err(why) = std::fs::write(control.with_extension("slow"), text) {
                complain(&format!(
                    "what is slow cannot be told beside {}: {why}",
                    control.display()
                ));
            }
        }
    }

    fn latency(&self, function: &str) -> Duration {
        // What is slow on one card only (`function@card`) is so besides, so that `*` counts once.
        let any = (!function.contains('@')).then_some("*");
        let of = |map: &BTreeMap<String, u64>| {
            map.get(function).or_else(|| any.and_then(|any| map.get(any))).copied()
        };
        let controlled = of(&self.control.latency_ms);
        let milliseconds = controlled.or_else(|| of(&self.scenario.latency_ms)).unwrap_or(0);
        Duration::from_millis(milliseconds)
    }
}

/// Says on stderr what is wrong with the scenario; there is no other way out of a C library.
fn complain(why: &str) -> u32 {
    eprintln!("fake_nvml: {why}");
    DRIVER_NOT_LOADED
}

pub(crate) fn handle(card: u32) -> Handle {
    FIRST_CARD + usize::try_from(card).expect("a pointer has at least 32 bits")
}

pub(crate) fn gpu_instance(card: u32, id: u32) -> Handle {
    FIRST_INSTANCE + packed(card, id, 0)
}

pub(crate) fn compute_instance(card: u32, gpu: u32, id: u32) -> Handle {
    FIRST_COMPUTE + packed(card, gpu, id)
}

pub(crate) fn mig_device(card: u32, gpu: u32, compute: u32) -> Handle {
    FIRST_MIG + packed(card, gpu, compute)
}

pub(crate) fn gpu_instance_of(handle: Handle) -> Answer<(u32, u32)> {
    let (card, id, _) = unpacked(handle, FIRST_INSTANCE).ok_or(INVALID_ARGUMENT)?;
    Ok((card, id))
}

pub(crate) fn compute_instance_of(handle: Handle) -> Answer<(u32, u32, u32)> {
    unpacked(handle, FIRST_COMPUTE).ok_or(INVALID_ARGUMENT)
}

pub(crate) fn mig_device_of(handle: Handle) -> Option<(u32, u32, u32)> {
    unpacked(handle, FIRST_MIG)
}

/// Card, GPU instance and compute instance as one number.
fn packed(card: u32, gpu: u32, compute: u32) -> usize {
    let number = card << 16 | (gpu & 0xff) << 8 | (compute & 0xff);
    usize::try_from(number).expect("a pointer has at least 32 bits")
}

fn unpacked(handle: Handle, first: Handle) -> Option<(u32, u32, u32)> {
    let number = u32::try_from(handle.checked_sub(first)?).ok().filter(|n| *n < 1 << 28)?;
    Some((number >> 16, number >> 8 & 0xff, number & 0xff))
}

fn lock() -> MutexGuard<'static, Option<World>> {
    // The world is whole between statements that can panic, and a fake that answers is better than one that does not.
    WORLD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes as long as the scenario says, and looks again and again, so that a control file ends a call that hangs.
fn pause(function: &str) {
    let start = Instant::now();
    let mut told = false;
    loop {
        let left = {
            let mut guard = lock();
            let Some(world) = guard.as_mut() else {
                return;
            };
            world.poll();
            let left = world.latency(function).saturating_sub(start.elapsed());
            let slow = !left.is_zero();
            if slow != told {
                told = slow;
                world.tell_slow(function, slow);
            }
            left
        };
        if left.is_zero() {
            return;
        }
        thread::sleep(left.min(TICK));
    }
}
