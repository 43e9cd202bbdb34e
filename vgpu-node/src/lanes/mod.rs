//! Calls to a driver that may hang: the deadline is on the caller, never on the call.
//!
//! A vendor call cannot be cancelled. So each runs on a thread that has nothing else to do, and its
//! caller waits only so long. What a change came to is in doubt after that: the card's lane is shut
//! until the call returns. A read that hangs is left behind, and the next one gets another thread.

mod call;
mod late;
mod stuck;
#[cfg(test)]
pub(crate) mod tests;
mod turn;
mod workers;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use vgpu_core::backend::Backend;
use vgpu_core::error::{Error, ErrorKind, Result};
use vgpu_core::health::{Event, Meaning};
use vgpu_core::id::{DeviceId, Vendor};

use crate::points::FaultPoints;
use call::{Meeting, caught};
use late::Late;
use stuck::StuckCalls;
use turn::{Lane, Turns};
use workers::Workers;

pub(crate) use call::Alone;
pub use stuck::StuckCall;

/// How lanes behave.
#[derive(Debug, Clone)]
pub struct LaneOptions {
    /// How long a caller waits, in the queue and for the call together.
    pub deadline: Duration,
    /// How many calls of a backend may be stuck; with so many it is broken.
    pub stuck_limit: usize,
    /// Where tests end the agent.
    pub points: FaultPoints,
}

impl Default for LaneOptions {
    /// 25 s, below the kubelet's 30 s; 4 stuck calls.
    fn default() -> Self {
        Self { deadline: Duration::from_secs(25), stuck_limit: 4, points: FaultPoints::default() }
    }
}

/// All lanes of one backend.
///
/// Readers that wait behind one another share a lane: one for calls about the whole vendor, one for
/// each card, one for events. A card's changes have a lane of their own, so that a card can be read
/// while it is changed.
#[derive(Clone)]
pub struct Lanes {
    backend: Arc<dyn Backend>,
    vendor: Vendor,
    options: LaneOptions,
    lanes: Arc<Mutex<BTreeMap<Key, Arc<Lane>>>>,
    stuck: Arc<StuckCalls>,
    workers: Arc<Workers>,
    late: Arc<Late>,
    replaced: Arc<AtomicBool>,
    /// Lanes of the same cards whose calls may still come back.
    before: Option<Arc<Self>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Change(DeviceId),
    Events,
    Read(Option<DeviceId>),
}

impl Lanes {
    /// Lanes for one backend. Asks it once who it is, on this thread.
    pub fn new(backend: Arc<dyn Backend>, options: LaneOptions) -> Arc<Self> {
        let vendor = backend.info().vendor;
        Self::after(None, backend, vendor, options)
    }

    /// Lanes for a backend that takes the place of a broken one: a card whose last change through
    /// `before` has not returned stays shut.
    pub fn after(
        before: Option<Arc<Self>>,
        backend: Arc<dyn Backend>,
        vendor: Vendor,
        options: LaneOptions,
    ) -> Arc<Self> {
        let before = before.filter(|before| before.any_stuck());
        Arc::new(Self {
            backend,
            vendor,
            options,
            lanes: Arc::default(),
            stuck: Arc::default(),
            workers: Arc::default(),
            late: Arc::default(),
            replaced: Arc::default(),
            before,
        })
    }

    /// The same lanes with a deadline of at most this: what is left of a caller's own.
    #[must_use]
    pub fn within(&self, deadline: Duration) -> Arc<Self> {
        let mut lanes = self.clone();
        lanes.options.deadline = lanes.options.deadline.min(deadline);
        Arc::new(lanes)
    }

    /// Changes one card: at most one change of a card runs at a time, callers take turns.
    ///
    /// # Errors
    /// The call's own, with operation and card; `Vendor` if it panicked; `InDoubt` when the deadline
    /// passed while it ran, and then the lane is shut until it returns; `Busy` when nothing was
    /// started, because the lane is shut or the turn did not come.
    pub fn change<T: Send + 'static>(
        &self,
        device: &DeviceId,
        operation: &'static str,
        call: impl FnOnce(&dyn Backend) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.change_all(std::slice::from_ref(device), operation, call)
    }

    /// Changes several cards by one call, as a mode of the whole node does: it has its turn on all
    /// of them, and where it hangs all of them are shut.
    ///
    /// # Errors
    /// As [`Self::change`].
    pub fn change_all<T: Send + 'static>(
        &self,
        devices: &[DeviceId],
        operation: &'static str,
        call: impl FnOnce(&dyn Backend) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        // Everybody takes turns in the order of the ids, else two callers could wait for each other.
        let mut devices = devices.to_vec();
        devices.sort();
        devices.dedup();
        if devices.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "a change names no card").during(operation));
        }
        let earlier = devices.iter().find_map(|d| self.before.as_ref()?.shut(d));
        if let Some(earlier) = earlier {
            let why = format!(
                "{earlier} has not returned to an earlier run of the {} driver's library; nothing \
                 else is changed there until then",
                self.vendor
            );
            return Err(dress(Error::new(ErrorKind::Busy, why), operation, &devices));
        }
        let keys = devices.iter().cloned().map(Key::Change).collect();
        self.options.points.around("lanes.change", || {
            self.run(keys, &devices, operation, self.options.deadline, call)
        })
    }

    /// Reads something of the whole vendor.
    ///
    /// # Errors
    /// The call's own, with the operation; `Vendor` if it panicked; `InDoubt` when the deadline
    /// passed; `Busy` when its turn did not come.
    pub fn read<T: Send + 'static>(
        &self,
        operation: &'static str,
        call: impl FnOnce(&dyn Backend) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.run(vec![Key::Read(None)], &[], operation, self.options.deadline, call)
    }

    /// Reads one card; a card that hangs holds up its own readers only.
    ///
    /// # Errors
    /// As [`Self::read`], with the card.
    pub fn read_device<T: Send + 'static>(
        &self,
        device: &DeviceId,
        operation: &'static str,
        call: impl FnOnce(&dyn Backend) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let key = Key::Read(Some(device.clone()));
        let devices = std::slice::from_ref(device);
        self.run(vec![key], devices, operation, self.options.deadline, call)
    }

    /// Waits for events for at most `timeout`, which no reader waits behind.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn events(&self, timeout: Duration) -> Result<Vec<Event>> {
        let deadline = self.options.deadline + timeout;
        let events =
            self.run(vec![Key::Events], &[], "wait", deadline, move |b| b.wait(timeout))?;
        if events.iter().any(|e| e.meaning == Meaning::DriverReplaced) {
            self.replaced.store(true, Ordering::Relaxed);
        }
        Ok(events)
    }

    /// Sets what is told of every change that returned after its caller had given up.
    ///
    /// It runs on the call's thread, once for each card, while the card's lane is still shut: read
    /// and reconcile, and leave changes on that card to another thread. It holds for all lanes from
    /// now on, and replaces what was set before.
    pub fn on_late(&self, late: impl Fn(&DeviceId, &'static str) + Send + Sync + 'static) {
        self.late.set(late);
    }

    /// The calls that have not come back, in the order of their start.
    pub fn stuck(&self) -> Vec<StuckCall> {
        self.stuck.list()
    }

    /// The change that keeps a card's lane shut, also one of an earlier run.
    pub fn shut(&self, device: &DeviceId) -> Option<StuckCall> {
        let lane = self.lane_if_there(&Key::Change(device.clone()));
        let own = lane.and_then(|lane| lane.shut_by()).map(|turn| StuckCall {
            devices: vec![device.clone()],
            operation: turn.operation,
            since: turn.since,
        });
        own.or_else(|| self.before.as_ref()?.shut(device))
    }

    /// Whether so many calls are stuck that no more are started.
    pub fn broken(&self) -> bool {
        self.stuck.count() >= self.options.stuck_limit
    }

    /// Whether any call said that the driver was replaced: only a new process can load the new one.
    pub fn driver_replaced(&self) -> bool {
        self.replaced.load(Ordering::Relaxed)
    }

    /// Whose backend it is.
    pub fn vendor(&self) -> &Vendor {
        &self.vendor
    }

    /// Whether any call has not come back, also one of an earlier run.
    pub(crate) fn any_stuck(&self) -> bool {
        self.stuck.count() > 0 || self.before.as_ref().is_some_and(|before| before.any_stuck())
    }

    fn run<T: Send + 'static>(
        &self,
        keys: Vec<Key>,
        devices: &[DeviceId],
        operation: &'static str,
        deadline: Duration,
        call: impl FnOnce(&dyn Backend) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let until = Instant::now() + deadline;
        let result = self.started(keys, devices, operation, until, call);
        result.map_err(|error| dress(error, operation, devices))
    }

    fn started<T: Send + 'static>(
        &self,
        keys: Vec<Key>,
        devices: &[DeviceId],
        operation: &'static str,
        until: Instant,
        call: impl FnOnce(&dyn Backend) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.answers()?;
        let shuts = keys.iter().all(|key| matches!(key, Key::Change(_)));
        let turns = Turns::take(keys.iter().map(|key| self.lane(key)), operation, until)?;
        // While it waited for its turn others may have got stuck.
        self.answers().inspect_err(|_| turns.leave())?;
        let meeting = Arc::new(Meeting::new());
        let work = {
            let (meeting, turns, backend) = (meeting.clone(), turns.clone(), self.backend.clone());
            let (vendor, stuck) = (self.vendor.clone(), self.stuck.clone());
            let (late, replaced) = (self.late.clone(), self.replaced.clone());
            let devices = if shuts { devices.to_vec() } else { Vec::new() };
            move || {
                let result = caught(vendor.as_str(), || call(&*backend));
                if matches!(&result, Err(e) if e.kind == ErrorKind::DriverReplaced) {
                    replaced.store(true, Ordering::Relaxed);
                }
                if meeting.finish(result) {
                    late.tell(&devices, operation);
                    stuck.remove(turns.first());
                }
                turns.leave();
            }
        };
        if let Err(error) = self.workers.start(operation, work) {
            turns.leave();
            let why = format!("the host gives no thread for it: {error}; nothing was started");
            return Err(Error::new(ErrorKind::Io, why));
        }
        let result = meeting.wait(until, || {
            self.stuck.add(turns.first(), devices.to_vec());
            if shuts { turns.shut() } else { turns.leave() }
        });
        result.unwrap_or_else(|| {
            tracing::error!(vendor = %self.vendor, ?devices, operation, "the driver does not answer");
            let until_then = if shuts { "; the card is not changed until it returns" } else { "" };
            let why = format!("the driver has not answered in time{until_then}");
            Err(Error::new(ErrorKind::InDoubt, why))
        })
    }

    fn lane(&self, key: &Key) -> Arc<Lane> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.entry(key.clone()).or_default().clone()
    }

    fn lane_if_there(&self, key: &Key) -> Option<Arc<Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn answers(&self) -> Result<()> {
        if !self.broken() {
            return Ok(());
        }
        let calls: Vec<String> = self.stuck().iter().map(StuckCall::to_string).collect();
        let why = format!(
            "the {} driver does not answer: {}; nothing more is asked of it until one returns",
            self.vendor,
            calls.join("; ")
        );
        Err(Error::new(ErrorKind::Busy, why))
    }
}

impl fmt::Debug for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lanes")
            .field("vendor", &self.vendor)
            .field("options", &self.options)
            .field("stuck", &self.stuck.list())
            .finish_non_exhaustive()
    }
}

fn dress(error: Error, operation: &str, devices: &[DeviceId]) -> Error {
    let error = error.during(operation);
    if devices.is_empty() || error.context.iter().any(|(key, _)| key == "device") {
        return error;
    }
    let devices: Vec<&str> = devices.iter().map(DeviceId::as_str).collect();
    error.with("device", devices.join("+"))
}
