//! When the kubelet's silence about a claim is proof that its pod is gone.
//!
//! The list is empty right after a kubelet restart, has no pod UID, and leaves out plain init
//! containers. So being absent from it is evidence only together with more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use vgpu_core::id::{ClaimId, SlotId};

use crate::claim::Holder;
use crate::offer::ResourceName;

/// What must come together.
#[derive(Debug, Clone, Copy)]
pub struct AbsenceOptions {
    /// PodResources has answered for so long without a break.
    pub unbroken: Duration,
    /// Two lists without the claim lie so far apart.
    pub apart: Duration,
    /// The claim is so old, unless it was seen in use.
    pub age: Duration,
    /// A claim that was seen in use is gone after so long without the list, whatever the checkpoint
    /// says: on a quiet node the kubelet does not write it, and it names deleted pods for ever.
    pub stale: Duration,
}

impl Default for AbsenceOptions {
    /// 60 s, 10 s, 2 min, 5 min.
    fn default() -> Self {
        Self {
            unbroken: Duration::from_secs(60),
            apart: Duration::from_secs(10),
            age: Duration::from_secs(120),
            stale: Duration::from_secs(300),
        }
    }
}

/// What the kubelet says at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KubeletView {
    /// Ids that PodResources lists, of all containers.
    pub listed: BTreeSet<(ResourceName, SlotId)>,
    /// Claims that the kubelet's checkpoint names; `None` if it could not be read.
    pub checkpoint: Option<BTreeSet<ClaimId>>,
    /// Who holds a claim, where checkpoint and list together tell.
    pub holders: BTreeMap<ClaimId, Holder>,
}

/// One claim, as far as absence goes.
#[derive(Debug, Clone)]
pub struct Watched<'c> {
    /// Its id and aliases.
    pub names: Vec<&'c ClaimId>,
    /// Its resource.
    pub resource: &'c ResourceName,
    /// Its ids.
    pub ids: &'c BTreeSet<SlotId>,
}

impl Watched<'_> {
    /// Whether the kubelet lists any of its ids.
    fn listed(&self, view: &KubeletView) -> bool {
        self.ids.iter().any(|id| view.listed.contains(&(self.resource.clone(), id.clone())))
    }

    /// Whether the checkpoint names it, if that could be read.
    fn in_checkpoint(&self, view: &KubeletView) -> Option<bool> {
        let names = view.checkpoint.as_ref()?;
        Some(self.names.iter().any(|name| names.contains(*name)))
    }

    /// Whether only the checkpoint has it.
    pub fn only_in_checkpoint(&self, view: &KubeletView) -> bool {
        !self.listed(view) && self.in_checkpoint(view) == Some(true)
    }
}

/// What follows for one claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The kubelet has it, or nothing can be said.
    Present,
    /// Its ids count as free, its parts stay.
    Quiet,
    /// Its pod is gone.
    Gone,
}

/// What was seen so far.
#[derive(Debug, Default)]
pub struct Absence {
    options: AbsenceOptions,
    unbroken_since: Option<Duration>,
    claims: BTreeMap<ClaimId, Seen>,
}

#[derive(Debug)]
struct Seen {
    first: Duration,
    in_use: bool,
    absent_since: Option<Duration>,
}

impl Absence {
    /// Nothing seen yet.
    pub fn new(options: AbsenceOptions) -> Self {
        Self { options, ..Self::default() }
    }

    /// Whether the kubelet has answered for so long without a break that it admits no pods of before.
    pub fn settled(&self, now: Duration) -> bool {
        self.unbroken_since.is_some_and(|since| now.saturating_sub(since) >= self.options.unbroken)
    }

    /// Takes one answer of the kubelet, or that there was none, at `now` since the agent's start.
    ///
    /// Returns a verdict for each of `claims`, in their order.
    pub fn observe(
        &mut self,
        now: Duration,
        view: Option<&KubeletView>,
        claims: &[Watched<'_>],
    ) -> Vec<Verdict> {
        self.claims.retain(|id, _| claims.iter().any(|c| c.names.first() == Some(&id)));
        let Some(view) = view else {
            self.unbroken_since = None;
            self.claims.values_mut().for_each(|seen| seen.absent_since = None);
            return vec![Verdict::Present; claims.len()];
        };
        let unbroken = now.saturating_sub(*self.unbroken_since.get_or_insert(now));
        claims.iter().map(|claim| self.judge(now, unbroken, view, claim)).collect()
    }

    fn judge(
        &mut self,
        now: Duration,
        unbroken: Duration,
        view: &KubeletView,
        claim: &Watched<'_>,
    ) -> Verdict {
        let Some(&name) = claim.names.first() else { return Verdict::Present };
        let seen = self.claims.entry(name.clone()).or_insert(Seen {
            first: now,
            in_use: false,
            absent_since: None,
        });
        if claim.listed(view) {
            seen.in_use = true;
            seen.absent_since = None;
            return Verdict::Present;
        }
        let since = *seen.absent_since.get_or_insert(now);
        if unbroken < self.options.unbroken {
            return Verdict::Present;
        }
        let old = seen.in_use || now.saturating_sub(seen.first) >= self.options.age;
        let twice = now.saturating_sub(since) >= self.options.apart;
        let stale = seen.in_use && now.saturating_sub(since) >= self.options.stale;
        match claim.in_checkpoint(view) {
            Some(false) if old && twice => Verdict::Gone,
            Some(false) => Verdict::Quiet,
            Some(true) if stale => Verdict::Gone,
            _ if seen.in_use && twice => Verdict::Quiet,
            _ => Verdict::Present,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubelet_is_settled_after_answers_without_a_break() {
        let mut absence = Absence::new(AbsenceOptions::default());
        let at = Duration::from_secs;
        assert!(!absence.settled(at(100)), "it never answered");
        let view = KubeletView::default();
        absence.observe(at(100), Some(&view), &[]);
        assert!(!absence.settled(at(159)));
        assert!(absence.settled(at(160)));
        absence.observe(at(170), None, &[]);
        assert!(!absence.settled(at(1_000)));
    }

    struct World {
        absence: Absence,
        name: ClaimId,
        alias: ClaimId,
        resource: ResourceName,
        ids: BTreeSet<SlotId>,
    }

    impl World {
        fn new() -> Self {
            Self {
                absence: Absence::new(AbsenceOptions::default()),
                name: ClaimId::new("vgpu-1").expect("an id"),
                alias: ClaimId::new("vgpu-2").expect("an id"),
                resource: ResourceName::new("vgpu.dev/gpu").expect("a name"),
                ids: BTreeSet::from(["GPU-1::8.0".parse().expect("an id")]),
            }
        }

        fn view(&self, listed: bool, checkpoint: Option<&[&ClaimId]>) -> KubeletView {
            let all = self.ids.iter().map(|id| (self.resource.clone(), id.clone()));
            KubeletView {
                listed: if listed { all.collect() } else { BTreeSet::new() },
                checkpoint: checkpoint.map(|names| names.iter().map(|n| (*n).clone()).collect()),
                ..KubeletView::default()
            }
        }

        fn at(&mut self, seconds: u64, view: Option<&KubeletView>) -> Verdict {
            let watched = Watched {
                names: vec![&self.name, &self.alias],
                resource: &self.resource,
                ids: &self.ids,
            };
            self.absence.observe(Duration::from_secs(seconds), view, &[watched])[0]
        }
    }

    #[test]
    fn an_empty_list_after_a_restart_proves_nothing() {
        let mut w = World::new();
        let listed = w.view(true, Some(&[]));
        let empty = w.view(false, Some(&[]));
        assert_eq!(w.at(0, Some(&listed)), Verdict::Present);
        assert_eq!(w.at(1_000, None), Verdict::Present);
        for second in 1_001..1_061 {
            assert_eq!(w.at(second, Some(&empty)), Verdict::Present, "{second}");
        }
        assert_eq!(w.at(1_061, Some(&empty)), Verdict::Gone);
    }

    #[test]
    fn two_lists_apart_the_checkpoint_and_age_are_all_needed() {
        let mut w = World::new();
        let (name, alias) = (w.name.clone(), w.alias.clone());
        let listed = w.view(true, Some(&[&name]));
        let empty = w.view(false, Some(&[]));
        assert_eq!(w.at(0, Some(&listed)), Verdict::Present);
        assert_eq!(w.at(100, Some(&empty)), Verdict::Quiet, "one list");
        let by_alias = w.view(false, Some(&[&alias]));
        assert_eq!(w.at(111, Some(&by_alias)), Verdict::Quiet, "the checkpoint has an alias");
        let unreadable = w.view(false, None);
        assert_eq!(w.at(112, Some(&unreadable)), Verdict::Quiet);
        assert_eq!(w.at(113, Some(&empty)), Verdict::Gone);
    }

    #[test]
    fn a_claim_never_seen_in_use_must_be_old() {
        let mut w = World::new();
        let empty = w.view(false, Some(&[]));
        assert_eq!(w.at(0, Some(&empty)), Verdict::Present);
        assert_eq!(w.at(100, Some(&empty)), Verdict::Quiet);
        assert_eq!(w.at(119, Some(&empty)), Verdict::Quiet);
        assert_eq!(w.at(120, Some(&empty)), Verdict::Gone);
    }

    #[test]
    fn a_quiet_kubelet_that_names_deleted_pods_for_ever_holds_nothing_for_ever() {
        let mut w = World::new();
        let name = w.name.clone();
        let listed = w.view(true, Some(&[&name]));
        let stale = w.view(false, Some(&[&name]));
        assert_eq!(w.at(0, Some(&listed)), Verdict::Present);
        assert_eq!(w.at(100, Some(&stale)), Verdict::Present);
        assert_eq!(w.at(110, Some(&stale)), Verdict::Quiet);
        assert_eq!(w.at(399, Some(&stale)), Verdict::Quiet);
        assert_eq!(w.at(400, Some(&stale)), Verdict::Gone);
    }

    #[test]
    fn an_init_container_is_kept_by_the_checkpoint() {
        let mut w = World::new();
        let name = w.name.clone();
        let init = w.view(false, Some(&[&name]));
        for second in [0, 60, 120, 500, 10_000] {
            assert_eq!(w.at(second, Some(&init)), Verdict::Present);
        }
    }
}
