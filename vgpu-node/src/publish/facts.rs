//! What a tenant may know of its grant.

use serde::{Deserialize, Serialize};
use vgpu_core::error::{Error, ErrorKind, Result};
use vgpu_core::guarantee::Guarantees;
use vgpu_core::id::{ClaimId, PartitionId, Vendor};
use vgpu_core::scheme::Scheme;
use vgpu_core::size::Size;

/// Where a container finds the facts of its claim.
pub const CLAIM_FILE: &str = "/etc/vgpu/claim.json";

/// What a tenant may know of its claim.
///
/// Names no other tenant, and nothing that is of use to reach one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimFacts {
    /// The claim.
    pub claim: ClaimId,
    /// The resource under which it was asked for, `vgpu.dev/gpu`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Every grant, in the container's order.
    pub grants: Vec<GrantFacts>,
}

/// One grant: by which mechanism, how much, and what is enforced on whose word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantFacts {
    /// Whose card.
    pub vendor: Vendor,
    /// The card's model.
    pub model: String,
    /// The mechanism.
    pub scheme: Scheme,
    /// The part, where the driver keeps one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<PartitionId>,
    /// How much; an axis that is absent has no limit.
    pub size: Size,
    /// Level, whose sum it bounds, and proof for each axis.
    pub enforcement: Guarantees,
}

impl ClaimFacts {
    /// As it stands in [`CLAIM_FILE`]; `version` 1, and new fields may come.
    pub(super) fn to_json(&self) -> Result<String> {
        #[derive(Serialize)]
        struct Versioned<'f> {
            version: u32,
            #[serde(flatten)]
            facts: &'f ClaimFacts,
        }
        let text = serde_json::to_string_pretty(&Versioned { version: 1, facts: self });
        let text = text.map_err(|e| {
            Error::new(ErrorKind::Invalid, format!("the facts of {} are no JSON: {e}", self.claim))
        })?;
        Ok(text + "\n")
    }
}
