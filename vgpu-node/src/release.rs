//! Taking a claim down: its spec first, so that no container can start on it any more, the hardware
//! last.

use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use vgpu_core::id::{ClaimId, DeviceId};
use vgpu_core::{Error, ErrorKind, PartitionId, Result, Target};

use crate::claim::{Claim, ClaimRecord, GrantRecord, Stage};
use crate::modes;
use crate::node::{self, Node};

impl Node {
    /// Releases a claim, or goes on where an earlier attempt stopped. What is gone is fine.
    ///
    /// # Errors
    /// `Busy` while processes hold a part or somebody prepares the claim; others as the driver has
    /// them. The claim then stays "releasing" and is tried again.
    pub(crate) fn release(&self, id: &ClaimId) -> Result<()> {
        self.release_if(id, |_| true)
    }

    /// As [`Node::release`], if the claim still is so once nobody else prepares or releases it.
    ///
    /// # Errors
    /// As [`Node::release`].
    pub(crate) fn release_if(
        &self,
        id: &ClaimId,
        still: impl FnOnce(&Claim) -> bool,
    ) -> Result<()> {
        let Ok(claim) = self.claim(id) else { return Ok(()) };
        let Some(_guard) = taken(&claim.work) else {
            let why = "the claim is being prepared or released right now";
            return Err(Error::new(ErrorKind::Busy, why).with("claim", id));
        };
        // Whoever had it may have released it.
        let Ok(claim) = self.claim(id) else { return Ok(()) };
        if !still(&claim) {
            return Ok(());
        }
        let mut record = claim.record;
        let outcome = self.release_alone(&mut record);
        // Before the claim goes: a list that still has its part would make that another tool's, and all
        // that is free on the card unhealthy for a moment.
        for grant in &record.grants {
            self.inventory.refresh_device(grant.device());
        }
        match &outcome {
            Ok(()) => self.state().claims.remove(&record.claim),
            Err(e) => {
                if let Some(claim) = self.state().claims.find_mut(&record.claim) {
                    claim.trouble = Some(e.to_string());
                }
            }
        }
        if outcome.is_ok() {
            modes::entered(&record).iter().for_each(|device| self.leave_unneeded(device));
        }
        outcome
    }

    fn release_alone(&self, record: &mut ClaimRecord) -> Result<()> {
        if self.claim(&record.claim)?.journalled && record.stage != Stage::Releasing {
            *record = self.amend(&record.claim, |record| record.stage = Stage::Releasing)?;
        }
        for name in record.names() {
            self.specs.withdraw(name)?;
        }
        let mut first = Ok(());
        for grant in &record.grants {
            // Every grant is tried; the first error is told.
            let undone = self.undo(record, grant);
            first = first.and(undone);
        }
        first?;
        if self.claim(&record.claim)?.journalled {
            node::lock(&self.ledger).forget(record.claim.as_str())?;
        }
        tracing::info!(claim = %record.claim, resource = %record.resource, "released");
        Ok(())
    }

    fn undo(&self, record: &ClaimRecord, grant: &GrantRecord) -> Result<()> {
        if let (Some(target), Some(container)) = (&grant.target, &record.container) {
            self.unconfine(target, container)?;
        }
        if grant.intent.is_none() {
            return Ok(());
        }
        let device = grant.device();
        if let Some(stuck) = self.lanes(device)?.shut(device) {
            let why = format!("{stuck} has not returned; the part is taken down after it");
            return Err(Error::new(ErrorKind::Busy, why).with("device", device));
        }
        let listed = self.list_parts(device)?;
        match self.find_made(&record.claim, grant, &listed) {
            Some(part) => self.destroy(device, &part.id),
            None => Ok(()),
        }
    }

    pub(crate) fn unconfine(
        &self,
        target: &Target,
        container: &vgpu_core::Container,
    ) -> Result<()> {
        let device = target.grant.device();
        let (target, container) = (target.clone(), container.clone());
        self.lanes(&device)?.change(&device, "unconfine", move |b| b.unconfine(&target, &container))
    }

    /// Destroys a part; one that is gone already is fine.
    pub(crate) fn destroy(&self, device: &DeviceId, part: &PartitionId) -> Result<()> {
        let id = part.clone();
        match self.lanes(device)?.change(device, "destroy", move |b| b.destroy(&id)) {
            Err(e) if e.kind != ErrorKind::NotFound => Err(e),
            _ => {
                // The next part of that id starts with a clean record.
                self.state().health.part_gone(part);
                Ok(())
            }
        }
    }
}

/// Takes a claim's lock. Another release of it is a matter of moments and is waited for; one that
/// takes long is not, since two that wait for each other would wait for ever.
fn taken(work: &Mutex<()>) -> Option<MutexGuard<'_, ()>> {
    const PATIENCE: Duration = Duration::from_secs(3);
    let began = Instant::now();
    loop {
        match work.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if began.elapsed() > PATIENCE => return None,
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}
