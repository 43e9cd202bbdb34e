//! Claims from allocation to release, on a mock machine.

mod world;

use std::time::{Duration, Instant};

use vgpu_backend_mock::{Op, Preset};
use vgpu_core::id::{ClaimId, SlotId};
use vgpu_core::{ErrorKind, Event, Meaning, Subject, Vendor};
use vgpu_node::absence::AbsenceOptions;
use vgpu_node::lanes::LaneOptions;
use vgpu_node::{Allocated, KubeletView};
use world::{World, allocate, free, healthy, resource, start, start_of};

const MIXED: &str = r#"[
    {"resource": "vgpu.dev/gpu", "kind": "whole",
     "select": {"vendors": ["nvidia"]}},
    {"resource": "vgpu.dev/dcu", "kind": "slice", "slots": 4, "select": {"vendors": ["hygon"]}},
    {"resource": "vgpu.dev/mlu-mem", "kind": "unit", "unit": "1Gi", "largest": 16,
     "schemes": ["smlu"], "select": {"vendors": ["cambricon"]}}
]"#;

fn state(node: &vgpu_node::Node, claim: &ClaimId) -> String {
    let claims = node.claims();
    claims.iter().find(|c| c.claim == *claim).map_or("gone".into(), |c| c.state.clone())
}

#[test]
fn a_unit_share_is_made_published_and_superseded() {
    let world = World::new(Preset::Mixed, MIXED);
    let node = world.node();
    let before = world.parts();
    let calls = world.machine.calls();
    let (first, ids) = allocate(&node, "vgpu.dev/mlu-mem", 10).expect("allocates");
    assert_eq!(world.machine.calls(), calls, "no driver is asked in Allocate");
    assert!(world.spec(&first.claim).is_none(), "nothing is published before PreStart");
    assert_eq!(node.prepare(&start("vgpu.dev/mlu-mem", &ids)).expect("prepares"), first.claim);
    assert_eq!(world.parts().len(), before.len() + 1);
    let spec = world.spec(&first.claim).expect("published");
    assert_eq!(spec.devices[0].name, first.claim.as_str());

    // Again: the same part, no second one.
    node.prepare(&start("vgpu.dev/mlu-mem", &ids)).expect("prepares again");
    assert_eq!(world.parts().len(), before.len() + 1);

    // The kubelet gives the ids to another pod: a fresh claim, and the old one goes first.
    let second = node.allocate(&resource("vgpu.dev/mlu-mem"), &ids).expect("allocates");
    assert_ne!(second.claim, first.claim);
    node.prepare(&start("vgpu.dev/mlu-mem", &ids)).expect("prepares");
    assert_eq!(state(&node, &first.claim), "gone");
    assert_eq!(world.parts().len(), before.len() + 1);
    assert!(world.spec(&first.claim).is_none());
    assert!(world.spec(&second.claim).is_some());
}

#[test]
fn a_part_still_held_makes_the_next_pod_wait() {
    let world = World::new(Preset::Mixed, MIXED);
    let node = world.node();
    let (first, ids) = allocate(&node, "vgpu.dev/mlu-mem", 4).expect("allocates");
    node.prepare(&start("vgpu.dev/mlu-mem", &ids)).expect("prepares");
    let part = world.parts().into_iter().find(|p| p.scheme().as_str() == "smlu").expect("a part");
    world.machine.faults().hold(&Subject::Part(part.clone()), 2).expect("holds");

    let second = node.allocate(&resource("vgpu.dev/mlu-mem"), &ids).expect("never refused");
    let e = node.prepare(&start("vgpu.dev/mlu-mem", &ids)).expect_err("it is held");
    assert_eq!(e.kind, ErrorKind::Busy, "{e}");
    assert!(world.spec(&first.claim).is_none(), "nobody can start on it any more");
    world.machine.faults().hold(&Subject::Part(part), 0).expect("lets go");
    assert_eq!(node.prepare(&start("vgpu.dev/mlu-mem", &ids)).expect("prepares"), second.claim);
}

#[test]
fn init_and_app_container_share_ids_and_a_part() {
    let world = World::new(Preset::Mixed, MIXED);
    let node = world.node();
    let name = "vgpu.dev/mlu-mem";
    let (init, ids) = allocate(&node, name, 4).expect("allocates");
    let app = node.allocate(&resource(name), &ids).expect("allocates again");
    let before = world.parts().len();
    let ask = start_of(name, &ids, "uid-1", &[&init.claim, &app.claim]);
    node.prepare(&ask).expect("the init container starts");
    assert!(world.spec(&init.claim).is_some() && world.spec(&app.claim).is_some());
    node.prepare(&ask).expect("the app container starts");
    assert_eq!(world.parts().len(), before + 1);

    // Another pod gets the ids; both names go.
    let next = node.allocate(&resource(name), &ids).expect("allocates");
    let ask = start_of(name, &ids, "uid-2", &[&next.claim]);
    assert_eq!(node.prepare(&ask).expect("prepares"), next.claim);
    assert!(world.spec(&init.claim).is_none() && world.spec(&app.claim).is_none());
    assert_eq!(world.parts().len(), before + 1);
}

#[test]
fn an_init_container_with_more_ids_runs_before_the_app_container_with_fewer() {
    let world = World::new(Preset::Mixed, MIXED);
    let node = world.node();
    let name = "vgpu.dev/mlu-mem";
    let (init, ids) = allocate(&node, name, 4).expect("allocates");
    let fewer: Vec<SlotId> = ids[..2].to_vec();
    let app = node.allocate(&resource(name), &fewer).expect("allocates");
    let before = world.parts().len();
    node.prepare(&start_of(name, &ids, "uid", &[&init.claim])).expect("init starts");
    assert!(world.spec(&init.claim).is_some());
    node.prepare(&start_of(name, &fewer, "uid", &[&app.claim])).expect("app starts");
    assert!(world.spec(&init.claim).is_none());
    assert_eq!(world.parts().len(), before + 1);
}

#[test]
fn a_claim_that_only_the_checkpoint_knows_is_taken_up() {
    let world = World::new(Preset::Mixed, MIXED);
    let node = world.node();
    let (allocation, ids) = allocate(&node, "vgpu.dev/dcu", 1).expect("allocates");
    drop(node);
    let node = world.node();
    let e = node.prepare(&start("vgpu.dev/dcu", &ids)).expect_err("nothing is known");
    assert_eq!(e.kind, ErrorKind::NotFound);
    let ask = start_of("vgpu.dev/dcu", &ids, "uid", &[&allocation.claim]);
    assert_eq!(node.prepare(&ask).expect("prepares"), allocation.claim);
    assert!(world.spec(&allocation.claim).is_some());
}

#[test]
fn a_lost_ledger_is_rebuilt_from_the_checkpoint_and_the_hardware() {
    let world = World::new(Preset::Mixed, MIXED);
    let node = world.node();
    let name = "vgpu.dev/mlu-mem";
    let before = world.parts().len();
    let (allocation, ids) = allocate(&node, name, 6).expect("allocates");
    node.prepare(&start(name, &ids)).expect("prepares");
    let free_before = healthy(&node, name);
    drop(node);
    std::fs::remove_dir_all(world.dir.path().join("state")).expect("the disk is lost");
    let node = world.node();
    let claim = allocation.claim.clone();
    let resource = resource(name);
    let entry = Allocated { claim, resource, ids: ids.iter().cloned().collect() };
    assert_eq!(node.adopt(std::slice::from_ref(&entry)), 1);
    assert_eq!(node.adopt(&[entry]), 0, "once");
    assert_eq!(healthy(&node, name), free_before, "its part is not a stranger's");
    assert_eq!(node.prepare(&start(name, &ids)).expect("restarts"), allocation.claim);
    assert_eq!(world.parts().len(), before + 1, "nothing is made twice");
    assert!(world.spec(&allocation.claim).is_some());
}

#[test]
fn a_part_that_is_not_well_takes_only_its_own_ids() {
    let world = World::new(Preset::Mixed, MIXED);
    let node = world.node();
    let name = "vgpu.dev/mlu-mem";
    let (_, ill) = allocate(&node, name, 4).expect("allocates");
    node.prepare(&start(name, &ill)).expect("prepares");
    let part = world.parts().into_iter().find(|p| p.scheme().as_str() == "smlu").expect("a part");
    let (_, well) = allocate(&node, name, 4).expect("allocates");
    node.prepare(&start(name, &well)).expect("prepares");
    node.take_events(&[Event::now(Subject::Part(part), Meaning::NeedsReset, "a test")]);
    let listing = node.listing();
    let slots = &listing[&resource(name)];
    assert!(slots.iter().filter(|s| ill.contains(&s.id)).all(|s| !s.healthy));
    assert!(slots.iter().filter(|s| well.contains(&s.id)).all(|s| s.healthy));
}

#[test]
fn a_restart_finds_everything_and_changes_nothing() {
    let world = World::new(Preset::Mixed, MIXED);
    let node = world.node();
    let mut claims = vec![];
    for (name, count) in [("vgpu.dev/gpu", 1), ("vgpu.dev/dcu", 1), ("vgpu.dev/mlu-mem", 10)] {
        let (allocation, ids) = allocate(&node, name, count).expect(name);
        node.prepare(&start(name, &ids)).expect(name);
        claims.push((name, allocation, ids));
    }
    let (parts, specs, before) = (world.parts(), world.specs(), node.claims());
    let listing = node.listing();
    drop(node);
    let node = world.node();
    assert_eq!(
        (world.parts(), world.specs(), node.claims()),
        (parts.clone(), specs.clone(), before)
    );
    assert_eq!(node.listing(), listing, "ids and health are the same");
    for (name, allocation, ids) in &claims {
        assert_eq!(node.prepare(&start(name, ids)).expect(name), allocation.claim);
    }
    assert_eq!((world.parts(), world.specs()), (parts, specs));
}

#[test]
fn after_a_reboot_parts_are_made_anew_under_their_old_names() {
    let world = World::new(Preset::Mixed, MIXED);
    let node = world.node();
    let (allocation, ids) = allocate(&node, "vgpu.dev/mlu-mem", 8).expect("allocates");
    node.prepare(&start("vgpu.dev/mlu-mem", &ids)).expect("prepares");
    drop(node);
    world.reboot();
    assert!(world.parts().iter().all(|p| p.scheme().as_str() != "smlu"));
    let node = world.node();
    assert!(world.specs().is_empty(), "no spec without its part");
    // The mock's cards may have left their mode with the boot; the planner enters it again.
    let ask = start_of("vgpu.dev/mlu-mem", &ids, "uid", &[&allocation.claim]);
    assert_eq!(node.prepare(&ask).expect("prepares"), allocation.claim);
    assert!(world.spec(&allocation.claim).is_some());
}

/// A pod's part was made, its agent died before it knew, and the pod was deleted; what another pod's
/// start found out for it must not outlive the boot.
#[test]
fn after_a_reboot_no_dead_pods_claim_keeps_a_card_from_its_mode() {
    let name = "vgpu.dev/mig";
    let mut world = World::new(Preset::Mixed, "[]");
    // An H200 forgets its mode at a reboot.
    let card = world.cards(&Vendor::NVIDIA).remove(1);
    let offer = format!(
        r#"[{{"resource": "{name}", "kind": "slice", "profile": "1g.18gb", "schemes": ["mig"],
             "select": {{"devices": ["{card}"]}}}}]"#
    );
    world.offers = serde_json::from_str(&offer).expect("offers");
    let node = world.node();
    let (dead, dead_ids) = allocate(&node, name, 1).expect("allocates");
    world.machine.faults().crash(Op::Create, &card, 2).expect("a rule");
    node.prepare(&start(name, &dead_ids)).expect_err("the process dies");
    drop(node);
    world.machine.faults().take_all_back().expect("no rules");

    let node = world.node();
    let (live, live_ids) = allocate(&node, name, 1).expect("allocates");
    node.prepare(&start(name, &live_ids)).expect("prepares");
    let state_of_dead = state(&node, &dead.claim);
    assert_eq!(state_of_dead, "preparing", "what it made was found, and nobody asked for it since");
    drop(node);

    world.reboot();
    let node = world.node();
    let ask = start_of(name, &live_ids, "uid", &[&live.claim]);
    assert_eq!(node.prepare(&ask).expect("enters the mode again"), live.claim);
    // And had the dead one's pod lived, it would be served as well.
    let ask = start_of(name, &dead_ids, "other-uid", &[&dead.claim]);
    assert_eq!(node.prepare(&ask).expect("prepares"), dead.claim);
    let parts = world.parts().into_iter().filter(|p| p.device() == card).count();
    assert_eq!(parts, 2);
}

/// A release that a reboot cut short: neither the limit on a container nor the part is there.
#[test]
fn after_a_reboot_a_release_that_was_cut_short_ends() {
    let world = World::new(Preset::Mixed, MIXED);
    let node = world.node();
    let name = "vgpu.dev/mlu-mem";
    let (first, ids) = allocate(&node, name, 4).expect("allocates");
    node.prepare(&start(name, &ids)).expect("prepares");
    let part = world.parts().into_iter().find(|p| p.scheme().as_str() == "smlu").expect("a part");
    world.machine.faults().hold(&Subject::Part(part), 1).expect("holds");
    let next = node.allocate(&resource(name), &ids).expect("allocates");
    node.prepare(&start(name, &ids)).expect_err("it is held");
    assert_eq!(state(&node, &first.claim), "releasing");
    drop(node);
    world.reboot();
    let node = world.node();
    assert_eq!(state(&node, &first.claim), "gone");
    let ask = start_of(name, &ids, "uid", &[&next.claim]);
    assert_eq!(node.prepare(&ask).expect("prepares"), next.claim);
}

#[test]
fn a_container_with_two_resources_is_refused_and_nothing_is_made() {
    let world = World::new(Preset::Mixed, MIXED);
    let node = world.node();
    let before = world.parts();
    let (dcu, dcu_ids) = allocate(&node, "vgpu.dev/dcu", 1).expect("allocates");
    let (mem, mem_ids) = allocate(&node, "vgpu.dev/mlu-mem", 4).expect("allocates");
    let of = |name: &str, ids: &[SlotId], claim: &ClaimId, beside: &str| {
        let mut ask = start_of(name, ids, "uid", &[claim]);
        for entry in ask.checkpoint.iter_mut().flatten() {
            entry.beside.insert(resource(beside));
        }
        ask
    };
    let both = [
        of("vgpu.dev/dcu", &dcu_ids, &dcu.claim, "vgpu.dev/mlu-mem"),
        of("vgpu.dev/mlu-mem", &mem_ids, &mem.claim, "vgpu.dev/dcu"),
    ];
    for ask in &both {
        let e = node.prepare(ask).expect_err("refused");
        assert_eq!(e.kind, ErrorKind::Invalid, "{e}");
        let told = e.to_string();
        assert!(told.contains("container main") && told.contains("one of them"), "{told}");
        assert!(told.contains("vgpu.dev/dcu") && told.contains("vgpu.dev/mlu-mem"), "{told}");
    }
    // By the list alone, where the checkpoint cannot be read.
    let mut ask = start("vgpu.dev/dcu", &dcu_ids);
    ask.beside.insert(resource("vgpu.dev/mlu-mem"));
    assert_eq!(node.prepare(&ask).expect_err("refused").kind, ErrorKind::Invalid);
    assert_eq!((world.parts(), world.specs().len()), (before, 0), "nothing was made");
    assert!(node.claims().iter().all(|c| c.state == "allocated" && c.trouble.is_some()));
    // Somebody else's resource beside ours is nobody's business.
    let mut ask = start("vgpu.dev/dcu", &dcu_ids);
    ask.beside.insert(resource("example.com/nic"));
    node.prepare(&ask).expect("prepares");
}

#[test]
fn a_part_that_vanishes_breaks_its_claim_and_nothing_else() {
    let world = World::new(Preset::Mixed, MIXED);
    let node = world.node();
    let name = "vgpu.dev/mlu-mem";
    let (lost, lost_ids) = allocate(&node, name, 4).expect("allocates");
    node.prepare(&start(name, &lost_ids)).expect("prepares");
    let part = world.parts().into_iter().find(|p| p.scheme().as_str() == "smlu").expect("a part");
    let (other, other_ids) = allocate(&node, name, 4).expect("allocates");
    node.prepare(&start(name, &other_ids)).expect("prepares");
    world.machine.faults().vanish(&part).expect("vanishes");
    node.refresh();
    assert_eq!(state(&node, &lost.claim), "broken");
    assert!(world.spec(&lost.claim).is_none());
    assert_eq!(state(&node, &other.claim), "prepared");
    let listing = node.listing();
    let slots = &listing[&resource(name)];
    for slot in slots.iter().filter(|s| lost_ids.contains(&s.id)) {
        assert!(!slot.healthy, "{}", slot.id);
    }
    assert!(slots.iter().filter(|s| other_ids.contains(&s.id)).all(|s| s.healthy));
    let e = node.prepare(&start(name, &lost_ids)).expect_err("never made anew in silence");
    assert!(e.to_string().contains("delete the pod"), "{e}");
    // The pod is deleted and the ids are given to another.
    node.allocate(&resource(name), &lost_ids).expect("allocates");
    node.prepare(&start(name, &lost_ids)).expect("prepares");
}

#[test]
fn a_card_off_the_bus_takes_its_ids_and_gives_them_back() {
    let world = World::new(Preset::Mixed, MIXED);
    let node = world.node();
    let name = "vgpu.dev/dcu";
    let all = healthy(&node, name);
    assert_eq!(all, 8);
    let card = world.cards(&Vendor::HYGON).remove(0);
    world.machine.faults().lose(&card).expect("lost");
    node.refresh();
    assert_eq!(healthy(&node, name), 4);
    assert!(free(&node, name, 8).iter().all(|id| id.device != card));
    world.machine.faults().restore(&card).expect("back");
    // Hysteresis: a card is trusted again only after good readings; no restart is needed.
    let deadline = Instant::now() + Duration::from_secs(120);
    while healthy(&node, name) < all {
        assert!(Instant::now() < deadline, "the card is not trusted again");
        std::thread::sleep(Duration::from_millis(200));
        node.refresh();
    }
}

#[test]
fn a_driver_that_never_answers_holds_up_its_card_only() {
    let mut world = World::new(Preset::Mixed, MIXED);
    world.lanes = LaneOptions { deadline: Duration::from_millis(300), ..LaneOptions::default() };
    let node = world.node();
    let name = "vgpu.dev/mlu-mem";
    let (stuck, ids) = allocate(&node, name, 4).expect("allocates");
    let card = ids[0].device.clone();
    let rule = world.machine.faults().hang(Op::Create, &card).expect("a rule");
    let e = node.prepare(&start(name, &ids)).expect_err("it hangs");
    assert_eq!(e.kind, ErrorKind::InDoubt, "{e}");
    // The other vendor, and the other card of this one, are served.
    let (other, other_ids) = allocate(&node, "vgpu.dev/dcu", 1).expect("allocates");
    node.prepare(&start("vgpu.dev/dcu", &other_ids)).expect("prepares");
    assert_eq!(state(&node, &other.claim), "prepared");
    // The call comes back: what it made is ours, and is adopted rather than made twice.
    world.machine.faults().take_back(rule).expect("released");
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match node.prepare(&start(name, &ids)) {
            Ok(claim) => break assert_eq!(claim, stuck.claim),
            Err(e) => assert!(e.is_retryable(), "{e}"),
        }
        assert!(Instant::now() < deadline, "the lane stays shut");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(world.parts().iter().filter(|p| p.device() == card).count(), 1);
}

#[test]
fn offers_that_overlap_are_refused_and_the_old_ones_stay() {
    let world = World::new(Preset::Mixed, MIXED);
    let node = world.node();
    let listing = node.listing();
    let mut offers = world.offers.clone();
    offers.push(
        serde_json::from_str(r#"{"resource": "vgpu.dev/all", "kind": "whole"}"#).expect("an offer"),
    );
    let e = node.apply(&offers).expect_err("they overlap");
    assert!(e.to_string().contains("both select"), "{e}");
    assert_eq!(node.listing(), listing);
}

#[test]
fn held_ids_keep_their_meaning_when_the_offer_changes() {
    let world = World::new(Preset::Mixed, MIXED);
    let node = world.node();
    let name = "vgpu.dev/dcu";
    let (old, ids) = allocate(&node, name, 1).expect("allocates");
    node.prepare(&start(name, &ids)).expect("prepares");
    let mut offers = world.offers.clone();
    offers[1] = serde_json::from_str(
        r#"{"resource": "vgpu.dev/dcu", "kind": "slice", "slots": 2, "select": {"vendors": ["hygon"]}}"#,
    )
    .expect("an offer");
    node.apply(&offers).expect("applies");
    let listing = node.listing();
    let slots = &listing[&resource(name)];
    let held = slots.iter().find(|s| s.id == ids[0]).expect("still listed");
    assert!(held.healthy);
    // Half cards now: the card with a quarter taken has room for one.
    let halves = slots.iter().filter(|s| &*s.id.shape == "2" && s.healthy).count();
    assert_eq!(halves, 3);
    assert_eq!(node.prepare(&start(name, &ids)).expect("restarts"), old.claim);
    let e = node.allocate(&resource(name), &ids).expect_err("no id of the offer any more");
    assert_eq!(e.kind, ErrorKind::Invalid);
}

/// The kubelet gives a healthy id on the moment its pod ends, and we learn of that end later: an id that
/// is not offered any more must not be healthy then. But a kubelet that has just started takes its pods
/// up again, and those with an id that is not healthy fail for good.
#[test]
fn a_held_id_that_is_not_offered_any_more_is_closed_once_the_kubelet_is_settled() {
    let mut world = World::new(Preset::Mixed, MIXED);
    let at_once = Duration::ZERO;
    world.absence = AbsenceOptions { unbroken: at_once, ..AbsenceOptions::default() };
    let node = world.node();
    let name = "vgpu.dev/dcu";
    let (held, ids) = allocate(&node, name, 1).expect("allocates");
    node.prepare(&start(name, &ids)).expect("prepares");
    let mut offers = world.offers.clone();
    offers.remove(1);
    node.apply(&offers).expect("applies");
    let healthy = || {
        let listing = node.listing();
        let slots = listing.get(&resource(name)).expect("held ids stay listed");
        assert_eq!(slots.len(), 1);
        slots[0].healthy
    };
    assert!(healthy(), "nothing is known of the kubelet yet");
    let listed = ids.iter().map(|id| (resource(name), id.clone())).collect();
    let checkpoint = Some([held.claim.clone()].into());
    let view = KubeletView { listed, checkpoint, ..KubeletView::new(Instant::now()) };
    node.observe_kubelet(Some(&view));
    assert!(!healthy(), "the kubelet has been up for long enough");
    assert_eq!(node.prepare(&start(name, &ids)).expect("its container restarts"), held.claim);
    node.observe_kubelet(None);
    assert!(healthy(), "the kubelet is away, and takes its pods up again when it is back");
    node.observe_kubelet(Some(&view));
    assert!(!healthy());
    node.apply(&world.offers).expect("applies");
    assert!(node.listing()[&resource(name)].iter().all(|slot| slot.healthy), "offered again");
}

#[test]
fn ids_that_were_never_advertised_are_refused() {
    let world = World::new(Preset::Mixed, MIXED);
    let node = world.node();
    let card = world.cards(&Vendor::HYGON).remove(0);
    for text in [format!("{card}::4.4"), format!("{card}::8.0"), "GPU-x::4.0".to_owned()] {
        let id: SlotId = text.parse().expect("an id");
        let e = node.allocate(&resource("vgpu.dev/dcu"), &[id]).expect_err(&text);
        assert_eq!(e.kind, ErrorKind::Invalid, "{e}");
    }
    assert!(node.allocate(&resource("vgpu.dev/dcu"), &[]).is_err());
    assert!(
        node.allocate(&resource("vgpu.dev/none"), &[format!("{card}::4.0").parse().expect("id")])
            .is_err()
    );
    assert!(node.claims().is_empty());
}
