//! What the kubelet was asked before a claim was there says nothing of the claim. No test here waits: moments
//! are given.

mod world;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use vgpu_backend_mock::{Action, At, Faults, Op, Preset, Rule, RuleId};
use vgpu_core::ErrorKind;
use vgpu_core::id::{ClaimId, SlotId};
use vgpu_node::absence::AbsenceOptions;
use vgpu_node::claim::Holder;
use vgpu_node::points::FaultPoints;
use vgpu_node::{KubeletView, Node, Prepare};
use world::{World, allocate, free, healthy, resource, start, start_of};

const OFFERS: &str = r#"[
    {"resource": "vgpu.dev/gpu", "kind": "whole", "select": {"vendors": ["nvidia"]}},
    {"resource": "vgpu.dev/mem", "kind": "unit", "unit": "1Gi", "largest": 16,
     "schemes": ["smlu"], "select": {"vendors": ["cambricon"]}}
]"#;
const MEM: &str = "vgpu.dev/mem";

/// A kubelet's silence is proof at once.
fn world() -> World {
    let zero = Duration::ZERO;
    let absence = AbsenceOptions { unbroken: zero, apart: zero, age: zero, stale: zero };
    World { absence, ..World::new(Preset::Mixed, OFFERS) }
}

/// No pod is listed, and the checkpoint has none.
fn nothing(asked: Instant) -> KubeletView {
    KubeletView { checkpoint: Some(BTreeSet::new()), ..KubeletView::new(asked) }
}

fn claims(node: &Node) -> Vec<ClaimId> {
    node.claims().into_iter().map(|claim| claim.claim).collect()
}

/// Waits until somebody is in the call that hangs.
fn asked(faults: &Faults, hang: RuleId) {
    let until = Instant::now() + Duration::from_secs(20);
    while !faults.has_hit(hang).expect("a machine") {
        assert!(Instant::now() < until, "nobody asked the driver");
        thread::yield_now();
    }
}

#[test]
fn a_claim_is_not_judged_by_an_answer_to_an_older_question() {
    let world = world();
    let node = world.node();
    let before = world.parts();
    let asked = Instant::now();
    let (claim, ids) = allocate(&node, MEM, 4).expect("allocates");
    let told = healthy(&node, MEM);
    let old = |node: &Node| {
        for _ in 0..3 {
            node.observe_kubelet(Some(&nothing(asked)));
        }
        assert_eq!(claims(node), std::slice::from_ref(&claim.claim));
        assert_eq!(healthy(node, MEM), told, "its ids do not count as free");
    };
    old(&node);
    node.prepare(&start(MEM, &ids)).expect("prepares");
    old(&node);
    assert_eq!(world.parts().len(), before.len() + 1);

    node.observe_kubelet(Some(&nothing(Instant::now())));
    assert_eq!(claims(&node), [], "this one was asked for since");
    assert_eq!(world.parts(), before);
}

#[test]
fn a_container_that_starts_again_is_not_judged_by_what_was_asked_before_it() {
    let world = world();
    let node = world.node();
    let (claim, ids) = allocate(&node, MEM, 4).expect("allocates");
    node.prepare(&start(MEM, &ids)).expect("prepares");
    let asked = Instant::now();
    node.prepare(&start(MEM, &ids)).expect("its container starts again");
    node.observe_kubelet(Some(&nothing(asked)));
    assert_eq!(claims(&node), [claim.claim]);
    node.observe_kubelet(Some(&nothing(Instant::now())));
    assert_eq!(claims(&node), []);
}

#[test]
fn a_claim_of_the_ledger_was_there_before_every_question() {
    let world = world();
    let (_, ids) = {
        let node = world.node();
        let allocated = allocate(&node, MEM, 4).expect("allocates");
        node.prepare(&start(MEM, &allocated.1)).expect("prepares");
        allocated
    };
    let asked = Instant::now();
    let node = world.node();
    assert_eq!(node.claims().len(), 1);
    node.observe_kubelet(Some(&nothing(asked)));
    assert_eq!(claims(&node), []);
    assert!(node.allocate(&resource(MEM), &ids).is_ok(), "its ids are free");
}

#[test]
fn a_claim_that_is_started_on_while_it_is_given_up_is_kept() {
    let world = world();
    let node = world.node();
    let (claim, ids) = allocate(&node, MEM, 4).expect("allocates");
    node.prepare(&start(MEM, &ids)).expect("prepares");
    let parts = world.parts();
    let faults = world.machine.faults();
    let hang = faults.hang(Op::Partitions, &ids[0].device).expect("a fault");
    let giving_up = {
        let node = Arc::clone(&node);
        thread::spawn(move || node.observe_kubelet(Some(&nothing(Instant::now()))))
    };
    // It is judged, and its driver is asked who holds the part.
    asked(&faults, hang);
    // A container starts on it. It is one that may have no second resource, so that no driver is needed.
    let beside = BTreeSet::from([resource("vgpu.dev/gpu")]);
    let refused = node.prepare(&Prepare { beside, ..start(MEM, &ids) }).expect_err("two resources");
    assert_eq!(refused.kind, ErrorKind::Invalid, "{refused}");
    faults.take_back(hang).expect("goes on");
    giving_up.join().expect("no panic");
    assert_eq!(claims(&node), std::slice::from_ref(&claim.claim));
    assert_eq!(world.parts(), parts);
    assert!(world.spec(&claim.claim).is_some());
}

#[test]
fn a_start_that_was_asked_about_before_its_ids_were_given_on_changes_nothing() {
    let world = world();
    let node = world.node();
    let (first, ids) = allocate(&node, MEM, 4).expect("allocates");
    // The first pod's start hangs where the kubelet is asked; meanwhile the kubelet is restarted, the pod is
    // deleted, and another one gets its ids and starts.
    let late = start_of(MEM, &ids, "pod-1", &[&first.claim]);
    let second = node.allocate(&resource(MEM), &ids).expect("allocates anew").claim;
    node.prepare(&start_of(MEM, &ids, "pod-2", &[&second])).expect("prepares");
    let parts = world.parts();
    let e = node.prepare(&late).expect_err("its pod has ended");
    assert!(e.is_retryable() && e.to_string().contains(second.as_str()), "{e}");
    assert_eq!(world.parts(), parts);
    assert!(world.spec(&second).is_some() && world.spec(&first.claim).is_none());
    let some: Vec<SlotId> = ids[..1].to_vec();
    let third = node.allocate(&resource(MEM), &some).expect("one of them, anew").claim;
    assert!(node.prepare(&start_of(MEM, &some, "pod-3", &[&third])).is_ok());
    assert_eq!(node.prepare(&late).expect_err("still").kind, ErrorKind::Busy);
}

#[test]
fn who_held_the_ids_before_is_not_taken_for_their_holder() {
    let world = world();
    let node = world.node();
    let asked = Instant::now();
    let (claim, ids) = allocate(&node, MEM, 4).expect("allocates");
    node.prepare(&start(MEM, &ids)).expect("prepares");
    let holder = |pod: &str| Holder {
        namespace: "default".into(),
        pod: pod.into(),
        uid: None,
        container: "main".into(),
    };
    let view = |asked, pod| KubeletView {
        listed: ids.iter().map(|id| (resource(MEM), id.clone())).collect(),
        holders: [(claim.claim.clone(), holder(pod))].into(),
        ..KubeletView::new(asked)
    };
    node.observe_kubelet(Some(&view(asked, "before")));
    assert_eq!(node.claims()[0].holder, None);
    node.observe_kubelet(Some(&view(Instant::now(), "now")));
    assert_eq!(node.claims()[0].holder, Some(holder("now")));
}

#[test]
fn a_part_that_is_taken_down_is_at_no_time_another_tools() {
    let world = world();
    let node = world.node();
    let (_, ids) = allocate(&node, MEM, 4).expect("allocates");
    node.prepare(&start(MEM, &ids)).expect("prepares");
    let card = &ids[0].device;
    let healthy_there = || {
        let listing = node.listing();
        let slots = listing[&resource(MEM)].iter().filter(|s| s.id.device == *card && s.healthy);
        slots.count()
    };
    let told = healthy_there();
    // Who holds it is asked, what is to be destroyed, and then what is left: this hangs.
    let faults = world.machine.faults();
    let third = Rule::new(At::Start(Op::Partitions), Action::Hang).on(card).nth(3);
    let hang = faults.add(third).expect("a fault");
    let giving_up = {
        let node = Arc::clone(&node);
        thread::spawn(move || node.observe_kubelet(Some(&nothing(Instant::now()))))
    };
    asked(&faults, hang);
    // An allocation elsewhere makes the list anew.
    let listing = node.listing();
    let elsewhere = listing[&resource(MEM)].iter().find(|s| s.id.device != *card);
    let elsewhere = elsewhere.expect("there are two cards").id.clone();
    node.allocate(&resource(MEM), &[elsewhere]).expect("allocates");
    // Its own ids count as free by now.
    assert!(healthy_there() >= told, "{} of {told}", healthy_there());
    faults.take_back(hang).expect("goes on");
    giving_up.join().expect("no panic");
    assert_eq!(node.claims().len(), 1);
}

/// The driver's list of what is on a card is older than the end of a release there.
#[test]
fn a_part_that_goes_while_another_container_starts_is_no_strangers() {
    let (listed, is_listed) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel::<()>();
    let (listed, goes_on) = (Mutex::new(listed), Mutex::new(goes_on));
    let armed = Arc::new(AtomicBool::new(false));
    let mut world = world();
    world.points = FaultPoints::new({
        let armed = Arc::clone(&armed);
        move |name| {
            if name == "prepare.listed" && armed.swap(false, Ordering::SeqCst) {
                listed.lock().expect("no panic").send(()).expect("the test waits");
                let until = Duration::from_secs(20);
                goes_on.lock().expect("no panic").recv_timeout(until).expect("the test goes on");
            }
        }
    });
    let node = world.node();
    let (old, ids) = allocate(&node, MEM, 4).expect("allocates");
    node.prepare(&start(MEM, &ids)).expect("prepares");
    let card = &ids[0].device;
    // Another pod's container starts on the same card, and the part of the first is on its list.
    let near: Vec<SlotId> = free(&node, MEM, usize::MAX);
    let near: Vec<SlotId> = near.into_iter().filter(|id| id.device == *card).take(2).collect();
    let new = node.allocate(&resource(MEM), &near).expect("allocates");
    armed.store(true, Ordering::SeqCst);
    let starting = {
        let (node, near) = (Arc::clone(&node), near.clone());
        thread::spawn(move || node.prepare(&start(MEM, &near)))
    };
    is_listed.recv_timeout(Duration::from_secs(20)).expect("it is about to be decided");
    // Meanwhile the first pod is given up, to the end.
    let view = KubeletView {
        listed: near.iter().map(|id| (resource(MEM), id.clone())).collect(),
        ..nothing(Instant::now())
    };
    node.observe_kubelet(Some(&view));
    assert_eq!(claims(&node), std::slice::from_ref(&new.claim), "{} is gone", old.claim);
    assert_eq!(world.machine.truth(card).expect("listed"), []);
    go_on.send(()).expect("it waits");
    let started = starting.join().expect("no panic");
    assert_eq!(started.expect("nobody else is on the card"), new.claim);
}
