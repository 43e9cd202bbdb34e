//! Taking a claim down: its spec first, so that no container can start on it any more, the hardware
//! last.

use vgpu_core::id::{ClaimId, DeviceId};
use vgpu_core::{Error, ErrorKind, PartitionId, Result, Target};

use crate::claim::{ClaimRecord, GrantRecord, Stage};
use crate::node::{self, Node};

impl Node {
    /// Releases a claim, or goes on where an earlier attempt stopped. What is gone is fine.
    ///
    /// # Errors
    /// `Busy` while processes hold a part or somebody prepares the claim; others as the driver has
    /// them. The claim then stays "releasing" and is tried again.
    pub(crate) fn release(&self, id: &ClaimId) -> Result<()> {
        let Ok(claim) = self.claim(id) else { return Ok(()) };
        let Ok(_guard) = claim.work.try_lock() else {
            let why = "the claim is being prepared or released right now";
            return Err(Error::new(ErrorKind::Busy, why).with("claim", id));
        };
        let mut record = self.claim(id)?.record;
        let outcome = self.release_alone(&mut record);
        match &outcome {
            Ok(()) => self.state().claims.remove(&record.claim),
            Err(e) => {
                if let Some(claim) = self.state().claims.find_mut(&record.claim) {
                    claim.trouble = Some(e.to_string());
                }
            }
        }
        for grant in &record.grants {
            self.inventory.refresh_device(grant.device());
        }
        outcome
    }

    fn release_alone(&self, record: &mut ClaimRecord) -> Result<()> {
        if self.claim(&record.claim)?.journalled && record.stage != Stage::Releasing {
            record.stage = Stage::Releasing;
            self.journal(record)?;
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

    fn unconfine(&self, target: &Target, container: &vgpu_core::Container) -> Result<()> {
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
