//! What a grant asks of its container: a PID namespace of its own.

mod world;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use vgpu_backend_mock::Preset;
use vgpu_core::id::{ClaimId, DeviceId, SlotId};
use vgpu_core::{Container, ErrorKind};
use vgpu_node::Node;
use world::{World, resource, start};

const MEM: &str = "vgpu.dev/mem";
const OFFER: &str = r#"[{"resource": "vgpu.dev/mem", "kind": "unit", "unit": "1Gi",
    "largest": 1, "schemes": ["smlu"], "select": {"vendors": ["cambricon"]}}]"#;

/// A prepared claim of one unit on the card of that number.
fn claim(node: &Node, card: usize) -> ClaimId {
    let free = world::free(node, MEM, usize::MAX);
    let cards: BTreeSet<&DeviceId> = free.iter().map(|id| &id.device).collect();
    let card = cards.into_iter().nth(card).expect("so many cards");
    let ids: Vec<SlotId> = free.iter().filter(|id| id.device == *card).take(1).cloned().collect();
    let allocation = node.allocate(&resource(MEM), &ids).expect("allocates");
    node.prepare(&start(MEM, &ids)).expect("prepares");
    allocation.claim
}

/// A process below the world's root, and the container whose first it is.
fn process(world: &World, pid: u32) -> Container {
    let folder = world.dir.path().join(format!("root/proc/{pid}/ns"));
    fs::create_dir_all(&folder).expect("made");
    let namespace = folder.join("pid");
    fs::write(&namespace, "").expect("written");
    let inode = fs::metadata(namespace).expect("there").ino();
    container(pid, inode)
}

fn container(pid: u32, pid_namespace: u64) -> Container {
    Container { cgroup: format!("/sys/fs/cgroup/{pid}").into(), pid, pid_namespace }
}

/// The same namespace for a second process.
fn joined(world: &World, pid: u32, other: &Container) -> Container {
    let root = world.dir.path().join("root/proc");
    fs::create_dir_all(root.join(format!("{pid}/ns"))).expect("made");
    let theirs = root.join(format!("{}/ns/pid", other.pid));
    fs::hard_link(theirs, root.join(format!("{pid}/ns/pid"))).expect("linked");
    container(pid, other.pid_namespace)
}

#[test]
fn the_host_s_namespace_is_refused() {
    let world = World::new(Preset::Mlu370x8, OFFER);
    let node = world.node();
    let claim = claim(&node, 0);
    let hosts = container(40, Container::HOST_PID_NAMESPACE);
    let error = node.confine(&claim, &hosts).expect_err("it shares the host's");
    assert_eq!(error.kind, ErrorKind::Permission, "{error}");
    assert!(error.message.contains("hostPID"), "{error}");
    // A node that is itself a container: the first process that the agent sees is the host's.
    let first = process(&world, 1);
    let nested = joined(&world, 41, &first);
    let error = node.confine(&claim, &nested).expect_err("it shares the nested host's");
    assert_eq!(error.kind, ErrorKind::Permission, "{error}");
    node.confine(&claim, &process(&world, 42)).expect("one of its own");
}

#[test]
fn two_claims_in_one_namespace_on_one_card_are_refused() {
    let world = World::new(Preset::Mlu370x8, OFFER);
    let node = world.node();
    let first = claim(&node, 0);
    let second = claim(&node, 0);
    let ours = process(&world, 50);
    node.confine(&first, &ours).expect("the first");
    let beside = joined(&world, 51, &ours);
    let error = node.confine(&second, &beside).expect_err("it shares the first's");
    assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
    assert!(error.message.contains("shareProcessNamespace"), "{error}");
    assert!(error.to_string().contains(second.as_str()), "{error}");

    // The same container again, and a restart of it in the pod's namespace, are no second claim.
    node.confine(&first, &ours).expect("again");
    let restarted = joined(&world, 52, &ours);
    node.confine(&first, &restarted).expect("restarted");
    node.confine(&second, &beside).expect_err("still shared");

    // The first ended; the kernel gave its inode to a namespace of the second's own.
    fs::remove_dir_all(world.dir.path().join("root/proc/52")).expect("removed");
    node.confine(&second, &beside).expect("the inode alone says nothing");
}

#[test]
fn one_namespace_on_two_cards_is_fine() {
    let world = World::new(Preset::Mlu370x8, OFFER);
    let node = world.node();
    let (first, second) = (claim(&node, 0), claim(&node, 1));
    let cards: Vec<_> =
        node.claims().iter().flat_map(|c| c.ids.clone()).map(|i| i.device).collect();
    assert_ne!(cards[0], cards[1], "spread lays them on two cards");
    let ours = process(&world, 60);
    node.confine(&first, &ours).expect("the first");
    node.confine(&second, &joined(&world, 61, &ours)).expect("another card");
}
