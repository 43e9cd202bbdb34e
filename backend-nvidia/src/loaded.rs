//! A loaded NVML: nvml-wrapper where it is right, our raw calls where it is not.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nvml_wrapper::enum_wrappers::device::{
    EccCounter, MemoryError, TemperatureSensor, TemperatureThreshold, TopologyLevel as WrapperLevel,
};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use vgpu_backend_kit::at_most;

use crate::api::{
    ComputeMode, ComputeProcess, FailureCause, LinkEnd, LoadFailure, MAX_CARDS, MemoryInfo,
    MemoryLimits, MigMode, NvmlApi, NvmlEventSet, NvmlFailure, PciInfo, RawEvent, RemappedRows,
    TemperatureLimit, TopologyLevel, Version,
};
use crate::symbols::malformed;
use crate::sys::{EventSet, Handle, LIBRARY, Table};

/// NVML, loaded and started, for the rest of the process's life.
#[derive(Debug)]
pub struct LoadedNvml {
    library: OsString,
    table: &'static Table,
    wrapper: &'static Nvml,
    /// Handles that worked, by index. One whose card is lost is dropped, so that the next call looks it up anew: the
    /// driver may have brought the card back under another.
    cards: Mutex<HashMap<u32, Arc<Card>>>,
}

/// One card under its two names.
#[derive(Debug)]
pub(crate) struct Card {
    pub(crate) raw: Handle,
    device: Device<'static>,
}

impl LoadedNvml {
    /// Loads `library`, a path or a name that the loader searches for, checks that it is NVML, and starts it.
    ///
    /// The library stays mapped and started until the process ends; loading the same one again costs nothing more.
    ///
    /// # Errors
    ///
    /// [`LoadFailure`]: it cannot be loaded, is another library, or does not start (for example because the driver is
    /// not there). All may be tried again.
    pub fn load(library: impl AsRef<OsStr>) -> Result<Self, LoadFailure> {
        let library = library.as_ref();
        let start = |failure| LoadFailure::Start {
            library: library.to_string_lossy().into_owned(),
            wanted: LIBRARY,
            failure,
        };
        let table = pinned_table(library)?;
        table.init().map_err(start)?;
        // The wrapper reads the driver's version at its start without a bound, so it is read with one first.
        table.driver_version().map_err(start)?;
        let wrapper = pinned_wrapper(library).map_err(start)?;
        Ok(Self { library: library.to_owned(), table, wrapper, cards: Mutex::default() })
    }

    pub(crate) fn table(&self) -> &'static Table {
        self.table
    }

    /// Runs a call on a card; a handle that turns out lost or unknown is forgotten.
    pub(crate) fn on<T>(
        &self,
        index: u32,
        call: impl FnOnce(&Card) -> Result<T, NvmlFailure>,
    ) -> Result<T, NvmlFailure> {
        let card = self.card(index)?;
        call(&card).inspect_err(|failure| {
            if matches!(failure.code(), Some(1 | 2 | 15)) {
                self.cards().remove(&index);
            }
        })
    }

    /// As [`Self::on`], for a call that asks whether its argument exists: "invalid argument" is no word about the card.
    pub(crate) fn asked<T>(
        &self,
        index: u32,
        call: impl FnOnce(&Card) -> Result<T, NvmlFailure>,
    ) -> Result<T, NvmlFailure> {
        self.on(index, |card| match call(card) {
            Err(failure) if failure.code() == Some(2) => Ok(Err(failure)),
            answer => answer.map(Ok),
        })?
    }

    fn card(&self, index: u32) -> Result<Arc<Card>, NvmlFailure> {
        if let Some(card) = self.cards().get(&index) {
            return Ok(Arc::clone(card));
        }
        // Looked up outside the lock: this call may take as long as the driver likes.
        let raw = self.table.handle_by_index(index)?;
        let call = "nvmlDeviceGetHandleByIndex_v2";
        let device = wrapped(call, self.wrapper.device_by_index(index))?;
        let card = Arc::new(Card { raw, device });
        self.cards().insert(index, Arc::clone(&card));
        Ok(card)
    }

    fn cards(&self) -> MutexGuard<'_, HashMap<u32, Arc<Card>>> {
        // A map of handles is whole after every statement, so a panic elsewhere does not spoil it.
        self.cards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NvmlApi for LoadedNvml {
    fn library(&self) -> &Path {
        Path::new(&self.library)
    }

    fn missing_symbols(&self) -> &[&'static str] {
        self.table.missing()
    }

    fn driver_version(&self) -> Result<String, NvmlFailure> {
        self.table.driver_version()
    }

    fn cuda_driver_version(&self) -> Result<Version, NvmlFailure> {
        let call = "nvmlSystemGetCudaDriverVersion_v2";
        let packed = wrapped(call, self.wrapper.sys_cuda_driver_version())?;
        let Ok(packed) = u32::try_from(packed) else {
            return Err(malformed(call, format!("CUDA version {packed}")));
        };
        Ok(Version { major: packed / 1000, minor: packed % 1000 / 10 })
    }

    fn device_count(&self) -> Result<u32, NvmlFailure> {
        let call = "nvmlDeviceGetCount_v2";
        let count = wrapped(call, self.wrapper.device_count())?;
        at_most(count, "cards", MAX_CARDS).map_err(|what| malformed(call, what))
    }

    fn uuid(&self, index: u32) -> Result<String, NvmlFailure> {
        self.on(index, |card| self.table.uuid(card.raw))
    }

    fn index_of(&self, uuid: &str) -> Result<u32, NvmlFailure> {
        self.table.index(self.table.handle_by_uuid(uuid)?)
    }

    fn name(&self, index: u32) -> Result<String, NvmlFailure> {
        self.on(index, |card| self.table.name(card.raw))
    }

    fn minor_number(&self, index: u32) -> Result<u32, NvmlFailure> {
        self.on(index, |card| wrapped("nvmlDeviceGetMinorNumber", card.device.minor_number()))
    }

    fn pci_info(&self, index: u32) -> Result<PciInfo, NvmlFailure> {
        self.on(index, |card| self.table.pci_info(card.raw))
    }

    fn set_compute_mode(&self, index: u32, mode: ComputeMode) -> Result<(), NvmlFailure> {
        let mode = match mode {
            ComputeMode::Default => nvml_wrapper::enum_wrappers::device::ComputeMode::Default,
            ComputeMode::ExclusiveProcess => {
                nvml_wrapper::enum_wrappers::device::ComputeMode::ExclusiveProcess
            }
        };
        self.on(index, |_card| {
            // A name of its own: the wrapper wants it for itself alone.
            let call = "nvmlDeviceGetHandleByIndex_v2";
            let mut device = wrapped(call, self.wrapper.device_by_index(index))?;
            wrapped("nvmlDeviceSetComputeMode", device.set_compute_mode(mode))
        })
    }

    fn memory_info(&self, index: u32) -> Result<MemoryInfo, NvmlFailure> {
        let second = self.on(index, |card| {
            let memory = wrapped("nvmlDeviceGetMemoryInfo_v2", card.device.memory_info())?;
            Ok(MemoryInfo {
                total: memory.total,
                reserved: Some(memory.reserved),
                free: memory.free,
                used: memory.used,
            })
        });
        match second {
            // 25: the driver has the function and not this version of its argument.
            Err(failure) if failure.is_unsupported() || failure.code() == Some(25) => {
                self.on(index, |card| self.table.memory_info(card.raw))
            }
            other => other,
        }
    }

    fn num_gpu_cores(&self, index: u32) -> Result<u32, NvmlFailure> {
        self.on(index, |card| wrapped("nvmlDeviceGetNumGpuCores", card.device.num_cores()))
    }

    fn cuda_compute_capability(&self, index: u32) -> Result<Version, NvmlFailure> {
        let call = "nvmlDeviceGetCudaComputeCapability";
        let version =
            self.on(index, |card| wrapped(call, card.device.cuda_compute_capability()))?;
        match (u32::try_from(version.major), u32::try_from(version.minor)) {
            (Ok(major), Ok(minor)) => Ok(Version { major, minor }),
            _ => Err(malformed(call, format!("{}.{}", version.major, version.minor))),
        }
    }

    fn numa_node(&self, index: u32) -> Result<Option<u32>, NvmlFailure> {
        let call = "nvmlDeviceGetMemoryAffinity";
        let words =
            self.on(index, |card| wrapped(call, card.device.memory_affinity(NUMA_WORDS, 0)))?;
        Ok(first_bit(&words))
    }

    fn topology_common_ancestor(
        &self,
        index: u32,
        other: u32,
    ) -> Result<TopologyLevel, NvmlFailure> {
        let call = "nvmlDeviceGetTopologyCommonAncestor";
        // The wrapper wants the other card by value, and does not let a card be copied.
        let far = wrapped("nvmlDeviceGetHandleByIndex_v2", self.wrapper.device_by_index(other))?;
        let level =
            self.on(index, |card| wrapped(call, card.device.topology_common_ancestor(far)))?;
        Ok(match level {
            WrapperLevel::Internal => TopologyLevel::Internal,
            WrapperLevel::Single => TopologyLevel::Single,
            WrapperLevel::Multiple => TopologyLevel::Multiple,
            WrapperLevel::HostBridge => TopologyLevel::HostBridge,
            WrapperLevel::Node => TopologyLevel::Node,
            WrapperLevel::System => TopologyLevel::System,
        })
    }

    fn nvlink_active(&self, index: u32, link: u32) -> Result<bool, NvmlFailure> {
        self.on(index, |card| {
            wrapped("nvmlDeviceGetNvLinkState", card.device.link_wrapper_for(link).is_active())
        })
    }

    fn nvlink_remote_address(&self, index: u32, link: u32) -> Result<String, NvmlFailure> {
        self.on(index, |card| self.table.nvlink_remote(card.raw, link))
    }

    fn nvlink_remote_kind(&self, index: u32, link: u32) -> Result<LinkEnd, NvmlFailure> {
        self.on(index, |card| self.table.nvlink_remote_kind(card.raw, link))
    }

    fn mig_mode(&self, index: u32) -> Result<MigMode, NvmlFailure> {
        self.on(index, |card| self.table.mig_mode(card.raw))
    }

    fn compute_processes(&self, index: u32) -> Result<Vec<ComputeProcess>, NvmlFailure> {
        self.on(index, |card| self.table.processes(card.raw))
    }

    fn supported_event_types(&self, index: u32) -> Result<u64, NvmlFailure> {
        self.on(index, |card| self.table.supported_events(card.raw))
    }

    fn open_event_set(&self) -> Result<Box<dyn NvmlEventSet>, NvmlFailure> {
        let set = self.table.event_set()?;
        Ok(Box::new(CardEvents { set, table: self.table, cards: Vec::new() }))
    }

    fn field_value(&self, index: u32, field: u32) -> Result<u64, NvmlFailure> {
        self.on(index, |card| self.table.field_value(card.raw, field))
    }

    fn remapped_rows(&self, index: u32) -> Result<RemappedRows, NvmlFailure> {
        self.on(index, |card| self.table.remapped_rows(card.raw))
    }

    fn retired_pages_pending(&self, index: u32) -> Result<bool, NvmlFailure> {
        let call = "nvmlDeviceGetRetiredPagesPendingStatus";
        self.on(index, |card| wrapped(call, card.device.are_pages_pending_retired()))
    }

    fn uncorrected_ecc_errors(&self, index: u32) -> Result<u64, NvmlFailure> {
        self.on(index, |card| {
            let count =
                card.device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile);
            wrapped("nvmlDeviceGetTotalEccErrors", count)
        })
    }

    fn temperature(&self, index: u32) -> Result<u32, NvmlFailure> {
        self.on(index, |card| {
            wrapped("nvmlDeviceGetTemperature", card.device.temperature(TemperatureSensor::Gpu))
        })
    }

    fn temperature_limit(&self, index: u32, limit: TemperatureLimit) -> Result<u32, NvmlFailure> {
        let threshold = match limit {
            TemperatureLimit::Shutdown => TemperatureThreshold::Shutdown,
            TemperatureLimit::Slowdown => TemperatureThreshold::Slowdown,
        };
        self.on(index, |card| {
            let limit = card.device.temperature_threshold(threshold);
            wrapped("nvmlDeviceGetTemperatureThreshold", limit)
        })
    }

    fn memory_limits(&self, index: u32, cgroup: &Path) -> Result<MemoryLimits, NvmlFailure> {
        self.on(index, |card| self.table.limits.read(card.raw, cgroup))
    }

    fn set_memory_limits(
        &self,
        index: u32,
        cgroup: &Path,
        soft: u64,
        hard: Option<u64>,
    ) -> Result<(), NvmlFailure> {
        self.on(index, |card| self.table.limits.set(card.raw, cgroup, soft, hard))
    }
}

/// An event set that knows which handle is which card.
#[derive(Debug)]
struct CardEvents {
    set: EventSet,
    table: &'static Table,
    cards: Vec<(Handle, u32)>,
}

impl NvmlEventSet for CardEvents {
    fn register(&mut self, index: u32, types: u64) -> Result<(), NvmlFailure> {
        let handle = self.table.handle_by_index(index)?;
        self.set.register(handle, types)?;
        self.cards.retain(|(known, number)| *known != handle && *number != index);
        self.cards.push((handle, index));
        Ok(())
    }

    fn wait(&mut self, timeout: Duration) -> Result<Option<RawEvent>, NvmlFailure> {
        let Some(event) = self.set.wait(timeout)? else {
            return Ok(None);
        };
        let known = self.cards.iter().find(|(handle, _)| *handle == event.device);
        Ok(Some(RawEvent {
            index: known.map(|(_, index)| *index),
            event_type: event.event_type,
            data: event.data,
            gpu_instance: event.gpu_instance,
            compute_instance: event.compute_instance,
        }))
    }
}

/// Words of the NUMA mask: 1024 nodes, the most that Linux has.
const NUMA_WORDS: usize = 1024 / usize::BITS as usize;

/// What was opened before, by the name that was asked for. A probe that is repeated for months must not open it anew
/// each time, since nothing is ever closed.
static TABLES: Mutex<Vec<(OsString, &'static Table)>> = Mutex::new(Vec::new());
static WRAPPERS: Mutex<Vec<(OsString, &'static Nvml)>> = Mutex::new(Vec::new());

fn pinned_table(library: &OsStr) -> Result<&'static Table, LoadFailure> {
    if let Some(table) = known(&TABLES, library) {
        return Ok(table);
    }
    let table: &'static Table = Box::leak(Box::new(Table::open(library)?));
    TABLES.lock().unwrap_or_else(PoisonError::into_inner).push((library.to_owned(), table));
    Ok(table)
}

fn pinned_wrapper(library: &OsStr) -> Result<&'static Nvml, NvmlFailure> {
    if let Some(wrapper) = known(&WRAPPERS, library) {
        return Ok(wrapper);
    }
    let nvml = wrapped("nvmlInit_v2", Nvml::builder().lib_path(library).init())?;
    let wrapper: &'static Nvml = Box::leak(Box::new(nvml));
    WRAPPERS.lock().unwrap_or_else(PoisonError::into_inner).push((library.to_owned(), wrapper));
    Ok(wrapper)
}

fn known<T>(list: &Mutex<Vec<(OsString, &'static T)>>, library: &OsStr) -> Option<&'static T> {
    let list = list.lock().unwrap_or_else(PoisonError::into_inner);
    list.iter().find(|(name, _)| name == library).map(|(_, found)| *found)
}

/// A result of the wrapper with our error, which names the call.
fn wrapped<T>(call: &'static str, result: Result<T, NvmlError>) -> Result<T, NvmlFailure> {
    result.map_err(|error| {
        let cause = match error {
            NvmlError::NotSupported => FailureCause::NotSupported,
            NvmlError::FailedToLoadSymbol(_) => FailureCause::SymbolMissing,
            NvmlError::Utf8Error(_)
            | NvmlError::NulError(_)
            | NvmlError::LibloadingError(_)
            | NvmlError::StringTooLong { .. }
            | NvmlError::IncorrectBits(_) => FailureCause::Malformed(error.to_string()),
            other => FailureCause::Code(i64::from(u32::from(other))),
        };
        NvmlFailure { call, cause }
    })
}

/// The lowest bit that is set in a mask of words, lowest word first.
fn first_bit(words: &[std::ffi::c_ulong]) -> Option<u32> {
    let (at, word) = words.iter().enumerate().find(|(_, word)| **word != 0)?;
    u32::try_from(at).ok().map(|at| at * std::ffi::c_ulong::BITS + word.trailing_zeros())
}
