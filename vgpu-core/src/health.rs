//! Telling how cards and parts are.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::id::{DeviceId, PartitionId};
use crate::size::Bytes;

/// Tells how cards and parts are.
pub trait Health {
    /// Reads one card afresh: itself, and each part of which the driver tells apart.
    ///
    /// # Contract
    /// - `HLTH-1`: the first event is about the card; a sound card is `Good`, any other says why.
    /// - `HLTH-2`: an unknown device is `NotFound`.
    /// - `HLTH-3`: a card that does not answer is `Lost`, and its neighbours' checks still answer.
    /// - `HLTH-4`: a card that came back is `Good` again without opening the backend anew.
    ///
    /// # Errors
    /// `NotFound`, `DriverReplaced`. A lost card is an event, not an error.
    fn check(&self, device: &DeviceId) -> Result<Vec<Event>>;

    /// Waits for events of any card, at most `timeout`; an empty list is "nothing happened".
    ///
    /// # Contract
    /// - `HLTH-5`: with nothing to tell it comes back empty, it never blocks for good.
    /// - `HLTH-6`: each event comes once, names its card and carries the vendor's cause.
    ///
    /// # Errors
    /// `DriverReplaced`, `Vendor`.
    fn wait(&self, timeout: Duration) -> Result<Vec<Event>>;

    /// Use of a card, a part or a container.
    ///
    /// # Contract
    /// - `HLTH-7`: use never exceeds what is there, a part's limit is its size, and a reading that
    ///   the driver does not give is absent, never zero.
    ///
    /// # Errors
    /// `NotFound`, `Lost`.
    fn usage(&self, subject: &Subject) -> Result<Usage>;
}

/// What happened. The cause is a row of the vendor's table, the meaning is the core's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// About whom.
    pub subject: Subject,
    /// What it means.
    pub meaning: Meaning,
    /// Vendor's name and number of it: `xid 94`, `incident 0x20: …`.
    pub cause: String,
    /// When.
    pub at: SystemTime,
}

impl Event {
    /// An event that was noticed now.
    pub fn now(subject: Subject, meaning: Meaning, cause: impl Into<String>) -> Self {
        Self { subject, meaning, cause: cause.into(), at: SystemTime::now() }
    }
}

/// Whom a reading is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// A container's share without an object (r615 counters), by its cgroup.
    Cgroup(DeviceId, PathBuf),
    /// A card.
    Device(DeviceId),
    /// A part.
    Part(PartitionId),
    /// The library, driver or a daemon of the whole vendor.
    Vendor,
}

impl Subject {
    /// The card that it lies on, if it is about one.
    pub fn device(&self) -> Option<DeviceId> {
        match self {
            Self::Cgroup(device, _) | Self::Device(device) => Some(device.clone()),
            Self::Part(part) => Some(part.device()),
            Self::Vendor => None,
        }
    }
}

/// What an event or a reading means for the one it is about, from harmless to fatal.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, strum::Display,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
#[non_exhaustive]
pub enum Meaning {
    /// Works.
    Good,
    /// A tenant's own fault; nothing for us to do.
    TenantFault,
    /// Devices or parts changed: scan again.
    Changed,
    /// No reading; never counts as good.
    Unknown,
    /// Watch: hysteresis decides.
    Suspect,
    /// Do not hand out; heals by itself.
    Resetting,
    /// Do not hand out until the card is reset.
    NeedsReset,
    /// Do not hand out until the node reboots.
    NeedsReboot,
    /// Gone.
    Lost,
    /// The driver under the library was replaced: this process must go.
    DriverReplaced,
}

/// Use, as far as the driver tells; a missing reading is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Memory in use.
    pub memory: Option<Bytes>,
    /// Memory limit as the driver has it.
    pub limit: Option<Bytes>,
    /// Busy share in parts per million over the driver's own window.
    pub busy_ppm: Option<u32>,
    /// Processes.
    pub processes: Option<u32>,
}
