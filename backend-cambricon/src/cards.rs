//! Which card has which number: the library counts cards, we name them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use vgpu_backend_kit::CardNumbers;
use vgpu_core::{DeviceId, Error, ErrorKind, Result};

use crate::api::{CndevApi, CndevFailure};
use crate::convert;
use crate::mim::Table;

/// libcndev, and what is remembered of the cards that answered since the process started.
///
/// It lives as long as the loaded library, so that a backend that is opened anew still knows a card that has
/// fallen off meanwhile. No lock is held over a call of the library: one card's call that never returns must
/// not stop another's.
#[derive(Debug)]
pub(crate) struct Cards {
    pub(crate) api: Arc<dyn CndevApi>,
    pub(crate) numbers: CardNumbers,
    /// Profile tables of MIM: they are the model's, and some libraries tell them only in MIM mode.
    tables: Mutex<BTreeMap<DeviceId, Arc<Table>>>,
    beats: Mutex<BTreeMap<DeviceId, Beat>>,
}

/// The last count of a card's heartbeat.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Beat {
    pub(crate) count: u32,
    /// Since when it has been that.
    pub(crate) since: Instant,
    /// Whether it ever moved: firmware that does not count is not taken for dead.
    pub(crate) moved: bool,
}

impl Cards {
    pub(crate) fn new(api: Arc<dyn CndevApi>) -> Self {
        Self {
            api,
            numbers: CardNumbers::default(),
            tables: Mutex::default(),
            beats: Mutex::default(),
        }
    }

    /// The card's present number, checked against the card itself.
    ///
    /// # Errors
    /// `NotFound`, `Lost`, `DriverReplaced`, and whatever else reading its UUID may say.
    pub(crate) fn index(&self, id: &DeviceId) -> Result<u32> {
        self.lookup(id).map_err(|failure| match failure {
            Lookup::Failed(failure) => convert::error(&failure).with("device", id),
            Lookup::Unknown => {
                Error::new(ErrorKind::NotFound, format!("the Cambricon driver has no card {id}"))
            }
        })
    }

    pub(crate) fn lookup(&self, id: &DeviceId) -> std::result::Result<u32, Lookup> {
        let before = self.numbers.number_of(id);
        if let Some(index) = before {
            match self.is(index, id) {
                Ok(true) => return Ok(index),
                Ok(false) => {}
                Err(failure) => return Err(Lookup::Failed(failure)),
            }
        }
        let count = self.api.device_count().map_err(Lookup::Failed)?;
        for index in (0..count).filter(|index| Some(*index) != before) {
            match self.is(index, id) {
                Ok(true) => {
                    self.numbers.remember(index, id);
                    return Ok(index);
                }
                Err(failure) if convert::is_of_the_driver(&failure) => {
                    return Err(Lookup::Failed(failure));
                }
                // Another card that does not answer is not this one's business.
                Ok(false) | Err(_) => {}
            }
        }
        Err(Lookup::Unknown)
    }

    /// The name of the card with this number: as it said before, else as it says itself, so that a card in
    /// trouble is not asked.
    pub(crate) fn name(&self, index: u32) -> Option<DeviceId> {
        self.numbers.name_of(index, || {
            let uuid = self.api.uuid(index).ok()?;
            convert::device_id(&uuid).ok()
        })
    }

    pub(crate) fn table(&self, id: &DeviceId) -> Option<Arc<Table>> {
        lock(&self.tables).get(id).cloned()
    }

    pub(crate) fn keep_table(&self, id: &DeviceId, table: &Arc<Table>) {
        lock(&self.tables).insert(id.clone(), Arc::clone(table));
    }

    /// Notes a count of a card's heartbeat, and tells since when it has been that.
    pub(crate) fn beat(&self, id: &DeviceId, count: u32, now: Instant) -> Beat {
        let mut beats = lock(&self.beats);
        let beat = beats.entry(id.clone()).or_insert(Beat { count, since: now, moved: false });
        if beat.count != count {
            *beat = Beat { count, since: now, moved: true };
        }
        *beat
    }

    fn is(&self, index: u32, id: &DeviceId) -> std::result::Result<bool, CndevFailure> {
        match self.api.uuid(index) {
            Ok(uuid) => Ok(convert::device_id(&uuid).is_ok_and(|known| known == *id)),
            // No card of that number any more; it may have got another.
            Err(failure) if matches!(failure.code(), Some(5 | 14)) => Ok(false),
            Err(failure) => Err(failure),
        }
    }
}

/// Why a card has no number.
#[derive(Debug)]
pub(crate) enum Lookup {
    /// Asking about it failed.
    Failed(CndevFailure),
    /// The library has no such card.
    Unknown,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // A map is whole after every statement, so a panic elsewhere does not spoil it.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
