//! Following the world: what the drivers list, what the kubelet lists, and what a reboot took.

use std::path::Path;
use std::time::{Duration, Instant};

use vgpu_core::health::Event;
use vgpu_core::id::{ClaimId, DeviceId};
use vgpu_core::order::Grant;
use vgpu_core::{
    Confinement, Container, Error, ErrorKind, Meaning, Partition, PartitionState, Result, Subject,
};

use crate::absence::{KubeletView, Verdict, Watched};
use crate::claim::{Claim, ClaimRecord, GrantRecord, Stage};
use crate::health::{State, Transition};
use crate::inventory::{self, Presence};
use crate::ledger::Ledger;
use crate::needs;
use crate::node::Node;
use crate::pool::{self, PoolStage, Record};

/// How long a card may take to tell its health; one that hangs must not keep the others waiting.
const PATIENCE: Duration = Duration::from_secs(5);

impl Node {
    /// Looks at everything afresh: probes and scans, reads each card's health, withdraws the specs
    /// of parts that vanished, sets limits on containers again that went, goes on with releases that could not end, and tells the kubelet.
    pub fn refresh(&self) {
        self.inventory.refresh();
        self.note_shut_lanes();
        // Before health is read: a daemon that is back has clients again.
        self.keep_modes();
        self.read_health();
        self.check_parts();
        self.look_at_containers();
        self.go_on_releasing();
        self.relist();
    }

    /// Takes events of a backend: health policy decides what they mean for each card and part.
    pub fn take_events(&self, events: &[Event]) {
        let now = self.now();
        let mut rescan = false;
        {
            let mut state = self.state();
            for event in events {
                rescan |= event.meaning == Meaning::Changed;
                state.health.observe(now, event).iter().for_each(tell);
            }
        }
        if rescan {
            self.comparing.hasten();
            self.inventory.refresh();
            self.check_parts();
        }
        self.relist();
    }

    /// Takes the kubelet's word on which pods are there, or that it gave none.
    ///
    /// Returns whether its checkpoint names claims that its list does not have: init containers, or
    /// pods that are gone since the file was last written.
    pub fn observe_kubelet(&self, view: Option<&KubeletView>) -> bool {
        let now = Instant::now();
        let mut gone: Vec<Claim> = Vec::new();
        let (mut changed, mut doubtful) = (false, false);
        {
            let mut state = self.state();
            let drained = state.drained();
            let claims: Vec<Claim> = state.claims.iter().cloned().collect();
            let watched: Vec<Watched<'_>> = claims.iter().map(watched).collect();
            let verdicts = state.absence.observe(now, view, &watched);
            changed |= state.drained() != drained;
            doubtful |= view.is_some_and(|view| watched.iter().any(|w| w.only_in_checkpoint(view)));
            view.iter().for_each(|v| state.claims.learn_holders(v.asked, &v.holders));
            for (claim, verdict) in claims.iter().zip(verdicts) {
                let quiet = verdict != Verdict::Present;
                if let Some(claim) = state.claims.find_mut(&claim.record.claim) {
                    changed |= claim.absent != quiet;
                    claim.absent = quiet;
                }
                if verdict == Verdict::Gone {
                    gone.push(claim.clone());
                }
            }
        }
        for claim in gone {
            changed = true;
            let Some(view) = view.filter(|_| self.nobody_holds(&claim.record)) else { continue };
            // By now it may have been started on: a driver may have taken long to say who holds it.
            let still_gone = |claim: &Claim| {
                let gone = claim.is_known_at(view.asked);
                if gone {
                    tracing::info!(claim = %claim.record.claim, "its pod is gone; releasing");
                }
                gone
            };
            if let Err(e) = self.release_if(&claim.record.claim, still_gone) {
                tracing::warn!(claim = %claim.record.claim, error = %e, "cannot release yet");
            }
        }
        if changed {
            self.relist();
        }
        doubtful
    }

    /// Sets the limits of a claim on the container that is starting on it.
    ///
    /// # Errors
    /// Any error must end the start: `NotFound` for a claim that is not prepared, the backend's own.
    pub fn confine(&self, claim: &ClaimId, container: &Container) -> Result<Confinement> {
        let stage = self.claim(claim)?.record.stage;
        if stage != Stage::Prepared {
            let why = format!("claim {claim} is {}, not prepared", stage.word());
            return Err(Error::new(ErrorKind::NotFound, why).during("confine"));
        }
        // Written down first, so that a limit that was set is taken back after a crash too, and so that
        // of two containers that start at once the second sees the first.
        let record = self.amend_if(claim, |record| {
            needs::met(record, container, &self.state().claims, &self.options.root)?;
            record.container = Some(container.clone());
            Ok(())
        })?;
        let mut all = Confinement::NotNeeded;
        for target in record.grants.iter().filter_map(|g| g.target.clone()) {
            let device = target.grant.device();
            let container = container.clone();
            let done = self
                .lanes(&device)?
                .change(&device, "confine", move |b| b.confine(&target, &container))?;
            if done == Confinement::Set {
                all = Confinement::Set;
            }
        }
        if let Some(claim) = self.state().claims.find_mut(claim) {
            claim.confinement = Some(all);
        }
        Ok(all)
    }

    /// A card whose last change has not returned takes nothing new until it does.
    pub(crate) fn note_shut_lanes(&self) {
        let (now, snapshot) = (self.now(), self.inventory.snapshot());
        let mut state = self.state();
        for (device, card) in &snapshot.cards {
            let transitions = match card.lanes.shut(device) {
                Some(stuck) => state.health.suspect(now, device, &stuck.to_string()),
                None => state.health.unsuspect(now, device),
            };
            transitions.iter().for_each(tell);
        }
    }

    /// A change came back after its caller had given up: whatever it made is found by its intent.
    pub(crate) fn after_late(&self, device: &DeviceId, operation: &str) {
        tracing::warn!(%device, operation, "a driver's call came back late");
        self.inventory.refresh_device(device);
        let transitions = self.state().health.unsuspect(self.now(), device);
        transitions.iter().for_each(tell);
        self.relist();
    }

    /// Withdraws the specs of claims whose parts on this card are not listed any more.
    pub(crate) fn withdraw_vanished(&self, device: &DeviceId, listed: &[Partition]) -> Result<()> {
        let lost = |listed: &[Partition]| -> Vec<ClaimId> {
            let state = self.state();
            let records = state.claims.iter().map(|c| &c.record);
            let lost =
                records.filter(|r| r.stage == Stage::Prepared && vanished(r, device, listed));
            lost.map(|r| r.claim.clone()).collect()
        };
        let suspects = lost(listed);
        if suspects.is_empty() {
            return Ok(());
        }
        // The list may be older than a claim that was prepared since: only who is neither in it nor in
        // a newer one has lost its part.
        let fresh = self.list_parts(device)?;
        for id in lost(&fresh).into_iter().filter(|id| suspects.contains(id)) {
            let record = self.claim(&id)?.record;
            for name in record.names() {
                self.specs.withdraw(name)?;
            }
            tracing::error!(claim = %id, %device, "its part vanished from the card");
            let why = format!("its part vanished from {device}");
            self.amend(&id, |record| {
                // What is being taken down by now goes on being taken down.
                if record.stage == Stage::Prepared {
                    record.stage = Stage::Broken(why);
                }
            })?;
        }
        Ok(())
    }

    /// For every card that answers: vanished parts, and specs that a reboot or a person removed.
    fn check_parts(&self) {
        let snapshot = self.inventory.snapshot();
        for (device, card) in &snapshot.cards {
            let (Presence::Here, Ok(parts)) = (&card.presence, &card.partitions) else { continue };
            // The snapshot may be older than a part that was made since; ask again before judging.
            let suspects = {
                let state = self.state();
                let mut records = state.claims.iter().map(|c| &c.record);
                records.any(|r| r.stage == Stage::Prepared && vanished(r, device, parts))
            };
            if !suspects {
                continue;
            }
            let judged =
                self.list_parts(device).and_then(|fresh| self.withdraw_vanished(device, &fresh));
            if let Err(e) = judged {
                tracing::warn!(%device, error = %e, "cannot tell whether a part vanished");
            }
        }
        self.keep_published();
    }

    fn go_on_releasing(&self) {
        let releasing: Vec<ClaimId> = {
            let state = self.state();
            let stuck = state.claims.iter().filter(|c| c.record.stage == Stage::Releasing);
            stuck.map(|c| c.record.claim.clone()).collect()
        };
        for claim in releasing {
            if let Err(e) = self.release(&claim) {
                tracing::warn!(%claim, error = %e, "cannot release yet");
            }
        }
    }

    /// Reads every card's health; a card that does not answer is told lost by the inventory.
    fn read_health(&self) {
        let snapshot = self.inventory.snapshot();
        let cards: Vec<(&DeviceId, &Presence)> =
            snapshot.cards.iter().map(|(device, card)| (device, &card.presence)).collect();
        // Side by side: one that hangs keeps no other from being read in time.
        inventory::in_parallel(&cards, |(device, presence)| self.read_card(device, presence));
        let now = self.now();
        self.state().health.tick(now).iter().for_each(tell);
    }

    fn read_card(&self, device: &DeviceId, presence: &Presence) {
        if let Presence::Lost { reason, .. } = presence {
            let lost = self.state().health.lost(self.now(), device, &reason.to_string());
            return lost.iter().for_each(tell);
        }
        let id = device.clone();
        let read = self
            .lanes(device)
            .map(|lanes| lanes.within(PATIENCE))
            .and_then(|lanes| lanes.read_device(device, "check", move |b| b.check(&id)));
        let events = read.unwrap_or_else(|e| {
            let lost = e.kind == ErrorKind::Lost;
            let meaning = if lost { Meaning::Lost } else { Meaning::Suspect };
            vec![Event::now(Subject::Device(device.clone()), meaning, e.to_string())]
        });
        let now = self.now();
        let mut state = self.state();
        state.health.returned(now, device).iter().for_each(tell);
        events.iter().flat_map(|e| state.health.observe(now, e)).for_each(|t| tell(&t));
    }

    fn nobody_holds(&self, record: &ClaimRecord) -> bool {
        record.grants.iter().all(|grant| match grant.part() {
            None => true,
            Some(part) => self.list_parts(grant.device()).is_ok_and(|parts| {
                parts.iter().find(|p| p.id == *part).is_none_or(|p| p.holders.is_free())
            }),
        })
    }
}

/// Says what became of a card or part; what heals is no warning.
fn tell(transition: &Transition) {
    let Transition { subject, to, .. } = transition;
    match to {
        State::Healthy => tracing::info!(?subject, "healthy"),
        State::Recovering { cause, .. } => tracing::info!(?subject, cause, "recovering"),
        State::Suspect { cause, .. } => tracing::warn!(?subject, cause, "suspect"),
        State::Unhealthy { cause, needs, .. } => {
            tracing::warn!(?subject, cause, ?needs, "unhealthy");
        }
    }
}

/// Notes a changed boot id: every part of an earlier boot is presumed gone until it is found again.
///
/// Returns whether the machine was booted since the ledger was last written.
pub(crate) fn note_reboot(ledger: &mut Ledger<Record>, root: &Path) -> Result<bool> {
    let now = inventory::boot_id(root)?;
    let rebooted = ledger.boot_id().is_some_and(|before| before != now);
    if rebooted {
        let (records, pool) = pool::apart(ledger.records().values());
        for mut part in pool.into_values() {
            if part.stage == PoolStage::Ready {
                part.stage = PoolStage::Intended;
            }
            part.part = None;
            ledger.put(part.key().clone().as_str(), &Record::Pool(part))?;
        }
        for mut record in records {
            // What was being taken down goes on being taken down; all else is to be found or made anew.
            if record.stage != Stage::Releasing {
                record.stage = Stage::Intended;
            }
            record.container = None;
            // What was made ahead is taken anew, when it was made anew.
            if record.grants.iter().any(GrantRecord::is_pooled) {
                record.grants.clear();
            }
            for grant in record.grants.iter_mut().filter(|g| g.intent.is_some()) {
                grant.target = None;
            }
            ledger.put(record.claim.clone().as_str(), &Record::Claim(Box::new(record)))?;
        }
    }
    if ledger.boot_id() != Some(now.as_str()) {
        ledger.set_boot_id(&now)?;
    }
    Ok(rebooted)
}

fn watched(claim: &Claim) -> Watched<'_> {
    let record = &claim.record;
    Watched {
        names: record.names().collect(),
        resource: &record.resource,
        ids: &record.ids,
        touched: claim.touched,
    }
}

/// Whether a part of the claim on this card is not listed, or is not usable any more.
fn vanished(record: &ClaimRecord, device: &DeviceId, listed: &[Partition]) -> bool {
    let on_card = record.grants.iter().filter(|g| g.device() == device);
    on_card.filter_map(|g| g.target.as_ref()).any(|target| match &target.grant {
        Grant::Part(part) => {
            !listed.iter().any(|p| p.id == *part && p.state == PartitionState::Complete)
        }
        _ => false,
    })
}
