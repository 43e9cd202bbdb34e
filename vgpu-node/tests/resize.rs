//! Changing what a living part holds, and what the ledger says of it.

mod world;

use std::num::NonZeroU32;

use vgpu_backend_mock::{Action, At, Op, Preset, Rule};
use vgpu_core::id::{ClaimId, DeviceId, PartitionId, SlotId};
use vgpu_core::{Bytes, ComputeShare, ErrorKind, Size};
use vgpu_node::Node;
use world::{World, healthy, resource, start};

const MEM: &str = "vgpu.dev/mem";
const OFFER: &str = r#"[{"resource": "vgpu.dev/mem", "kind": "unit", "unit": "1Gi", "largest": 40,
    "schemes": ["smlu"], "select": {"vendors": ["cambricon"]}}]"#;

fn memory(gib: u64) -> Size {
    Size { memory: Some(Bytes::gib(gib)), ..Size::ANY }
}

/// Free ids of the first card, whether the scheduler may be told of them or not.
fn free(node: &Node, units: usize) -> Vec<SlotId> {
    let held: Vec<SlotId> = node.claims().into_iter().flat_map(|c| c.ids).collect();
    let listing = node.listing();
    let slots = &listing[&resource(MEM)];
    let first: &DeviceId = slots.iter().map(|s| &s.id.device).min().expect("some");
    let free = slots.iter().map(|s| &s.id).filter(|id| id.device == *first && !held.contains(id));
    free.take(units).cloned().collect()
}

/// A prepared claim of so many units on the first card.
fn claim(node: &Node, units: usize) -> (ClaimId, PartitionId) {
    let ids = free(node, units);
    let first = ids[0].device.clone();
    let allocation = node.allocate(&resource(MEM), &ids).expect("allocates");
    node.prepare(&start(MEM, &ids)).expect("prepares");
    let snapshot = node.snapshot();
    let parts = snapshot.cards[&first].partitions.clone().expect("listed");
    let part = parts.into_iter().find(|p| p.tag.as_ref() == Some(&allocation.claim));
    (allocation.claim, part.expect("made").id)
}

fn held(node: &Node, claim: &ClaimId) -> String {
    let claims = node.claims();
    claims.iter().find(|c| c.claim == *claim).expect("it lives").grants[0].size.clone()
}

#[test]
fn the_ledger_and_the_driver_agree_and_the_card_gives_less() {
    let world = World::new(Preset::Mlu370x8, OFFER);
    let node = world.node();
    let (one, part) = claim(&node, 4);
    let before = healthy(&node, MEM);
    let now = node.resize(&part, &memory(10)).expect("there is room");
    assert_eq!(now.size.memory, Some(Bytes::gib(10)));
    assert!(held(&node, &one).starts_with("10Gi"), "{}", held(&node, &one));
    let after = healthy(&node, MEM);
    assert!(after < before, "what it took is not to be had any more: {after} of {before}");

    // A new process knows it too.
    drop(node);
    let node = world.node();
    assert!(held(&node, &one).starts_with("10Gi"), "{}", held(&node, &one));
    assert_eq!(healthy(&node, MEM), after);
    // And back, with another share of compute.
    let share = ComputeShare { units: 50, of: NonZeroU32::new(100).expect("not 0") };
    let both = Size { compute: Some(share), memory: Some(Bytes::gib(2)) };
    assert_eq!(node.resize(&part, &both).expect("smaller").size, both);
    assert_eq!(held(&node, &one), both.to_string());
}

#[test]
fn what_others_hold_or_were_promised_is_not_taken() {
    let world = World::new(Preset::Mlu370x8, OFFER);
    let node = world.node();
    let (one, part) = claim(&node, 4);
    claim(&node, 20);
    // Promised to a pod whose container has not started.
    node.allocate(&resource(MEM), &free(&node, 10)).expect("allocates");
    let error = node.resize(&part, &memory(19)).expect_err("20 and 10 of 48 are others'");
    assert_eq!(error.kind, ErrorKind::Exhausted, "{error}");
    assert!(held(&node, &one).starts_with("4Gi"));
    node.resize(&part, &memory(18)).expect("so much is left");
}

/// The driver would do it, and the pod that was promised its size could never start.
#[test]
fn a_size_that_was_promised_is_not_taken_where_there_are_few() {
    let world = World::new(Preset::Mlu370x8, OFFER);
    let node = world.node();
    let parts: Vec<PartitionId> = (0..16).map(|_| claim(&node, 1).1).collect();
    // Fourteen others, so that the card has fifteen with that of the last two.
    for (n, part) in parts.iter().enumerate().take(14) {
        let size = Size { memory: Some(Bytes::mib(1024 + 256 * (n as u64 + 1))), ..Size::ANY };
        node.resize(part, &size).expect("there is room");
    }
    let promised = free(&node, 2);
    node.allocate(&resource(MEM), &promised).expect("allocates");
    let other = Size { memory: Some(Bytes::mib(512)), ..Size::ANY };
    let error = node.resize(&parts[14], &other).expect_err("it would be the seventeenth");
    assert_eq!(error.kind, ErrorKind::Exhausted, "{error}");
    assert!(error.to_string().contains("too many"), "{error}");
    node.prepare(&start(MEM, &promised)).expect("nobody took its size");
    let living = Size { memory: Some(Bytes::mib(1280)), ..Size::ANY };
    node.resize(&parts[14], &living).expect("a size that lives");
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let world = World::new(Preset::Mlu370x8, OFFER);
    let node = world.node();
    let (one, part) = claim(&node, 4);
    let off = Size { memory: Some(Bytes::mib(300)), ..Size::ANY };
    assert_eq!(node.resize(&part, &off).expect_err("off the grid").kind, ErrorKind::Invalid);
    let no = PartitionId::of(&part.device(), &part.scheme(), "no-such").expect("an id");
    assert_eq!(node.resize(&no, &memory(1)).expect_err("nobody").kind, ErrorKind::NotFound);
    // The driver refuses: the ledger says again what is.
    let busy = Rule::new(At::Start(Op::Resize), Action::Fail(ErrorKind::Busy));
    world.machine.faults().add(busy).expect("planned");
    assert_eq!(node.resize(&part, &memory(9)).expect_err("busy").kind, ErrorKind::Busy);
    assert!(held(&node, &one).starts_with("4Gi"), "{}", held(&node, &one));
}
