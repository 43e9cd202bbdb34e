//! Cards whose mode serves one domain: entered for the first claim, brought back when what serves it
//! died, left with the last.

mod world;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use vgpu_backend_mock::{MockFactory, Preset};
use vgpu_core::id::{DeviceId, TrustDomain};
use vgpu_core::{Host, ModeChange, ModeOrder, Probe, Scheme, Subject, Vendor};
use vgpu_node::absence::AbsenceOptions;
use vgpu_node::{ClaimStatus, KubeletView, Node};
use world::{World, allocate, healthy, start};

const OFFER: &str = r#"[{"resource":"vgpu.dev/share","kind":"slice","slots":4,"domain":"team-b",
    "schemes":["mps"],"select":{"devices":["CARD"]}}]"#;

/// A card that is in no mode, and an offer that puts it into one.
fn world() -> (World, DeviceId) {
    let world = World::new(Preset::H100x8.spec(), "[]");
    let card = world.cards(&Vendor::NVIDIA)[0].clone();
    let offers = serde_json::from_str(&OFFER.replace("CARD", card.as_str())).expect("an offer");
    let absence = AbsenceOptions {
        unbroken: Duration::ZERO,
        apart: Duration::ZERO,
        age: Duration::ZERO,
        stale: Duration::ZERO,
    };
    (World { offers, absence, ..world }, card)
}

fn mode(node: &Node, card: &DeviceId) -> (bool, Option<String>) {
    let snapshot = node.snapshot();
    let mode = &snapshot.cards[card].device.scheme(&Scheme::MPS).expect("it has MPS").mode;
    (mode.active, mode.domain.as_ref().map(ToString::to_string))
}

fn trouble(node: &Node) -> Vec<ClaimStatus> {
    node.claims().into_iter().filter(|claim| claim.trouble.is_some()).collect()
}

#[test]
fn the_mode_comes_with_the_first_claim_and_goes_with_the_last() {
    let (world, card) = world();
    let node = world.node();
    assert_eq!(mode(&node, &card), (false, None));
    let (_, first) = allocate(&node, "vgpu.dev/share", 1).expect("free");
    let (_, second) = allocate(&node, "vgpu.dev/share", 1).expect("free");
    for ids in [&first, &second] {
        node.prepare(&start("vgpu.dev/share", ids)).expect("prepared");
    }
    assert_eq!(mode(&node, &card), (true, Some("team-b".into())));
    node.refresh();
    assert_eq!(mode(&node, &card), (true, Some("team-b".into())), "it is needed");
    let nothing =
        KubeletView { checkpoint: Some(BTreeSet::new()), ..KubeletView::new(Instant::now()) };
    node.observe_kubelet(Some(&nothing));
    node.observe_kubelet(Some(&nothing));
    assert_eq!(node.claims(), []);
    assert_eq!(mode(&node, &card), (false, None), "nobody needs it");
}

#[test]
fn a_card_that_is_not_in_its_mode_offers_what_it_has_in_it() {
    let (world, card) = world();
    let offer = OFFER.replace("\"slots\":4,\"domain\":\"team-b\"", "\"profile\":\"1g.10gb\"");
    let offer = offer.replace("mps", "mig").replace("CARD", card.as_str());
    let world = World { offers: serde_json::from_str(&offer).expect("an offer"), ..world };
    let node = world.node();
    assert_eq!(healthy(&node, "vgpu.dev/share"), 7);
    // All are had at once, before the first of them is there.
    let ids: Vec<_> =
        (0..7).map(|_| allocate(&node, "vgpu.dev/share", 1).expect("free").1).collect();
    for ids in &ids {
        node.prepare(&start("vgpu.dev/share", ids)).expect("prepared");
    }
    assert_eq!(healthy(&node, "vgpu.dev/share"), 7, "each is held, and none is closed");
    assert_eq!(node.claims().len(), 7);
}

#[test]
fn a_mode_that_nobody_needs_is_left_after_a_crash_too() {
    let (world, card) = world();
    {
        let node = world.node();
        let (_, ids) = allocate(&node, "vgpu.dev/share", 1).expect("free");
        node.prepare(&start("vgpu.dev/share", &ids)).expect("prepared");
    }
    // The ledger is lost with the agent, and the kubelet has forgotten the pod.
    std::fs::remove_dir_all(world.dir.path().join("state")).expect("removed");
    let node = world.node();
    node.refresh();
    assert_eq!(mode(&node, &card), (false, None));
}

#[test]
fn a_mode_is_left_though_it_could_not_be_and_its_offer_is_gone() {
    let (world, card) = world();
    let hold = |processes| {
        let subject = Subject::Device(card.clone());
        world.machine.faults().hold(&subject, processes).expect("known");
    };
    {
        let node = world.node();
        let (_, ids) = allocate(&node, "vgpu.dev/share", 1).expect("free");
        node.prepare(&start("vgpu.dev/share", &ids)).expect("prepared");
        // Somebody computes there, so that it stays when the last claim goes.
        hold(1);
        let nothing =
            KubeletView { checkpoint: Some(BTreeSet::new()), ..KubeletView::new(Instant::now()) };
        node.observe_kubelet(Some(&nothing));
        node.observe_kubelet(Some(&nothing));
        assert_eq!(node.claims(), []);
        node.apply(&[]).expect("nothing is offered any more");
        node.refresh();
        assert_eq!(mode(&node, &card), (true, Some("team-b".into())));
    }
    let world = World { offers: Vec::new(), ..world };
    let node = world.node();
    node.refresh();
    assert_eq!(mode(&node, &card), (true, Some("team-b".into())), "it cannot be left yet");
    world.machine.faults().hold(&Subject::Device(card.clone()), 0).expect("known");
    node.refresh();
    assert_eq!(mode(&node, &card), (false, None));
    // What a person does afterwards is theirs again.
    let order = ModeOrder {
        device: card.clone(),
        scheme: Some(Scheme::MPS),
        affected: vec![card.clone()],
        domain: Some(TrustDomain::new("by-hand").expect("a word")),
    };
    let ready = |probe| match probe {
        Probe::Ready(backend) => Some(backend),
        Probe::Absent(_) | Probe::Broken(_) => None,
    };
    let factories = MockFactory::all(&world.machine);
    let nvidia = factories.iter().find(|f| f.vendor() == Vendor::NVIDIA).expect("one");
    let backend = ready(nvidia.probe(&Host::default())).expect("it is there");
    assert_eq!(backend.set_mode(&order), Ok(ModeChange::Done));
    node.refresh();
    node.refresh();
    assert_eq!(mode(&node, &card), (true, Some("by-hand".into())));
}

#[test]
fn what_a_person_put_into_a_mode_stays() {
    let world = World::new(Preset::H100x8.spec(), "[]");
    let node = world.node();
    let snapshot = node.snapshot();
    let serves = |card: &&DeviceId| {
        let schemes = &snapshot.cards[*card].device.schemes;
        schemes.iter().any(|info| info.mode.domain.is_some())
    };
    let by_hand: Vec<_> = snapshot.cards.keys().filter(serves).cloned().collect();
    assert!(!by_hand.is_empty(), "the machine has cards in MPS mode");
    node.refresh();
    for card in by_hand {
        let now = &node.snapshot().cards[&card].device.schemes;
        assert!(now.iter().any(|info| info.mode.active && info.mode.domain.is_some()), "{card}");
    }
}

#[test]
fn a_mode_that_died_under_a_claim_is_brought_back() {
    let (world, card) = world();
    let node = world.node();
    let (_, ids) = allocate(&node, "vgpu.dev/share", 1).expect("free");
    let claim = node.prepare(&start("vgpu.dev/share", &ids)).expect("prepared");
    world.machine.faults().kill_daemon(&card).expect("killed");
    node.refresh();
    assert_eq!(mode(&node, &card), (true, Some("team-b".into())));
    assert!(world.spec(&claim).is_some(), "its container may start again");
    assert!(trouble(&node).is_empty());
    assert_eq!(healthy(&node, "vgpu.dev/share"), 4);
    // And while nobody has looked: another agent finds it dead.
    world.machine.faults().kill_daemon(&card).expect("killed");
    drop(node);
    let node = world.node();
    assert_eq!(mode(&node, &card), (true, Some("team-b".into())));
}
