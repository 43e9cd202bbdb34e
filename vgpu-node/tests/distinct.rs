//! Distinct offers: one id of a card for one container; the preference spreads, Allocate refuses.

mod world;

use std::collections::BTreeSet;

use vgpu_backend_mock::Preset;
use vgpu_core::ErrorKind;
use vgpu_core::id::{DeviceId, SlotId};
use world::{World, allocate, free, resource, start};

const TURN: &str = "vgpu.dev/turn";

fn offers(distinct: bool, policy: &str) -> String {
    format!(
        r#"[{{"resource": "{TURN}", "kind": "slice", "slots": 4, "schemes": ["time-slice"],
             "distinct": {distinct}, "policy": "{policy}"}}]"#
    )
}

fn cards(ids: &[SlotId]) -> BTreeSet<DeviceId> {
    ids.iter().map(|id| id.device.clone()).collect()
}

#[test]
fn two_turns_of_one_card_are_refused_where_the_offer_is_distinct_and_one_share_where_not() {
    for distinct in [true, false] {
        let world = World::new(Preset::H100x8, &offers(distinct, "binpack"));
        let node = world.node();
        let ids = free(&node, TURN, 2);
        assert_eq!(cards(&ids).len(), 1, "a kubelet without preference takes two of one card");
        let answer = node.allocate(&resource(TURN), &ids);
        if !distinct {
            answer.expect("one share of double weight");
            assert_eq!(node.prepare(&start(TURN, &ids)).into_iter().count(), 1);
            continue;
        }
        let e = answer.expect_err("two of one card");
        assert_eq!(e.kind, ErrorKind::Invalid);
        let card = ids[0].device.to_string();
        for word in ["2 ids of vgpu.dev/turn", &card, "distinct", "each must be of another card"] {
            assert!(e.message.contains(word), "{word}: {e}");
        }
        assert!(node.claims().is_empty(), "nothing was opened");
        node.allocate(&resource(TURN), &ids[..1]).expect("one is fine");
    }
}

#[test]
fn the_preference_takes_one_id_of_each_card_by_the_policy() {
    for (policy, fullest) in [("binpack", true), ("spread", false)] {
        let world = World::new(Preset::H100x8, &offers(true, policy));
        let node = world.node();
        let all = free(&node, TURN, usize::MAX);
        let there = cards(&all);
        assert!(there.len() >= 6, "{there:?}");
        let (_, first) = allocate(&node, TURN, 3).expect("three cards");
        assert_eq!(cards(&first).len(), 3);
        // The next two go to cards that have one already, or to those that have none.
        let (_, second) = allocate(&node, TURN, 2).expect("two cards");
        assert_eq!(cards(&second).len(), 2);
        assert_eq!(cards(&second).is_subset(&cards(&first)), fullest, "{policy}");
        // As many as there are cards, and no more.
        let (_, every) = allocate(&node, TURN, there.len()).expect("one of each");
        assert_eq!(cards(&every), there);
        let e = allocate(&node, TURN, there.len() + 1).expect_err("more than cards");
        assert!(e.message.contains("distinct"), "{e}");
    }
}

#[test]
fn ids_that_are_given_in_any_case_keep_the_others_off_their_cards() {
    let world = World::new(Preset::H100x8, &offers(true, "binpack"));
    let node = world.node();
    let all = free(&node, TURN, usize::MAX);
    let ids = node.prefer(&resource(TURN), &all, &all[..1], 3);
    assert_eq!((ids.len(), cards(&ids).len()), (3, 3));
    assert!(ids.contains(&all[0]));
    assert_eq!(cards(&all[..2]).len(), 1);
    assert!(node.prefer(&resource(TURN), &all, &all[..2], 3).is_empty(), "no hint helps");
}
