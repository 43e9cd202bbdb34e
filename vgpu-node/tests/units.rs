//! Units on a fragmented node: whatever the advertised sum admits is served, on one card.

mod world;

use std::collections::BTreeMap;

use vgpu_backend_mock::Preset;
use vgpu_core::id::{DeviceId, SlotId};
use world::{World, allocate, healthy, resource, start};

const UNITS: &str = r#"[
    {"resource": "vgpu.dev/mem", "kind": "unit", "unit": "1Gi", "largest": 12}
]"#;

#[test]
fn sixty_four_requests_admitted_by_the_sum_alone() {
    let world = World::new(Preset::Mlu370x8, UNITS);
    let node = world.node();
    let name = "vgpu.dev/mem";
    // Fragment the cards: an adversary takes from the emptiest card, of uneven sizes.
    let mut seed = 0x9e37_79b9_u64;
    let mut next = |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    println!("seed 0x9e3779b9");
    let mut served = 0;
    let mut sum = healthy(&node, name);
    while served < 64 {
        let asked = usize::try_from(1 + next(12)).expect("small");
        let held: usize = node.claims().iter().map(|c| c.ids.len()).sum();
        // The scheduler's picture is as old as the last node status: it only subtracts.
        if served % 5 == 0 {
            sum = healthy(&node, name);
        }
        if asked > sum - held {
            // Not admitted by the sum: a pod ends, oldest first.
            let claim = node.claims().remove(0);
            let fresh = node.allocate(&claim.resource, &claim.ids[..1]).expect("its ids are free");
            drop(fresh);
            let ids: Vec<SlotId> = claim.ids[..1].to_vec();
            node.prepare(&start(name, &ids)).expect("the old one goes");
            sum = healthy(&node, name);
            continue;
        }
        let calls = world.machine.calls();
        let (allocation, ids) = allocate(&node, name, asked).unwrap_or_else(|e| {
            panic!("request {served} of {asked} units was admitted by {sum}: {e}")
        });
        assert_eq!(world.machine.calls(), calls, "no driver is asked");
        let cards: BTreeMap<&DeviceId, usize> = ids.iter().fold(BTreeMap::new(), |mut m, id| {
            *m.entry(&id.device).or_default() += 1;
            m
        });
        assert_eq!(cards.len(), 1);
        assert_eq!(node.prepare(&start(name, &ids)).expect("prepares"), allocation.claim);
        let status =
            node.claims().into_iter().find(|c| c.claim == allocation.claim).expect("lives");
        assert_eq!(status.grants.len(), 1);
        assert_eq!(&status.grants[0].device, *cards.keys().next().expect("one"));
        assert!(
            status.grants[0].size.starts_with(&format!("{asked}Gi")),
            "{}",
            status.grants[0].size
        );
        served += 1;
    }
}

#[test]
fn ids_on_several_cards_are_refused_with_what_each_has_free() {
    let world = World::new(Preset::Mlu370x8, UNITS);
    let node = world.node();
    let listing = node.listing();
    let slots = &listing[&resource("vgpu.dev/mem")];
    let mut two: Vec<SlotId> = vec![];
    for slot in slots.iter().filter(|s| s.healthy) {
        if two.iter().all(|id| id.device != slot.id.device) && two.len() < 2 {
            two.push(slot.id.clone());
        }
    }
    let e = node.allocate(&resource("vgpu.dev/mem"), &two).expect_err("on two cards");
    let text = e.to_string();
    assert!(text.contains("2 cards") && text.matches("free on").count() == 8, "{text}");
    let many: Vec<SlotId> = slots
        .iter()
        .filter(|s| s.id.device == two[0].device)
        .take(13)
        .map(|s| s.id.clone())
        .collect();
    let e = node.allocate(&resource("vgpu.dev/mem"), &many).expect_err("more than the largest");
    assert!(e.to_string().contains("1 to 12"), "{e}");
}

/// What is advertised of an empty node is really there: every id can be allocated and prepared.
#[test]
fn every_advertised_slice_can_be_had() {
    for (preset, offer) in [
        (
            Preset::H200x8,
            r#"{"kind": "slice", "size": {"memory": "10Gi"}, "schemes": ["time-slice"]}"#,
        ),
        (Preset::Mlu370x8, r#"{"kind": "slice", "size": {"memory": "5Gi", "computePercent": 9}}"#),
        (Preset::Mlu370x8, r#"{"kind": "slice", "slots": 7}"#),
        (Preset::K100x8, r#"{"kind": "slice", "slots": 3}"#),
        (Preset::A100x4Mig, r#"{"kind": "slice", "profile": "2g.10gb"}"#),
        (Preset::Mlu370x4Mim, r#"{"kind": "slice", "size": {"memory": "10Gi"}}"#),
    ] {
        let offers = format!("[{}]", offer.replacen('{', r#"{"resource": "vgpu.dev/slice", "#, 1));
        let world = World::new(preset, &offers);
        let node = world.node();
        let all = healthy(&node, "vgpu.dev/slice");
        assert!(all > 0, "{preset}: {offer}: {:?}", node.layout());
        for n in 0..all {
            let (_, ids) = allocate(&node, "vgpu.dev/slice", 1)
                .unwrap_or_else(|e| panic!("{preset}: {offer}: {n} of {all}: {e}"));
            node.prepare(&start("vgpu.dev/slice", &ids))
                .unwrap_or_else(|e| panic!("{preset}: {offer}: {n} of {all}: {e}"));
        }
        assert_eq!(healthy(&node, "vgpu.dev/slice"), all, "{preset}: {offer}");
    }
}
