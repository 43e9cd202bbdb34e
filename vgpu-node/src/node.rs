//! The node: offers laid over the inventory, claims on them, and what the kubelet is told.
//!
//! Answers to the kubelet ([`Node::listing`], [`Node::prefer`], [`Node::allocate`]) come from
//! snapshots: no driver is called and nothing is written. What changes hardware ([`Node::prepare`],
//! releasing) is in `prepare.rs` and `release.rs`, what follows the world in `reconcile.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use vgpu_core::id::{ClaimId, DeviceId, SlotId};
use vgpu_core::plan::Held;
use vgpu_core::{Device, Error, ErrorKind, Partition, ProfileId, Result};

use crate::absence::{Absence, AbsenceOptions};
use crate::claim::{self, Claim, ClaimRecord, Claims, GrantRecord, Stage, Wanted};
use crate::fits;
use crate::health::{HealthOptions, HealthPolicy};
use crate::inventory::{self, Inventory, InventoryOptions, Presence, Registry, Snapshot};
use crate::lanes::Lanes;
use crate::ledger::{Ledger, LedgerOptions, Recovery};
use crate::listing::{self, CardView, Drained, Listing};
use crate::offer::{Offer, OfferKind, ResourceName};
use crate::points::FaultPoints;
use crate::pool::{self, CardLayout, PoolRecord, Record};
use crate::prefer::{self, Preference};
use crate::publish::{Left, Mark, SpecOptions, Specs};
use crate::republish::Comparing;
use crate::slots::{self, Layout, Resource};

/// How a node is set up.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// Where the ledger lies.
    pub state_dir: PathBuf,
    /// The host's root, for its boot id.
    pub root: PathBuf,
    /// Where specs go, and what is in them.
    pub specs: SpecOptions,
    /// How inventory and lanes behave.
    pub inventory: InventoryOptions,
    /// Health policy.
    pub health: HealthOptions,
    /// When silence of the kubelet is proof.
    pub absence: AbsenceOptions,
    /// How long to wait for another agent that still holds the ledger.
    pub ledger_wait: Duration,
    /// Where tests end the agent.
    pub points: FaultPoints,
}

/// One node.
pub struct Node {
    pub(crate) options: NodeOptions,
    pub(crate) inventory: Inventory,
    pub(crate) specs: Specs,
    pub(crate) ledger: Mutex<Ledger<Record>>,
    state: Mutex<State>,
    layout: ArcSwap<Layout>,
    listing: ArcSwap<Listing>,
    changed: Mutex<Vec<Box<dyn Fn() + Send + Sync>>>,
    /// One lock a card, held from the look at what is there until what was made is known.
    making: Mutex<BTreeMap<DeviceId, Arc<Mutex<()>>>>,
    /// What was published when the node was opened, until claims are taken up from the checkpoint.
    pub(crate) left: Mutex<Left>,
    pub(crate) comparing: Comparing,
    started: Instant,
}

/// What is changed under the node's lock; the lock is never held over a driver call or a write.
pub(crate) struct State {
    pub(crate) claims: Claims,
    pub(crate) health: HealthPolicy,
    pub(crate) absence: Absence,
    /// Limits that were found gone or changed, and set again.
    pub(crate) limit_repairs: u64,
    /// Parts made ahead for layouts.
    pub(crate) pool: BTreeMap<ClaimId, PoolRecord>,
    /// What keeps cards from their layouts.
    pub(crate) pool_trouble: BTreeMap<DeviceId, String>,
    offers: Vec<Offer>,
    layouts: Vec<CardLayout>,
    /// The cards that offers and layouts were laid over as they are now; none after they changed.
    laid_over: Vec<Device>,
    /// Why the last configuration was not taken, if so.
    offers_trouble: Option<Error>,
}

impl State {
    /// See [`Drained`].
    pub(crate) fn drained(&self) -> Drained {
        if self.absence.settled(Instant::now()) { Drained::Closed } else { Drained::Kept }
    }
}

/// The answer to an allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// The claim; its id is the CDI device name.
    pub claim: ClaimId,
    /// The qualified CDI name, `vgpu.dev/claim=vgpu-…`.
    pub cdi_name: String,
}

impl Node {
    /// Opens the node on what an earlier run left. No driver is called yet: [`Node::refresh`] does.
    ///
    /// # Errors
    /// `Busy` while another agent holds the ledger, `Invalid` for a ledger of a newer format, `Io`.
    pub fn open(options: NodeOptions, registry: Registry) -> Result<(Arc<Self>, Recovery)> {
        let (mut ledger, recovery) = Ledger::<Record>::open(LedgerOptions {
            wait: options.ledger_wait,
            points: options.points.clone(),
            ..LedgerOptions::new(options.state_dir.clone())
        })?;
        let specs = Specs::new(options.specs.clone())?;
        let mark = Mark::new(&options.state_dir, inventory::boot_id(&options.root)?);
        let left = specs.left(&mark);
        let rebooted = crate::reconcile::note_reboot(&mut ledger, &options.root)?;
        let (records, pool) = pool::apart(ledger.records().values());
        let kept: Vec<ClaimId> = records
            .iter()
            .filter(|r| r.stage == Stage::Prepared && !rebooted)
            .flat_map(|r| r.names().cloned())
            .collect();
        for claim in specs.withdraw_others(&kept)? {
            tracing::warn!(%claim, "withdrew a spec that no prepared claim stands behind");
        }
        // Without it the files only prove nothing: no reason to serve nobody, on a full disk for one.
        if let Err(error) = mark.set() {
            tracing::warn!(%error, "cannot write down of which boot the claims' files are");
        }
        let node = Arc::new(Self {
            inventory: Inventory::new(registry, options.inventory.clone()),
            specs,
            ledger: Mutex::new(ledger),
            state: Mutex::new(State {
                claims: Claims::restored(records),
                health: HealthPolicy::new(options.health.clone()),
                absence: Absence::new(options.absence),
                limit_repairs: 0,
                pool,
                pool_trouble: BTreeMap::new(),
                offers: Vec::new(),
                layouts: Vec::new(),
                laid_over: Vec::new(),
                offers_trouble: None,
            }),
            layout: ArcSwap::default(),
            listing: ArcSwap::default(),
            changed: Mutex::default(),
            making: Mutex::default(),
            left: Mutex::new(left),
            comparing: Comparing::default(),
            started: Instant::now(),
            options,
        });
        let late = Arc::downgrade(&node);
        node.inventory.on_late(move |device, operation| {
            if let Some(node) = late.upgrade() {
                node.after_late(device, operation);
            }
        });
        Ok((node, recovery))
    }

    /// Takes a configuration without layouts.
    ///
    /// # Errors
    /// As [`Node::configure`].
    pub fn apply(&self, offers: &[Offer]) -> Result<()> {
        self.configure(offers, &[])
    }

    /// Takes a configuration. Ids that claims hold keep their meaning until they are released. Layouts come into
    /// effect with [`Node::lay_out`].
    ///
    /// # Errors
    /// `Invalid` for overlapping offers or layouts and for a layout that no placement reaches, `Unsupported` for one of
    /// a scheme that a card lacks; the node then keeps the last good configuration, and nothing was made or unmade.
    pub fn configure(&self, offers: &[Offer], layouts: &[CardLayout]) -> Result<()> {
        let snapshot = self.inventory.snapshot();
        Layout::of(offers, layouts, &devices(&snapshot))?;
        {
            let mut state = self.state();
            state.offers = offers.to_vec();
            state.layouts = layouts.to_vec();
            state.laid_over = Vec::new();
        }
        self.relist();
        Ok(())
    }

    /// The resources to serve: those offered, and those of which claims still hold ids.
    pub fn resources(&self) -> Vec<ResourceName> {
        self.listing.load().keys().cloned().collect()
    }

    /// The ids of every resource, as of now.
    pub fn listing(&self) -> Arc<Listing> {
        self.listing.load_full()
    }

    /// The offers laid over the cards, with the reason for each card that does not serve.
    pub fn layout(&self) -> Arc<Layout> {
        self.layout.load_full()
    }

    /// The inventory's last snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.inventory.snapshot()
    }

    /// Calls `f` whenever the listing may have changed, on whatever thread changed it.
    pub fn on_change(&self, f: impl Fn() + Send + Sync + 'static) {
        lock(&self.changed).push(Box::new(f));
    }

    /// Whether the driver under a loaded library was replaced: only a new process can load the new
    /// one.
    pub fn driver_replaced(&self) -> bool {
        self.inventory.driver_replaced()
    }

    /// Why the offers could not be laid over the cards the last time, if so.
    pub fn trouble(&self) -> Option<Error> {
        self.state().offers_trouble.clone()
    }

    /// Which ids a container should get; empty = no opinion.
    pub fn prefer(
        &self,
        resource: &ResourceName,
        available: &[SlotId],
        must: &[SlotId],
        count: usize,
    ) -> Vec<SlotId> {
        let layout = self.layout.load();
        let Some(resource) = layout.resources.get(resource) else { return Vec::new() };
        let stale: BTreeSet<SlotId> = {
            let state = self.state();
            let superseded = state.claims.iter().filter(|c| c.superseded || c.absent);
            superseded.flat_map(|c| c.record.ids.iter().cloned()).collect()
        };
        let snapshot = self.inventory.snapshot();
        let links = &snapshot.links;
        prefer::prefer(resource, &Preference { available, must, count, stale: &stale, links })
    }

    /// Opens a claim on ids that the kubelet says are free.
    ///
    /// # Errors
    /// `Invalid` for ids that were never advertised, for units on several cards, for two ids of one
    /// card of a distinct offer, or for a number of units beyond the offer's bounds; the message is what the pod's author reads.
    pub fn allocate(&self, resource: &ResourceName, ids: &[SlotId]) -> Result<Allocation> {
        let unique: BTreeSet<SlotId> = ids.iter().cloned().collect();
        if unique.len() != ids.len() || ids.is_empty() {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("{} ids, {} of them different, were allocated", ids.len(), unique.len()),
            ));
        }
        let layout = self.layout.load();
        let snapshot = self.inventory.snapshot();
        let mut state = self.state();
        let found = layout.resources.get(resource).ok_or_else(|| {
            let why = format!("{resource} is not offered any more; remove the request");
            Error::new(ErrorKind::Invalid, why)
        })?;
        if let Err(why) = fits::fits(found, &unique) {
            return Err(self.with_free_units(&state, &snapshot, found, why));
        }
        let record = ClaimRecord {
            claim: claim::fresh_id()?,
            aliases: Vec::new(),
            resource: resource.clone(),
            wanted: wanted(found, &snapshot, &unique)?,
            ids: unique,
            holder: None,
            domain: found.offer.domain.clone(),
            minimum: found.offer.minimum,
            stage: Stage::Open,
            grants: Vec::new(),
            container: None,
            every_device: false,
            opened: SystemTime::now(),
        };
        let claim = state.claims.open(record).record.claim.clone();
        drop(state);
        self.relist_resource(resource);
        Ok(Allocation { cdi_name: self.cdi_name(&claim), claim })
    }

    /// The name that the runtime resolves for a claim.
    pub fn cdi_name(&self, claim: &ClaimId) -> String {
        format!("{}={claim}", self.options.specs.kind)
    }

    /// Since this process opened the node.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The lanes to a card's driver.
    pub(crate) fn lanes(&self, device: &DeviceId) -> Result<Arc<Lanes>> {
        self.inventory.lanes(device).ok_or_else(|| {
            Error::new(ErrorKind::Lost, format!("card {device} is not served by any driver now"))
        })
    }

    /// The lock under which parts are made on a card.
    pub(crate) fn making(&self, device: &DeviceId) -> Arc<Mutex<()>> {
        lock(&self.making).entry(device.clone()).or_default().clone()
    }

    /// A claim as it is now.
    pub(crate) fn claim(&self, claim: &ClaimId) -> Result<Claim> {
        self.state()
            .claims
            .find(claim)
            .cloned()
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no claim {claim}")))
    }

    /// Changes a claim as it is now, writes it down, durably, and then shows it to everybody. Nobody
    /// else's change is lost: one change is written at a time.
    ///
    /// # Errors
    /// `NotFound` for a claim that is gone, and the ledger's own; nothing is changed then.
    pub(crate) fn amend(
        &self,
        id: &ClaimId,
        change: impl FnOnce(&mut ClaimRecord),
    ) -> Result<ClaimRecord> {
        self.amend_if(id, |record| {
            change(record);
            Ok(())
        })
    }

    /// As [`Node::amend`], unless `change` refuses: no other change comes between its look and the
    /// writing.
    ///
    /// # Errors
    /// As [`Node::amend`], and `change`'s own.
    pub(crate) fn amend_if(
        &self,
        id: &ClaimId,
        change: impl FnOnce(&mut ClaimRecord) -> Result<()>,
    ) -> Result<ClaimRecord> {
        let mut ledger = lock(&self.ledger);
        let before = self.claim(id)?.record;
        let mut record = before.clone();
        change(&mut record)?;
        // What only ends must not fail for want of the room that it will give back.
        let written = Record::Claim(Box::new(record.clone()));
        match record.stage {
            Stage::Broken(_) | Stage::Releasing => {
                ledger.put_last(record.claim.as_str(), &written)?;
            }
            _ => ledger.put(record.claim.as_str(), &written)?,
        }
        if let Some(claim) = self.state().claims.find_mut(id) {
            // Names and holder are learned without being written down at once.
            record.aliases.clone_from(&claim.record.aliases);
            record.holder.clone_from(&claim.record.holder);
            claim.record = record.clone();
            claim.journalled = true;
        }
        Ok(record)
    }

    /// Lays the offers over the cards anew, if either changed, and makes every list anew.
    pub(crate) fn relist(&self) {
        {
            let mut state = self.state();
            // Under the lock: of two at once, the one with the older snapshot must not be the last.
            let snapshot = self.inventory.snapshot();
            let devices = devices(&snapshot);
            // Each way of splitting each card is tried: too much for every container that starts.
            if !devices.iter().copied().eq(&state.laid_over) || devices.is_empty() {
                match Layout::of(&state.offers, &state.layouts, &devices) {
                    Ok(layout) => {
                        self.layout.store(Arc::new(layout));
                        state.offers_trouble = None;
                    }
                    // Cards that came later made two offers overlap: the last good layout is kept.
                    Err(e) => state.offers_trouble = Some(e),
                }
                state.laid_over = devices.into_iter().cloned().collect();
            }
            let foreign = foreign(&snapshot, &state.claims);
            let cards = views(&snapshot, &state, &foreign);
            let drained = state.drained();
            let listing = listing::of(&self.layout.load(), &cards, &state.claims, drained);
            self.listing.store(Arc::new(listing));
        }
        self.tell();
    }

    /// Makes the list of one resource anew: what an allocation changes.
    fn relist_resource(&self, resource: &ResourceName) {
        {
            let state = self.state();
            let snapshot = self.inventory.snapshot();
            let layout = self.layout.load();
            let Some(found) = layout.resources.get(resource) else { return };
            let foreign = foreign(&snapshot, &state.claims);
            let cards = views(&snapshot, &state, &foreign);
            let drained = state.drained();
            let fresh = listing::one(resource, Some(found), &cards, &state.claims, drained);
            let before = self.listing.load();
            if before.get(resource).is_some_and(|list| **list == *fresh) {
                return;
            }
            let mut listing = Listing::clone(&before);
            listing.insert(resource.clone(), fresh.into());
            self.listing.store(Arc::new(listing));
        }
        self.tell();
    }

    fn tell(&self) {
        for f in lock(&self.changed).iter() {
            f();
        }
    }

    fn with_free_units(
        &self,
        state: &State,
        snapshot: &Snapshot,
        resource: &Resource,
        why: String,
    ) -> Error {
        let foreign = foreign(snapshot, &state.claims);
        let cards = views(snapshot, state, &foreign);
        let mut error = Error::new(ErrorKind::Invalid, why);
        if matches!(resource.offer.kind, OfferKind::Unit { .. }) {
            let free = listing::free(resource, &cards, &state.claims);
            for (device, room) in free {
                error = error.with(&format!("free on {device}"), room.units);
            }
        }
        error
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("state_dir", &self.options.state_dir).finish_non_exhaustive()
    }
}

/// Locks; a panic elsewhere left data that is sound, since every change under a lock is a single
/// assignment of finished values.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn devices(snapshot: &Snapshot) -> Vec<&Device> {
    snapshot.cards.values().map(|card| &card.device).collect()
}

/// The parts on each card that no claim of ours made.
pub(crate) fn foreign(snapshot: &Snapshot, claims: &Claims) -> BTreeMap<DeviceId, Vec<Held>> {
    let listed = |device: &DeviceId| match &snapshot.cards.get(device)?.partitions {
        Ok(parts) => Some(parts.as_slice()),
        Err(_) => None,
    };
    let mut grants: BTreeMap<&DeviceId, Vec<&GrantRecord>> = BTreeMap::new();
    for grant in claims.iter().flat_map(|c| &c.record.grants) {
        grants.entry(grant.device()).or_default().push(grant);
    }
    snapshot
        .cards
        .keys()
        .filter_map(|device| Some((device, listed(device)?)))
        .map(|(device, parts)| {
            let ours = ours(parts, grants.get(device).into_iter().flatten().copied());
            let foreign = parts.iter().filter(|p| !ours.contains(&p.id));
            (device.clone(), foreign.map(|p| Held::of_part(p, None)).collect())
        })
        .collect()
}

/// Which of the listed parts are those of our grants.
pub(crate) fn ours<'r>(
    parts: &[Partition],
    grants: impl Iterator<Item = &'r GrantRecord>,
) -> BTreeSet<vgpu_core::PartitionId> {
    let mut ours = BTreeSet::new();
    let mut unsettled = Vec::new();
    for grant in grants {
        match grant.part() {
            Some(part) => drop(ours.insert(part.clone())),
            None => unsettled.extend(&grant.intent),
        }
    }
    for intent in unsettled {
        let free: Vec<Partition> =
            parts.iter().filter(|p| !ours.contains(&p.id)).cloned().collect();
        ours.extend(intent.recognise(&free).map(|p| p.id.clone()));
    }
    ours
}

fn views<'v>(
    snapshot: &'v Snapshot,
    state: &State,
    foreign: &BTreeMap<DeviceId, Vec<Held>>,
) -> BTreeMap<DeviceId, CardView<'v>> {
    let health = &state.health;
    snapshot
        .cards
        .iter()
        .map(|(id, card)| {
            let open = card.presence == Presence::Here
                && card.partitions.is_ok()
                && health.usable(id, None);
            let foreign = foreign.get(id).cloned().unwrap_or_default();
            let parts = card.partitions.iter().flatten().map(|p| &p.id);
            let ailing = parts.filter(|p| !health.usable(id, Some(p))).cloned().collect();
            let ailing: BTreeSet<_> = ailing;
            let idle = match &card.partitions {
                Ok(parts) => pool::idle(parts, &state.claims, &state.pool),
                Err(_) => Vec::new(),
            };
            let idle = idle.into_iter().filter(|(_, part)| !ailing.contains(part));
            let mut pooled: BTreeMap<ProfileId, u64> = BTreeMap::new();
            idle.for_each(|(profile, _)| *pooled.entry(profile).or_default() += 1);
            (id.clone(), CardView { device: &card.device, open, foreign, ailing, pooled })
        })
        .collect()
}

/// What the ids of a claim ask of each card.
pub(crate) fn wanted(
    resource: &Resource,
    snapshot: &Snapshot,
    ids: &BTreeSet<SlotId>,
) -> Result<Vec<Wanted>> {
    let mut counts: BTreeMap<&DeviceId, u32> = BTreeMap::new();
    ids.iter().for_each(|id| *counts.entry(&id.device).or_default() += 1);
    let mut all = Vec::new();
    for (id, count) in counts {
        let unknown = || Error::new(ErrorKind::NotFound, format!("there is no card {id}"));
        let card = snapshot.cards.get(id).ok_or_else(unknown)?;
        let slots = resource.cards.get(id).ok_or_else(unknown)?;
        let wants = slots::together(resource, &card.device, slots, count)
            .map_err(|why| Error::new(ErrorKind::Invalid, why).with("device", id))?;
        let (device, scheme, modes) = (id.clone(), slots.scheme.clone(), resource.offer.modes());
        let lifecycle = resource.offer.lifecycle;
        all.push(Wanted { device, scheme, wants, modes, lifecycle });
    }
    Ok(all)
}
