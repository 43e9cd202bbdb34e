//! What is on a card, as a layout sees it: whose each part is, and whether it may go.

use std::collections::BTreeMap;

use vgpu_core::id::{ClaimId, DeviceId, ProfileId};
use vgpu_core::plan::Want;
use vgpu_core::plan::layout::{Right, Standing};
use vgpu_core::scheme::Scheme;
use vgpu_core::{Partition, PartitionId, PartitionState, Shape};

use crate::claim::{Claim, ClaimRecord, Claims, Stage};
use crate::pool::record::{PoolRecord, PoolStage};

/// The parts on a card, and those that a claim still has though the driver lists them no more.
///
/// What the kubelet allocated and no container has started on yet is in use too: so many parts of its profile stay.
pub(crate) fn standing(
    device: &DeviceId,
    listed: &[Partition],
    claims: &Claims,
    pool: &BTreeMap<ClaimId, PoolRecord>,
) -> Vec<Standing> {
    let ours = |id: &PartitionId| {
        let is_it = |r: &&PoolRecord| r.part.as_ref() == Some(id) && r.stage != PoolStage::Intended;
        pool.values().find(is_it)
    };
    let mut all: Vec<Standing> = listed
        .iter()
        .map(|part| Standing {
            part: part.id.clone(),
            profile: match &part.shape {
                Some(Shape::Profile(profile)) => Some(profile.clone()),
                _ => None,
            },
            placement: part.placement.clone(),
            right: match ours(&part.id) {
                None => Right::Foreign,
                Some(_) if part.state != PartitionState::Complete => Right::Foreign,
                Some(_) if is_claimed(claims, &part.id) || !part.holders.is_free() => Right::InUse,
                Some(_) => Right::Idle,
            },
        })
        .collect();
    // A part that was lost under a claim is not made anew in silence: its place is kept until the claim is gone.
    for grant in claims.iter().flat_map(|c| &c.record.grants).filter(|g| g.is_pooled()) {
        let Some(part) = grant.part().filter(|part| part.device() == *device) else { continue };
        if all.iter().all(|s| s.part != *part) {
            all.push(Standing {
                part: part.clone(),
                profile: grant.held.profile.clone(),
                placement: grant.held.placement.clone(),
                right: Right::InUse,
            });
        }
    }
    for (profile, count) in promised(device, claims) {
        let like = all
            .iter_mut()
            .filter(|s| s.right == Right::Idle && s.profile.as_ref() == Some(&profile));
        like.take(count).for_each(|s| s.right = Right::InUse);
    }
    all
}

/// How many idle parts of each profile can be given: whole, not in a living claim, held by no process.
pub(crate) fn idle(
    listed: &[Partition],
    claims: &Claims,
    pool: &BTreeMap<ClaimId, PoolRecord>,
) -> Vec<(ProfileId, PartitionId)> {
    let living = |claim: &&Claim| !claim.superseded && !claim.absent;
    let mut found = Vec::new();
    for record in pool.values().filter(|r| r.stage == PoolStage::Ready) {
        let (Some(id), Some(profile)) = (&record.part, record.profile()) else { continue };
        let taken = claims.iter().filter(living).any(|c| has(&c.record, id));
        let whole = |p: &&Partition| p.id == *id && p.state == PartitionState::Complete;
        // Processes on the part of a claim that is ending are waited for when its ids are given anew.
        let ending = claims.iter().any(|c| has(&c.record, id));
        let there = listed.iter().find(whole).is_some_and(|p| ending || p.holders.is_free());
        if there && !taken {
            found.push((profile.clone(), id.clone()));
        }
    }
    found.sort();
    found
}

/// Whether any claim has this part, a dying one too.
pub(crate) fn is_claimed(claims: &Claims, part: &PartitionId) -> bool {
    claims.iter().any(|c| has(&c.record, part))
}

fn has(record: &ClaimRecord, part: &PartitionId) -> bool {
    record.grants.iter().any(|g| g.part() == Some(part))
}

/// What is allocated on a card and has no part yet.
fn promised(device: &DeviceId, claims: &Claims) -> BTreeMap<ProfileId, usize> {
    let mut promised = BTreeMap::new();
    let waiting = claims.iter().filter(|c| !c.superseded && !c.absent);
    let waiting = waiting.filter(|c| {
        c.record.grants.is_empty() && matches!(c.record.stage, Stage::Intended | Stage::Open)
    });
    for wanted in waiting.flat_map(|c| &c.record.wanted).filter(|w| w.device == *device) {
        for want in &wanted.wants {
            if let Want::Profile(profile) = want {
                *promised.entry(profile.clone()).or_default() += 1;
            }
        }
    }
    promised
}

/// Whether a record is of this scheme on this card.
pub(crate) fn is_on(record: &PoolRecord, device: &DeviceId, scheme: Option<&Scheme>) -> bool {
    record.device() == device && scheme.is_none_or(|s| record.pool.order.scheme() == s)
}
