//! What the machine has now: every vendor probed again and again, every card remembered.
//!
//! Drivers are asked in parallel and in bounded time, and whatever one of them says is published at
//! once: a vendor or card that does not answer delays and spoils nothing of the others. Readers get
//! snapshots and never wait for a driver.

mod registry;
mod snapshot;
#[cfg(test)]
mod tests;
mod vendor;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use arc_swap::ArcSwap;
use vgpu_core::error::{Error, ErrorKind, Result};
use vgpu_core::id::{DeviceId, Vendor};
use vgpu_core::partition::Partition;

use crate::lanes::{LaneOptions, Lanes};
use vendor::Slot;

pub use registry::Registry;
pub use snapshot::{BackendStatus, Card, Presence, Snapshot};

/// How the inventory asks.
#[derive(Debug, Clone)]
pub struct InventoryOptions {
    /// How it calls drivers.
    pub lanes: LaneOptions,
    /// How many runs of a vendor's library with calls that never returned are borne; after so many
    /// only a new process helps.
    pub retired_limit: usize,
}

impl Default for InventoryOptions {
    /// The lanes' default; 2 runs.
    fn default() -> Self {
        Self { lanes: LaneOptions::default(), retired_limit: 2 }
    }
}

/// What the machine has.
pub struct Inventory {
    slots: Vec<Slot>,
    options: InventoryOptions,
    published: ArcSwap<Snapshot>,
    /// Held while the next snapshot is made: for each card, when the listing that it has began.
    listed: Mutex<BTreeMap<DeviceId, u64>>,
    clock: AtomicU64,
    late: Mutex<Option<Late>>,
}

type Late = Arc<dyn Fn(&DeviceId, &'static str) + Send + Sync>;

impl Inventory {
    /// An inventory that knows nothing yet; [`Self::refresh`] looks.
    pub fn new(registry: Registry, options: InventoryOptions) -> Self {
        let slots = registry.entries.into_iter().map(|(factory, host)| Slot::new(factory, host));
        Self {
            slots: slots.collect(),
            options,
            published: ArcSwap::default(),
            listed: Mutex::default(),
            clock: AtomicU64::new(0),
            late: Mutex::default(),
        }
    }

    /// Probes every vendor that is absent or broken, and scans every other one.
    ///
    /// Returns when all have answered or their deadlines passed; each one's answer is in the
    /// snapshot as soon as it is there. What failed is in the snapshot too.
    pub fn refresh(&self) {
        in_parallel(&self.slots, |slot| slot.refresh(self));
    }

    /// Scans the vendor of one card, as after a change of its mode.
    pub fn rescan(&self, device: &DeviceId) {
        let vendor = self.snapshot().cards.get(device).map(|card| card.device.vendor.clone());
        self.slots
            .iter()
            .filter(|s| Some(s.vendor()) == vendor.as_ref())
            .for_each(|s| s.refresh(self));
    }

    /// Lists the parts of one card again, as after a change on it.
    pub fn refresh_device(&self, device: &DeviceId) {
        let Some(lanes) = self.lanes(device) else { return };
        let began = self.tick();
        let listing = list(&lanes, device);
        self.publish(|snapshot, listed| {
            if let Some(card) = snapshot.cards.get_mut(device)
                && is_newer(listed, device, began)
            {
                card.partitions = listing;
            }
        });
    }

    /// Asks every vendor again how near its cards are; else that is asked when cards come or go.
    pub fn refresh_links(&self) {
        in_parallel(&self.slots, |slot| slot.link(self));
    }

    /// What is known now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.published.load_full()
    }

    /// The way to a card's driver, also to one that is lost.
    pub fn lanes(&self, device: &DeviceId) -> Option<Arc<Lanes>> {
        self.published.load().cards.get(device).map(|card| card.lanes.clone())
    }

    /// The lanes of every vendor that works.
    pub fn all_lanes(&self) -> Vec<Arc<Lanes>> {
        self.slots.iter().filter_map(Slot::lanes).collect()
    }

    /// Whether any call of any vendor said that the driver was replaced: this process must go.
    pub fn driver_replaced(&self) -> bool {
        self.slots.iter().any(Slot::driver_replaced)
    }

    /// Sets what is told of changes that return late, on all lanes now and later; see
    /// [`Lanes::on_late`].
    pub fn on_late(&self, late: impl Fn(&DeviceId, &'static str) + Send + Sync + 'static) {
        *self.late.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(late));
        self.all_lanes().iter().for_each(|lanes| self.wire(lanes));
    }

    fn wire(&self, lanes: &Lanes) {
        let late = self.late.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(late) = late {
            lanes.on_late(move |device, operation| late(device, operation));
        }
    }

    /// A number higher than all before it, taken before something is read.
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn publish(&self, change: impl FnOnce(&mut Snapshot, &mut BTreeMap<DeviceId, u64>)) {
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Snapshot::clone(&self.published.load());
        change(&mut next, &mut listed);
        next.generation += 1;
        self.published.store(Arc::new(next));
    }
}

impl fmt::Debug for Inventory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vendors: Vec<&Vendor> = self.slots.iter().map(Slot::vendor).collect();
        f.debug_struct("Inventory")
            .field("vendors", &vendors)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// The boot that a host is in, by its root folder.
///
/// # Errors
/// `Io`, `NotFound`, `Permission`; `Invalid` where the file says nothing.
pub fn boot_id(root: &Path) -> Result<String> {
    let path = root.join("proc/sys/kernel/random/boot_id");
    let text = fs::read_to_string(&path).map_err(|e| Error::io("read", &path, &e))?;
    match text.trim() {
        "" => Err(Error::new(ErrorKind::Invalid, format!("{} is empty", path.display()))),
        id => Ok(id.to_owned()),
    }
}

fn list(lanes: &Lanes, device: &DeviceId) -> Result<Vec<Partition>> {
    let id = device.clone();
    lanes.read_device(device, "partitions", move |backend| backend.partitions(&id))
}

/// Whether a listing began after the one that is published; notes it then.
fn is_newer(listed: &mut BTreeMap<DeviceId, u64>, device: &DeviceId, began: u64) -> bool {
    let last = listed.entry(device.clone()).or_default();
    let newer = began > *last;
    *last = began.max(*last);
    newer
}

/// Does something for each of the items at once, and returns when all is done.
pub(crate) fn in_parallel<T: Sync>(items: &[T], each: impl Fn(&T) + Sync) {
    if let [one] = items {
        return each(one);
    }
    let each = &each;
    thread::scope(|scope| {
        for item in items {
            // Without a thread it takes longer, but is done.
            if thread::Builder::new().spawn_scoped(scope, move || each(item)).is_err() {
                each(item);
            }
        }
    });
}
