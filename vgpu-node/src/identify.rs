//! Whose ids PreStart is about: the claim, the pod, and what else the same container asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use vgpu_core::id::{ClaimId, SlotId};
use vgpu_core::{Error, ErrorKind, Result};

use crate::adopt;
use crate::claim::{Claim, Claims, Holder, Stage};
use crate::node::Node;
use crate::offer::ResourceName;

/// A container is about to start.
#[derive(Debug, Clone)]
pub struct Prepare {
    /// When the asking for what follows began: none of it is older.
    pub asked: Instant,
    /// The resource.
    pub resource: ResourceName,
    /// The ids that it has.
    pub ids: BTreeSet<SlotId>,
    /// Whose they are, as far as that is known.
    pub holder: Option<Holder>,
    /// What the kubelet's checkpoint has for exactly these ids: the claims that it will ask the
    /// runtime for, each with its pod's UID. `None` if it could not be read.
    pub checkpoint: Option<Vec<CheckpointClaim>>,
    /// Where there is no checkpoint: other resources, anybody's, that the kubelet lists for the same
    /// container by its pod's name.
    pub beside: BTreeSet<ResourceName>,
}

/// One entry of the kubelet's checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointClaim {
    /// The claim that its answer named.
    pub claim: ClaimId,
    /// The pod's UID.
    pub pod_uid: String,
    /// The container; init and app containers of a pod may have an entry each for the same ids.
    pub container: String,
    /// Other resources of ours that the checkpoint has for the same container.
    pub beside: BTreeSet<ResourceName>,
}

impl Node {
    /// Which claim PreStart means. The kubelet's checkpoint decides where it can be read: claims of
    /// one pod on the same ids (init and app container) become one claim of several names.
    pub(crate) fn identify(&self, ask: &Prepare) -> Result<ClaimId> {
        let snapshot = self.inventory.snapshot();
        let layout = self.layout();
        let mut state = self.state();
        if let Some(newer) = allocated_since(ask, &state.claims) {
            let why = format!(
                "its ids were allocated anew, as claim {newer}, while the kubelet was asked whose they are"
            );
            return Err(Error::new(ErrorKind::Busy, why));
        }
        let newest = state.claims.of_ids(&ask.resource, &ask.ids).first().map(|c| (*c).clone());
        let names: Vec<ClaimId> =
            entries_of_pod(ask, newest.as_ref()).map(|e| e.claim.clone()).collect();
        for name in &names {
            if state.claims.find(name).is_some() {
                continue;
            }
            // Allocated by an earlier run of the agent, which had not written anything down.
            let mut record = adopt::unknown(&layout, &snapshot, &ask.resource, &ask.ids, name)?;
            record.holder.clone_from(&ask.holder);
            state.claims.put(record, false);
        }
        let found = names.iter().filter_map(|n| state.claims.find(n).cloned());
        let by_id: BTreeMap<ClaimId, Claim> = found.map(|c| (c.record.claim.clone(), c)).collect();
        let mut group: Vec<Claim> = by_id.into_values().collect();
        if group.is_empty() {
            group.extend(newest);
        }
        // What was begun goes on; else the newest is the one.
        group.sort_by_key(|c| (c.record.stage == Stage::Open, std::cmp::Reverse(c.turn)));
        let Some(primary) = group.first().cloned() else {
            let ids: Vec<String> = ask.ids.iter().map(ToString::to_string).collect();
            let why = format!(
                "no allocation of {} is known for {}, and the kubelet's checkpoint has none",
                ask.resource,
                ids.join(", ")
            );
            return Err(Error::new(ErrorKind::NotFound, why));
        };
        let id = primary.record.claim.clone();
        let mut aliases = primary.record.aliases.clone();
        for other in group.iter().skip(1).filter(|c| c.record.stage == Stage::Open) {
            aliases.push(other.record.claim.clone());
            aliases.extend(other.record.aliases.clone());
            state.claims.remove(&other.record.claim);
        }
        aliases.sort();
        aliases.dedup();
        let claim = state.claims.find_mut(&id).expect("it was found a moment ago");
        if claim.record.aliases != aliases {
            claim.record.aliases = aliases;
            // Written down again, so that a restart knows the new name too.
            if claim.record.stage == Stage::Prepared {
                claim.record.stage = Stage::Intended;
            }
        }
        if ask.holder.is_some() {
            claim.record.holder.clone_from(&ask.holder);
        }
        claim.touch();
        Ok(id)
    }

    /// Refuses a container that asked for two resources of ours, before anything is made for either:
    /// each is an environment of its own (`claim.json`, the driver's variables), and one container has
    /// room for one. Allocate cannot know, since each resource is asked for alone.
    pub(crate) fn sole(&self, ask: &Prepare, claim: &ClaimId) -> Result<()> {
        let newest = self.claim(claim)?;
        let served = self.listing();
        let ours = |name: &&ResourceName| served.contains_key(*name);
        let mut beside: BTreeSet<&ResourceName> = ask.beside.iter().filter(ours).collect();
        let mut container = ask.holder.as_ref().map(|h| h.container.as_str());
        // The checkpoint knows init containers, and what is ours by its name; the list does not.
        for entry in entries_of_pod(ask, Some(&newest)).filter(|e| !e.beside.is_empty()) {
            beside.extend(&entry.beside);
            container = Some(&entry.container);
        }
        if beside.is_empty() {
            return Ok(());
        }
        let mut who =
            container.map_or("a container".to_owned(), |name| format!("container {name}"));
        if let Some(holder) = &ask.holder {
            who.push_str(&format!(" of pod {holder}"));
        }
        let others: Vec<&str> = beside.iter().map(|name| name.as_str()).collect();
        let why = format!(
            "{who} asks for {} and {} at once, and a container can have one resource of vgpu; give \
             each a container of its own, or ask for one of them",
            ask.resource,
            others.join(" and "),
        );
        Err(Error::new(ErrorKind::Invalid, why))
    }
}

/// A claim that the kubelet allocated on any of the ids after it was asked: what it said is of whoever had
/// them before, and PreStart is of a pod that has ended.
fn allocated_since<'c>(ask: &Prepare, claims: &'c Claims) -> Option<&'c ClaimId> {
    let since = |c: &&Claim| c.allocated.is_some_and(|allocated| allocated >= ask.asked);
    let newer = claims.iter().filter(since).find(|c| !c.record.ids.is_disjoint(&ask.ids))?;
    Some(&newer.record.claim)
}

/// What the checkpoint has for these ids, of the pod that is starting.
fn entries_of_pod<'a>(
    ask: &'a Prepare,
    newest: Option<&Claim>,
) -> impl Iterator<Item = &'a CheckpointClaim> {
    let entries = ask.checkpoint.as_deref().unwrap_or_default();
    let known = ask.holder.as_ref().and_then(|h| h.uid.as_deref());
    let of_newest = entries
        .iter()
        .find(|e| newest.is_some_and(|c| c.answers_to(&e.claim)))
        .map(|e| e.pod_uid.as_str());
    // The kubelet may still have entries of a pod that ended; the newest allocation is the living one.
    let uid = of_newest.or(known).or_else(|| entries.last().map(|e| e.pod_uid.as_str()));
    let uid = uid.map(str::to_owned);
    entries.iter().filter(move |e| Some(&e.pod_uid) == uid.as_ref())
}
