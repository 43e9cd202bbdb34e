//! From a host to a backend, or to the reason why there is none.

use std::path::Path;
use std::sync::Arc;

use vgpu_backend_kit::{HostTree, Loaded, Place, first_of};
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
    loaded: Loaded<Arc<Cards>>,
}

impl CambriconFactory {
    /// A factory whose backends have these options.
    pub fn new(options: CambriconOptions) -> Self {
        Self { options, loaded: Loaded::default() }
    }

    fn find(&self, host: &Host) -> Result<Probe, Error> {
        if let Some(library) = &host.library {
            let cards = self.load(library).map_err(|failure| convert::load_error(&failure))?;
            return self.open(library, cards, host);
        }
        let tree = HostTree::new(&host.root);
        let functions = host::functions(&tree);
        let own = tree.is_own().then_some(Place::Loader(LIBRARY));
        let files = host::candidates(&tree).into_iter().map(Place::File);
        let found = first_of(own.into_iter().chain(files), |library| self.load(library));
        match (found, functions.as_slice()) {
            (Ok(Some((library, cards))), _) => self.open(&library, cards, host),
            (Ok(None), []) => Ok(Probe::Absent(format!(
                "no Cambricon card on the PCI bus and no {LIBRARY} below {}",
                tree.root().display()
            ))),
            (Ok(None), cards) => Err(without_library(&tree, cards)),
            (Err(failure), []) => Err(convert::load_error(&failure)),
            (Err(failure), cards) => {
                Err(convert::load_error(&failure).with("cards", cards.join(", ")))
            }
        }
    }

    /// The library's cards; a driver that was restarted since is the library's own business.
    fn load(&self, library: &Path) -> Result<Arc<Cards>, LoadFailure> {
        self.loaded.or_load(library, || {
            let api = Arc::new(LoadedCndev::load(library)?);
            Ok(Arc::new(Cards::new(api)))
        })
    }

    fn open(&self, library: &Path, cards: Arc<Cards>, host: &Host) -> Result<Probe, Error> {
        // A library that starts and cannot count cards is of no use to anybody.
        cards
            .api
            .device_count()
            .map_err(|failure| convert::error(&failure).with("library", library.display()))?;
        Ok(Probe::Ready(Arc::new(CambriconBackend::open(cards, host, self.options.clone()))))
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
