//! The backend: what is loaded, and the cards that it finds.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use vgpu_backend_kit::{HostTree, Listed, Unread, lost, read_cards};
use vgpu_core::device::Discovery;
use vgpu_core::{
    Backend, BackendInfo, Bytes, Device, Error, ErrorKind, Host, Link, Lost, Result, Scan, Vendor,
};

use crate::api::{CndevApi, CndevFailure};
use crate::cards::Cards;
use crate::health::Events;
use crate::schemes::{self, Abilities};
use crate::{convert, health, host, mim, topology};

/// What can be chosen about a Cambricon backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CambriconOptions {
    /// The step of sMLU memory sizes. The driver takes any number of MiB; a coarse step keeps sizes alike, of which
    /// a card has 16 at most. Multiples of a MiB.
    pub memory_step: Bytes,
    /// How long a failed wait for events pauses, so that a storm of errors is no busy loop.
    pub pause: Duration,
    /// How long a card that could not be watched for events is left alone.
    pub watch_again: Duration,
    /// How long a heartbeat that was seen to move may stand still before the card is suspect.
    pub heartbeat: Duration,
}

impl Default for CambriconOptions {
    fn default() -> Self {
        Self {
            memory_step: Bytes::mib(256),
            pause: Duration::from_secs(1),
            watch_again: Duration::from_secs(10),
            heartbeat: Duration::from_secs(30),
        }
    }
}

/// Cambricon cards through a loaded libcndev.
#[derive(Debug)]
pub struct CambriconBackend {
    pub(crate) cards: Arc<Cards>,
    pub(crate) tree: HostTree,
    /// Whether the library was named and not searched for: then it may be a stand-in.
    pub(crate) named: bool,
    pub(crate) options: CambriconOptions,
    pub(crate) events: Mutex<Events>,
}

impl CambriconBackend {
    /// A backend over any libcndev, real, fake or scripted.
    pub fn over(api: Arc<dyn CndevApi>, host: &Host, options: CambriconOptions) -> Self {
        Self::open(Arc::new(Cards::new(api)), host, options)
    }

    pub(crate) fn open(cards: Arc<Cards>, host: &Host, options: CambriconOptions) -> Self {
        let tree = HostTree::new(&host.root);
        let named = host.library.is_some();
        Self { cards, tree, named, options, events: Mutex::default() }
    }

    pub(crate) fn api(&self) -> &dyn CndevApi {
        &*self.cards.api
    }

    /// Reads every card that the library lists.
    fn look(&self) -> Result<Look> {
        let count = self.api().device_count().map_err(|failure| convert::error(&failure))?;
        let report = "to the vendor";
        let describe = |index| self.describe(index);
        let Listed { found, silent } = read_cards(count, &self.cards.numbers, report, describe)?;
        let lost = self.name_lost(&found, silent, count);
        Ok(Look { found, lost })
    }

    fn describe(&self, index: u32) -> std::result::Result<Device, Unread> {
        let api = self.api();
        let id = convert::device_id(&api.uuid(index)?).map_err(Unread::Card)?;
        // So that a card that is still starting is lost under its own name.
        self.cards.numbers.remember(index, &id);
        if let Some(health) = optional(api.health(index))?
            && let Some(why) = health::not_running(&health)
        {
            let why = format!("{id} does not run yet, or any more: {why}");
            return Err(Unread::Card(Error::new(ErrorKind::Lost, why)));
        }
        let pci = optional(api.pci_info(index))?;
        let memory = api.memory(index)?;
        let usable = memory.total.saturating_sub(memory.reserved.unwrap_or(0));
        if usable == 0 {
            let why = format!("{id} says that it has no memory ({memory:?}); it cannot be used");
            return Err(Unread::Card(Error::new(ErrorKind::Vendor, why)));
        }
        let cores = convert::units(optional(api.cores(index))?);
        let numa = optional(api.numa_node(index))?.flatten();
        let name = optional(api.name(index))?;
        let address = match &pci {
            Some(pci) => Some(pci.address.clone()),
            None => self.address(index)?,
        };
        let smlu = mode(api.smlu_mode(index))?;
        let mim_mode = mode(api.mim_mode(index))?;
        let mim = match mim_mode {
            Some(active) => mim::table(&self.cards, &id, index, Bytes(usable), cores)
                .map(|table| (active, table.profiles(), table.most())),
            None => None,
        };
        let resizes = !api.missing_symbols().contains(&"cndevUpdateSMluInstanceQuotaByHandle");
        let abilities = Abilities { smlu, smlu_resize: resizes, mim };
        Ok(Device {
            vendor: Vendor::CAMBRICON,
            model: convert::model(name, pci.as_ref()),
            numa: numa.or_else(|| self.tree.numa_node(address.as_deref()?)),
            pci: address,
            memory: Bytes(usable),
            compute_units: cores,
            counters: Vec::new(),
            schemes: schemes::of_card(&id, abilities, self.options.memory_step),
            id,
        })
    }

    /// The address of a card whose library does not tell it: the one at which the library finds that card.
    fn address(&self, index: u32) -> std::result::Result<Option<String>, Unread> {
        for address in host::functions(&self.tree) {
            if optional(self.api().is_at(index, &address))? == Some(true) {
                return Ok(Some(address));
            }
        }
        Ok(None)
    }

    /// Names what does not answer by what it was called when it did, and what the driver leaves out by its address.
    fn name_lost(
        &self,
        found: &[(u32, Device)],
        silent: Vec<(u32, Error)>,
        count: u32,
    ) -> Vec<Lost> {
        let mut known = self.cards.numbers.all();
        known.retain(|_, id| found.iter().all(|(_, device)| device.id != *id));
        let functions = host::functions(&self.tree);
        let mut lost = lost(silent, known, count, |index| format!("cambricon-card-{index}"));
        // Cards appear on the bus first and with the driver later. Where others are lost, they may be those.
        let taken = |at: &String| found.iter().any(|(_, d)| d.pci.as_ref() == Some(at));
        let left: Vec<&String> = functions.iter().filter(|at| !taken(at)).collect();
        let all_known = found.iter().all(|(_, device)| device.pci.is_some());
        if all_known && lost.is_empty() {
            lost.extend(left.into_iter().map(|address| {
                let why = "it is on the PCI bus, and the driver does not list it (yet)";
                Lost { name: address.clone(), reason: Error::new(ErrorKind::Lost, why) }
            }));
        }
        lost
    }
}

impl Discovery for CambriconBackend {
    fn scan(&self) -> Result<Scan> {
        let Look { found, lost } = self.look().map_err(|e| e.during("scan"))?;
        Ok(Scan { devices: found.into_iter().map(|(_, device)| device).collect(), lost })
    }

    fn topology(&self) -> Result<Vec<Link>> {
        let Look { found, .. } = self.look().map_err(|e| e.during("topology"))?;
        topology::links(self.api(), &found).map_err(|e| e.during("topology"))
    }
}

impl Backend for CambriconBackend {
    fn info(&self) -> BackendInfo {
        let missing = self.api().missing_symbols();
        BackendInfo {
            vendor: Vendor::CAMBRICON,
            library: self.api().library().to_owned(),
            driver: self.api().driver_version(),
            missing_symbols: missing.iter().map(|&symbol| symbol.to_owned()).collect(),
        }
    }
}

/// Cards with their numbers, and those that do not answer.
struct Look {
    found: Vec<(u32, Device)>,
    lost: Vec<Lost>,
}

impl From<CndevFailure> for Unread {
    fn from(failure: CndevFailure) -> Self {
        let error = convert::error(&failure);
        if convert::is_of_the_driver(&failure) { Self::Driver(error) } else { Self::Card(error) }
    }
}

/// A reading that a card may lack; a card that is lost lacks nothing, it is lost.
fn optional<T>(
    reading: std::result::Result<T, CndevFailure>,
) -> std::result::Result<Option<T>, Unread> {
    match reading {
        Ok(value) => Ok(Some(value)),
        Err(failure) if convert::is_of_the_driver(&failure) || convert::is_silent(&failure) => {
            Err(failure.into())
        }
        Err(_) => Ok(None),
    }
}

/// A mode that a card may not have. One that cannot be read is no "off": the card might be offered wrongly.
fn mode(
    reading: std::result::Result<bool, CndevFailure>,
) -> std::result::Result<Option<bool>, Unread> {
    match reading {
        Ok(on) => Ok(Some(on)),
        Err(failure) if failure.is_unsupported() => Ok(None),
        Err(failure) => Err(failure.into()),
    }
}
