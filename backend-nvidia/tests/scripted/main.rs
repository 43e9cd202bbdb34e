//! The backend's logic over an NVML that a script plays: no library, no driver, no card.

#[path = "../support/built.rs"]
mod built;
mod discovery;
mod edits;
mod events;
#[path = "../support/golden.rs"]
mod golden;
mod health;
mod mig;
mod mps;
mod nvml;
mod parts;
mod trees;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vgpu_backend_nvidia::{NvidiaBackend, NvidiaOptions};
use vgpu_core::{DeviceId, Host};

use crate::nvml::Scripted;

/// A backend on a host without any file.
fn backend(nvml: &Arc<Scripted>) -> NvidiaBackend {
    backend_at(nvml, Path::new("/nonexistent-root-of-tests"))
}

fn backend_at(nvml: &Arc<Scripted>, root: &Path) -> NvidiaBackend {
    let host = Host { root: root.to_owned(), library: None };
    let api: Arc<dyn vgpu_backend_nvidia::NvmlApi> = Arc::clone(nvml) as _;
    NvidiaBackend::over(api, &host, options()).expect("a driver with a version")
}

/// No pause lengthens a test; that there is one is tested by its own test.
fn options() -> NvidiaOptions {
    NvidiaOptions {
        pause: Duration::from_millis(1),
        watch_again: Duration::ZERO,
        ..NvidiaOptions::default()
    }
}

fn id(index: u32) -> DeviceId {
    DeviceId::new(nvml::uuid(index)).expect("a UUID is an id")
}
