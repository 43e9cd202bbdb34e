//! From allocated ids to a container that may start.
//!
//! Order of things, each durable before the next: other claims on the ids are released · the intent
//! is journalled · the driver makes the parts · the claim is journalled as prepared · its spec is
//! published. A crash between any two is healed by doing it again: what the driver made is
//! recognised by the intent.

use std::collections::{BTreeMap, BTreeSet};

use vgpu_core::edits::{Hook, HookAction};
use vgpu_core::id::{ClaimId, DeviceId, SlotId};
use vgpu_core::order::{CreateOrder, Grant, Target};
use vgpu_core::plan::{Assignment, Held, Inventory as Cards, Policy, Request, Selector, plan};
use vgpu_core::{
    ContainerEdits, Device, Error, ErrorKind, ModeChange, ModeOrder, Partition, PartitionId,
    PartitionState, Result,
};

use crate::claim::{self, Claim, ClaimRecord, GrantRecord, Stage};
use crate::identify::Prepare;
use crate::node::{self, Node};
use crate::offer::Lifecycle;

impl Node {
    /// Makes, or finds, all that the claim on these ids needs, and publishes it. Safe to repeat, at
    /// any time and at the same time.
    ///
    /// # Errors
    /// Retryable ones (`Busy` while an earlier pod's processes end, `InDoubt`, `Exhausted`, `Io`),
    /// and others that only deleting the pod heals; each says so. `Invalid` for a container that has
    /// another resource of this node too.
    pub fn prepare(&self, ask: &Prepare) -> Result<ClaimId> {
        let claim = self.identify(ask)?;
        let work = self.claim(&claim)?.work;
        // A second call for the same claim waits and then finds all done.
        let guard = node::lock(&work);
        let outcome = self.sole(ask, &claim).and_then(|()| self.prepare_alone(&claim));
        drop(guard);
        if let Some(claim) = self.state().claims.find_mut(&claim) {
            claim.trouble = outcome.as_ref().err().map(ToString::to_string);
        }
        self.note_shut_lanes();
        self.relist();
        outcome.map(|()| claim).map_err(|e| e.during("prepare"))
    }

    fn prepare_alone(&self, id: &ClaimId) -> Result<()> {
        let claim = self.claim(id)?;
        match &claim.record.stage {
            Stage::Broken(why) => return Err(broken(why)),
            Stage::Releasing => {
                let why = "the claim is being taken down; its container may start when a new one is \
                           allocated";
                return Err(Error::new(ErrorKind::Busy, why).with("claim", id));
            }
            Stage::Intended | Stage::Open | Stage::Prepared => {}
        }
        self.release_rivals(&claim)?;
        let devices: BTreeSet<DeviceId> =
            claim.record.wanted.iter().map(|w| w.device.clone()).collect();
        let mut listed = BTreeMap::new();
        for device in &devices {
            let parts = self.list_parts(device)?;
            // Before anything is made on a card, the specs of parts that vanished from it are gone.
            self.withdraw_vanished(device, &parts)?;
            listed.insert(device.clone(), parts);
        }
        let mut record = self.claim(id)?.record;
        if let Stage::Broken(why) = &record.stage {
            return Err(broken(why));
        }
        if record.stage == Stage::Intended {
            self.adopt_or_undo(&mut record, &listed)?;
        }
        if record.grants.is_empty() {
            // One intent at a time on a card: what is new on it can then only be of that intent.
            let making: Vec<_> = devices.iter().map(|d| self.making(d)).collect();
            let _making: Vec<_> = making.iter().map(|m| node::lock(m)).collect();
            for device in &devices {
                self.settle(device, id)?;
            }
            // Shown before the card is let go: a neighbour would take it for unsettled else, and write
            // what it was over what it is.
            self.make(&mut record)?;
        }
        let targets: Vec<Target> = record.grants.iter().filter_map(|g| g.target.clone()).collect();
        let edits = self.edits_of(&targets)?;
        if record.stage != Stage::Prepared {
            let grants = record.grants;
            record = self.amend(id, |record| {
                record.grants = grants;
                record.stage = Stage::Prepared;
            })?;
        }
        self.publish(&record, &edits)?;
        for device in &devices {
            self.inventory.refresh_device(device);
        }
        Ok(())
    }

    /// Releases every other claim for which something was made and that has some of these ids; and as
    /// far as that goes now, those superseded on the same cards, since their room is told to be free.
    fn release_rivals(&self, claim: &Claim) -> Result<()> {
        let ids = &claim.record.ids;
        let near = |other: &Claim| {
            let on_card = |id: &SlotId| ids.iter().any(|i| i.device == id.device);
            other.superseded && other.record.ids.iter().any(on_card)
        };
        let rivals: Vec<Claim> = self
            .state()
            .claims
            .iter()
            .filter(|c| c.record.claim != claim.record.claim && c.journalled)
            .filter(|c| !c.record.ids.is_disjoint(ids) || near(c))
            .cloned()
            .collect();
        for rival in rivals {
            let released = self.release(&rival.record.claim);
            let Err(e) = released else { continue };
            if rival.record.ids.is_disjoint(ids) {
                tracing::debug!(claim = %rival.record.claim, error = %e, "cannot release yet");
                continue;
            }
            let why = format!(
                "an earlier container's share of the same ids is still being taken down: {}",
                e.message
            );
            let kind = if e.is_retryable() { e.kind } else { ErrorKind::Busy };
            let error = Error::new(kind, why).with("claim", &rival.record.claim);
            return Err(error.caused_by(e));
        }
        Ok(())
    }

    /// A crash or a late driver left the intent: what it made is ours. All of it there: go on with
    /// it. Anything less: undo what is there and decide anew.
    fn adopt_or_undo(
        &self,
        record: &mut ClaimRecord,
        listed: &BTreeMap<DeviceId, Vec<Partition>>,
    ) -> Result<()> {
        let mut found = Vec::new();
        for grant in &mut record.grants {
            if grant.is_pooled() {
                // It may be gone since, by a reset or by somebody's hand: another one is taken then.
                let parts = listed.get(grant.device()).map_or(&[][..], Vec::as_slice);
                let whole = |p: &&Partition| {
                    Some(&p.id) == grant.part() && p.state == PartitionState::Complete
                };
                if parts.iter().find(whole).is_none() {
                    grant.target = None;
                }
            }
            let Some(intent) = &grant.intent else { continue };
            let device = intent.order.device().clone();
            let parts = listed.get(&device).map_or(&[][..], Vec::as_slice);
            let part = self.find_made(&record.claim, grant, parts);
            grant.target = part
                .as_ref()
                .filter(|p| p.state == PartitionState::Complete)
                .map(|p| Target { claim: record.claim.clone(), grant: Grant::Part(p.id.clone()) });
            found.push((device, part));
        }
        if record.grants.iter().all(|g| g.target.is_some()) {
            return Ok(());
        }
        for (device, part) in found {
            if let Some(part) = part {
                self.destroy(&device, &part.id)?;
            }
            self.sweep(&device)?;
        }
        record.grants.clear();
        Ok(())
    }

    /// Decides, writes the decision down, and has the drivers carry it out.
    fn make(&self, record: &mut ClaimRecord) -> Result<()> {
        let mut grants: Vec<GrantRecord> = Vec::new();
        for wanted in record.wanted.clone() {
            for want in &wanted.wants {
                if wanted.lifecycle == Lifecycle::Pooled {
                    grants.push(self.take_made(record, &wanted, want, &grants)?);
                    continue;
                }
                let request = Request {
                    claim: record.claim.clone(),
                    want: want.clone(),
                    count: 1,
                    selector: Selector {
                        devices: vec![wanted.device.clone()],
                        ..Selector::default()
                    },
                    minimum: record.minimum,
                    schemes: vec![wanted.scheme.clone()],
                    domain: record.domain.clone(),
                    modes: wanted.modes,
                };
                let Decided { mut device, mut parts, assignment } =
                    self.decide(&request, record, &grants)?;
                if let Some(order) = &assignment.mode {
                    device = self.enter_mode(order)?;
                    parts = self.list_parts(&device.id)?;
                }
                let seen = parts.into_iter().map(|part| part.id).collect();
                let step = assignment.step;
                grants.push(claim::grant_record(&device, step, &record.domain, seen)?);
            }
        }
        *record = self.amend(&record.claim, |record| {
            record.grants = grants;
            record.stage = Stage::Intended;
        })?;
        for i in 0..record.grants.len() {
            let Some(intent) = &record.grants[i].intent else { continue };
            let part = self.create(&intent.order)?;
            let target = Target { claim: record.claim.clone(), grant: Grant::Part(part.id) };
            record.grants[i].target = Some(target.clone());
            if let Some(claim) = self.state().claims.find_mut(&record.claim)
                && let Some(grant) = claim.record.grants.get_mut(i)
            {
                grant.target = Some(target);
            }
        }
        Ok(())
    }

    /// One request, on one card, beside all that is held there.
    fn decide(
        &self,
        request: &Request,
        record: &ClaimRecord,
        grants: &[GrantRecord],
    ) -> Result<Decided> {
        let id = &request.selector.devices[0];
        let snapshot = self.inventory.snapshot();
        let card = snapshot
            .cards
            .get(id)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no card {id}")))?;
        // The list may be older than the end of a release: a part that goes meanwhile is nobody else's.
        let going: BTreeSet<PartitionId> = {
            let state = self.state();
            let others = state.claims.iter().map(|c| &c.record).filter(|r| r.claim != record.claim);
            let made = others.flat_map(|r| &r.grants).filter(|g| !g.is_pooled());
            made.filter_map(|g| g.part().cloned()).collect()
        };
        let parts = self.list_parts(id)?;
        self.options.points.hit("prepare.listed");
        let mut held: Vec<Held> = grants.iter().map(|g| g.held.clone()).collect();
        {
            let state = self.state();
            let others =
                || state.claims.iter().map(|c| &c.record).filter(|r| r.claim != record.claim);
            held.extend(others().flat_map(|r| r.grants.iter().map(|g| g.held.clone())));
            let ours = node::ours(&parts, others().flat_map(|r| &r.grants));
            let foreign = parts.iter().filter(|p| !ours.contains(&p.id) && !going.contains(&p.id));
            held.extend(foreign.map(|p| Held::of_part(p, None)));
        }
        let one = Cards { devices: vec![card.device.clone()], links: vec![] };
        let answer = plan(&one, &held, request, Policy::Binpack)
            .map_err(|refusal| Error::new(ErrorKind::Exhausted, refusal.to_string()))?;
        let assignment = answer.into_iter().next().expect("a plan for one card has one assignment");
        Ok(Decided { device: card.device.clone(), parts, assignment })
    }

    /// Puts a card into a mode and reads it anew: numbers of nodes may have changed.
    fn enter_mode(&self, order: &ModeOrder) -> Result<Device> {
        let lanes = self.lanes(&order.device)?;
        self.note_mode(order)?;
        let sent = order.clone();
        let change = lanes.change_all(&order.affected, "set mode", move |b| b.set_mode(&sent))?;
        if change != ModeChange::Done {
            let why = format!("the mode comes into effect only {change:?}; nothing was given yet");
            return Err(Error::new(ErrorKind::Busy, why).with("device", &order.device));
        }
        self.inventory.rescan(&order.device);
        let snapshot = self.inventory.snapshot();
        snapshot.cards.get(&order.device).map(|card| card.device.clone()).ok_or_else(|| {
            Error::new(ErrorKind::Lost, format!("card {} went with its mode", order.device))
        })
    }

    /// The part that a grant made, whole or half, if the driver lists it; never another claim's.
    pub(crate) fn find_made(
        &self,
        claim: &ClaimId,
        grant: &GrantRecord,
        listed: &[Partition],
    ) -> Option<Partition> {
        if let Some(part) = grant.part() {
            // Drivers give ids anew: a part with another claim's tag is that claim's.
            let ours = |p: &&Partition| p.tag.as_ref().is_none_or(|tag| tag == claim);
            return listed.iter().filter(ours).find(|p| p.id == *part).cloned();
        }
        let state = self.state();
        let others = state.claims.iter().filter(|c| c.record.claim != *claim);
        let theirs: BTreeSet<&PartitionId> =
            others.flat_map(|c| &c.record.grants).filter_map(GrantRecord::part).collect();
        let free: Vec<Partition> =
            listed.iter().filter(|p| !theirs.contains(&p.id)).cloned().collect();
        grant.intent.as_ref()?.recognise(&free).cloned()
    }

    /// Finds out what became of the intents that earlier attempts left on a card, and ends releases
    /// whose parts are gone: a driver may give the id of a part that is gone to the next one.
    fn settle(&self, device: &DeviceId, except: &ClaimId) -> Result<()> {
        let releasing: Vec<ClaimId> = self
            .state()
            .claims
            .iter()
            .map(|c| &c.record)
            .filter(|r| r.claim != *except && r.stage == Stage::Releasing)
            .filter(|r| r.grants.iter().any(|g| g.device() == device))
            .map(|r| r.claim.clone())
            .collect();
        for claim in releasing {
            match self.release(&claim) {
                Ok(()) => {}
                // Held by processes: it is there, so its id cannot be given to another.
                Err(e) if e.kind == ErrorKind::Busy => {}
                Err(e) => return Err(e),
            }
        }
        // Also those whose part was found once: until it is prepared a claim holds no more than what is
        // there now, and a reboot or a reset may have taken it since.
        let others: Vec<ClaimRecord> = self
            .state()
            .claims
            .iter()
            .map(|c| &c.record)
            .filter(|r| r.claim != *except && r.stage == Stage::Intended)
            .filter(|r| r.grants.iter().any(|g| g.device() == device && g.intent.is_some()))
            .cloned()
            .collect();
        for mut record in others {
            if let Some(stuck) = self.lanes(device)?.shut(device) {
                let why = format!("the outcome of {stuck} is awaited; nothing else is made there");
                return Err(Error::new(ErrorKind::Busy, why).with("device", device));
            }
            let mut listed = BTreeMap::new();
            for grant in record.grants.iter().filter(|g| g.intent.is_some()) {
                listed.insert(grant.device().clone(), self.list_parts(grant.device())?);
            }
            self.adopt_or_undo(&mut record, &listed)?;
            let grants = record.grants;
            self.amend(&record.claim, |now| {
                if now.stage == Stage::Intended {
                    now.grants = grants;
                }
            })?;
        }
        Ok(())
    }

    pub(crate) fn create(&self, order: &CreateOrder) -> Result<Partition> {
        let sent = order.clone();
        let lanes = self.lanes(order.device())?;
        let made = lanes.change(order.device(), "create", move |b| b.create(&sent));
        if let Err(e) = &made
            && e.kind != ErrorKind::InDoubt
            && let Err(swept) = self.sweep(order.device())
        {
            tracing::warn!(device = %order.device(), error = %swept, "cannot sweep after a failed create");
        }
        made
    }

    pub(crate) fn sweep(&self, device: &DeviceId) -> Result<()> {
        let keep: Vec<PartitionId> = {
            let state = self.state();
            let grants = state.claims.iter().flat_map(|c| &c.record.grants);
            let made = state.pool.values().filter_map(|r| r.part.clone());
            let ours = grants.filter_map(|g| g.part().cloned()).chain(made);
            ours.filter(|p| p.device() == *device).collect()
        };
        let lanes = self.lanes(device)?;
        let id = device.clone();
        for swept in lanes.change(device, "sweep", move |b| b.sweep(&id, &keep))? {
            tracing::info!(%device, what = swept.what, "removed a leftover");
        }
        Ok(())
    }

    /// What the driver lists on a card right now.
    pub(crate) fn list_parts(&self, device: &DeviceId) -> Result<Vec<Partition>> {
        let id = device.clone();
        self.lanes(device)?.read_device(device, "partitions", move |b| b.partitions(&id))
    }

    /// The edits of all targets, each vendor asked once for its own.
    pub(crate) fn edits_of(&self, targets: &[Target]) -> Result<ContainerEdits> {
        let mut by_vendor: BTreeMap<String, Vec<Target>> = BTreeMap::new();
        for target in targets {
            let lanes = self.lanes(&target.grant.device())?;
            by_vendor.entry(lanes.vendor().to_string()).or_default().push(target.clone());
        }
        let mut edits = ContainerEdits::default();
        for targets in by_vendor.into_values() {
            let device = targets[0].grant.device();
            let lanes = self.lanes(&device)?;
            let of_vendor = lanes.read_device(&device, "edits", move |b| b.edits(&targets))?;
            edits = edits.merge(of_vendor)?;
        }
        Ok(edits)
    }

    /// Publishes a claim under each of its names.
    pub(crate) fn publish(&self, record: &ClaimRecord, edits: &ContainerEdits) -> Result<()> {
        let facts = record.facts();
        for name in record.names() {
            self.specs.publish(name, &named(edits, &record.claim, name), &facts)?;
        }
        Ok(())
    }

    /// Whether a claim is published under each of its names, and as it would be now.
    pub(crate) fn is_published(
        &self,
        record: &ClaimRecord,
        edits: &ContainerEdits,
    ) -> Result<bool> {
        let facts = record.facts();
        for name in record.names() {
            if !self.specs.is_current(name, &named(edits, &record.claim, name), &facts)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// What was decided for one request, by which card.
struct Decided {
    device: Device,
    /// All that its driver listed then.
    parts: Vec<Partition>,
    assignment: Assignment,
}

/// The edits for another name of the claim: its hook names itself.
fn named(edits: &ContainerEdits, claim: &ClaimId, name: &ClaimId) -> ContainerEdits {
    let mut edits = edits.clone();
    for Hook { action, .. } in &mut edits.hooks {
        if let HookAction::Confine(of) = action
            && of == claim
        {
            *of = name.clone();
        }
    }
    edits
}

fn broken(why: &str) -> Error {
    Error::new(
        ErrorKind::Lost,
        format!(
            "the part under this container was lost ({why}); delete the pod, it is not made anew"
        ),
    )
}
