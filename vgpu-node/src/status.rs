//! Who holds what, for people.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use vgpu_core::guarantee::{Enforcement, Guarantees};
use vgpu_core::id::{ClaimId, DeviceId, SlotId};
use vgpu_core::scheme::Scheme;

use crate::claim::{Claim, Holder};
use crate::node::Node;
use crate::offer::ResourceName;

/// One claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimStatus {
    /// Its id, also the CDI device name.
    pub claim: ClaimId,
    /// Its resource.
    pub resource: ResourceName,
    /// The kubelet's ids.
    pub ids: Vec<SlotId>,
    /// Who holds it, if known.
    pub holder: Option<Holder>,
    /// `allocated`, `preparing`, `prepared`, `releasing` or `broken`.
    pub state: String,
    /// Since when.
    pub since: SystemTime,
    /// What it consists of.
    pub grants: Vec<GrantStatus>,
    /// Whether a container of it was started that may open every device of the node, as a privileged
    /// one may: nothing keeps it off other pods' cards.
    #[serde(default)]
    pub every_device: bool,
    /// What keeps it from getting on, or why it is broken.
    pub trouble: Option<String>,
}

/// One grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantStatus {
    /// The card.
    pub device: DeviceId,
    /// The mechanism.
    pub scheme: Scheme,
    /// How much.
    pub size: String,
    /// The part, where the driver holds one.
    pub part: Option<String>,
    /// What is enforced: memory, compute, faults.
    pub levels: Levels,
}

/// What is enforced per axis; a per-process limit counts as cooperative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Levels {
    /// Memory.
    pub memory: Enforcement,
    /// Compute.
    pub compute: Enforcement,
    /// Faults.
    pub faults: Enforcement,
}

impl Levels {
    /// The levels that count.
    pub fn of(guarantees: &Guarantees) -> Self {
        let [memory, compute, faults] = guarantees.strength();
        Self { memory, compute, faults }
    }
}

impl Node {
    /// Every claim that lives, oldest first.
    pub fn claims(&self) -> Vec<ClaimStatus> {
        let state = self.state();
        let mut claims: Vec<ClaimStatus> = state.claims.iter().map(of).collect();
        claims.sort_by(|a, b| a.since.cmp(&b.since).then_with(|| a.claim.cmp(&b.claim)));
        claims
    }
}

/// A claim as people see it.
pub(crate) fn of(claim: &Claim) -> ClaimStatus {
    let record = &claim.record;
    let broken = match &record.stage {
        crate::claim::Stage::Broken(why) => Some(why.clone()),
        _ => None,
    };
    ClaimStatus {
        claim: record.claim.clone(),
        resource: record.resource.clone(),
        ids: record.ids.iter().cloned().collect(),
        holder: record.holder.clone(),
        state: record.stage.word().to_owned(),
        since: record.opened,
        grants: record
            .grants
            .iter()
            .map(|grant| GrantStatus {
                device: grant.device().clone(),
                scheme: grant.held.scheme.clone(),
                size: grant.size.to_string(),
                part: grant.part().map(ToString::to_string),
                levels: Levels::of(&grant.guarantees),
            })
            .collect(),
        every_device: record.every_device,
        trouble: broken.or_else(|| claim.trouble.clone()),
    }
}
