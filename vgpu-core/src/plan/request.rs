//! What one container asks for, vendor-free.

use serde::{Deserialize, Serialize};

use crate::device::Device;
use crate::guarantee::Minimum;
use crate::id::{ClaimId, DeviceId, ProfileId, TrustDomain, Vendor};
use crate::scheme::Scheme;
use crate::size::Size;

/// What one container asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// For whom.
    pub claim: ClaimId,
    /// How much on each card.
    pub want: Want,
    /// On how many cards, each once.
    pub count: usize,
    /// Which cards may serve.
    #[serde(default)]
    pub selector: Selector,
    /// What must at least be enforced.
    #[serde(default)]
    pub minimum: Minimum,
    /// Schemes in order of liking; empty = any, strongest first.
    #[serde(default)]
    pub schemes: Vec<Scheme>,
    /// Beside whom the claim may run.
    pub domain: TrustDomain,
    /// Whether a card's mode may be changed for it.
    #[serde(default)]
    pub modes: Modes,
}

/// How much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Want {
    /// At least this much; rounded up to the grid or to a profile, told in the answer. Never served
    /// by a whole card.
    AtLeast(Size),
    /// This profile, by the vendor's name.
    Profile(ProfileId),
    /// The card alone.
    Whole,
}

/// Which cards; empty lists allow all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Selector {
    /// Vendors.
    pub vendors: Vec<Vendor>,
    /// Models, exact.
    pub models: Vec<String>,
    /// Cards: the kubelet's or the scheduler's choice; the planner never moves off them.
    pub devices: Vec<DeviceId>,
}

impl Selector {
    /// Whether a card may serve.
    pub fn selects(&self, device: &Device) -> bool {
        let listed = |empty: bool, found: bool| empty || found;
        listed(self.vendors.is_empty(), self.vendors.contains(&device.vendor))
            && listed(self.models.is_empty(), self.models.contains(&device.model))
            && listed(self.devices.is_empty(), self.devices.contains(&device.id))
    }
}

/// How to choose among cards that fit.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Policy {
    /// Fullest card first.
    #[default]
    Binpack,
    /// Emptiest card first.
    Spread,
}

/// Whether a card's mode may be changed for a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Modes {
    /// An empty card may enter a mode that needs no more than an idle card and affects only it.
    Enter,
    /// Only cards that are in the mode already.
    #[default]
    Keep,
}
