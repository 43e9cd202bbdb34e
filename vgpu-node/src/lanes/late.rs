//! Whom to tell of a change that came back after its caller had given up.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use vgpu_core::id::DeviceId;

use super::call::said;

type Told = Arc<dyn Fn(&DeviceId, &'static str) + Send + Sync>;

/// The one that is told, once it is set.
#[derive(Default)]
pub(super) struct Late(Mutex<Option<Told>>);

impl Late {
    pub(super) fn set(&self, told: impl Fn(&DeviceId, &'static str) + Send + Sync + 'static) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(told));
    }

    /// Tells of each card, and comes back whatever happens: the lanes must open again.
    pub(super) fn tell(&self, devices: &[DeviceId], operation: &'static str) {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(told) = told else { return };
        for device in devices {
            let done = catch_unwind(AssertUnwindSafe(|| told(device, operation)));
            if let Err(payload) = done {
                let said = said(&*payload);
                tracing::error!(%device, operation, "reconciling a late call panicked: {said}");
            }
        }
    }
}

impl fmt::Debug for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Late")
    }
}
