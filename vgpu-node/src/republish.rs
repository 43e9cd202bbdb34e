//! Specs of living claims that are not as they should be: removed by a person or a reboot, or made
//! for a driver or layout that is another one now.
//!
//! A running container keeps what it started with; a spec is read at each start, so that a container
//! that is restarted after an upgrade must find what is there then.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

use vgpu_core::Result;
use vgpu_core::id::ClaimId;

use crate::claim::{Claim, ClaimRecord, Stage};
use crate::node::Node;

/// Looks between two comparisons of everything that is published; the first look compares.
const EVERY: u32 = 6;

/// When everything published is compared again.
#[derive(Debug, Default)]
pub(crate) struct Comparing(AtomicU32);

impl Comparing {
    /// Whether it is time; counts a look.
    fn is_due(&self) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed).is_multiple_of(EVERY)
    }

    /// Something changed: the next look compares.
    pub(crate) fn hasten(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

impl Node {
    /// Publishes again what is prepared, is there, and lacks its spec; now and then also where the
    /// spec is another than would be written now.
    pub(crate) fn keep_published(&self) {
        let outcome = match self.comparing.is_due() {
            true => self.publish_again(&BTreeSet::new()),
            false => self.specs.published().and_then(|there| {
                self.publish_again(&there.into_iter().collect::<BTreeSet<ClaimId>>())
            }),
        };
        if let Err(e) = outcome {
            tracing::warn!(error = %e, "cannot publish a spec that is missing or out of date");
        }
    }

    /// Looks at every prepared claim that is not in `trusted`.
    fn publish_again(&self, trusted: &BTreeSet<ClaimId>) -> Result<()> {
        let looked_at: Vec<Claim> = {
            let state = self.state();
            let prepared = state.claims.iter().filter(|c| c.record.stage == Stage::Prepared);
            prepared.filter(|c| !trusted.contains(&c.record.claim)).cloned().collect()
        };
        let mut first = Ok(());
        for claim in looked_at {
            let Ok(_guard) = claim.work.try_lock() else { continue };
            // A card that does not answer keeps no other card's claims from being looked at.
            let done = self.publish_if_changed(&claim.record.claim);
            first = first.and(done);
        }
        first
    }

    fn publish_if_changed(&self, claim: &ClaimId) -> Result<()> {
        let record = self.claim(claim)?.record;
        if record.stage != Stage::Prepared || !self.all_there(&record) {
            return Ok(());
        }
        let targets: Vec<_> = record.grants.iter().filter_map(|g| g.target.clone()).collect();
        let edits = self.edits_of(&targets)?;
        if self.is_published(&record, &edits)? {
            return Ok(());
        }
        self.publish(&record, &edits)?;
        tracing::info!(%claim, "its spec was missing or of another driver or layout; written anew");
        Ok(())
    }

    fn all_there(&self, record: &ClaimRecord) -> bool {
        record.grants.iter().all(|grant| match grant.part() {
            None => true,
            Some(part) => self
                .list_parts(grant.device())
                .is_ok_and(|parts| parts.iter().any(|p| p.id == *part)),
        })
    }
}
