//! libcndev as a safe trait: one method per C call, plain data out, and errors that keep what it said.
//!
//! Nothing here decides anything: it reads, bounds what it reads, and names the call that failed. Cards are
//! named by their index; their handles stay inside.

mod failure;
mod values;

use std::fmt::Debug;
use std::path::Path;
use std::time::Duration;

pub use crate::api::failure::{CndevFailure, FailureCause, LoadFailure};
pub use crate::api::values::{
    CardHealth, EccCounters, Incident, MemoryInfo, MimInstance, MimProfile, PciInfo, Process,
    Quota, RawEvent, Relation, Repair, SmluInstance, SmluProfile,
};

/// Most cards that are read, whatever the library claims; the largest machines known have 16.
pub const MAX_CARDS: u32 = 64;
/// Most processes of one card that are read, whatever the library claims.
pub const MAX_PROCESSES: u32 = 4096;
/// Most instances of one card that are read; the driver keeps 64 sMLU instances.
pub const MAX_INSTANCES: u32 = 256;
/// Most places of one MIM profile that are read.
pub const MAX_PLACEMENTS: u32 = 64;
/// Most MLU-Link ports of one card that are read; known cards have up to 8.
pub const MAX_LINKS: u32 = 32;
/// The longest name of an instance, in bytes, that the library keeps whole.
pub const MAX_NAME: usize = 99;

type Answer<T> = Result<T, CndevFailure>;

/// libcndev, one method per call of the C library; every method may block for as long as the driver does.
///
/// A library whose driver was restarted is started anew within the call. It may be called from several threads,
/// as the vendor's own device plugin does; changes of one card come one at a time.
///
/// # Errors
///
/// Every method fails with a [`CndevFailure`] that names the C function. A number that breaks a bound of this
/// module is [`FailureCause::Malformed`]; what the card, its mode or the library lacks is told apart from what
/// went wrong by [`CndevFailure::is_unsupported`].
pub trait CndevApi: Debug + Send + Sync {
    /// Reads what the library was loaded from.
    fn library(&self) -> &Path;
    /// Lists the optional C functions that the library lacks, sorted.
    fn missing_symbols(&self) -> &[&'static str];
    /// Reads the driver's version as it was when the library was first started, or `unknown`.
    fn driver_version(&self) -> String;
    /// Counts the cards that the driver lists; at most [`MAX_CARDS`].
    fn device_count(&self) -> Answer<u32>;

    /// Reads the card's identity for life: 36 characters, without a prefix.
    fn uuid(&self, index: u32) -> Answer<String>;
    /// Tells whether the card sits at a PCI address `dddd:bb:dd.f`.
    fn is_at(&self, index: u32, address: &str) -> Answer<bool>;
    /// Reads the number N of the card's node `/dev/cambricon_devN`.
    fn minor_number(&self, index: u32) -> Answer<u32>;
    /// Reads the model, for example `MLU370-X8`; empty where the library does not know it.
    fn name(&self, index: u32) -> Answer<String>;
    /// Reads where the card sits on the PCI bus, and what it is there.
    fn pci_info(&self, index: u32) -> Answer<PciInfo>;
    /// Reads the NUMA node of the host that is nearest to the card; `None` where there is none.
    fn numa_node(&self, index: u32) -> Answer<Option<u32>>;
    /// Counts the card's cores, or where that call is missing its clusters of cores.
    fn cores(&self, index: u32) -> Answer<u32>;
    /// Reads the card's memory in bytes.
    fn memory(&self, index: u32) -> Answer<MemoryInfo>;
    /// Reads how busy the card's cores are on average, in percent.
    fn busy_percent(&self, index: u32) -> Answer<u32>;
    /// Lists the processes on the card; more than [`MAX_PROCESSES`] are an error.
    fn processes(&self, index: u32) -> Answer<Vec<Process>>;

    /// Reads the card's health, with its incidents where the library tells them.
    fn health(&self, index: u32) -> Answer<CardHealth>;
    /// Reads a number that the card's firmware counts up as long as it lives.
    fn heartbeat(&self, index: u32) -> Answer<u32>;
    /// Tells whether the card refuses everybody (compute mode "prohibited").
    fn is_prohibited(&self, index: u32) -> Answer<bool>;
    /// Reads counters of memory errors.
    fn ecc(&self, index: u32) -> Answer<EccCounters>;
    /// Reads whether memory awaits repair, or could not be repaired.
    fn repair(&self, index: u32) -> Answer<Repair>;
    /// Reads the event types that the card can raise, as the library's own bits.
    fn supported_event_types(&self, index: u32) -> Answer<u64>;
    /// Makes an empty set of events to register for and wait on; it is freed when dropped.
    fn open_events(&self) -> Answer<Box<dyn CndevEvents>>;

    /// Reads how near two cards are.
    fn relation(&self, index: u32, other: u32) -> Answer<Relation>;
    /// Counts the card's MLU-Link ports; at most [`MAX_LINKS`].
    fn link_ports(&self, index: u32) -> Answer<u32>;
    /// Tells whether an MLU-Link port is up.
    fn link_up(&self, index: u32, port: u32) -> Answer<bool>;
    /// Reads the UUID of the card at the other end of an MLU-Link port.
    fn link_remote(&self, index: u32, port: u32) -> Answer<String>;

    /// Tells whether the card is in MIM mode.
    fn mim_mode(&self, index: u32) -> Answer<bool>;
    /// Enters or leaves MIM mode.
    fn set_mim_mode(&self, index: u32, on: bool) -> Answer<()>;
    /// Reads one entry of the profile table, from 0; "not found" and "not supported" are gaps in it.
    fn mim_profile(&self, index: u32, number: u32) -> Answer<MimProfile>;
    /// Lists where a profile may lie, as start and length in the card's slices.
    fn mim_placements(&self, index: u32, profile: i32) -> Answer<Vec<(u32, u32)>>;
    /// Reads how many instances of a profile fit on an empty card.
    fn mim_most(&self, index: u32, profile: i32) -> Answer<u32>;
    /// Makes an instance there, under a name of at most [`MAX_NAME`] bytes; answers with its handle.
    fn create_mim(&self, index: u32, profile: i32, place: (u32, u32), name: &str) -> Answer<i32>;
    /// Lists the card's instances.
    fn mim_instances(&self, index: u32) -> Answer<Vec<MimInstance>>;
    /// Reads the UUID of the instance behind a handle.
    fn mim_uuid(&self, handle: i32) -> Answer<String>;
    /// Unmakes an instance.
    fn destroy_mim(&self, handle: i32) -> Answer<()>;

    /// Tells whether the card is in sMLU mode.
    fn smlu_mode(&self, index: u32) -> Answer<bool>;
    /// Enters or leaves sMLU mode.
    fn set_smlu_mode(&self, index: u32, on: bool) -> Answer<()>;
    /// Lists the ids of the card's profiles; the driver keeps 16.
    fn smlu_profile_ids(&self, index: u32) -> Answer<Vec<i32>>;
    /// Reads one profile.
    fn smlu_profile(&self, index: u32, profile: i32) -> Answer<SmluProfile>;
    /// Makes a profile; answers with its id.
    fn create_smlu_profile(&self, index: u32, quota: Quota) -> Answer<i32>;
    /// Unmakes a profile that no instance has.
    fn destroy_smlu_profile(&self, index: u32, profile: i32) -> Answer<()>;
    /// Makes an instance of a profile, under a name of at most [`MAX_NAME`] bytes; answers with its handle.
    fn create_smlu(&self, index: u32, profile: i32, name: &str) -> Answer<i32>;
    /// Lists the card's instances.
    fn smlu_instances(&self, index: u32) -> Answer<Vec<SmluInstance>>;
    /// Reads the UUID of the instance behind a handle.
    fn smlu_uuid(&self, handle: i32) -> Answer<String>;
    /// Changes what a living instance may use.
    fn update_smlu(&self, handle: i32, quota: Quota) -> Answer<()>;
    /// Unmakes an instance.
    fn destroy_smlu(&self, handle: i32) -> Answer<()>;

    /// Numbers by which the library may know the card within an instance's handle, likeliest first.
    fn slots(&self, index: u32) -> Vec<i32>;
}

/// A set of events; one thread owns it, registers cards and waits.
pub trait CndevEvents: Debug + Send {
    /// Adds a card's events, as the library's bits, to the set.
    ///
    /// # Errors
    ///
    /// The library's own refusals.
    fn register(&mut self, index: u32, types: u64) -> Answer<()>;
    /// Waits for one event of the set's cards; `None` when `timeout` passed without one.
    ///
    /// # Errors
    ///
    /// The library's own failures. They may come back at once and again and again: pause before waiting anew.
    fn wait(&mut self, timeout: Duration) -> Answer<Option<RawEvent>>;
}
