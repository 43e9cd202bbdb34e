//! Specs that are not as they should be are written anew, and no others.

mod world;

use std::fs;
use std::path::PathBuf;

use vgpu_backend_mock::Preset;
use vgpu_core::{Event, Meaning, Subject, Vendor};
use world::{World, allocate, start};

const OFFERS: &str = r#"[
    {"resource": "vgpu.dev/gpu", "kind": "whole", "select": {"vendors": ["nvidia"]}}
]"#;

/// A world with a prepared claim, its node, and the file of its spec.
fn published() -> (World, std::sync::Arc<vgpu_node::Node>, PathBuf) {
    let world = World::new(Preset::H200x8, OFFERS);
    let node = world.node();
    let (made, ids) = allocate(&node, "vgpu.dev/gpu", 1).expect("allocates");
    node.prepare(&start("vgpu.dev/gpu", &ids)).expect("prepares");
    let file = world.cdi_dir().join(format!("vgpu.dev-claim_{}.json", made.claim));
    (world, node, file)
}

/// As an earlier driver had it: the library of another version.
fn made_old(file: &PathBuf) -> (String, String) {
    let now = fs::read_to_string(file).expect("published");
    let old = now.replacen("\"path\": \"/dev/", "\"path\": \"/dev/of-an-earlier-driver-", 1);
    assert_ne!(now, old, "{now}");
    fs::write(file, &old).expect("written");
    (now, old)
}

#[test]
fn a_spec_of_another_driver_is_written_anew() {
    let (_world, node, file) = published();
    let (now, _) = made_old(&file);
    let mut looks = 0;
    while fs::read_to_string(&file).expect("there") != now {
        node.refresh();
        looks += 1;
        assert!(looks <= 6, "never");
    }
}

#[test]
fn a_changed_layout_makes_it_now() {
    let (world, node, file) = published();
    // The first look after the start has compared already.
    node.refresh();
    let (now, old) = made_old(&file);
    node.refresh();
    assert_eq!(fs::read_to_string(&file).expect("there"), old, "not at every look");
    let card = world.cards(&Vendor::NVIDIA).remove(0);
    node.take_events(&[Event::now(Subject::Device(card), Meaning::Changed, "MIG changed")]);
    assert_eq!(fs::read_to_string(&file).expect("there"), now);
}

#[test]
fn after_a_restart_everything_is_compared() {
    let (world, node, file) = published();
    drop(node);
    let (now, _) = made_old(&file);
    let _node = world.node();
    assert_eq!(fs::read_to_string(&file).expect("there"), now);
}

#[test]
fn what_is_right_is_not_touched() {
    let (_world, node, file) = published();
    let written = fs::metadata(&file).expect("there").modified().expect("a time");
    for _ in 0..7 {
        node.refresh();
    }
    assert_eq!(fs::metadata(&file).expect("there").modified().expect("a time"), written);
}
