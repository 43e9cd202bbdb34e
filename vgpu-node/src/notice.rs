//! What is learned of a container beside its claim, and changes nothing of it.

use vgpu_core::id::ClaimId;
use vgpu_core::{Error, ErrorKind, Result};

use crate::claim::Stage;
use crate::node::Node;
use crate::status::{self, ClaimStatus};

impl Node {
    /// Takes down that a container of this claim may open every device of the node, whatever it was given: a
    /// privileged one. Says whose it is.
    ///
    /// # Errors
    /// `NotFound` for a claim that no container can have been started on. Where it cannot be written
    /// down, `Io` and what the ledger says; it is known to this process then.
    pub fn note_every_device(&self, claim: &ClaimId) -> Result<ClaimStatus> {
        let (known, news) = {
            let mut state = self.state();
            let found = state.claims.find_mut(claim).filter(|c| c.record.stage != Stage::Open);
            let found = found.ok_or_else(|| {
                let why = format!("there is no claim {claim} that a container can be started on");
                Error::new(ErrorKind::NotFound, why)
            })?;
            let news = !std::mem::replace(&mut found.record.every_device, true);
            (status::of(found), news)
        };
        if news {
            self.amend(claim, |record| record.every_device = true)
                .map_err(|e| e.during("note a privileged container"))?;
        }
        Ok(known)
    }
}
