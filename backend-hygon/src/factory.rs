//! From a host to a backend, or to the reason why there is none.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vgpu_backend_kit::{HostTree, Loaded};
use vgpu_core::{BackendFactory, Discovery, Error, ErrorKind, Host, Probe, Vendor};

use crate::api::{HyDmi, HyDmiMig, LoadFailure, RocmSmi};
use crate::backend::{HygonBackend, HygonOptions, LibraryCalls, Parts};
use crate::cards::Known;
use crate::convert;
use crate::dmi::LoadedDmi;
use crate::host;
use crate::mig::LoadedMig;
use crate::smi::LoadedSmi;

/// Finds Hygon cards in the host's own files, and the libraries beside them.
///
/// [`Host::library`] names libhydmi; libhydmi_mig is looked for beside it. Where none is named, both
/// are searched for in the driver's folders below [`Host::root`], and so is ROCm SMI unless
/// [`HygonOptions::rocm_smi`] names it. Nothing is loaded on a host without a card.
#[derive(Debug, Default)]
pub struct HygonFactory {
    options: HygonOptions,
    smi: Loaded<Arc<dyn RocmSmi>>,
    dmi: Loaded<Arc<dyn HyDmi>>,
    mig: Loaded<Arc<dyn HyDmiMig>>,
    /// Cards that ever answered, by where they were looked for.
    known: Mutex<HashMap<PathBuf, Known>>,
}

impl HygonFactory {
    /// A factory whose backends have these options.
    pub fn new(options: HygonOptions) -> Self {
        Self { options, ..Self::default() }
    }

    /// A library of the driver below a root, if there is one: the reason to serve Hygon in a child
    /// process.
    pub fn library_below(root: &Path) -> Option<PathBuf> {
        let tree = HostTree::new(root);
        [DMI, SMI].into_iter().flat_map(|names| candidates(&tree, names)).next()
    }

    fn find(&self, host: &Host) -> Result<Probe, Error> {
        let tree = HostTree::new(&host.root);
        let root = host.root.display();
        let known = Arc::clone(self.known().entry(host.root.clone()).or_default());
        if host::cards(&tree).is_empty()
            && known.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
        {
            let unused = match &host.library {
                Some(library) => format!(", so that {} is not loaded", library.display()),
                None => String::new(),
            };
            return Ok(Probe::Absent(format!("no Hygon card on the PCI bus below {root}{unused}")));
        }
        let mut notes = Vec::new();
        let mut parts = Parts { smi: self.smi(&tree, &mut notes)?, ..Parts::default() };
        let dmi = match &host.library {
            Some(named) => Some(named.clone()),
            None => candidates(&tree, DMI).into_iter().next(),
        };
        match (dmi, self.options.calls) {
            (Some(file), LibraryCalls::Here) => {
                let mig = beside(&file);
                match self.dmi(&file) {
                    Ok(dmi) => parts.dmi = Some(dmi),
                    Err(e) if host.library.is_some() => return Err(e),
                    Err(e) => notes.push(format!("not {}: {e}", file.display())),
                }
                if mig.is_file() {
                    match self.mig(&mig) {
                        Ok(mig) => parts.mig = Some(mig),
                        Err(e) => notes.push(format!("not {}: {e}", mig.display())),
                    }
                }
            }
            (Some(file), LibraryCalls::Never) if host.library.is_some() => {
                let why = "libhydmi was named, and it is called only in a process of its own: serve \
                           Hygon in a child (`backends.hygon.process: child`)";
                return Err(Error::new(ErrorKind::Unsupported, why).with("library", file.display()));
            }
            (Some(file), LibraryCalls::Never) => {
                notes.push(format!("not {}: it is called only in a child process", file.display()));
            }
            (None, _) => {}
        }
        let options = self.options.clone();
        let backend = HygonBackend::open(parts, host, options, Arc::clone(&known), notes);
        if let Some(why) = no_driver(&backend, &known)? {
            return Err(why);
        }
        Ok(Probe::Ready(Arc::new(backend)))
    }

    /// ROCm SMI is only asked for what the host's files leave out, so that one which is searched for
    /// and does not start keeps nobody from being served.
    fn smi(
        &self,
        tree: &HostTree,
        notes: &mut Vec<String>,
    ) -> Result<Option<Arc<dyn RocmSmi>>, Error> {
        let named = self.options.rocm_smi.as_ref();
        let files = named.map_or_else(|| candidates(tree, SMI), |file| vec![file.clone()]);
        if let (None, LibraryCalls::Never, Some(file)) = (named, self.options.calls, files.first())
        {
            notes.push(format!("not {}: it is called only in a child process", file.display()));
            return Ok(None);
        }
        for file in files {
            let load = || LoadedSmi::load(&file).map(|smi| Arc::new(smi) as Arc<dyn RocmSmi>);
            match self.smi.or_load(&file, load) {
                Ok(smi) => return Ok(Some(smi)),
                Err(failure) if named.is_some() => return Err(convert::load_error(&failure)),
                Err(failure) => notes.push(note(&failure)),
            }
        }
        Ok(None)
    }

    fn dmi(&self, file: &Path) -> Result<Arc<dyn HyDmi>, Error> {
        let load = || LoadedDmi::load(file).map(|dmi| Arc::new(dmi) as Arc<dyn HyDmi>);
        self.dmi.or_load(file, load).map_err(|failure| convert::load_error(&failure))
    }

    fn mig(&self, file: &Path) -> Result<Arc<dyn HyDmiMig>, Error> {
        let load = || LoadedMig::load(file).map(|mig| Arc::new(mig) as Arc<dyn HyDmiMig>);
        self.mig.or_load(file, load).map_err(|failure| convert::load_error(&failure))
    }

    fn known(&self) -> MutexGuard<'_, HashMap<PathBuf, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BackendFactory for HygonFactory {
    fn vendor(&self) -> Vendor {
        Vendor::HYGON
    }

    fn probe(&self, host: &Host) -> Probe {
        self.find(host).unwrap_or_else(|error| Probe::Broken(error.during("probe")))
    }
}

/// Why nothing can be served, where not one card ever answered: the host lacks the driver. Cards that
/// were there and went are the backend's to tell as lost.
fn no_driver(backend: &HygonBackend, known: &Known) -> Result<Option<Error>, Error> {
    let scan = backend.scan()?;
    if !scan.devices.is_empty() || !known.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    {
        return Ok(None);
    }
    Ok(scan.lost.into_iter().next().map(|lost| lost.reason))
}

const DMI: &[&str] = &["libhydmi.so", "libhydmi.so.1"];
const SMI: &[&str] = &["librocm_smi64.so.2", "librocm_smi64.so"];

/// Where the driver puts its libraries, new before old.
const FOLDERS: &[&str] = &["/opt/hyhal/lib", "/opt/dtk/lib", "/opt/hygondriver/lib"];

fn candidates(tree: &HostTree, names: &[&str]) -> Vec<PathBuf> {
    tree.files(FOLDERS, names)
}

/// The library of hardware instances that belongs to a libhydmi: `libhydmi.so` and `libhydmi_mig.so`.
fn beside(dmi: &Path) -> PathBuf {
    let name = dmi.file_name().unwrap_or_default().to_string_lossy();
    let (stem, rest) = name.split_once(".so").unwrap_or((&name, ""));
    dmi.with_file_name(format!("{stem}_mig.so{rest}"))
}

fn note(failure: &LoadFailure) -> String {
    format!("not {failure}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_host_is_absent_and_a_named_library_is_not_passed_over_in_silence() {
        let root = tempfile::tempdir().expect("a folder");
        for library in [None, Some(PathBuf::from("/opt/x.so"))] {
            let host = Host { root: root.path().to_owned(), library: library.clone() };
            match HygonFactory::default().probe(&host) {
                Probe::Absent(why) => {
                    assert!(why.contains("no Hygon card"), "{why}");
                    assert_eq!(why.contains("/opt/x.so"), library.is_some(), "{why}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn the_library_of_instances_lies_beside() {
        for (dmi, mig) in [
            ("/opt/hyhal/lib/libhydmi.so", "/opt/hyhal/lib/libhydmi_mig.so"),
            ("/t/libfake_hydmi.so", "/t/libfake_hydmi_mig.so"),
            ("/opt/hyhal/lib/libhydmi.so.1", "/opt/hyhal/lib/libhydmi_mig.so.1"),
        ] {
            assert_eq!(beside(Path::new(dmi)), Path::new(mig));
        }
    }
}
