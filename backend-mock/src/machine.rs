//! A scripted node that all backends share and that outlives them.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vgpu_core::{DeviceId, Error, ErrorKind, Partition, PartitionId, Vendor};

use crate::Result;
use crate::faults::Faults;
use crate::schemes;
use crate::script::{Action, Calls, Here, Moment, Op, consume};
use crate::spec::MachineSpec;
use crate::state::State;
use crate::store::{Kept, Store};
use crate::vendor;

/// A scripted node: cards of any mix of vendors.
///
/// All backends of it share it, and it outlives them, so that reopening, crashing and rebooting can
/// be played. With a file ([`Machine::open`]) it outlives the process too, and several processes
/// may use it at once.
#[derive(Debug)]
pub struct Machine {
    kept: Mutex<Kept>,
    store: Option<Store>,
    calls: Mutex<Calls>,
    changed: Condvar,
}

impl Machine {
    /// A machine of that description, freshly booted.
    ///
    /// # Errors
    /// `Invalid` for two cards of one id, `Unsupported` for a mode that a card does not have.
    pub fn new(spec: impl Into<MachineSpec>) -> Result<Arc<Self>> {
        Ok(Self::of(Kept::in_memory(State::new(spec.into())?), None))
    }

    /// The machine that the file at `path` holds; one of that description if there is no file yet.
    ///
    /// # Errors
    /// As [`Machine::new`], `Io`, and `Invalid` for a file that is something else.
    pub fn open(path: &Path, spec: impl Into<MachineSpec>) -> Result<Arc<Self>> {
        let store = Store::new(path);
        let locked = store.lock()?;
        let kept = match store.load()? {
            Some(kept) => kept,
            None => locked.save(State::new(spec.into())?)?,
        };
        drop(locked);
        Ok(Self::of(kept, Some(store)))
    }

    /// The handle that plays faults.
    pub fn faults(self: &Arc<Self>) -> Faults {
        Faults::new(Arc::clone(self))
    }

    /// How often operations and vendor calls were begun through backends of this value.
    pub fn calls(&self) -> Calls {
        held(&self.calls).clone()
    }

    /// The boot's id, another after each reboot; in the form of `/proc/sys/kernel/random/boot_id`.
    ///
    /// # Errors
    /// `Io` if the machine's file cannot be read.
    pub fn boot_id(&self) -> Result<String> {
        self.read(|state| crate::state::uuid(9, state.boot))
    }

    /// The ids of all cards, lost ones included, in order.
    ///
    /// # Errors
    /// As [`Machine::boot_id`].
    pub fn devices(&self) -> Result<Vec<DeviceId>> {
        self.read(|state| state.cards.iter().map(|c| c.id.clone()).collect())
    }

    /// The ids of the cards of one vendor, lost ones included, in order.
    ///
    /// # Errors
    /// As [`Machine::boot_id`].
    pub fn devices_of(&self, vendor: &Vendor) -> Result<Vec<DeviceId>> {
        let of = |state: &State| {
            let cards = state.cards.iter().filter(|c| c.vendor() == *vendor);
            cards.map(|c| c.id.clone()).collect()
        };
        self.read(of)
    }

    /// What the hardware really holds on a card, without any vendor call: the judge's view.
    ///
    /// # Errors
    /// `NotFound`, and as [`Machine::boot_id`].
    pub fn truth(&self, device: &DeviceId) -> Result<Vec<Partition>> {
        self.read(|state| Ok(state.card(device)?.parts.iter().map(|p| p.listed.clone()).collect()))?
    }

    /// What the hardware really holds on all cards.
    ///
    /// # Errors
    /// As [`Machine::boot_id`].
    pub fn all_parts(&self) -> Result<Vec<PartitionId>> {
        self.read(|state| {
            let parts = state.cards.iter().flat_map(|c| &c.parts);
            parts.map(|p| p.listed.id.clone()).collect()
        })
    }

    /// The card as a sound backend describes it.
    ///
    /// # Errors
    /// `NotFound`, and as [`Machine::boot_id`].
    pub fn describe(&self, device: &DeviceId) -> Result<vgpu_core::Device> {
        self.read(|state| Ok(schemes::describe(state, state.card(device)?)))?
    }

    fn of(kept: Kept, store: Option<Store>) -> Arc<Self> {
        Arc::new(Self {
            kept: Mutex::new(kept),
            store,
            calls: Mutex::new(Calls::default()),
            changed: Condvar::new(),
        })
    }

    /// Looks at the state as it is now.
    pub(crate) fn read<R>(&self, look: impl FnOnce(&State) -> R) -> Result<R> {
        let mut kept = held(&self.kept);
        if let Some(store) = &self.store {
            store.refresh(&mut kept)?;
        }
        Ok(look(&kept.state))
    }

    /// Changes the state, or leaves it exactly as it was if `change` fails.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut State) -> Result<R>) -> Result<R> {
        let mut kept = held(&self.kept);
        let locked = self.store.as_ref().map(Store::lock).transpose()?;
        if let Some(store) = &self.store {
            store.refresh(&mut kept)?;
        }
        let mut next = kept.state.clone();
        let result = change(&mut next)?;
        *kept = match &locked {
            Some(locked) => locked.save(next)?,
            None => Kept::in_memory(next),
        };
        drop(locked);
        drop(kept);
        self.changed.notify_all();
        Ok(result)
    }

    /// Waits until `look` finds something, at most until `deadline`; `None` waits for good.
    pub(crate) fn wait_for<R>(
        &self,
        deadline: Option<Instant>,
        mut look: impl FnMut(&State) -> Option<R>,
    ) -> Result<Option<R>> {
        loop {
            if let Some(found) = self.read(&mut look)? {
                return Ok(Some(found));
            }
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(None);
            }
            // A change in another process wakes nobody here, so the wait looks again by itself.
            let nap = Duration::from_millis(if self.store.is_some() { 20 } else { 50 });
            let nap = left.map_or(nap, |left| left.min(nap));
            let guard = held(&self.kept);
            drop(self.changed.wait_timeout(guard, nap).unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Counts a call and plays what the script has for it. No lock is held meanwhile, so that a
    /// call that hangs holds up nobody else.
    pub(crate) fn play(&self, here: Here<'_>, vendor: &Vendor) -> Result<(), Stop> {
        if here.moment == Moment::Before {
            let mut calls = held(&self.calls);
            match here.call {
                Some(call) => *calls.vendor.entry(call.to_owned()).or_default() += 1,
                None => *calls.operations.entry(here.op).or_default() += 1,
            }
        }
        if self.read(|state| state.rules.is_empty())? {
            return Ok(());
        }
        let Some((id, action)) = self.change(|state| Ok(consume(&mut state.rules, here)))? else {
            return Ok(());
        };
        match action {
            Action::AbortAfter | Action::AbortBefore => std::process::abort(),
            Action::CrashAfter | Action::CrashBefore => Err(Stop::Crash),
            Action::Fail(kind) => Err(Stop::Failed(match here.call {
                Some(call) => vendor::refuse(vendor, call, kind, "the script makes it fail"),
                None => Error::new(kind, format!("the script makes {} fail", here.op)),
            })),
            Action::Hang => {
                self.wait_for(None, |state| {
                    state.rules.iter().all(|rule| rule.id != id).then_some(())
                })?;
                Ok(())
            }
            Action::Latency(time) => {
                std::thread::sleep(time);
                Ok(())
            }
        }
    }
}

/// Why an operation stops.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The process is played dead: nothing is undone.
    Crash,
    /// A call failed: what was done is undone.
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Stop> for Error {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Crash => Self::new(
                ErrorKind::InDoubt,
                "the script ends the process here; what was begun is left as it is",
            ),
            Stop::Failed(error) => error,
        }
    }
}

/// A call that is about no card.
pub(crate) fn start(op: Op, device: Option<&DeviceId>) -> Here<'_> {
    Here { op, call: None, device, moment: Moment::Before }
}

/// The value behind a mutex; a panic elsewhere leaves a consistent state, since changes are made on
/// a copy.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
