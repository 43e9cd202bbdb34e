//! What a machine has: cards, lost cards, and how near they are to one another.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::id::{CounterId, DeviceId, Vendor};
use crate::scheme::{Scheme, SchemeInfo};
use crate::size::Bytes;

/// Finds the cards.
pub trait Discovery {
    /// Everything of this vendor, as it is now.
    ///
    /// # Contract
    /// - `DISC-1`: ids are unique within a scan, lost cards included.
    /// - `DISC-2`: ids and models are the same in every scan and after the backend is opened anew.
    /// - `DISC-3`: a device contradicts itself nowhere: memory and compute units are positive, grids
    ///   have steps, profiles fit the card, placements do not leave it, counters cover each profile.
    /// - `DISC-4`: a card that does not answer is in `lost` with its reason; the others stay.
    /// - `DISC-5`: each scheme is declared once, `whole` always; a mode affects the device itself.
    ///
    /// # Errors
    /// Only if nothing at all can be said: `DriverReplaced`, `Permission`, `Vendor`.
    fn scan(&self) -> Result<Scan>;

    /// How near the cards are to one another; pairs that are not listed are unknown and score 0.
    ///
    /// # Contract
    /// - `DISC-6`: every pair is listed at most once, joins two different scanned devices, and a
    ///   pair that cannot be read is left out rather than failing the call.
    ///
    /// # Errors
    /// As `scan`.
    fn topology(&self) -> Result<Vec<Link>>;
}

/// One scan: what answered, and what did not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    /// Cards that answered.
    pub devices: Vec<Device>,
    /// Cards that are there and did not answer; they stay in the inventory as lost.
    pub lost: Vec<Lost>,
}

/// A card that is there and does not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// What still names it: its device id where that is known, else a PCI address or index.
    pub name: String,
    /// Why it does not answer.
    pub reason: Error,
}

/// A card, as one scan saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Identity for life.
    pub id: DeviceId,
    /// Whose it is.
    pub vendor: Vendor,
    /// Model as the vendor names it; unknown models keep their PCI id.
    pub model: String,
    /// PCI address `dddd:bb:dd.f`, lower case.
    pub pci: Option<String>,
    /// NUMA node; `None` when the platform says -1.
    pub numa: Option<u32>,
    /// Memory that can be handed out: total less what the driver keeps.
    pub memory: Bytes,
    /// SMs, CUs or cores.
    pub compute_units: NonZeroU32,
    /// Countable things; the planner and DRA read the same list.
    pub counters: Vec<(CounterId, u64)>,
    /// The ways to split it.
    pub schemes: Vec<SchemeInfo>,
}

impl Device {
    /// Looks a scheme up in the device's own description.
    ///
    /// # Errors
    /// `Unsupported` names the schemes that it has.
    pub fn scheme(&self, scheme: &Scheme) -> Result<&SchemeInfo> {
        self.schemes.iter().find(|s| s.scheme == *scheme).ok_or_else(|| {
            let has: Vec<&str> = self.schemes.iter().map(|s| s.scheme.as_str()).collect();
            Error::new(
                ErrorKind::Unsupported,
                format!("{} cannot be split by {scheme}; it has {}", self.id, has.join(", ")),
            )
        })
    }

    /// How much of a counter the card has.
    pub fn counter(&self, id: &CounterId) -> u64 {
        self.counters.iter().find(|(c, _)| c == id).map_or(0, |(_, n)| *n)
    }
}

/// How near two cards are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// One end.
    pub a: DeviceId,
    /// The other.
    pub b: DeviceId,
    /// What joins them.
    pub kind: LinkKind,
    /// How many direct links; 0 for a path over PCI.
    pub lanes: u32,
}

impl Link {
    /// A number to compare by: the path's kind, and each direct link counts a hundred.
    pub fn score(&self) -> u32 {
        let path = match self.kind {
            LinkKind::System => 10,
            LinkKind::Node => 20,
            LinkKind::HostBridge => 30,
            LinkKind::ManySwitches => 40,
            LinkKind::OneSwitch => 50,
            LinkKind::Board => 60,
        };
        path + self.lanes.min(64) * 100
    }
}

/// The PCI path between two cards, from far to near.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, strum::Display,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum LinkKind {
    /// Across NUMA nodes.
    System,
    /// Within a NUMA node, across host bridges.
    Node,
    /// Across the host bridge.
    HostBridge,
    /// Over several PCI switches.
    ManySwitches,
    /// Over one PCI switch.
    OneSwitch,
    /// On one board.
    Board,
}
