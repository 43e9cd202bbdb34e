//! MIG instances under an agent that is killed between any two of the driver's calls: nothing is lost,
//! nothing is doubled, nobody's container changes.

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::json;
use vgpu_kubelet_plugin::fake::{ContainerView, Pod};

use crate::node::{Machine, Node};
use crate::stage::program::configure;
use crate::stage::{eventually, facts, nodes};

const SEVENTH: &str = "vgpu.dev/mig-1g";
const LARGE: &str = "vgpu.dev/mig-3g";

/// The card of that number of the preset `h100-mig`.
fn card(n: u32) -> String {
    format!("GPU-00002330-0000-4000-8000-{n:012x}")
}

/// A node with sevenths of one card, made for each container.
fn on_demand() -> Option<Node> {
    let offers = format!(
        "
- {{resource: {SEVENTH}, kind: slice, profile: 1g.10gb, select: {{devices: [{}]}}}}
",
        card(0)
    );
    machine(&[SEVENTH], &offers)
}

/// A node with a card that has a layout of these parts, as many of each profile.
fn laid_out(large: u32, sevenths: u32) -> Option<Node> {
    machine(&[SEVENTH, LARGE], &layout(large, sevenths))
}

fn layout(large: u32, sevenths: u32) -> String {
    format!(
        "
- {{resource: {SEVENTH}, kind: slice, profile: 1g.10gb, lifecycle: pooled, select: {{devices: [{0}]}}}}
- {{resource: {LARGE}, kind: slice, profile: 3g.40gb, lifecycle: pooled, select: {{devices: [{0}]}}}}
layouts:
- select: {{devices: [{0}]}}
  scheme: mig
  parts: [{{profile: 3g.40gb, count: {large}}}, {{profile: 1g.10gb, count: {sevenths}}}]
",
        card(1)
    )
}

fn machine(resources: &[&'static str], offers: &str) -> Option<Node> {
    Node::new(&Machine {
        scenario: "preset: h100-mig",
        driver: Some("570.124.06"),
        resources,
        offers,
        args: &[],
    })
}

/// The agent is killed at this call on a card.
fn dies(node: &Node, id: &str, card: u32, (function, when): (&str, &str)) {
    node.control(|c| {
        c["die"] = json!([{"id": id, "card": card, "function": function, "when": when}]);
    });
}

/// The capability nodes of a container: of its GPU instance and of its compute instance.
fn caps(view: &ContainerView) -> Vec<String> {
    nodes(view).into_iter().filter(|n| n.contains("nvidia-cap")).collect()
}

/// Every instance of a card is whole; how many there are.
#[track_caller]
fn whole(node: &Node, card: u32) -> usize {
    let all = node.instances(card);
    for instance in &all {
        let computes = instance["computes"].as_array().map_or(0, Vec::len);
        assert_eq!(computes, 1, "{instance} of {all:?}");
    }
    all.len()
}

/// How many instances a card has, whole or not.
fn all(node: &Node, card: u32) -> usize {
    node.instances(card).len()
}

/// Every pod has an instance of its own, of those that the driver has, and no instance is of nobody.
#[track_caller]
fn each_has_its_own(node: &Node, pods: &[(Pod, ContainerView)]) {
    assert_eq!(whole(node, 0), pods.len());
    let parts: BTreeSet<_> =
        pods.iter().map(|(_, view)| facts(view).grants[0].part.clone()).collect();
    let caps: BTreeSet<_> = pods.iter().flat_map(|(_, view)| caps(view)).collect();
    assert_eq!((parts.len(), caps.len()), (pods.len(), 2 * pods.len()), "{parts:?} {caps:?}");
}

/// All that runs is started again, and gets what it had.
async fn nobody_changed(node: &Node, pods: &[(Pod, ContainerView)]) {
    for (pod, view) in pods {
        assert_eq!(node.stage.start(&pod.uid, "main").await, *view, "{}", pod.name);
    }
}

/// The calls of a create and of a destroy, in their order.
const STEPS: [(&str, &str); 11] = [
    ("nvmlComputeInstanceDestroy", "before"),
    ("nvmlComputeInstanceDestroy", "after"),
    ("nvmlGpuInstanceDestroy", "before"),
    ("nvmlGpuInstanceDestroy", "after"),
    ("nvmlDeviceCreateGpuInstanceWithPlacement", "before"),
    ("nvmlDeviceCreateGpuInstanceWithPlacement", "after"),
    ("nvmlGpuInstanceGetComputeInstanceProfileInfo", "before"),
    ("nvmlGpuInstanceCreateComputeInstance", "before"),
    ("nvmlGpuInstanceCreateComputeInstance", "after"),
    ("nvmlComputeInstanceGetInfo_v2", "before"),
    ("nvmlDeviceGetMigDeviceHandleByIndex", "after"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_between_gpu_and_compute_instance_loses_nothing() {
    let Some(mut node) = on_demand() else { return };
    node.start();
    node.gives(SEVENTH, 7..).await;
    let mut pods = Vec::new();
    for name in ["first", "second"] {
        pods.push(node.stage.run(name, SEVENTH, 1).await);
    }
    each_has_its_own(&node, &pods);
    let third = node.stage.admit("third", SEVENTH, 1).await;
    dies(&node, "d1", 0, ("nvmlGpuInstanceCreateComputeInstance", "before"));
    let failed = node.stage.kubelet.start_container(&third.uid, "main").await;
    assert!(failed.is_err(), "{failed:?}");
    node.ended().await;
    let half = node.instances(0);
    let computes = |at: usize| half[at]["computes"].as_array().map_or(0, Vec::len);
    assert_eq!((half.len(), (0..3).map(computes).sum()), (3, 2), "the third is a half: {half:?}");

    node.start();
    node.gives(SEVENTH, 7..).await;
    let view = node.stage.start(&third.uid, "main").await;
    pods.push((third, view));
    each_has_its_own(&node, &pods);
    nobody_changed(&node, &pods).await;
    assert_eq!(node.stage.specs().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_step_of_a_full_card_loses_and_doubles_nothing() {
    let Some(mut node) = on_demand() else { return };
    node.start();
    node.gives(SEVENTH, 7..).await;
    let mut pods = Vec::new();
    for n in 0..7 {
        pods.push(node.stage.run(&format!("p{n}"), SEVENTH, 1).await);
    }
    each_has_its_own(&node, &pods);
    // Then at any call at all, looks at the cards among them.
    let mut seed = node.stage.kubelet.options().seed;
    let anywhere = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 33
    });
    let anywhere = anywhere.take(4).map(|n| json!({"nth": n % 150 + 1}));
    let named = STEPS.iter().map(|(function, when)| json!({"function": function, "when": when}));
    for (n, mut death) in named.chain(anywhere).enumerate() {
        println!("step {n}: {death}");
        // The card is full, so that the next pod has the ids of the one that goes: its part is unmade
        // first, and another made.
        let (gone, _) = pods.remove(n % pods.len());
        assert!(node.stage.kubelet.delete_pod(&gone.uid));
        let next = node.stage.admit(&format!("n{n}"), SEVENTH, 1).await;
        assert_eq!(next.device_ids("main", SEVENTH), gone.device_ids("main", SEVENTH));
        (death["id"], death["card"]) = (json!(format!("d{n}")), json!(0));
        node.control(|c| c["die"] = json!([death]));
        let outcome = node.stage.kubelet.start_container(&next.uid, "main").await;
        assert!(outcome.is_err() || death["nth"].is_u64(), "it did not die: {death}");
        node.ended().await;
        node.control(|c| c["die"] = json!([]));
        node.start();
        node.gives(SEVENTH, 7..).await;
        let view = node.stage.start(&next.uid, "main").await;
        pods.push((next, view));
        each_has_its_own(&node, &pods);
    }
    nobody_changed(&node, &pods).await;
    assert_eq!(node.stage.specs().len(), 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layout_is_reached_over_kills_and_its_parts_are_given() {
    let Some(mut node) = laid_out(1, 3) else { return };
    // Each life makes at most one part; what is left then is found by the next.
    let making = STEPS.iter().filter(|(f, _)| f.contains("Create"));
    for (n, step) in making.enumerate() {
        dies(&node, &format!("m{n}"), 1, *step);
        node.start();
        node.ended().await;
        println!("after {step:?}: {} instances", all(&node, 1));
        assert!(all(&node, 1) <= 4);
    }
    node.start();
    node.gives(LARGE, 1..).await;
    node.gives(SEVENTH, 3..).await;
    assert_eq!(whole(&node, 1), 4);
    let (large, large_view) = node.stage.run("large", LARGE, 1).await;
    let (small, small_view) = node.stage.run("small", SEVENTH, 1).await;
    let (large_part, small_part) = (caps(&large_view), caps(&small_view));
    assert_eq!((large_part.len(), small_part.len(), whole(&node, 1)), (2, 2, 4));
    assert!(node.stage.kubelet.delete_pod(&large.uid));
    assert!(node.stage.kubelet.delete_pod(&small.uid));
    // Who comes next on the same ids takes a part that is there.
    node.stage.run("again", LARGE, 1).await;
    assert_eq!(whole(&node, 1), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_layout_is_reached_over_kills_around_a_part_in_use() {
    let Some(mut node) = laid_out(1, 3) else { return };
    node.start();
    node.gives(SEVENTH, 3..).await;
    let (user, view) = node.stage.run("user", SEVENTH, 1).await;
    // Its node's number tells the GPU instance: 3 for the first, 9 for each, 15 to a card.
    let number: u64 =
        caps(&view)[0].rsplit("cap").next().and_then(|n| n.parse().ok()).expect("one");
    let its = |node: &Node| {
        let id = json!((number - 3) / 9 - 15);
        node.instances(1).into_iter().find(|i| i["id"] == id).expect("its instance")
    };
    let own = its(&node);
    // Without the large part, the idle one is unmade; the part in use stays.
    configure(&node.stage, &layout(0, 7).replace("{profile: 3g.40gb, count: 0}, ", ""));
    let unmaking = STEPS.iter().filter(|(f, _)| f.contains("Destroy"));
    for (n, step) in unmaking.enumerate() {
        dies(&node, &format!("u{n}"), 1, *step);
        match n {
            0 => node.program().signal(Signal::HUP),
            _ => node.start(),
        }
        node.ended().await;
        println!("after {step:?}: {} instances", all(&node, 1));
    }
    node.start();
    node.gives(SEVENTH, 7..).await;
    eventually("all sevenths to be whole", || all(&node, 1) == 7).await;
    assert_eq!(whole(&node, 1), 7);
    assert_eq!(its(&node), own, "it was in use all the time");
    assert_eq!(node.stage.start(&user.uid, "main").await, view);
}
