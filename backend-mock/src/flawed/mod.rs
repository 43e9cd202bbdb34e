//! A sound backend with one promise broken. The sound code knows nothing of it.

mod discovery;
mod health;
mod isolation;
mod partition;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use vgpu_core::{
    Backend, BackendInfo, CreateOrder, DeviceId, Error, ErrorKind, Partition, PartitionState,
};

use crate::Result;
use crate::backend::MockBackend;
use crate::carve;
use crate::defect::Defect;
use crate::session::Refusal;

/// What a flawed factory remembers over its backends.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    opened: AtomicU64,
    /// What was listed of each card, and in which boot.
    listed: Mutex<BTreeMap<String, (String, Vec<Partition>)>>,
}

/// A backend with one planted defect.
#[derive(Debug)]
pub(crate) struct Flawed {
    sound: MockBackend,
    defect: Defect,
    memory: Arc<Memory>,
    /// Which of the factory's backends it is, from 0.
    nth: u64,
    /// For one call at a time.
    one: Mutex<()>,
    /// Counts calls that must answer the same, and do not.
    turn: AtomicU64,
    /// A card was lost once.
    was_lost: AtomicBool,
    /// The last thing that was destroyed.
    gone: Mutex<Vec<vgpu_core::PartitionId>>,
    /// An event to tell once more.
    echo: Mutex<Vec<vgpu_core::Event>>,
}

impl Flawed {
    pub(crate) fn new(sound: MockBackend, defect: Defect, memory: Arc<Memory>) -> Self {
        let nth = memory.opened.fetch_add(1, Ordering::Relaxed);
        Self {
            sound,
            defect,
            memory,
            nth,
            one: Mutex::new(()),
            turn: AtomicU64::new(0),
            was_lost: AtomicBool::new(false),
            gone: Mutex::new(Vec::new()),
            echo: Mutex::new(Vec::new()),
        }
    }

    /// Whether this is the defect.
    fn is(&self, defect: Defect) -> bool {
        self.defect == defect
    }

    /// Runs a call, and spoils what defects of all calls spoil.
    fn through<R>(
        &self,
        device: Option<&DeviceId>,
        call: impl FnOnce(&MockBackend) -> Result<R>,
    ) -> Result<R> {
        let all = self.is(Defect::Back8).then(|| held(&self.one));
        if self.is(Defect::Back7) && device.is_some() && self.any_lost()? {
            return Err(Error::new(ErrorKind::Lost, "some card does not answer"));
        }
        let result = call(&self.sound);
        drop(all);
        result.map_err(|mut e| {
            if self.is(Defect::Back5) {
                e.vendor = None;
            }
            if self.is(Defect::Back6) && e.kind == ErrorKind::DriverReplaced {
                e.kind = ErrorKind::Vendor;
            }
            e
        })
    }

    fn any_lost(&self) -> Result<bool> {
        self.sound.machine.read(|state| state.cards.iter().any(|c| c.lost.is_some()))
    }

    /// Puts a complete part where the order wanted one, whatever the driver says.
    fn force(&self, order: &CreateOrder) -> Result<Partition> {
        self.sound.machine.change(|state| {
            let made = carve::add(state, order, PartitionState::Complete);
            if let Ok(made) = made {
                return Ok(made);
            }
            // No room: a copy of the first part, under a name of its own.
            let serial = state.serial;
            let card = state.card_mut(order.device())?;
            let Some(mut copy) = card.parts.first().cloned() else {
                return Err(told(made.map(drop)));
            };
            let local = format!("{}-over{serial}", copy.listed.id.local());
            copy.listed.id = vgpu_core::PartitionId::of(order.device(), order.scheme(), local)?;
            copy.listed.tag = copy.listed.tag.map(|_| order.claim().clone());
            copy.instance += 1000;
            let listed = copy.listed.clone();
            card.parts.push(copy);
            state.serial += 1;
            Ok(listed)
        })
    }

    /// Unmakes a part, whoever holds it.
    fn drop_part(&self, id: &vgpu_core::PartitionId) -> Result<()> {
        self.sound.machine.change(|state| {
            state.card_mut(&id.device())?.parts.retain(|p| p.listed.id != *id);
            Ok(())
        })
    }
}

impl Backend for Flawed {
    fn info(&self) -> BackendInfo {
        let mut info = self.sound.info();
        if self.is(Defect::Back9) {
            let twice = || "nvmlDeviceGetGpuFabricInfo".to_owned();
            info.missing_symbols.extend([twice(), twice()]);
        }
        info
    }
}

fn held<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn told(refused: Result<(), Refusal>) -> Error {
    match refused {
        Err(Refusal::Ours(e)) => e,
        Err(Refusal::No(kind, why)) => Error::new(kind, why),
        Ok(()) => Error::new(ErrorKind::Vendor, "nothing was refused"),
    }
}
