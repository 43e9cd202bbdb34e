//! What the ledger keeps: claims, parts that were made ahead for nobody in particular, and modes that
//! cards were put into.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vgpu_core::id::{ClaimId, DeviceId};
use vgpu_core::ownership::Intent;
use vgpu_core::{PartitionId, ProfileId, Scheme, Shape};

use crate::claim::ClaimRecord;

/// One record of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Record {
    /// A part of a layout; told by its key `pool`.
    Pool(PoolRecord),
    /// A mode; told by its key `mode`.
    Mode(ModeRecord),
    /// A claim.
    Claim(Box<ClaimRecord>),
}

/// A mode for one trust domain that the node put a card into, or was about to: the node leaves it when
/// nobody needs it, whatever is offered by then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModeRecord {
    /// The scheme whose mode it is.
    pub mode: Scheme,
    /// The card.
    pub device: DeviceId,
}

/// A part of a layout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRecord {
    /// How it was decided, and how it is recognised after a crash. Its claim is the record's key.
    pub pool: Intent,
    /// How far it is.
    pub stage: PoolStage,
    /// The part, once it is made.
    pub part: Option<PartitionId>,
}

/// How far a part of a layout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PoolStage {
    /// Decided and written down; the driver may or may not have made it.
    Intended,
    /// It is being unmade.
    Leaving,
    /// It is there.
    Ready,
}

impl PoolRecord {
    /// Its key in the ledger.
    pub fn key(&self) -> &ClaimId {
        self.pool.order.claim()
    }

    /// The card.
    pub fn device(&self) -> &DeviceId {
        self.pool.order.device()
    }

    /// Its profile.
    pub fn profile(&self) -> Option<&ProfileId> {
        match self.pool.order.shape() {
            Shape::Profile(profile) => Some(profile),
            Shape::Size(_) => None,
        }
    }
}

/// The ledger's records, apart.
pub(crate) fn apart<'r>(
    records: impl Iterator<Item = &'r Record>,
) -> (Vec<ClaimRecord>, BTreeMap<ClaimId, PoolRecord>) {
    let (mut claims, mut pool) = (Vec::new(), BTreeMap::new());
    for record in records {
        match record {
            Record::Claim(claim) => claims.push(ClaimRecord::clone(claim)),
            Record::Pool(part) => drop(pool.insert(part.key().clone(), part.clone())),
            Record::Mode(_) => {}
        }
    }
    (claims, pool)
}
