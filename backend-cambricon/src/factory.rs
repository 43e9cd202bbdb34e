//! From a host to a backend, or to the reason why there is none.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use vgpu_backend_kit::HostTree;
use vgpu_core::{BackendFactory, Error, ErrorKind, Host, Probe, Vendor};

use crate::api::LoadFailure;
use crate::backend::{CambriconBackend, CambriconOptions};
use crate::cards::Cards;
use crate::convert;
use crate::host::{self, LIBRARY, LIBRARY_FOLDERS};
use crate::loaded::LoadedCndev;

/// Finds Cambricon cards and loads libcndev.
///
/// The library is [`Host::library`] alone where it is named. Else it is, on the process's own root, whatever the
/// loader finds and `$NEUWARE_HOME`, and on any root the usual folders below [`Host::root`].
#[derive(Debug, Default)]
pub struct CambriconFactory {
    options: CambriconOptions,
    /// What was loaded, by what was asked for: a library is loaded once and never unloaded, and the names of its
    /// cards are remembered with it.
    loaded: Mutex<HashMap<OsString, Arc<Cards>>>,
}

impl CambriconFactory {
    /// A factory whose backends have these options.
    pub fn new(options: CambriconOptions) -> Self {
        Self { options, loaded: Mutex::default() }
    }

    fn find(&self, host: &Host) -> Result<Probe, Error> {
        if let Some(library) = &host.library {
            let cards = self.load(library).map_err(|failure| convert::load_error(&failure))?;
            return self.open(library, cards, host);
        }
        let tree = HostTree::new(&host.root);
        let functions = host::functions(&tree);
        let mut refused: Option<Error> = None;
        if tree.is_own() {
            match self.load(Path::new(LIBRARY)) {
                Ok(cards) => return self.open(Path::new(LIBRARY), cards, host),
                // The loader has none of that name.
                Err(LoadFailure::Open { .. }) => {}
                Err(failure) => refused = Some(convert::load_error(&failure)),
            }
        }
        for candidate in host::candidates(&tree) {
            match self.load(&candidate) {
                Ok(cards) => return self.open(&candidate, cards, host),
                // The first one's reason; the others are mostly copies of it.
                Err(failure) => {
                    refused.get_or_insert_with(|| convert::load_error(&failure));
                }
            }
        }
        match (refused, functions.as_slice()) {
            (Some(why), []) => Err(why),
            (Some(why), cards) => Err(why.with("cards", cards.join(", "))),
            (None, []) => Ok(Probe::Absent(format!(
                "no Cambricon card on the PCI bus and no {LIBRARY} below {}",
                tree.root().display()
            ))),
            (None, cards) => Err(without_library(&tree, cards)),
        }
    }

    /// The library's cards; a driver that was restarted since is the library's own business.
    fn load(&self, library: &Path) -> Result<Arc<Cards>, LoadFailure> {
        if let Some(cards) = self.loaded().get(library.as_os_str()) {
            return Ok(Arc::clone(cards));
        }
        // Not under the lock: the library may take as long as it likes to start.
        let api = Arc::new(LoadedCndev::load(library)?);
        let cards = Arc::new(Cards::new(api));
        Ok(Arc::clone(self.loaded().entry(library.as_os_str().to_owned()).or_insert(cards)))
    }

    fn open(&self, library: &Path, cards: Arc<Cards>, host: &Host) -> Result<Probe, Error> {
        // A library that starts and cannot count cards is of no use to anybody.
        cards
            .api
            .device_count()
            .map_err(|failure| convert::error(&failure).with("library", library.display()))?;
        Ok(Probe::Ready(Arc::new(CambriconBackend::open(cards, host, self.options.clone()))))
    }

    fn loaded(&self) -> std::sync::MutexGuard<'_, HashMap<OsString, Arc<Cards>>> {
        // A map of pointers is whole after every statement, so a panic elsewhere does not spoil it.
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BackendFactory for CambriconFactory {
    fn vendor(&self) -> Vendor {
        Vendor::CAMBRICON
    }

    fn probe(&self, host: &Host) -> Probe {
        self.find(host).unwrap_or_else(|error| Probe::Broken(error.during("probe")))
    }
}

fn without_library(tree: &HostTree, cards: &[String]) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!(
            "there are {} Cambricon cards ({}) and no {LIBRARY}; it comes with the driver's package, not with \
             the toolkit: install that, or name the library",
            cards.len(),
            cards.join(", ")
        ),
    )
    .with("read below", tree.root().display())
    .with("folders", LIBRARY_FOLDERS.join(", "))
}
