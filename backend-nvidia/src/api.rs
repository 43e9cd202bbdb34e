//! NVML as a safe trait: one method per C call, plain data out, and errors that keep what NVML said.
//!
//! Nothing here decides anything: it reads, bounds what it reads, and names the call that failed. Cards are named by
//! their NVML index; a card that fell off the bus fails its own calls with [`FailureCause::Code`] 15 and leaves the
//! others alone.

use std::fmt::{self, Debug};
use std::path::Path;
use std::time::Duration;

use crate::mig::api::MigApi;

/// Most cards that are read, whatever the library claims; the largest machines known have 16.
pub const MAX_CARDS: u32 = 64;
/// Most processes of one card that are read, whatever the library claims.
pub const MAX_PROCESSES: u32 = 4096;
/// Links of one card; NVML numbers them from 0 and refuses higher numbers.
pub const MAX_NVLINKS: u32 = 18;
/// The field that says what would bring a card back: 0 nothing, 1 card reset, 2 reboot, 3 drain peer-to-peer,
/// 4 drain and reset, 5 recover IMEX.
pub const FIELD_RECOVERY_ACTION: u32 = 230;

/// NVML, one method per call of the C library; every method may block for as long as the driver does.
///
/// # Errors
///
/// Every method fails with an [`NvmlFailure`] that names the C function. A number that breaks a bound of this module
/// is [`FailureCause::Malformed`]; what the card or driver lacks is told apart from what went wrong by
/// [`NvmlFailure::is_unsupported`].
pub trait NvmlApi: MigApi + Debug + Send + Sync {
    /// Reads what the library was loaded from.
    fn library(&self) -> &Path;
    /// Lists the optional C functions that the library lacks, sorted.
    fn missing_symbols(&self) -> &[&'static str];

    /// Reads the kernel driver's version, for example `570.124.06`.
    fn driver_version(&self) -> Result<String, NvmlFailure>;
    /// Reads the newest CUDA version that the driver serves.
    fn cuda_driver_version(&self) -> Result<Version, NvmlFailure>;
    /// Counts the cards, lost ones included; at most [`MAX_CARDS`].
    fn device_count(&self) -> Result<u32, NvmlFailure>;

    /// Reads the card's identity for life, `GPU-…`.
    fn uuid(&self, index: u32) -> Result<String, NvmlFailure>;
    /// Finds the index of the card with this UUID.
    fn index_of(&self, uuid: &str) -> Result<u32, NvmlFailure>;
    /// Reads the product's name, for example `NVIDIA H200`; what is not UTF-8 is replaced.
    fn name(&self, index: u32) -> Result<String, NvmlFailure>;
    /// Reads the number N of the card's node `/dev/nvidiaN`.
    fn minor_number(&self, index: u32) -> Result<u32, NvmlFailure>;
    /// Reads where the card sits on the PCI bus.
    fn pci_info(&self, index: u32) -> Result<PciInfo, NvmlFailure>;
    /// Reads the card's memory in bytes.
    fn memory_info(&self, index: u32) -> Result<MemoryInfo, NvmlFailure>;
    /// Counts the CUDA cores; divide by the cores per multiprocessor of the compute capability for multiprocessors.
    fn num_gpu_cores(&self, index: u32) -> Result<u32, NvmlFailure>;
    /// Reads the CUDA compute capability, for example 9.0.
    fn cuda_compute_capability(&self, index: u32) -> Result<Version, NvmlFailure>;
    /// Reads the NUMA node of the host that is nearest to the card; `None` where the driver names none.
    ///
    /// This is the memory affinity, not `nvmlDeviceGetNumaNodeId`: that one names the node made of the card's own
    /// memory on machines that have such a node, which is no place for a pod's CPUs.
    fn numa_node(&self, index: u32) -> Result<Option<u32>, NvmlFailure>;
    /// Reads the nearest common ancestor of two cards on the PCI tree.
    fn topology_common_ancestor(
        &self,
        index: u32,
        other: u32,
    ) -> Result<TopologyLevel, NvmlFailure>;
    /// Tells whether an NVLink (0 up to [`MAX_NVLINKS`]) is up.
    fn nvlink_active(&self, index: u32, link: u32) -> Result<bool, NvmlFailure>;
    /// Reads the PCI address, in the form of [`PciInfo::address`], of what an NVLink ends at.
    fn nvlink_remote_address(&self, index: u32, link: u32) -> Result<String, NvmlFailure>;
    /// Reads what kind of thing an NVLink ends at.
    fn nvlink_remote_kind(&self, index: u32, link: u32) -> Result<LinkEnd, NvmlFailure>;
    /// Reads whether the card is in MIG mode, and will be after its next reset.
    fn mig_mode(&self, index: u32) -> Result<MigMode, NvmlFailure>;
    /// Sets who may compute on the card.
    fn set_compute_mode(&self, index: u32, mode: ComputeMode) -> Result<(), NvmlFailure>;
    /// Lists the processes that compute on the card; more than [`MAX_PROCESSES`] are an error.
    fn compute_processes(&self, index: u32) -> Result<Vec<ComputeProcess>, NvmlFailure>;

    /// Reads the event types that the card can raise, as NVML's own bits, unknown ones kept.
    fn supported_event_types(&self, index: u32) -> Result<u64, NvmlFailure>;
    /// Makes an empty set of events to register for and wait on; it is freed when dropped.
    fn open_event_set(&self) -> Result<Box<dyn NvmlEventSet>, NvmlFailure>;

    /// Reads one field, for example [`FIELD_RECOVERY_ACTION`], that holds a number not below 0.
    fn field_value(&self, index: u32, field: u32) -> Result<u64, NvmlFailure>;
    /// Reads how many memory rows were replaced, and whether that awaits a reset or failed.
    fn remapped_rows(&self, index: u32) -> Result<RemappedRows, NvmlFailure>;
    /// Tells whether memory pages await retirement at the next reset (cards before row remapping).
    fn retired_pages_pending(&self, index: u32) -> Result<bool, NvmlFailure>;
    /// Counts uncorrected memory errors since the driver was loaded.
    fn uncorrected_ecc_errors(&self, index: u32) -> Result<u64, NvmlFailure>;
    /// Reads the core's temperature in degrees Celsius.
    fn temperature(&self, index: u32) -> Result<u32, NvmlFailure>;
    /// Reads a temperature limit in degrees Celsius.
    fn temperature_limit(&self, index: u32, limit: TemperatureLimit) -> Result<u32, NvmlFailure>;

    /// Reads the memory limits that are in force for a cgroup (r615), by the full path of its folder: its own, or those
    /// of the nearest cgroup above it that has some. Where none are set the driver says 6, or 3 as if it had no limits.
    fn memory_limits(&self, index: u32, cgroup: &Path) -> Result<MemoryLimits, NvmlFailure>;
    /// Sets a cgroup's memory limits in bytes, `hard: None` for no limit (r615); only root may.
    fn set_memory_limits(
        &self,
        index: u32,
        cgroup: &Path,
        soft: u64,
        hard: Option<u64>,
    ) -> Result<(), NvmlFailure>;
}

/// A set of events; one thread owns it, registers cards and waits.
pub trait NvmlEventSet: Debug + Send {
    /// Adds a card's events, as NVML's bits, to the set.
    ///
    /// # Errors
    ///
    /// NVML's own refusals; bits beyond [`NvmlApi::supported_event_types`] are not supported.
    fn register(&mut self, index: u32, types: u64) -> Result<(), NvmlFailure>;
    /// Waits for one event of the set's cards; `None` when `timeout` passed without one.
    ///
    /// # Errors
    ///
    /// NVML's own failures. They may come back at once and again and again: pause before waiting anew.
    fn wait(&mut self, timeout: Duration) -> Result<Option<RawEvent>, NvmlFailure>;
}

/// Who may compute on a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComputeMode {
    /// Any process.
    Default,
    /// One process at a time: with MPS the server, and through it its clients.
    ExclusiveProcess,
}

/// A failed call: which C function, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NvmlFailure {
    /// The C function.
    pub call: &'static str,
    /// Why.
    pub cause: FailureCause,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FailureCause {
    /// NVML returned this number (never 3, which is [`Self::NotSupported`]).
    Code(i64),
    /// NVML said success and gave what cannot be: a number beyond a bound, a string without end.
    Malformed(String),
    /// NVML returned 3: the card or its present mode has no such thing.
    NotSupported,
    /// The library has no such function: it is older than it.
    SymbolMissing,
}

impl NvmlFailure {
    /// Reads the number that NVML returned, if it returned one.
    pub fn code(&self) -> Option<i64> {
        match self.cause {
            FailureCause::Code(code) => Some(code),
            FailureCause::NotSupported => Some(3),
            FailureCause::Malformed(_) | FailureCause::SymbolMissing => None,
        }
    }

    /// Tells whether the card fell off the bus.
    pub fn is_lost(&self) -> bool {
        self.code() == Some(15)
    }

    /// Tells whether the card, driver or library simply lacks what was asked for, in any of the three ways of saying
    /// so: not supported (3), function not found (13), no such symbol.
    pub fn is_unsupported(&self) -> bool {
        matches!(
            self.cause,
            FailureCause::NotSupported | FailureCause::SymbolMissing | FailureCause::Code(13)
        )
    }
}

impl fmt::Display for NvmlFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let call = self.call;
        match &self.cause {
            FailureCause::Code(code) => write!(f, "{call} failed with {code} ({})", meaning(*code)),
            FailureCause::Malformed(what) => write!(f, "{call} gave what cannot be: {what}"),
            FailureCause::NotSupported => write!(f, "{call} is not supported here"),
            FailureCause::SymbolMissing => write!(f, "the library has no {call}"),
        }
    }
}

impl std::error::Error for NvmlFailure {}

/// An NVML that could not be made use of.
pub type LoadFailure = vgpu_backend_kit::LoadFailure<NvmlFailure>;

/// A version of two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Before the dot.
    pub major: u32,
    /// After the dot.
    pub minor: u32,
}

/// Where a card sits on the PCI bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PciInfo {
    /// Lower case `dddd:bb:dd.f`, as the kernel writes it in `/sys/bus/pci/devices`.
    pub address: String,
    /// Device id in the upper and vendor id (`10de`) in the lower 16 bits.
    pub device_id: u32,
    /// The same of the board's maker.
    pub subsystem_id: u32,
}

/// A card's memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryInfo {
    /// All of it, what the driver keeps included.
    pub total: u64,
    /// What the driver and firmware keep; `None` where only the call's first version exists, which counts it as used.
    pub reserved: Option<u64>,
    /// What can be allocated.
    pub free: u64,
    /// What is allocated.
    pub used: u64,
}

/// Memory limits of a cgroup on one card, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLimits {
    /// What is kept for it; beyond it, MPS may end its processes when others need the memory.
    pub soft: u64,
    /// What it cannot exceed; `None` is no limit.
    pub hard: Option<u64>,
    /// What its processes use.
    pub used: u64,
}

/// How far up the PCI tree two cards meet, near to far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopologyLevel {
    /// On one board.
    Internal,
    /// Under one PCI switch.
    Single,
    /// Under several PCI switches, without crossing a host bridge.
    Multiple,
    /// Under one host bridge.
    HostBridge,
    /// Under one NUMA node.
    Node,
    /// In one machine.
    System,
}

/// What an NVLink ends at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkEnd {
    /// A card.
    Gpu,
    /// A POWER processor.
    Npu,
    /// An NVSwitch, through which every card on it is reached.
    Switch,
    /// NVML does not know.
    Unknown,
}

/// Whether a card is cut up by MIG.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MigMode {
    /// Now.
    pub current: bool,
    /// After the next reset.
    pub pending: bool,
}

/// A process that computes on a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ComputeProcess {
    /// Process id in the host's PID namespace.
    pub pid: u32,
    /// Memory in bytes; `None` where the driver may not tell.
    pub used: Option<u64>,
    /// GPU instance it runs in.
    pub gpu_instance: Option<u32>,
    /// Compute instance it runs in.
    pub compute_instance: Option<u32>,
}

/// An event as NVML gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawEvent {
    /// The card; `None` for one that this set did not register.
    pub index: Option<u32>,
    /// NVML's bit of the type: 0x8 for a critical XID.
    pub event_type: u64,
    /// The XID (999 when unknown), or what else the type carries.
    pub data: u64,
    /// GPU instance, where the event is of one.
    pub gpu_instance: Option<u32>,
    /// Compute instance, where the event is of one.
    pub compute_instance: Option<u32>,
}

/// Memory rows of a card that were replaced by spare ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemappedRows {
    /// After corrected errors.
    pub corrected: u32,
    /// After uncorrected errors.
    pub uncorrected: u32,
    /// A replacement awaits the next reset.
    pub pending: bool,
    /// A replacement failed: the card is worn out.
    pub failed: bool,
}

/// A temperature at which the card does something about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TemperatureLimit {
    /// It switches off.
    Shutdown,
    /// It slows down.
    Slowdown,
}

/// NVML's numbers in words, so that a person need not look them up.
fn meaning(code: i64) -> &'static str {
    match code {
        1 => "not initialized",
        2 => "invalid argument",
        4 => "no permission",
        6 => "not found",
        7 => "buffer too small",
        8 => "external power missing",
        9 => "driver not loaded",
        10 => "timeout",
        11 => "interrupt trouble",
        12 => "a library is missing",
        13 => "function not found",
        14 => "damaged InfoROM",
        15 => "GPU is lost",
        16 => "reset required",
        17 => "blocked by the operating system",
        18 => "driver and library versions differ",
        19 => "in use",
        20 => "out of memory",
        21 => "no data",
        23 => "insufficient resources",
        25 => "argument version mismatch",
        999 => "unknown error",
        _ => "a code this version does not know",
    }
}
