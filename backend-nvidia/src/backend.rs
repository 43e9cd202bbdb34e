//! The backend: what is loaded, and the cards that it finds.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vgpu_backend_kit::{Listed, Unread, lost, read_cards};
use vgpu_core::device::Discovery;
use vgpu_core::{
    Backend, BackendInfo, Device, DeviceId, Error, ErrorKind, Host, Link, Lost, Result, Scan,
    Vendor,
};

use crate::api::{NvmlApi, NvmlFailure};
use crate::cards::Cards;
use crate::convert;
use crate::health::Events;
use crate::host::DriverTree;
use crate::isolation::{Capability, Delivery, Nodes};
use crate::mps::{self, Mps, MpsOptions};
use crate::schemes;
use crate::topology;

/// What can be chosen about an NVIDIA backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NvidiaOptions {
    /// Where the driver's libraries and programs lie on the host: `/`, or where a driver container
    /// puts them, `/run/nvidia/driver`. Read below [`Host::root`]; edits name it as on the host.
    pub driver_root: PathBuf,
    /// Which sets of the driver's files containers get.
    pub capabilities: BTreeSet<Capability>,
    /// How those files get into a container.
    pub delivery: Delivery,
    /// How long a failed wait for events pauses, so that a storm of errors is no busy loop.
    pub pause: Duration,
    /// How long a card that could not be watched for events is left alone.
    pub watch_again: Duration,
    /// How many degrees Celsius below its switch-off temperature a card is suspect.
    pub thermal_margin: u32,
    /// How MPS daemons are run.
    pub mps: MpsOptions,
}

impl Default for NvidiaOptions {
    fn default() -> Self {
        Self {
            driver_root: PathBuf::from("/"),
            capabilities: BTreeSet::from([Capability::Compute, Capability::Utility]),
            delivery: Delivery::default(),
            pause: Duration::from_secs(1),
            watch_again: Duration::from_secs(10),
            thermal_margin: 3,
            mps: MpsOptions::default(),
        }
    }
}

/// NVIDIA cards through a loaded NVML.
#[derive(Debug)]
pub struct NvidiaBackend {
    pub(crate) cards: Arc<Cards>,
    pub(crate) tree: DriverTree,
    /// Whether the library was named and not searched for: then it may be a stand-in.
    pub(crate) named: bool,
    pub(crate) options: NvidiaOptions,
    pub(crate) events: Mutex<Events>,
    pub(crate) mps: Mps,
    pub(crate) driver: String,
}

impl NvidiaBackend {
    /// A backend over any NVML, real, fake or scripted.
    ///
    /// # Errors
    /// As reading the driver's version: `DriverReplaced`, `Io` (not loaded), `Vendor`.
    pub fn over(api: Arc<dyn NvmlApi>, host: &Host, options: NvidiaOptions) -> Result<Self> {
        Self::open(Arc::new(Cards::new(api)), host, options)
    }

    pub(crate) fn open(cards: Arc<Cards>, host: &Host, options: NvidiaOptions) -> Result<Self> {
        let driver = cards.api.driver_version().map_err(|failure| convert::error(&failure))?;
        let tree = DriverTree::new(&host.root, &options.driver_root);
        let named = host.library.is_some();
        let stand_in = named && !Nodes::new(&tree).kernel_has_driver();
        Ok(Self {
            cards,
            mps: Mps::new(tree.clone(), options.mps.clone(), stand_in),
            tree,
            named,
            options,
            events: Mutex::default(),
            driver,
        })
    }

    pub(crate) fn api(&self) -> &dyn NvmlApi {
        &*self.cards.api
    }

    /// Every card with its number, and those that do not answer.
    fn look(&self) -> Result<Look> {
        let count = self.api().device_count().map_err(|failure| convert::error(&failure))?;
        let report = "with `nvidia-bug-report.sh`";
        let describe = |index| self.describe(index);
        let Listed { found, silent } = read_cards(count, &self.cards.numbers, report, describe)?;
        let lost = self.name_lost(&found, silent, count);
        Ok(Look { found, lost })
    }

    fn describe(&self, index: u32) -> std::result::Result<Device, Unread> {
        let api = self.api();
        let uuid = api.uuid(index)?;
        let id = DeviceId::new(uuid).map_err(Unread::Card)?;
        let pci = optional(api.pci_info(index))?;
        let memory = api.memory_info(index)?;
        let usable = memory.total.saturating_sub(memory.reserved.unwrap_or(0));
        if usable == 0 {
            let why = format!("{id} says that it has no memory ({memory:?}); it cannot be used");
            return Err(Unread::Card(Error::new(ErrorKind::Vendor, why)));
        }
        let capability = optional(api.cuda_compute_capability(index))?;
        let cores = optional(api.num_gpu_cores(index))?;
        let numa = optional(api.numa_node(index))?.flatten();
        let name = optional(api.name(index))?;
        let mig = match api.mig_mode(index) {
            Ok(mig) => Some(mig),
            Err(failure) if failure.is_unsupported() => None,
            // A card that might be in MIG mode must not be offered as one that is not.
            Err(failure) => return Err(failure.into()),
        };
        let address = pci.as_ref().map(|pci| pci.address.clone());
        // Of a card in MIG mode the driver counts nothing by cgroup.
        let memory_limits = mig.is_none_or(|mig| !mig.current) && self.limits_memory(index);
        let table = match mig {
            Some(_) => self.mig_table(&id, index).map_err(Unread::Card)?,
            None => None,
        };
        let units = convert::multiprocessors(cores, capability);
        // A driver that does not tell the cores tells the multiprocessors of its profiles.
        let units = table.as_ref().map_or(units, |table| units.max(table.multiprocessors));
        let schemes = schemes::of_card(&id, memory_limits, mig, capability, table.as_deref());
        Ok(Device {
            vendor: Vendor::NVIDIA,
            model: convert::model(name, pci.as_ref()),
            numa: numa.or_else(|| self.tree.host.numa_node(address.as_deref()?)),
            pci: address,
            memory: vgpu_core::Bytes(usable),
            compute_units: units,
            counters: table.as_ref().map(|table| table.counters.clone()).unwrap_or_default(),
            schemes: self.with_mps(index, &id, units, mig, schemes),
            id,
        })
    }

    /// The card as a scan would tell it.
    pub(crate) fn describe_for_mode(&self, index: u32) -> Result<Device> {
        self.describe(index).map_err(|unread| match unread {
            Unread::Card(why) | Unread::Driver(why) => why,
        })
    }

    /// Names what does not answer by what it was called when it did.
    fn name_lost(
        &self,
        found: &[(u32, Device)],
        silent: Vec<(u32, Error)>,
        count: u32,
    ) -> Vec<Lost> {
        let mut known = self.cards.numbers.all();
        known.retain(|_, id| found.iter().all(|(_, device)| device.id != *id));
        let nameless = silent.iter().filter(|(index, _)| !known.contains_key(index)).count();
        let unmatched = match nameless {
            // With one card and one PCI function left over, they belong together.
            1 if known.is_empty() => self.unmatched_function(found),
            _ => None,
        };
        lost(silent, known, count, |index| {
            unmatched.clone().unwrap_or_else(|| format!("nvidia-card-{index}"))
        })
    }

    fn unmatched_function(&self, found: &[(u32, Device)]) -> Option<String> {
        let taken =
            |address: &String| found.iter().any(|(_, device)| device.pci.as_ref() == Some(address));
        let mut left: Vec<String> = self.tree.functions();
        left.retain(|address| !taken(address));
        (left.len() == 1).then(|| left.remove(0))
    }
}

impl Discovery for NvidiaBackend {
    fn scan(&self) -> Result<Scan> {
        let Look { found, lost } = self.look().map_err(|e| e.during("scan"))?;
        Ok(Scan { devices: found.into_iter().map(|(_, device)| device).collect(), lost })
    }

    fn topology(&self) -> Result<Vec<Link>> {
        let Look { found, .. } = self.look().map_err(|e| e.during("topology"))?;
        topology::links(self.api(), &found).map_err(|e| e.during("topology"))
    }
}

impl Backend for NvidiaBackend {
    fn info(&self) -> BackendInfo {
        let mut missing: Vec<String> =
            self.api().missing_symbols().iter().map(|&symbol| symbol.to_owned()).collect();
        if let Err(why) = self.mps.program()
            && (self.options.mps.program.is_some() || why.kind != ErrorKind::NotFound)
        {
            // Not a symbol, and a capability that is not declared all the same. A host that never had
            // the program misses nothing.
            missing.push(format!("{} ({})", mps::NAME, why.message));
        }
        missing.sort();
        missing.dedup();
        BackendInfo {
            vendor: Vendor::NVIDIA,
            library: self.api().library().to_owned(),
            driver: self.driver.clone(),
            missing_symbols: missing,
        }
    }
}

/// Cards with their numbers, and those that do not answer.
struct Look {
    found: Vec<(u32, Device)>,
    lost: Vec<Lost>,
}

impl From<NvmlFailure> for Unread {
    fn from(failure: NvmlFailure) -> Self {
        let error = convert::error(&failure);
        if convert::is_of_the_driver(&failure) { Self::Driver(error) } else { Self::Card(error) }
    }
}

/// A reading that a card may lack; a card that is lost lacks nothing, it is lost.
fn optional<T>(
    reading: std::result::Result<T, NvmlFailure>,
) -> std::result::Result<Option<T>, Unread> {
    match reading {
        Ok(value) => Ok(Some(value)),
        Err(failure)
            if convert::is_of_the_driver(&failure) || matches!(failure.code(), Some(15 | 16)) =>
        {
            Err(failure.into())
        }
        Err(_) => Ok(None),
    }
}
