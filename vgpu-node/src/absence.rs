//! When the kubelet's silence about a claim is proof that its pod is gone.
//!
//! The list is empty right after a kubelet restart, has no pod UID, and leaves out plain init
//! containers. So being absent from it is evidence only together with more. And an answer speaks only
//! of what was there when the kubelet was asked: of a claim that the kubelet allocated or started on
//! since, it says nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

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
    /// The claim is so old, unless it was seen in use: the kubelet writes an allocation down only after
    /// it has our answer.
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeletView {
    /// When the asking began, before the first of its sources was read: none of them is older.
    pub asked: Instant,
    /// Ids that PodResources lists, of all containers.
    pub listed: BTreeSet<(ResourceName, SlotId)>,
    /// Claims that the kubelet's checkpoint names; `None` if it could not be read.
    pub checkpoint: Option<BTreeSet<ClaimId>>,
    /// Who holds a claim, where checkpoint and list together tell.
    pub holders: BTreeMap<ClaimId, Holder>,
}

impl KubeletView {
    /// A view of a kubelet without pods and without a checkpoint; what it says is filled in.
    pub fn new(asked: Instant) -> Self {
        Self { asked, listed: BTreeSet::new(), checkpoint: None, holders: BTreeMap::new() }
    }
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
    /// When the kubelet last allocated it or started a container on it; `None` if not in this process.
    pub touched: Option<Instant>,
}

impl Watched<'_> {
    /// Whether the view can say anything of it.
    fn is_known_to(&self, view: &KubeletView) -> bool {
        self.touched.is_none_or(|touched| touched < view.asked)
    }

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
        self.is_known_to(view) && !self.listed(view) && self.in_checkpoint(view) == Some(true)
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
    unbroken_since: Option<Instant>,
    claims: BTreeMap<ClaimId, Seen>,
}

/// Moments are those at which views were taken, and are compared with those at which later ones were
/// asked for: what lies between is not counted too long.
#[derive(Debug)]
struct Seen {
    first: Instant,
    in_use: bool,
    absent_since: Option<Instant>,
}

impl Absence {
    /// Nothing seen yet.
    pub fn new(options: AbsenceOptions) -> Self {
        Self { options, ..Self::default() }
    }

    /// Whether the kubelet has answered for so long without a break that it admits no pods of before.
    pub fn settled(&self, now: Instant) -> bool {
        let unbroken = |since| now.saturating_duration_since(since) >= self.options.unbroken;
        self.unbroken_since.is_some_and(unbroken)
    }

    /// Takes one answer of the kubelet, or that there was none, at `now`.
    ///
    /// Returns a verdict for each of `claims`, in their order.
    pub fn observe(
        &mut self,
        now: Instant,
        view: Option<&KubeletView>,
        claims: &[Watched<'_>],
    ) -> Vec<Verdict> {
        self.claims.retain(|id, _| claims.iter().any(|c| c.names.first() == Some(&id)));
        let Some(view) = view else {
            self.unbroken_since = None;
            self.claims.values_mut().for_each(|seen| seen.absent_since = None);
            return vec![Verdict::Present; claims.len()];
        };
        let since = *self.unbroken_since.get_or_insert(now);
        let unbroken = view.asked.saturating_duration_since(since) >= self.options.unbroken;
        claims.iter().map(|claim| self.judge(now, unbroken, view, claim)).collect()
    }

    fn judge(
        &mut self,
        now: Instant,
        unbroken: bool,
        view: &KubeletView,
        claim: &Watched<'_>,
    ) -> Verdict {
        let Some(&name) = claim.names.first() else { return Verdict::Present };
        let seen = self.claims.entry(name.clone()).or_insert(Seen {
            first: now,
            in_use: false,
            absent_since: None,
        });
        if !claim.is_known_to(view) {
            // It may not be listed yet, and the pod that has its ids in there may be an earlier one.
            return Verdict::Present;
        }
        if claim.listed(view) {
            seen.in_use = true;
            seen.absent_since = None;
            return Verdict::Present;
        }
        // A claim that was touched was there then, so that its silence begins anew.
        let since = seen.absent_since.filter(|since| claim.touched.is_none_or(|t| t <= *since));
        let since = *seen.absent_since.insert(since.unwrap_or(now));
        if !unbroken {
            return Verdict::Present;
        }
        let past = |moment| view.asked.saturating_duration_since(moment);
        let old = seen.in_use || past(seen.first) >= self.options.age;
        let twice = past(since) >= self.options.apart;
        let stale = seen.in_use && past(since) >= self.options.stale;
        match claim.in_checkpoint(view) {
            Some(false) if old && twice => Verdict::Gone,
            // The kubelet may be about to write down what it has just been given.
            Some(false) if !seen.in_use && !twice => Verdict::Present,
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
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!absence.settled(at(100)), "it never answered");
        let view = KubeletView::new(at(100));
        absence.observe(at(100), Some(&view), &[]);
        assert!(!absence.settled(at(159)));
        assert!(absence.settled(at(160)));
        absence.observe(at(170), None, &[]);
        assert!(!absence.settled(at(1_000)));
    }

    struct World {
        absence: Absence,
        start: Instant,
        touched: Option<Instant>,
        name: ClaimId,
        alias: ClaimId,
        resource: ResourceName,
        ids: BTreeSet<SlotId>,
    }

    impl World {
        fn new() -> Self {
            Self {
                absence: Absence::new(AbsenceOptions::default()),
                start: Instant::now(),
                touched: None,
                name: ClaimId::new("vgpu-1").expect("an id"),
                alias: ClaimId::new("vgpu-2").expect("an id"),
                resource: ResourceName::new("vgpu.dev/gpu").expect("a name"),
                ids: BTreeSet::from(["GPU-1::8.0".parse().expect("an id")]),
            }
        }

        fn after(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        fn view(&self, listed: bool, checkpoint: Option<&[&ClaimId]>) -> KubeletView {
            let all = self.ids.iter().map(|id| (self.resource.clone(), id.clone()));
            KubeletView {
                listed: if listed { all.collect() } else { BTreeSet::new() },
                checkpoint: checkpoint.map(|names| names.iter().map(|n| (*n).clone()).collect()),
                ..KubeletView::new(self.start)
            }
        }

        /// An answer that comes at once.
        fn at(&mut self, seconds: u64, view: Option<&KubeletView>) -> Verdict {
            self.late(seconds, seconds, view)
        }

        /// An answer that comes some time after the question.
        fn late(&mut self, asked: u64, answered: u64, view: Option<&KubeletView>) -> Verdict {
            let (asked, answered) = (self.after(asked), self.after(answered));
            let view = view.map(|view| KubeletView { asked, ..view.clone() });
            let watched = Watched {
                names: vec![&self.name, &self.alias],
                resource: &self.resource,
                ids: &self.ids,
                touched: self.touched,
            };
            self.absence.observe(answered, view.as_ref(), &[watched])[0]
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
    fn an_answer_to_an_older_question_proves_nothing() {
        let mut w = World::new();
        let empty = w.view(false, Some(&[]));
        assert_eq!(w.at(0, Some(&empty)), Verdict::Present);
        w.touched = Some(w.after(500));
        for answered in [501, 700, 1_000] {
            assert_eq!(w.late(499, answered, Some(&empty)), Verdict::Present, "{answered}");
            assert_eq!(w.late(500, answered, Some(&empty)), Verdict::Present, "{answered}");
        }
        // What it says of the question's time counts, not how long the answer took.
        assert_eq!(w.late(1_001, 2_000, Some(&empty)), Verdict::Present, "one list");
        assert_eq!(w.late(2_009, 3_000, Some(&empty)), Verdict::Present, "9 s apart");
        assert_eq!(w.late(2_010, 3_000, Some(&empty)), Verdict::Gone);
    }

    #[test]
    fn a_container_that_starts_begins_the_silence_anew() {
        let mut w = World::new();
        let name = w.name.clone();
        let listed = w.view(true, Some(&[&name]));
        let empty = w.view(false, Some(&[]));
        assert_eq!(w.at(0, Some(&listed)), Verdict::Present);
        assert_eq!(w.at(100, Some(&empty)), Verdict::Quiet);
        w.touched = Some(w.after(105));
        assert_eq!(w.at(111, Some(&empty)), Verdict::Quiet, "one list since it started");
        assert_eq!(w.at(120, Some(&empty)), Verdict::Quiet);
        assert_eq!(w.at(121, Some(&empty)), Verdict::Gone);
    }

    #[test]
    fn an_older_list_with_its_ids_has_not_seen_it_in_use() {
        let mut w = World::new();
        let name = w.name.clone();
        let of_the_pod_before = w.view(true, Some(&[]));
        let init = w.view(false, Some(&[&name]));
        w.touched = Some(w.after(100));
        assert_eq!(w.late(99, 101, Some(&of_the_pod_before)), Verdict::Present);
        // Else it would be gone after five minutes off the list, whatever the checkpoint says.
        for second in [160, 400, 1_000, 10_000] {
            assert_eq!(w.at(second, Some(&init)), Verdict::Present, "{second}");
        }
    }

    /// Whatever comes in whatever order: nothing that began before the last touch changes a verdict.
    #[test]
    fn verdicts_are_those_of_the_views_asked_for_since() {
        for seed in 1..=2_000_u64 {
            let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut below = |n: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % n
            };
            let (mut all, mut fresh) = (World::new(), World::new());
            fresh.start = all.start;
            let name = all.name.clone();
            let touched = 300 + below(300);
            all.touched = Some(all.after(touched));
            fresh.touched = all.touched;
            let mut now = 0;
            for step in 0..40 {
                let asked = now + below(40);
                now = asked + below(40);
                let checkpoint: [&ClaimId; 1] = [&name];
                let named = &checkpoint[..below(2) as usize];
                let view = all.view(below(3) == 0, Some(named));
                let verdict = all.late(asked, now, Some(&view));
                // The other one is told of the same moments, of the older views only that there were any.
                let nothing = fresh.view(false, None);
                let older = asked <= touched;
                let expected = fresh.late(asked, now, Some(if older { &nothing } else { &view }));
                assert_eq!(verdict, expected, "seed {seed}, step {step}");
                assert!(!older || verdict == Verdict::Present, "seed {seed}, step {step}");
            }
        }
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
