//! Limits on living containers: set at the start, looked at again and again, taken back at the end.

mod world;

use std::fs;
use std::path::{Path, PathBuf};

use vgpu_backend_mock::{Op, Preset};
use vgpu_core::id::{ClaimId, DeviceId};
use vgpu_core::{Bytes, Confinement, Container, ErrorKind, Vendor};
use vgpu_node::Node;
use world::{World, allocate, start};

const SLICES: &str = r#"[
    {"resource": "vgpu.dev/quarter", "kind": "slice", "slots": 4, "schemes": ["time-slice"],
     "minimum": {"memory": "driver"}, "select": {"vendors": ["nvidia"]}}
]"#;
const POD: &str = "/sys/fs/cgroup/kubepods.slice/pod1.slice";

/// A claim with a container on a quarter of a card.
struct Tenant {
    claim: ClaimId,
    device: DeviceId,
    container: Container,
    memory: Bytes,
}

fn tenant(world: &World, node: &Node, scope: &str) -> Tenant {
    let (made, ids) = allocate(node, "vgpu.dev/quarter", 1).expect("allocates");
    node.prepare(&start("vgpu.dev/quarter", &ids)).expect("prepares");
    let cgroup = Path::new(POD).join(scope);
    populate(world, &cgroup, "populated 1\n");
    let container = Container { cgroup, pid: 4_000_000, pid_namespace: 4_026_531_999 };
    assert_eq!(node.confine(&made.claim, &container), Ok(Confinement::Set));
    let spec = world.spec(&made.claim).expect("published");
    let hooks = &spec.devices[0].container_edits.hooks;
    assert!(hooks.iter().any(|hook| hook.args.contains(&"confine".to_owned())), "{hooks:?}");
    node.refresh();
    let memory = reading(node, &made.claim).expect("a limit in force");
    Tenant { claim: made.claim, device: ids[0].device.clone(), container, memory }
}

fn populate(world: &World, cgroup: &Path, events: &str) {
    let folder = on_disk(world, cgroup);
    fs::create_dir_all(&folder).expect("made");
    fs::write(folder.join("cgroup.events"), events).expect("written");
}

fn on_disk(world: &World, cgroup: &Path) -> PathBuf {
    world.dir.path().join("root").join(cgroup.strip_prefix("/").expect("absolute"))
}

/// The limit as the driver told it at the last look.
fn reading(node: &Node, claim: &ClaimId) -> Option<Bytes> {
    node.usage().get(claim)?.get(&0)?.limit
}

fn trouble(node: &Node, claim: &ClaimId) -> Option<String> {
    let claims = node.claims();
    claims.iter().find(|c| c.claim == *claim).expect("lives").trouble.clone()
}

#[test]
fn a_limit_that_went_or_changed_is_set_again() {
    let world = World::new(Preset::H200x8, SLICES);
    let node = world.node();
    let one = tenant(&world, &node, "one.scope");
    let other = tenant(&world, &node, "other.scope");
    let faults = world.machine.faults();
    for changed in [None, Some(Bytes::gib(100)), Some(Bytes::mib(1))] {
        let repairs = node.limit_repairs();
        faults.limit(&one.device, &one.container.cgroup, changed).expect("changed");
        node.refresh();
        assert_eq!(node.limit_repairs(), repairs + 1, "{changed:?}");
        node.refresh();
        assert_eq!(reading(&node, &one.claim), Some(one.memory), "{changed:?}");
        assert_eq!(node.limit_repairs(), repairs + 1, "and is left alone then");
        assert_eq!(reading(&node, &other.claim), Some(other.memory));
    }
}

#[test]
fn a_limit_is_set_again_after_a_restart_from_the_journal() {
    let world = World::new(Preset::H200x8, SLICES);
    let node = world.node();
    let one = tenant(&world, &node, "one.scope");
    drop(node);
    world.machine.faults().limit(&one.device, &one.container.cgroup, None).expect("gone");
    let node = world.node();
    node.refresh();
    assert_eq!(reading(&node, &one.claim), Some(one.memory));
}

#[test]
fn a_limit_that_cannot_be_set_is_told_and_tried_again() {
    let world = World::new(Preset::H200x8, SLICES);
    let node = world.node();
    let one = tenant(&world, &node, "one.scope");
    let faults = world.machine.faults();
    let rule = faults.fail(Op::Confine, &one.device, 1, ErrorKind::Permission).expect("a rule");
    faults.limit(&one.device, &one.container.cgroup, None).expect("gone");
    node.refresh();
    let told = trouble(&node, &one.claim).expect("trouble");
    assert!(told.contains("not in force"), "{told}");
    faults.take_back(rule).expect("healed");
    node.refresh();
    node.refresh();
    assert_eq!(reading(&node, &one.claim), Some(one.memory));
    assert_eq!(trouble(&node, &one.claim), None);
}

#[test]
fn a_container_that_moved_is_limited_where_it_is() {
    let world = World::new(Preset::H200x8, SLICES);
    let node = world.node();
    let one = tenant(&world, &node, "one.scope");
    // A process of this test stands for the container's: its namespace is known, its cgroup is prepared.
    let proc = world.dir.path().join(format!("root/proc/{}", one.container.pid));
    fs::create_dir_all(proc.join("ns")).expect("made");
    fs::write(proc.join("ns/pid"), "").expect("written");
    let inode = {
        use std::os::unix::fs::MetadataExt as _;
        fs::metadata(proc.join("ns/pid")).expect("there").ino()
    };
    let container = Container { pid_namespace: inode, ..one.container.clone() };
    node.confine(&one.claim, &container).expect("set");
    let moved = Path::new(POD).join("moved.scope");
    populate(&world, &moved, "populated 1\n");
    fs::write(proc.join("cgroup"), "0::/kubepods.slice/pod1.slice/moved.scope\n").expect("moved");
    node.refresh();
    node.refresh();
    assert_eq!(reading(&node, &one.claim), Some(one.memory));
    assert_eq!(node.limit_repairs(), 1);
    let faults = world.machine.faults();
    faults.limit(&one.device, &moved, None).expect("it is the moved one that is limited");
}

#[test]
fn a_container_that_ended_keeps_no_limit() {
    let world = World::new(Preset::H200x8, SLICES);
    let node = world.node();
    let one = tenant(&world, &node, "one.scope");
    populate(&world, &one.container.cgroup, "populated 0\n");
    node.refresh();
    node.refresh();
    assert_eq!(reading(&node, &one.claim), None);
    assert_eq!(node.limit_repairs(), 0);
    // It starts again, in another cgroup.
    let again = Path::new(POD).join("again.scope");
    populate(&world, &again, "populated 1\n");
    let container = Container { cgroup: again, ..one.container.clone() };
    assert_eq!(node.confine(&one.claim, &container), Ok(Confinement::Set));
    node.refresh();
    assert_eq!(reading(&node, &one.claim), Some(one.memory));
    // One whose cgroup cannot be seen from here is left alone, whatever the reason.
    fs::remove_dir_all(on_disk(&world, &container.cgroup)).expect("gone");
    world.machine.faults().limit(&one.device, &container.cgroup, None).expect("with its limit");
    node.refresh();
    node.refresh();
    assert_eq!((reading(&node, &one.claim), node.limit_repairs()), (None, 0));
}

#[test]
fn what_needs_no_limit_is_asked_once() {
    let world = World::new(
        Preset::H200x8,
        r#"[{"resource": "vgpu.dev/gpu", "kind": "whole", "select": {"vendors": ["nvidia"]}}]"#,
    );
    let node = world.node();
    let (made, ids) = allocate(&node, "vgpu.dev/gpu", 1).expect("allocates");
    node.prepare(&start("vgpu.dev/gpu", &ids)).expect("prepares");
    let cgroup = Path::new(POD).join("whole.scope");
    populate(&world, &cgroup, "populated 1\n");
    let container = Container { cgroup, pid: 4_000_000, pid_namespace: 4_026_531_999 };
    assert_eq!(node.confine(&made.claim, &container), Ok(Confinement::NotNeeded));
    node.refresh();
    // The whole card is its limit.
    let card = world.cards(&Vendor::NVIDIA).len();
    assert!(card > 0 && reading(&node, &made.claim).is_some());
    assert_eq!(node.limit_repairs(), 0);
}
