//! Giving a claim a part that was made ahead.

use vgpu_core::id::{DeviceId, ProfileId};
use vgpu_core::order::{Grant, Target};
use vgpu_core::plan::{Held, Step, Want};
use vgpu_core::{Device, Error, ErrorKind, Partition, PartitionState, Result};

use crate::claim::{ClaimRecord, GrantRecord, Wanted};
use crate::node::Node;
use crate::pool::standing::is_claimed;

impl Node {
    /// An idle part of the wanted profile; the caller has the card's making lock. Where there is none the layout is
    /// gone on with first: after a reboot a container may come before it.
    pub(crate) fn take_made(
        &self,
        record: &ClaimRecord,
        wanted: &Wanted,
        want: &Want,
        taken: &[GrantRecord],
    ) -> Result<GrantRecord> {
        let Want::Profile(profile) = want else {
            let why = "only parts of a profile are made ahead";
            return Err(Error::new(ErrorKind::Invalid, why));
        };
        if let Some(part) = self.free_part(&wanted.device, profile, taken)? {
            return self.granted(record, wanted, part);
        }
        let outcome = self.lay_out_card(&wanted.device);
        if let Some(part) = self.free_part(&wanted.device, profile, taken)? {
            return self.granted(record, wanted, part);
        }
        let why = format!("no idle {profile} is on {} now", wanted.device);
        let error = Error::new(ErrorKind::Exhausted, why);
        Err(match outcome {
            Ok(()) => error,
            Err(cause) => error.with("layout", &cause.message).caused_by(cause),
        })
    }

    fn free_part(
        &self,
        device: &DeviceId,
        profile: &ProfileId,
        taken: &[GrantRecord],
    ) -> Result<Option<Partition>> {
        let listed = self.list_parts(device)?;
        let state = self.state();
        let made = state.pool.values().filter(|r| r.profile() == Some(profile));
        let mut ids: Vec<_> = made.filter_map(|r| r.part.clone()).collect();
        ids.sort();
        let free = |part: &&Partition| {
            ids.contains(&part.id)
                && part.state == PartitionState::Complete
                && part.holders.is_free()
                && !is_claimed(&state.claims, &part.id)
                && taken.iter().all(|g| g.part() != Some(&part.id))
                && state.health.usable(device, Some(&part.id))
        };
        Ok(listed.iter().find(free).cloned())
    }

    fn granted(
        &self,
        record: &ClaimRecord,
        wanted: &Wanted,
        part: Partition,
    ) -> Result<GrantRecord> {
        let snapshot = self.inventory.snapshot();
        let card = snapshot.cards.get(&wanted.device).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("there is no card {}", wanted.device))
        })?;
        let info = card.device.scheme(&wanted.scheme)?;
        if let Some((axis, has, asked)) = info.guarantees.shortfall(&record.minimum) {
            let why = format!("{} enforces {axis} at level {has}, {asked} was asked", info.scheme);
            return Err(Error::new(ErrorKind::Exhausted, why));
        }
        let state = self.state();
        let others = state.claims.iter().filter(|c| c.record.claim != record.claim);
        let mut beside = others.flat_map(|c| &c.record.grants).map(|g| &g.held);
        let stranger =
            |h: &Held| h.device == wanted.device && h.domain.as_ref() != Some(&record.domain);
        if !info.keeps_strangers_apart() && beside.any(stranger) {
            let why = format!("{} is shared with another trust domain", wanted.device);
            return Err(Error::new(ErrorKind::Exhausted, why));
        }
        grant(record, &card.device, &part)
    }
}

/// A part made ahead, as a claim has it.
pub(super) fn grant(record: &ClaimRecord, card: &Device, part: &Partition) -> Result<GrantRecord> {
    let info = card.scheme(&part.scheme)?;
    let held = Held::of_part(part, Some(record.domain.clone()));
    let target = Target { claim: record.claim.clone(), grant: Grant::Part(part.id.clone()) };
    Ok(GrantRecord {
        step: Step::Share(target.clone()),
        intent: None,
        size: held.size,
        held,
        target: Some(target),
        vendor: card.vendor.clone(),
        model: card.model.clone(),
        guarantees: info.guarantees.clone(),
        needs: info.needs.clone(),
    })
}
