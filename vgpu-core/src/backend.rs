//! All of a vendor, and how it is found on a host.

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::device::{Device, Discovery};
use crate::error::{Error, ErrorKind, Result};
use crate::health::Health;
use crate::id::{DeviceId, PartitionId, Vendor};
use crate::isolation::Isolation;
use crate::partition::{Partition, Partitioner};

/// All of a vendor.
///
/// Synchronous, object safe, no default methods; `&self` everywhere, stateless by id: a backend
/// keeps a library and handles, never claims. Every argument that could be wrong was checked when it
/// was made.
///
/// # Contract
/// - `BACK-1`: what a crash left is recognised by the declared ownership, and only that.
/// - `BACK-2`: a backend opened anew lists the same parts.
/// - `BACK-3`: after an interrupted create and a sweep, the same order succeeds.
/// - `BACK-4`: after a reboot only what the driver still holds is listed.
/// - `BACK-5`: a failed vendor call keeps its kind and the vendor's own code.
/// - `BACK-6`: a replaced driver is `DriverReplaced` from every call that asks it.
/// - `BACK-7`: a lost card fails its own calls as `Lost`; its neighbours are served.
/// - `BACK-8`: a vendor call that does not return holds up no other card's calls.
pub trait Backend: Discovery + Partitioner + Isolation + Health + Debug + Send + Sync {
    /// Library path, versions, symbols that are missing.
    ///
    /// # Contract
    /// - `BACK-9`: library and driver are named; missing symbols are sorted and listed once.
    fn info(&self) -> BackendInfo;
}

/// What is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendInfo {
    /// Whose it is.
    pub vendor: Vendor,
    /// Library file, or `built in`.
    pub library: PathBuf,
    /// Driver version.
    pub driver: String,
    /// Optional symbols that are not there; each is a capability that is not declared.
    pub missing_symbols: Vec<String>,
}

/// Conveniences over any backend; cannot be overridden.
pub trait BackendExt: Backend {
    /// One device of a fresh scan.
    ///
    /// # Errors
    /// `Lost` with the reason if it does not answer, `NotFound` if it is not there.
    fn device(&self, id: &DeviceId) -> Result<Device> {
        let scan = self.scan()?;
        if let Some(device) = scan.devices.into_iter().find(|d| d.id == *id) {
            return Ok(device);
        }
        match scan.lost.into_iter().find(|l| l.name == id.as_str()) {
            Some(lost) => {
                Err(Error::new(ErrorKind::Lost, format!("{id} does not answer"))
                    .caused_by(lost.reason))
            }
            None => Err(Error::new(ErrorKind::NotFound, format!("there is no card {id}"))),
        }
    }

    /// One part, as the driver lists it now.
    ///
    /// # Errors
    /// As `partitions`, and `NotFound` if it is not listed.
    fn partition(&self, id: &PartitionId) -> Result<Partition> {
        self.partitions(&id.device())?
            .into_iter()
            .find(|p| p.id == *id)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no part {id}")))
    }
}

impl<B: Backend + ?Sized> BackendExt for B {}

/// Makes a vendor's backend.
pub trait BackendFactory: Debug + Send + Sync {
    /// Whose.
    fn vendor(&self) -> Vendor;

    /// Looks and loads; called again after `Absent` and `Broken`.
    ///
    /// # Contract
    /// - `BACK-10`: on a host without card and library it is `Absent` with the reason; it never
    ///   panics and never waits for hardware that is not there.
    fn probe(&self, host: &Host) -> Probe;
}

impl<F: BackendFactory + ?Sized> BackendFactory for Arc<F> {
    fn vendor(&self) -> Vendor {
        (**self).vendor()
    }
    fn probe(&self, host: &Host) -> Probe {
        (**self).probe(host)
    }
}

/// Where a backend looks: a root that tests replace, and a library that a flag replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// `/`, or a prepared tree.
    pub root: PathBuf,
    /// A library named by flag or variable, tried alone.
    pub library: Option<PathBuf>,
}

impl Default for Host {
    fn default() -> Self {
        Self { root: PathBuf::from("/"), library: None }
    }
}

/// What became of a vendor on this host.
#[derive(Debug, Clone)]
pub enum Probe {
    /// No PCI function of this vendor and no library: nothing to do.
    Absent(String),
    /// The card is there or the library is, and they do not work together: told, retried, exit 1 in
    /// the CLI.
    Broken(Error),
    /// Loaded.
    Ready(Arc<dyn Backend>),
}
