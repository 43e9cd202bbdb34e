//! Claims that the ledger does not have: allocated by an earlier run that wrote nothing down yet, or
//! lost with the ledger. The kubelet's checkpoint names them, and drivers that keep tags their parts.

use std::collections::BTreeSet;
use std::time::SystemTime;

use vgpu_core::id::{ClaimId, SlotId};
use vgpu_core::order::{CreateOrder, Grant, Shape, Target};
use vgpu_core::plan::Step;
use vgpu_core::{Device, Error, ErrorKind, Partition, PartitionState, Result};

use crate::claim::{self, ClaimRecord, Stage};
use crate::inventory::Snapshot;
use crate::node::{self, Node};
use crate::offer::ResourceName;
use crate::slots::Layout;

/// One allocation that the kubelet's checkpoint names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocated {
    /// The claim that our answer named.
    pub claim: ClaimId,
    /// The resource.
    pub resource: ResourceName,
    /// The ids.
    pub ids: BTreeSet<SlotId>,
}

impl Node {
    /// Takes up claims that the kubelet has and the ledger has not. Their ids count as held, and
    /// parts that carry their tag are theirs again; the spec comes back with the next PreStart.
    ///
    /// So are parts made ahead that the files of this boot name, the first time that this is called (see `pool/regain.rs`).
    /// Other parts without a tag cannot be told from another tool's without the ledger: they are left
    /// alone, and what they take is not given out.
    ///
    /// Returns how many were taken up.
    pub fn adopt(&self, allocated: &[Allocated]) -> usize {
        let (layout, snapshot) = (self.layout(), self.snapshot());
        let left = std::mem::take(&mut *node::lock(&self.left));
        let named: BTreeSet<&ClaimId> = allocated.iter().map(|one| &one.claim).collect();
        let mut adopted = 0;
        for one in allocated {
            let mut state = self.state();
            if state.claims.find(&one.claim).is_some() {
                continue;
            }
            let record = unknown(&layout, &snapshot, &one.resource, &one.ids, &one.claim)
                .and_then(|record| with_tagged_parts(record, &snapshot));
            match record {
                Ok(record) => {
                    tracing::info!(claim = %one.claim, resource = %one.resource, "taken up from the kubelet's checkpoint");
                    state.claims.put(record, false);
                    drop(state);
                    self.regain(&one.claim, &left, &named);
                    adopted += 1;
                }
                Err(error) => {
                    tracing::warn!(claim = %one.claim, %error, "a claim of the kubelet's cannot be taken up");
                }
            }
        }
        if adopted > 0 {
            self.relist();
        }
        adopted
    }
}

/// A claim of which only the name and the ids are known: it means what the offer means now.
pub(crate) fn unknown(
    layout: &Layout,
    snapshot: &Snapshot,
    resource: &ResourceName,
    ids: &BTreeSet<SlotId>,
    claim: &ClaimId,
) -> Result<ClaimRecord> {
    let found = layout.resources.get(resource).ok_or_else(|| {
        let why = format!(
            "{resource} is not offered any more and claim {claim} was never written down; delete the pod"
        );
        Error::new(ErrorKind::Invalid, why)
    })?;
    Ok(ClaimRecord {
        claim: claim.clone(),
        aliases: Vec::new(),
        resource: resource.clone(),
        wanted: node::wanted(found, snapshot, ids)?,
        ids: ids.clone(),
        holder: None,
        domain: found.offer.domain.clone(),
        minimum: found.offer.minimum,
        stage: Stage::Open,
        grants: Vec::new(),
        container: None,
        every_device: false,
        opened: SystemTime::now(),
    })
}

/// The claim with the parts that carry its tag, if all that it wants are there.
fn with_tagged_parts(mut record: ClaimRecord, snapshot: &Snapshot) -> Result<ClaimRecord> {
    let mut grants = Vec::new();
    for wanted in &record.wanted {
        let Some(card) = snapshot.cards.get(&wanted.device) else { return Ok(record) };
        let parts = card.partitions.iter().flatten();
        let ours = parts.filter(|p| p.tag.as_ref() == Some(&record.claim));
        for part in ours.filter(|p| p.state == PartitionState::Complete) {
            grants.push(grant(&record, &card.device, part)?);
        }
    }
    let wants: usize = record.wanted.iter().map(|w| w.wants.len()).sum();
    if grants.len() == wants {
        record.grants = grants;
        record.stage = Stage::Intended;
    }
    Ok(record)
}

fn grant(record: &ClaimRecord, device: &Device, part: &Partition) -> Result<claim::GrantRecord> {
    let shape = part.shape.clone().unwrap_or(Shape::Size(part.size));
    let (scheme, placement) = (&part.scheme, part.placement.clone());
    let order = CreateOrder::admit(device, scheme, shape, placement, record.claim.clone())?;
    let step = Step::Carve(order);
    let mut grant = claim::grant_record(device, step, &record.domain, Vec::new())?;
    let claim = record.claim.clone();
    grant.target = Some(Target { claim, grant: Grant::Part(part.id.clone()) });
    Ok(grant)
}
