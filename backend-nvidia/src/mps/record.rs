//! What is written down of a daemon and of shares, so that they are found again: each file whole or
//! not there.

use std::fs::{self, File};
use std::io::{ErrorKind as Io, Write};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use vgpu_core::id::TrustDomain;
use vgpu_core::{DeviceId, Error, ErrorKind, Result, Scheme};

/// A daemon of ours; written before it is started, and again when it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DaemonRecord {
    pub(crate) card: DeviceId,
    /// The boot that it belongs to: no daemon outlives one.
    pub(crate) boot: String,
    /// `mps` or `mps-static`.
    pub(crate) scheme: Scheme,
    pub(crate) domain: TrustDomain,
    /// 2, or 3 where it has namespaces.
    pub(crate) protocol: u32,
    /// Once it runs.
    #[serde(default)]
    pub(crate) process: Option<ProcessRecord>,
    /// Its systemd unit, if it was started as one.
    #[serde(default)]
    pub(crate) unit: Option<String>,
}

impl DaemonRecord {
    /// Whether it is the daemon that a mode order asks for.
    pub(crate) fn serves(&self, scheme: &Scheme, domain: &TrustDomain) -> bool {
        self.scheme == *scheme && self.domain == *domain
    }
}

/// A process, for as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessRecord {
    pub(crate) pid: u32,
    /// Ticks since boot, so that the same pid later is not taken for it.
    pub(crate) started: u64,
}

/// Reads a record; nothing if there is none.
///
/// # Errors
/// `Io`, or `Vendor` for one that cannot be understood.
pub(crate) fn read<T: DeserializeOwned>(file: &Path) -> Result<Option<T>> {
    let text = match fs::read(file) {
        Ok(text) => text,
        Err(e) if matches!(e.kind(), Io::NotFound | Io::NotADirectory) => return Ok(None),
        Err(e) => return Err(Error::io("read", file, &e)),
    };
    serde_json::from_slice(&text).map(Some).map_err(|e| {
        let why = format!("{} cannot be understood ({e}); remove it", file.display());
        Error::new(ErrorKind::Io, why)
    })
}

/// Writes a record, by rename.
///
/// # Errors
/// `Io`, `Permission`.
pub(crate) fn write<T: Serialize>(file: &Path, record: &T) -> Result<()> {
    let text = serde_json::to_vec(record).expect("records are plain data");
    let new = file.with_extension("new");
    let put = || -> std::io::Result<()> {
        let mut open = File::create(&new)?;
        open.write_all(&text)?;
        open.sync_all()?;
        fs::rename(&new, file)
    };
    put().map_err(|e| Error::io("write", file, &e))
}

/// Removes a file or folder; one that is gone is fine.
///
/// # Errors
/// `Io`, `Permission`.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(e) if e.kind() != Io::NotFound => Err(Error::io("remove", path, &e)),
        _ => Ok(()),
    }
}
