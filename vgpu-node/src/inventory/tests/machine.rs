//! A machine whose vendors say what a test wants.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use vgpu_core::backend::{BackendFactory, Host, Probe};
use vgpu_core::device::{Device, Link, LinkKind, Lost, Scan};
use vgpu_core::error::{Error, ErrorKind, Result};
use vgpu_core::id::{DeviceId, Vendor};
use vgpu_core::size::Bytes;
use vgpu_core::wire::{Call, Reply};

use crate::inventory::{Inventory, InventoryOptions, Registry, Snapshot};
use crate::lanes::LaneOptions;
use crate::lanes::tests::{PATIENCE, scripted};

/// One vendor's part of the machine, changed by a test as it runs.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) vendor: Vendor,
    pub(super) state: Mutex<Says>,
    pub(super) probes: AtomicUsize,
    pub(super) topologies: AtomicUsize,
}

/// What a vendor says.
#[derive(Debug, Clone, Default)]
pub(super) struct Says {
    pub(super) absent: Option<String>,
    pub(super) broken: Option<Error>,
    pub(super) cards: Vec<u32>,
    pub(super) lost: Vec<Lost>,
    /// Calls that fail: `scan`, `topology`, or a card's id for its parts.
    pub(super) fails: Vec<(String, Error)>,
    /// Calls that do not return while they stand here; `probe` too.
    pub(super) hangs: Vec<String>,
}

impl Made {
    pub(super) fn new(vendor: &Vendor, cards: &[u32]) -> Arc<Self> {
        Arc::new(Self {
            vendor: vendor.clone(),
            state: Mutex::new(Says { cards: cards.to_vec(), ..Says::default() }),
            probes: AtomicUsize::new(0),
            topologies: AtomicUsize::new(0),
        })
    }

    /// Changes what it says from now on.
    pub(super) fn now(&self, change: impl FnOnce(&mut Says)) {
        change(&mut self.state.lock().expect("not poisoned"));
    }

    fn says(&self) -> Says {
        self.state.lock().expect("not poisoned").clone()
    }

    fn answer(&self, call: &Call) -> Result<Reply> {
        let about = match call {
            Call::Scan => "scan".to_owned(),
            Call::Topology => "topology".to_owned(),
            Call::Partitions(device) => device.to_string(),
            _ => "other".to_owned(),
        };
        self.hang(&about);
        let says = self.says();
        if let Some((_, error)) = says.fails.iter().find(|(of, _)| *of == about) {
            return Err(error.clone());
        }
        Ok(match call {
            Call::Scan => Reply::Scan(Scan {
                devices: says.cards.iter().map(|n| device(&self.vendor, *n)).collect(),
                lost: says.lost,
            }),
            Call::Topology => {
                self.topologies.fetch_add(1, Ordering::SeqCst);
                Reply::Links(says.cards.windows(2).map(|w| self.link(w[0], w[1])).collect())
            }
            Call::Partitions(_) => Reply::Partitions(Vec::new()),
            _ => Reply::Done,
        })
    }

    pub(super) fn id(&self, n: u32) -> DeviceId {
        device(&self.vendor, n).id
    }

    fn link(&self, a: u32, b: u32) -> Link {
        Link { a: self.id(a), b: self.id(b), kind: LinkKind::Board, lanes: 0 }
    }

    fn hang(&self, about: &str) {
        let until = Instant::now() + PATIENCE;
        while self.says().hangs.iter().any(|h| h == about) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// What is asked for the backends.
#[derive(Debug)]
struct Factory(Arc<Made>);

impl BackendFactory for Factory {
    fn vendor(&self) -> Vendor {
        self.0.vendor.clone()
    }

    fn probe(&self, _: &Host) -> Probe {
        self.0.probes.fetch_add(1, Ordering::SeqCst);
        self.0.hang("probe");
        let says = self.0.says();
        if let Some(why) = says.absent {
            return Probe::Absent(why);
        }
        if let Some(error) = says.broken {
            return Probe::Broken(error);
        }
        let made = self.0.clone();
        Probe::Ready(scripted(&self.0.vendor, move |call| made.answer(call)))
    }
}

pub(super) fn device(vendor: &Vendor, n: u32) -> Device {
    Device {
        id: DeviceId::new(format!("{vendor}-{n}")).expect("an id"),
        vendor: vendor.clone(),
        model: "M".into(),
        pci: Some(format!("0000:0{n}:00.0")),
        numa: None,
        memory: Bytes::gib(1),
        compute_units: NonZeroU32::MIN,
        counters: Vec::new(),
        schemes: Vec::new(),
    }
}

pub(super) fn inventory(made: &[&Arc<Made>]) -> Inventory {
    with_deadline(made, PATIENCE)
}

pub(super) fn with_deadline(made: &[&Arc<Made>], deadline: Duration) -> Inventory {
    let registry = made.iter().fold(Registry::new(), |registry, made| {
        registry.with(Arc::new(Factory((*made).clone())), Host::default())
    });
    let lanes = LaneOptions { deadline, ..LaneOptions::default() };
    Inventory::new(registry, InventoryOptions { lanes, ..InventoryOptions::default() })
}

pub(super) fn error(kind: ErrorKind) -> Error {
    Error::new(kind, "as the test wants it")
}

/// Waits until a snapshot is as wanted.
pub(super) fn eventually(inventory: &Inventory, what: &str, is: impl Fn(&Snapshot) -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is(&inventory.snapshot()) {
        assert!(Instant::now() < until, "never: {what}: {:?}", inventory.snapshot());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Refreshes until a snapshot is as wanted; for deadlines that a busy machine may miss.
pub(super) fn refresh_until(inventory: &Inventory, what: &str, is: impl Fn(&Snapshot) -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is(&inventory.snapshot()) {
        assert!(Instant::now() < until, "never: {what}: {:?}", inventory.snapshot());
        inventory.refresh();
    }
}
