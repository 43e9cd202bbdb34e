//! From a host to a backend, or to the reason why there is none.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use vgpu_core::{BackendFactory, Error, ErrorKind, Host, Probe, Vendor};

use crate::api::{LoadFailure, NvmlApi};
use crate::backend::{NvidiaBackend, NvidiaOptions};
use crate::cards::Cards;
use crate::convert;
use crate::host::{DriverTree, LIBRARY_FOLDERS, NVML};
use crate::loaded::LoadedNvml;

/// Finds NVIDIA cards and loads NVML.
///
/// The library is [`Host::library`] alone where it is named; else `libnvidia-ml.so.1` in the usual
/// folders below [`Host::root`], and on the process's own root whatever the loader finds.
#[derive(Debug, Default)]
pub struct NvidiaFactory {
    options: NvidiaOptions,
    /// What was loaded, by what was asked for: a library is loaded once and never unloaded, and the
    /// names of its cards are remembered with it.
    loaded: Mutex<HashMap<OsString, Arc<Cards>>>,
}

impl NvidiaFactory {
    /// A factory whose backends have these options.
    pub fn new(options: NvidiaOptions) -> Self {
        Self { options, loaded: Mutex::default() }
    }

    fn find(&self, host: &Host) -> Result<Probe, Error> {
        if let Some(library) = &host.library {
            let cards = self.load(library).map_err(|failure| convert::load_error(&failure))?;
            return self.open(library, cards, host);
        }
        let tree = DriverTree::new(&host.root, &self.options.driver_root);
        let functions = tree.functions();
        if tree.lacks_driver_root() {
            return without_driver_root(&tree, &functions);
        }
        let mut refused: Option<Error> = None;
        for candidate in tree.nvml_candidates() {
            match self.load(&candidate) {
                Ok(cards) => return self.open(&candidate, cards, host),
                // The first one's reason; the others are mostly links to it.
                Err(failure) => {
                    refused.get_or_insert_with(|| convert::load_error(&failure));
                }
            }
        }
        if refused.is_none() && tree.host.is_own() {
            match self.load(Path::new(NVML)) {
                Ok(cards) => return self.open(Path::new(NVML), cards, host),
                // The loader has none of that name.
                Err(LoadFailure::Open { .. }) => {}
                Err(failure) => refused = Some(convert::load_error(&failure)),
            }
        }
        match (refused, functions.as_slice()) {
            (Some(why), []) => Err(why),
            (Some(why), cards) => Err(why.with("cards", cards.join(", "))),
            (None, []) => Ok(Probe::Absent(format!(
                "no NVIDIA card on the PCI bus and no {NVML} below {}",
                tree.host.read_at(tree.driver_root()).display()
            ))),
            (None, cards) => Err(without_library(&tree, cards)),
        }
    }

    /// The library's cards; what was loaded and does not answer any more is started anew.
    fn load(&self, library: &Path) -> Result<Arc<Cards>, LoadFailure> {
        let before = self.loaded().get(library.as_os_str()).cloned();
        if let Some(cards) = before
            && cards.api.device_count().is_ok()
        {
            return Ok(cards);
        }
        // Not under the lock: the library may take as long as it likes to start.
        let api: Arc<dyn NvmlApi> = Arc::new(LoadedNvml::load(library)?);
        let cards = Arc::new(Cards::new(api));
        self.loaded().insert(library.as_os_str().to_owned(), Arc::clone(&cards));
        Ok(cards)
    }

    fn open(&self, library: &Path, cards: Arc<Cards>, host: &Host) -> Result<Probe, Error> {
        // A library that starts and cannot count cards is of no use to anybody.
        cards
            .api
            .device_count()
            .map_err(|failure| convert::error(&failure).with("library", library.display()))?;
        let backend = NvidiaBackend::open(cards, host, self.options.clone())?;
        Ok(Probe::Ready(Arc::new(backend)))
    }

    fn loaded(&self) -> std::sync::MutexGuard<'_, HashMap<OsString, Arc<Cards>>> {
        // A map of pointers is whole after every statement, so a panic elsewhere does not spoil it.
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BackendFactory for NvidiaFactory {
    fn vendor(&self) -> Vendor {
        Vendor::NVIDIA
    }

    fn probe(&self, host: &Host) -> Probe {
        self.find(host).unwrap_or_else(|error| Probe::Broken(error.during("probe")))
    }
}

/// A driver that is not there yet, on a host that has cards for it: it may still be installed.
fn without_driver_root(tree: &DriverTree, cards: &[String]) -> Result<Probe, Error> {
    let why = format!(
        "the driver root {} is not there; correct nvidia.driverRoot, or start what installs the \
         driver there",
        tree.driver_root().display()
    );
    if cards.is_empty() {
        return Ok(Probe::Absent(format!("no NVIDIA card on the PCI bus, and {why}")));
    }
    let error = Error::new(ErrorKind::NotFound, why).with("cards", cards.join(", "));
    Err(error.with("read below", tree.host.read_at(tree.driver_root()).display()))
}

fn without_library(tree: &DriverTree, cards: &[String]) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!(
            "there are {} NVIDIA cards ({}) and no {NVML}; install the driver, or name the library",
            cards.len(),
            cards.join(", ")
        ),
    )
    .with("read below", tree.host.read_at(tree.driver_root()).display())
    .with("folders", LIBRARY_FOLDERS.join(", "))
}
