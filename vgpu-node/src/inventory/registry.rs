//! The vendors that are looked for.

use std::sync::Arc;

use vgpu_core::backend::{BackendFactory, Host};

/// The vendors that are looked for, and where; out-of-tree vendors are added here.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    pub(super) entries: Vec<(Arc<dyn BackendFactory>, Host)>,
}

impl Registry {
    /// No vendor.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a vendor; a second factory of one vendor takes the place of the first, since two would
    /// both think that they have its cards to themselves.
    #[must_use]
    pub fn with(mut self, factory: Arc<dyn BackendFactory>, host: Host) -> Self {
        self.entries.retain(|(other, _)| other.vendor() != factory.vendor());
        self.entries.push((factory, host));
        self
    }
}
