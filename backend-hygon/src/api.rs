//! The three libraries as safe traits, and how a call of one fails.
//!
//! One method for each C call that is used; every method may block for as long as the driver does.
//! What a library claims is bounded here: more than it can be true of is [`FailureCause::Malformed`].

use std::fmt::{self, Debug};
use std::path::Path;
use std::time::Duration;

use vgpu_core::Slots;

/// Most cards of one machine that are read, whatever a library claims.
pub const MAX_CARDS: u32 = 64;
/// Ids of virtual DCUs are below this on every node.
pub const MAX_VDCUS: u32 = 200;
/// Most instances or placements of one profile that are read.
pub const MAX_INSTANCES: u32 = 64;

/// ROCm SMI: what the kernel's own files leave out. Cards have numbers that only hold within one library.
pub trait RocmSmi: Debug + Send + Sync {
    /// What the library was loaded from.
    fn library(&self) -> &Path;
    /// The optional C functions that the library lacks, sorted.
    fn missing_symbols(&self) -> &[&'static str];
    /// The library's version, major and minor.
    ///
    /// # Errors
    /// As all calls of this trait: the library's own refusal, a missing symbol, or what cannot be.
    fn version(&self) -> Result<(u32, u32), CallFailure>;
    /// Counts the cards, other vendors' included; at most [`MAX_CARDS`].
    ///
    /// # Errors
    /// As [`RocmSmi::version`]; so for all.
    fn device_count(&self) -> Result<u32, CallFailure>;
    /// The card's PCI address, `dddd:bb:dd.f`.
    ///
    /// # Errors
    /// As [`RocmSmi::version`].
    fn pci_address(&self, index: u32) -> Result<String, CallFailure>;
    /// The board's serial: letters and digits, never a number.
    ///
    /// # Errors
    /// As [`RocmSmi::version`].
    fn serial(&self, index: u32) -> Result<String, CallFailure>;
    /// All of the card's memory in bytes.
    ///
    /// # Errors
    /// As [`RocmSmi::version`].
    fn memory_total(&self, index: u32) -> Result<u64, CallFailure>;
    /// Memory in use in bytes.
    ///
    /// # Errors
    /// As [`RocmSmi::version`].
    fn memory_used(&self, index: u32) -> Result<u64, CallFailure>;
    /// Busy share in percent.
    ///
    /// # Errors
    /// As [`RocmSmi::version`].
    fn busy_percent(&self, index: u32) -> Result<u32, CallFailure>;
    /// Compute units (library 7.6 and later).
    ///
    /// # Errors
    /// As [`RocmSmi::version`].
    fn compute_units(&self, index: u32) -> Result<u32, CallFailure>;
    /// Memory errors that were not corrected, since the driver was loaded.
    ///
    /// # Errors
    /// As [`RocmSmi::version`].
    fn uncorrected_errors(&self, index: u32) -> Result<u64, CallFailure>;
    /// Asks for a card's events from now on.
    ///
    /// # Errors
    /// As [`RocmSmi::version`].
    fn watch(&self, index: u32) -> Result<(), CallFailure>;
    /// Waits for one event of the watched cards; `None` when none came in time.
    ///
    /// # Errors
    /// As [`RocmSmi::version`]. They may come at once, again and again: pause before the next.
    fn next_event(&self, timeout: Duration) -> Result<Option<SmiEvent>, CallFailure>;
}

/// libhydmi: virtual DCUs. A card's number is the library's own, a virtual DCU's is the node's.
pub trait HyDmi: Debug + Send + Sync {
    /// What the library was loaded from.
    fn library(&self) -> &Path;
    /// The optional C functions that the library lacks, sorted.
    fn missing_symbols(&self) -> &[&'static str];
    /// Counts the cards; at most [`MAX_CARDS`].
    ///
    /// # Errors
    /// As all calls of this trait: the library's own refusal, a missing symbol, or what cannot be.
    fn device_count(&self) -> Result<u32, CallFailure>;
    /// How many virtual DCUs a card may have.
    ///
    /// # Errors
    /// As [`HyDmi::device_count`]; so for all.
    fn max_vdevices(&self) -> Result<u32, CallFailure>;
    /// How many virtual DCUs there are on the node.
    ///
    /// # Errors
    /// As [`HyDmi::device_count`].
    fn vdevice_count(&self) -> Result<u32, CallFailure>;
    /// One card.
    ///
    /// # Errors
    /// As [`HyDmi::device_count`].
    fn device_info(&self, device: u32) -> Result<DmiInfo, CallFailure>;
    /// Compute units and bytes of memory that no virtual DCU has yet.
    ///
    /// # Errors
    /// As [`HyDmi::device_count`].
    fn remaining(&self, device: u32) -> Result<(u64, u64), CallFailure>;
    /// One virtual DCU.
    ///
    /// # Errors
    /// As [`HyDmi::device_count`].
    fn vdevice_info(&self, vdevice: u32) -> Result<DmiInfo, CallFailure>;
    /// Makes one virtual DCU; which one it is, the library does not say.
    ///
    /// # Errors
    /// As [`HyDmi::device_count`].
    fn create(&self, device: u32, units: u32, memory_mib: u32) -> Result<(), CallFailure>;
    /// Unmakes one virtual DCU.
    ///
    /// # Errors
    /// As [`HyDmi::device_count`].
    fn destroy(&self, vdevice: u32) -> Result<(), CallFailure>;
    /// Changes one virtual DCU; `None` leaves a quota as it is.
    ///
    /// # Errors
    /// As [`HyDmi::device_count`].
    fn update(
        &self,
        vdevice: u32,
        units: Option<u32>,
        memory_mib: Option<u32>,
    ) -> Result<(), CallFailure>;
    /// Busy share in percent.
    ///
    /// # Errors
    /// As [`HyDmi::device_count`].
    fn vdevice_busy(&self, vdevice: u32) -> Result<u32, CallFailure>;
}

/// libhydmi_mig: hardware instances, through names that are also NVML's.
pub trait HyDmiMig: Debug + Send + Sync {
    /// What the library was loaded from.
    fn library(&self) -> &Path;
    /// The optional C functions that the library lacks, sorted.
    fn missing_symbols(&self) -> &[&'static str];
    /// The card at a PCI address `dddd:bb:dd.f`.
    ///
    /// # Errors
    /// As all calls of this trait: the library's own refusal, a missing symbol, or what cannot be.
    fn card(&self, address: &str) -> Result<MigHandle, CallFailure>;
    /// Whether the node is cut up, now and after a restart.
    ///
    /// # Errors
    /// As [`HyDmiMig::card`]; so for all.
    fn system_mode(&self) -> Result<(bool, bool), CallFailure>;
    /// Changes all cards of the node.
    ///
    /// # Errors
    /// As [`HyDmiMig::card`].
    fn set_system_mode(&self, on: bool) -> Result<(), CallFailure>;
    /// The profile of so many slices less one; there is a gap at three slices.
    ///
    /// # Errors
    /// As [`HyDmiMig::card`].
    fn profile(&self, card: MigHandle, slices_less_one: u32) -> Result<MigProfile, CallFailure>;
    /// Where instances of a profile may lie.
    ///
    /// # Errors
    /// As [`HyDmiMig::card`].
    fn placements(&self, card: MigHandle, profile: u32) -> Result<Vec<Slots>, CallFailure>;
    /// Makes a GPU instance at a place.
    ///
    /// # Errors
    /// As [`HyDmiMig::card`].
    fn create_instance(
        &self,
        card: MigHandle,
        profile: u32,
        at: Slots,
    ) -> Result<MigHandle, CallFailure>;
    /// GPU instances of a profile.
    ///
    /// # Errors
    /// As [`HyDmiMig::card`].
    fn instances(&self, card: MigHandle, profile: u32) -> Result<Vec<MigHandle>, CallFailure>;
    /// One GPU instance.
    ///
    /// # Errors
    /// As [`HyDmiMig::card`].
    fn instance_info(&self, instance: MigHandle) -> Result<MigInstance, CallFailure>;
    /// Unmakes a GPU instance; its compute instances come first.
    ///
    /// # Errors
    /// As [`HyDmiMig::card`].
    fn destroy_instance(&self, instance: MigHandle) -> Result<(), CallFailure>;
    /// The id of the compute profile of so many slices less one.
    ///
    /// # Errors
    /// As [`HyDmiMig::card`].
    fn compute_profile(
        &self,
        instance: MigHandle,
        slices_less_one: u32,
    ) -> Result<u32, CallFailure>;
    /// Makes a compute instance.
    ///
    /// # Errors
    /// As [`HyDmiMig::card`].
    fn create_compute(&self, instance: MigHandle, profile: u32) -> Result<MigHandle, CallFailure>;
    /// Compute instances of a profile.
    ///
    /// # Errors
    /// As [`HyDmiMig::card`].
    fn computes(&self, instance: MigHandle, profile: u32) -> Result<Vec<MigHandle>, CallFailure>;
    /// The id of a compute instance.
    ///
    /// # Errors
    /// As [`HyDmiMig::card`].
    fn compute_id(&self, compute: MigHandle) -> Result<u32, CallFailure>;
    /// Unmakes a compute instance.
    ///
    /// # Errors
    /// As [`HyDmiMig::card`].
    fn destroy_compute(&self, compute: MigHandle) -> Result<(), CallFailure>;
}

/// A thing of libhydmi_mig: a pointer that only the library looks behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MigHandle(pub usize);

/// A profile of GPU instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigProfile {
    /// What instances are made by.
    pub id: u32,
    /// As the vendor names it, `2g.15gb`.
    pub name: String,
    /// Most at once.
    pub max: u32,
    /// Compute units of one.
    pub units: u32,
    /// Slices of one.
    pub slices: u32,
    /// Memory of one in MiB.
    pub memory_mib: u64,
}

/// A GPU instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MigInstance {
    /// Its number on the card.
    pub id: u32,
    /// Its profile's id.
    pub profile: u32,
    /// Where it lies.
    pub slots: Slots,
}

/// A card or virtual DCU as libhydmi tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DmiInfo {
    /// Compute units.
    pub units: u32,
    /// Memory in bytes.
    pub memory: u64,
    /// Memory in use in bytes.
    pub used: u64,
    /// The card, by the library's number.
    pub device: u32,
}

/// An event as ROCm SMI gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SmiEvent {
    /// The card, by the library's number.
    pub index: u32,
    /// 1 VM fault, 2 thermal throttling, 3 before a reset, 4 after it; others are kept.
    pub kind: u32,
}

/// A failed call: of which library, which C function, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallFailure {
    /// `librocm_smi64`, `libhydmi` or `libhydmi_mig`.
    pub library: &'static str,
    /// The C function.
    pub call: &'static str,
    /// Why.
    pub cause: FailureCause,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FailureCause {
    /// The library returned this number.
    Code(i64),
    /// The library said success and gave what cannot be.
    Malformed(String),
    /// The library has no such function: it is older than it.
    SymbolMissing,
}

impl CallFailure {
    /// The number that the library returned, if it returned one.
    pub fn code(&self) -> Option<i64> {
        match self.cause {
            FailureCause::Code(code) => Some(code),
            FailureCause::Malformed(_) | FailureCause::SymbolMissing => None,
        }
    }
}

impl fmt::Display for CallFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (library, call) = (self.library, self.call);
        match &self.cause {
            FailureCause::Code(code) => {
                let meaning = crate::convert::meaning(library, *code);
                write!(f, "{call} failed with {code} ({meaning})")
            }
            FailureCause::Malformed(what) => write!(f, "{call} gave what cannot be: {what}"),
            FailureCause::SymbolMissing => write!(f, "{library} has no {call}"),
        }
    }
}

impl std::error::Error for CallFailure {}

/// A library that could not be made use of.
pub type LoadFailure = vgpu_backend_kit::LoadFailure<CallFailure>;
