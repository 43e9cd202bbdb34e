//! From a host to a backend, or to the reason why there is none.

use std::path::Path;
use std::sync::Arc;

use vgpu_backend_kit::{Loaded, Place, first_of};
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
    loaded: Loaded<Arc<Cards>>,
}

impl NvidiaFactory {
    /// A factory whose backends have these options.
    pub fn new(options: NvidiaOptions) -> Self {
        Self { options, loaded: Loaded::default() }
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
        let load = |library: &Path| self.load(library);
        let files = tree.nvml_candidates().into_iter().map(Place::File);
        let mut found = first_of(files, load);
        // Where a file refuses, that is what to speak of.
        if matches!(found, Ok(None)) && tree.host.is_own() {
            found = first_of([Place::Loader(NVML)], load);
        }
        match (found, functions.as_slice()) {
            (Ok(Some((library, cards))), _) => self.open(&library, cards, host),
            (Ok(None), []) => Ok(Probe::Absent(format!(
                "no NVIDIA card on the PCI bus and no {NVML} below {}",
                tree.host.read_at(tree.driver_root()).display()
            ))),
            (Ok(None), cards) => Err(without_library(&tree, cards)),
            (Err(failure), []) => Err(convert::load_error(&failure)),
            (Err(failure), cards) => {
                Err(convert::load_error(&failure).with("cards", cards.join(", ")))
            }
        }
    }

    /// The library's cards; what was loaded and does not answer any more is started anew.
    fn load(&self, library: &Path) -> Result<Arc<Cards>, LoadFailure> {
        if let Some(cards) = self.loaded.of(library)
            && cards.api.device_count().is_ok()
        {
            return Ok(cards);
        }
        let api: Arc<dyn NvmlApi> = Arc::new(LoadedNvml::load(library)?);
        let cards = Arc::new(Cards::new(api));
        self.loaded.replace(library, Arc::clone(&cards));
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
