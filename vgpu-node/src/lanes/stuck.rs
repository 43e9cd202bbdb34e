//! The calls that have not come back.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use vgpu_core::id::DeviceId;

use super::turn::Turn;

/// A call whose caller gave up and that has not returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StuckCall {
    /// The cards that it is about; none for a call about all of a vendor.
    pub devices: Vec<DeviceId>,
    /// What it does.
    pub operation: &'static str,
    /// Since when.
    pub since: Instant,
}

/// All stuck calls of one backend.
#[derive(Debug, Default)]
pub(super) struct StuckCalls(Mutex<BTreeMap<u64, StuckCall>>);

impl StuckCalls {
    pub(super) fn add(&self, turn: &Turn, devices: Vec<DeviceId>) {
        let call = StuckCall { devices, operation: turn.operation, since: turn.since };
        self.lock().insert(turn.id, call);
    }

    pub(super) fn remove(&self, turn: &Turn) {
        self.lock().remove(&turn.id);
    }

    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn list(&self) -> Vec<StuckCall> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, StuckCall>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Display for StuckCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let devices: Vec<&str> = self.devices.iter().map(DeviceId::as_str).collect();
        let on =
            if devices.is_empty() { String::new() } else { format!(" on {}", devices.join(", ")) };
        write!(f, "{}{on} for {} s", self.operation, self.since.elapsed().as_secs())
    }
}
