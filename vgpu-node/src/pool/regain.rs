//! Parts made ahead that running claims hold, told without the ledger.
//!
//! Such a part carries no tag of its claim. What tells that it is ours is that four agree: the kubelet's checkpoint
//! names the claim, its spec and file were published by us in this boot and name the part, the driver lists the part
//! with the profile that the claim's ids ask for, and nobody else has it. Where any of them says otherwise the part is
//! left alone, as another tool's.

use std::collections::BTreeSet;

use vgpu_core::id::{ClaimId, DeviceId, ProfileId};
use vgpu_core::order::CreateOrder;
use vgpu_core::ownership::Intent;
use vgpu_core::plan::Want;
use vgpu_core::{Device, Error, ErrorKind, Partition, PartitionState, Result, Scheme, Shape};

use crate::claim::{self, ClaimRecord, GrantRecord, PREFIX, Stage};
use crate::inventory::Snapshot;
use crate::node::Node;
use crate::offer::Lifecycle;
use crate::pool::record::{PoolRecord, PoolStage};
use crate::pool::standing::is_claimed;
use crate::pool::take;
use crate::publish::{GrantFacts, Left};

/// A part that is held, and its record where the ledger has none.
type Held = (GrantRecord, Option<PoolRecord>);

impl Node {
    /// Gives a claim that was taken up from the checkpoint, and that wants parts made ahead, those that its file names.
    /// `named` is every claim that the checkpoint has.
    pub(crate) fn regain(&self, id: &ClaimId, left: &Left, named: &BTreeSet<&ClaimId>) {
        let Ok(record) = self.claim(id).map(|claim| claim.record) else { return };
        let pooled = record.wanted.iter().all(|w| w.lifecycle == Lifecycle::Pooled);
        if record.stage != Stage::Open || record.wanted.is_empty() || !pooled {
            return;
        }
        let snapshot = self.snapshot();
        let regained = self.held_parts(&record, left, named, &snapshot).and_then(|held| {
            let (grants, made): (Vec<_>, Vec<_>) = held.into_iter().unzip();
            // The claim first: a part that only the layout knows of would be idle.
            self.amend(id, |record| {
                record.grants = grants;
                record.stage = Stage::Intended;
            })?;
            made.into_iter().flatten().try_for_each(|record| self.write_pool(&record))
        });
        match regained {
            Ok(()) => tracing::info!(claim = %id, "its parts, made ahead, are told by its file"),
            Err(error) => {
                tracing::warn!(claim = %id, %error, "its parts, made ahead, cannot be told without the ledger");
            }
        }
    }

    fn held_parts(
        &self,
        record: &ClaimRecord,
        left: &Left,
        named: &BTreeSet<&ClaimId>,
        snapshot: &Snapshot,
    ) -> Result<Vec<Held>> {
        let facts = left.get(&record.claim).ok_or_else(|| no("no file of this boot is there"))?;
        if facts.claim != record.claim
            || facts.resource.as_deref() != Some(record.resource.as_str())
        {
            return Err(no("its file is of another claim or resource"));
        }
        let mut wants: Vec<(&DeviceId, &Scheme, &ProfileId)> = Vec::new();
        for wanted in &record.wanted {
            for want in &wanted.wants {
                let Want::Profile(profile) = want else { return Err(no("it wants no profile")) };
                wants.push((&wanted.device, &wanted.scheme, profile));
            }
        }
        if wants.len() != facts.grants.len() {
            return Err(no("its file names more or fewer parts than its ids ask for"));
        }
        let mut held: Vec<Held> = Vec::new();
        for grant in &facts.grants {
            let (card, part) = listed(snapshot, grant)?;
            let is = |w: &(&DeviceId, &Scheme, &ProfileId)| {
                *w.0 == part.device
                    && *w.1 == part.scheme
                    && part.shape.as_ref() == Some(&Shape::Profile(w.2.clone()))
            };
            let Some(i) = wants.iter().position(is) else {
                return Err(no("its file names a part that its ids do not ask for"));
            };
            wants.swap_remove(i);
            let elsewhere = left.values().filter(|f| f.claim != record.claim);
            let mut others = elsewhere.flat_map(|f| &f.grants);
            let twice = held.iter().any(|(grant, _)| grant.part() == Some(&part.id));
            if twice || others.any(|g| g.part.as_ref() == Some(&part.id)) {
                return Err(no("its part is named twice").with("part", &part.id));
            }
            held.push(self.held_part(record, card, part, named)?);
        }
        Ok(held)
    }

    fn held_part(
        &self,
        record: &ClaimRecord,
        card: &Device,
        part: &Partition,
        named: &BTreeSet<&ClaimId>,
    ) -> Result<Held> {
        let state = self.state();
        if is_claimed(&state.claims, &part.id) {
            return Err(no("another claim has its part").with("part", &part.id));
        }
        // A part made ahead is tagged, if at all, by a name of ours that no claim has.
        let foreign = |tag: &&ClaimId| {
            !tag.as_str().starts_with(PREFIX)
                || named.contains(*tag)
                || state.claims.find(tag).is_some()
        };
        if part.tag.as_ref().filter(foreign).is_some() {
            return Err(no("its part is tagged by another").with("part", &part.id));
        }
        let grant = take::grant(record, card, part)?;
        let mut known = state.pool.values().filter(|r| r.part.as_ref() == Some(&part.id));
        if let Some(known) = known.next() {
            if known.stage != PoolStage::Ready {
                return Err(no("its part is on its way out").with("part", &part.id));
            }
            return Ok((grant, None));
        }
        let key = part.tag.clone().map_or_else(claim::fresh_id, Ok)?;
        let shape = part.shape.clone().ok_or_else(|| no("its part has no profile"))?;
        let order = CreateOrder::admit(card, &part.scheme, shape, part.placement.clone(), key)?;
        let ownership = card.scheme(&part.scheme)?.ownership;
        let pool = Intent { order, ownership, seen: Vec::new() };
        let made = PoolRecord { pool, stage: PoolStage::Ready, part: Some(part.id.clone()) };
        Ok((grant, Some(made)))
    }
}

/// The part that a grant in a file names, as its driver has it now.
fn listed<'s>(snapshot: &'s Snapshot, grant: &GrantFacts) -> Result<(&'s Device, &'s Partition)> {
    let id = grant.part.as_ref().ok_or_else(|| no("its file names no part"))?;
    let card = snapshot.cards.get(&id.device()).ok_or_else(|| no("its card does not answer"))?;
    let mut parts = card.partitions.iter().flatten();
    let same = |p: &&Partition| {
        p.id == *id
            && p.state == PartitionState::Complete
            && p.scheme == grant.scheme
            && p.size == grant.size
    };
    let part = parts.find(same);
    Ok((&card.device, part.ok_or_else(|| no("the driver has no such part").with("part", id))?))
}

fn no(why: &str) -> Error {
    Error::new(ErrorKind::NotFound, why)
}
