//! Our CDI against the library that runtimes in Rust use: what we write it loads and injects as the
//! edits say, and what it refuses we refuse.

mod damage;
mod grammar;
mod inject;
mod strategy;

use std::collections::BTreeMap;

use container_device_interface::cache::Cache;
use container_device_interface::spec_dirs::with_spec_dirs;
use vgpu_core::ClaimId;
use vgpu_core::cdi::{self, Kind, RenderOptions, Spec};

/// The options of every test here.
fn options() -> RenderOptions {
    RenderOptions {
        kind: Kind::new("vgpu.dev/claim").expect("a kind"),
        name: ClaimId::new("c-1:a").expect("an id"),
        hook: Some("/opt/vgpu/bin/vgpu-hook".into()),
        socket: "/run/vgpu/hook.sock".into(),
        claim_dir: "/var/lib/vgpu/claims/c-1".into(),
        annotations: BTreeMap::new(),
    }
}

/// A cache of the oracle over one folder with this text as its only spec, or why it refuses it.
fn load(text: &str) -> Result<Cache, String> {
    let dir = tempfile::tempdir().expect("a folder");
    let file = cdi::file_name(&options().kind, &options().name).expect("short enough");
    std::fs::write(dir.path().join(file), text).expect("written");
    let mut cache = Cache::default();
    with_spec_dirs(&[dir.path().to_str().expect("UTF-8")])(&mut cache);
    cache.refresh().map_err(|e| e.to_string())?;
    assert!(!cache.specs.is_empty(), "the oracle must not overlook the file");
    Ok(cache)
}

/// Whether we take this text.
fn ours(text: &str) -> Result<(), String> {
    let spec: Spec = serde_json::from_str(text).map_err(|e| e.to_string())?;
    cdi::validate(&spec).map_err(|e| e.to_string())
}
