//! Which card has which number: NVML counts cards, we name them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vgpu_backend_kit::CardNumbers;
use vgpu_core::{DeviceId, Error, ErrorKind, PartitionId, Result};

use crate::api::{NvmlApi, NvmlFailure};
use crate::convert::error;
use crate::partition::profiles::MigTable;

/// NVML, and the names of the cards that answered since the process started.
///
/// It lives as long as the loaded library, so that a backend that is opened anew still knows a card
/// that has fallen off meanwhile. No lock is held over a call of the library: one card's call that
/// never returns must not stop another's.
#[derive(Debug)]
pub(crate) struct Cards {
    pub(crate) api: Arc<dyn NvmlApi>,
    pub(crate) numbers: CardNumbers,
    mig: Mutex<BTreeMap<DeviceId, Mig>>,
}

/// What MIG is on a card: its profiles, and which part each GPU instance was when last listed.
#[derive(Debug, Default)]
struct Mig {
    table: Option<Arc<MigTable>>,
    parts: BTreeMap<u32, PartitionId>,
}

impl Cards {
    pub(crate) fn new(api: Arc<dyn NvmlApi>) -> Self {
        Self { api, numbers: CardNumbers::default(), mig: Mutex::default() }
    }

    /// The card's present number, checked against the card itself.
    ///
    /// # Errors
    /// `NotFound`, `Lost`, `DriverReplaced`, and whatever else reading its UUID may say.
    pub(crate) fn index(&self, id: &DeviceId) -> Result<u32> {
        self.lookup(id).map_err(|failure| match failure {
            Lookup::Failed(failure) => error(&failure).with("device", id),
            Lookup::Unknown => {
                Error::new(ErrorKind::NotFound, format!("the NVIDIA driver has no card {id}"))
            }
        })
    }

    pub(crate) fn lookup(&self, id: &DeviceId) -> std::result::Result<u32, Lookup> {
        let before = self.numbers.number_of(id);
        if let Some(index) = before {
            match self.api.uuid(index) {
                Ok(uuid) if uuid == id.as_str() => return Ok(index),
                Ok(_) => {}
                // No card of that number any more; it may have got another.
                Err(failure) if matches!(failure.code(), Some(2 | 6)) => {}
                Err(failure) => return Err(Lookup::Failed(failure)),
            }
        }
        let index = match self.api.index_of(id.as_str()) {
            Ok(index) => index,
            Err(failure) if matches!(failure.code(), Some(2 | 3 | 6 | 28)) => {
                return Err(Lookup::Unknown);
            }
            Err(failure) => return Err(Lookup::Failed(failure)),
        };
        // NVML finds MIG instances by UUID too, and answers with their card.
        match self.api.uuid(index) {
            Ok(uuid) if uuid == id.as_str() => {
                self.numbers.remember(index, id);
                Ok(index)
            }
            Ok(_) => Err(Lookup::Unknown),
            Err(failure) => Err(Lookup::Failed(failure)),
        }
    }

    /// The name of the card with this number: as it said before, else as it says itself, so that a
    /// card in trouble is not asked. NVML gives no number to another card while it runs.
    pub(crate) fn name(&self, index: u32) -> Option<DeviceId> {
        self.numbers.name_of(index, || {
            let uuid = self.api.uuid(index).ok()?;
            DeviceId::new(uuid).ok()
        })
    }

    pub(crate) fn mig_table(&self, device: &DeviceId) -> Option<Arc<MigTable>> {
        self.mig().get(device)?.table.clone()
    }

    pub(crate) fn keep_mig_table(&self, device: &DeviceId, table: MigTable) -> Arc<MigTable> {
        let table = Arc::new(table);
        self.mig().entry(device.clone()).or_default().table = Some(Arc::clone(&table));
        table
    }

    /// The part that a GPU instance was when it was last seen; numbers are given again.
    pub(crate) fn part(&self, device: &DeviceId, gpu_instance: u32) -> Option<PartitionId> {
        self.mig().get(device)?.parts.get(&gpu_instance).cloned()
    }

    pub(crate) fn remember_parts(&self, device: &DeviceId, parts: BTreeMap<u32, PartitionId>) {
        self.mig().entry(device.clone()).or_default().parts = parts;
    }

    pub(crate) fn remember_part(&self, device: &DeviceId, gpu_instance: u32, id: &PartitionId) {
        let mut mig = self.mig();
        mig.entry(device.clone()).or_default().parts.insert(gpu_instance, id.clone());
    }

    pub(crate) fn forget_part(&self, device: &DeviceId, gpu_instance: u32) {
        if let Some(card) = self.mig().get_mut(device) {
            card.parts.remove(&gpu_instance);
        }
    }

    fn mig(&self) -> MutexGuard<'_, BTreeMap<DeviceId, Mig>> {
        // A map is whole after every statement, so a panic elsewhere does not spoil it.
        self.mig.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a card has no number.
#[derive(Debug)]
pub(crate) enum Lookup {
    /// Asking about it failed.
    Failed(NvmlFailure),
    /// NVML has no such card.
    Unknown,
}
