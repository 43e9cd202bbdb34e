//! The backend: a host's files, the libraries that are there, and the cards that they show.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use vgpu_backend_kit::HostTree;
use vgpu_core::device::Discovery;
use vgpu_core::{
    Backend, BackendInfo, Device, DeviceId, Error, ErrorKind, Host, Link, Profile, Result, Scan,
    Slots, Vendor,
};

use crate::api::{HyDmi, HyDmiMig, MigProfile, RocmSmi};
use crate::cards::{Card, Cards, Known};
use crate::disk::{Disk, HostDisk};
use crate::health::Watch;
use crate::partition::Confs;
use crate::schemes::{self, Node, VdcuWay};
use crate::smi::Smi;
use crate::{convert, host, topology};

/// Virtual DCUs on a card where nobody tells how many.
const MOST_VDCUS: NonZeroU32 = NonZeroU32::new(4).expect("not 0");

/// What can be chosen about a Hygon backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HygonOptions {
    /// ROCm SMI to load, alone, instead of searching for it.
    pub rocm_smi: Option<PathBuf>,
    /// Whether the vendor's libraries may be called in this process.
    pub calls: LibraryCalls,
    /// How often `wait` looks at the host's files.
    pub look: Duration,
}

/// Whether the vendor's libraries may be called in this process. ROCm SMI that was named is called in
/// either case; it ends its process where the host's files are not as it expects them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LibraryCalls {
    /// This process is there for them: libhydmi forks a shell, and crashes where there is no
    /// `/etc/passwd`.
    Here,
    /// They are not loaded. Virtual DCUs are made by file, cards are not cut by hardware, and only the
    /// host's own files are read.
    #[default]
    Never,
}

impl Default for HygonOptions {
    fn default() -> Self {
        Self { rocm_smi: None, calls: LibraryCalls::Never, look: Duration::from_secs(1) }
    }
}

/// What a backend stands on; every part but the files may be missing.
#[derive(Debug, Clone)]
pub struct Parts {
    /// What the host's files leave out.
    pub smi: Option<Arc<dyn RocmSmi>>,
    /// Virtual DCUs by library; else they are made by file.
    pub dmi: Option<Arc<dyn HyDmi>>,
    /// Hardware instances.
    pub mig: Option<Arc<dyn HyDmiMig>>,
    /// Where files are written.
    pub disk: Arc<dyn Disk>,
}

impl Default for Parts {
    fn default() -> Self {
        Self { smi: None, dmi: None, mig: None, disk: Arc::new(HostDisk) }
    }
}

/// A profile, and where its instances may lie.
pub(crate) type Row = (MigProfile, Vec<Slots>);

/// Hygon cards of one host.
#[derive(Debug)]
pub struct HygonBackend {
    pub(crate) cards: Cards,
    pub(crate) dmi: Option<Arc<dyn HyDmi>>,
    pub(crate) mig: Option<Arc<dyn HyDmiMig>>,
    pub(crate) confs: Confs,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) options: HygonOptions,
    pub(crate) watch: Mutex<Watch>,
    /// Held while a virtual DCU is made by library, which does not say which one it made.
    pub(crate) making: Mutex<()>,
    /// Profiles of a card never change, and reading them is many calls.
    tables: Mutex<BTreeMap<String, Vec<Row>>>,
    driver: Option<String>,
    notes: Vec<String>,
}

impl HygonBackend {
    /// A backend over any libraries, real, fake or scripted.
    pub fn over(parts: Parts, host: &Host, options: HygonOptions) -> Self {
        Self::open(parts, host, options, Known::default(), Vec::new())
    }

    pub(crate) fn open(
        parts: Parts,
        host: &Host,
        options: HygonOptions,
        known: Known,
        notes: Vec<String>,
    ) -> Self {
        let tree = HostTree::new(&host.root);
        let backend = Self {
            confs: Confs::new(&tree, Arc::clone(&parts.disk)),
            driver: host::driver_version(&tree),
            cards: Cards::new(tree, parts.smi.map(Smi::new), known),
            dmi: parts.dmi,
            mig: parts.mig,
            disk: parts.disk,
            options,
            watch: Mutex::default(),
            making: Mutex::default(),
            tables: Mutex::default(),
            notes,
        };
        backend.begin_watch();
        backend
    }

    /// The board's serial, as it stands there: a string that names no card.
    ///
    /// # Errors
    /// `NotFound`, `Lost`.
    pub fn serial(&self, device: &DeviceId) -> Result<Option<String>> {
        let card = self.card(device)?;
        Ok(self.cards.serial(card.address()))
    }

    /// A card, unless the driver was replaced under us.
    ///
    /// # Errors
    /// `DriverReplaced`, `Lost`, `NotFound`.
    pub(crate) fn card(&self, id: &DeviceId) -> Result<Card> {
        self.same_driver()?;
        self.cards.find(id)
    }

    /// # Errors
    /// `DriverReplaced`: what was loaded for one driver is not to be used with another.
    pub(crate) fn same_driver(&self) -> Result<()> {
        match (&self.driver, host::driver_version(&self.cards.tree)) {
            (Some(before), Some(now)) if *before != now => Err(Error::new(
                ErrorKind::DriverReplaced,
                format!("the driver was {before} and is {now}; start this program anew"),
            )),
            _ => Ok(()),
        }
    }

    /// What is true of all cards.
    ///
    /// # Errors
    /// As reading the node's mode: a card that might be cut must not be offered as one that is not.
    pub(crate) fn node(&self, cards: &[Card]) -> Result<Node> {
        let way = if self.dmi.is_some() { VdcuWay::Library } else { VdcuWay::File };
        let told = self.dmi.as_ref().and_then(|dmi| dmi.max_vdevices().ok());
        Ok(Node {
            way,
            most: told.and_then(NonZeroU32::new).unwrap_or(MOST_VDCUS),
            cut: self.is_cut()?,
            all: cards.iter().map(|card| card.id.clone()).collect(),
        })
    }

    /// Whether the node is in the mode of hardware instances.
    ///
    /// # Errors
    /// The library's, apart from "not supported", which is no.
    pub(crate) fn is_cut(&self) -> Result<bool> {
        let Some(mig) = &self.mig else { return Ok(false) };
        match mig.system_mode() {
            Ok((current, _)) => Ok(current),
            Err(failure) if convert::is_unsupported(&failure) => Ok(false),
            Err(failure) => Err(convert::error(&failure)),
        }
    }

    /// The profiles of a card as the library tells them, by slices less one; those that it lacks are
    /// left out (there is a gap at three slices).
    pub(crate) fn rows(&self, address: &str) -> Vec<Row> {
        let Some(mig) = &self.mig else { return Vec::new() };
        let tables = || self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rows) = tables().get(address) {
            return rows.clone();
        }
        let Ok(card) = mig.card(address) else { return Vec::new() };
        let one = |slices_less_one| {
            let profile = mig.profile(card, slices_less_one).ok()?;
            let places = mig.placements(card, profile.id).ok()?;
            Some((profile, places))
        };
        let rows: Vec<_> = (0..crate::mig::PROFILES).filter_map(one).collect();
        if !rows.is_empty() {
            tables().insert(address.to_owned(), rows.clone());
        }
        rows
    }

    pub(crate) fn table(&self, card: &Card) -> Vec<Profile> {
        schemes::table(card, &self.rows(card.address()))
    }

    pub(crate) fn describe(&self, card: &Card, node: &Node) -> Device {
        Device {
            id: card.id.clone(),
            vendor: Vendor::HYGON,
            model: card.model.clone(),
            pci: Some(card.address().to_owned()),
            numa: card.numa,
            memory: card.memory,
            compute_units: card.units.unwrap_or(NonZeroU32::MIN),
            counters: Vec::new(),
            schemes: schemes::of_card(card, node, self.table(card)),
        }
    }
}

impl Discovery for HygonBackend {
    fn scan(&self) -> Result<Scan> {
        let scan = || {
            self.same_driver()?;
            let (cards, lost) = self.cards.look();
            let node = self.node(&cards)?;
            let devices = cards.iter().map(|card| self.describe(card, &node)).collect();
            Ok(Scan { devices, lost })
        };
        scan().map_err(|e: Error| e.during("scan"))
    }

    fn topology(&self) -> Result<Vec<Link>> {
        self.same_driver().map_err(|e| e.during("topology"))?;
        let (cards, _) = self.cards.look();
        Ok(topology::links(&self.cards, &cards))
    }
}

impl Backend for HygonBackend {
    fn info(&self) -> BackendInfo {
        let mut files = vec!["sysfs".to_owned()];
        let mut missing: Vec<String> = Vec::new();
        let mut add = |library: &std::path::Path, symbols: &[&'static str]| {
            files.push(library.display().to_string());
            missing.extend(symbols.iter().map(|&symbol| symbol.to_owned()));
        };
        if let Some(smi) = &self.cards.smi {
            add(smi.api.library(), smi.api.missing_symbols());
        }
        if let Some(dmi) = &self.dmi {
            add(dmi.library(), dmi.missing_symbols());
        }
        if let Some(mig) = &self.mig {
            add(mig.library(), mig.missing_symbols());
        }
        files.extend(self.notes.iter().cloned());
        missing.sort();
        missing.dedup();
        BackendInfo {
            vendor: Vendor::HYGON,
            library: PathBuf::from(files.join(" + ")),
            driver: self.driver.clone().unwrap_or_else(|| "no version told".to_owned()),
            missing_symbols: missing,
        }
    }
}
