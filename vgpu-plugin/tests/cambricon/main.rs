//! The program on the stand-in for libcndev, whose instances outlive it: exact parts, limits, restarts, kills.

mod node;
#[path = "../stage/mod.rs"]
mod stage;

use std::collections::BTreeSet;

use serde_json::json;
use vgpu_core::{Bytes, Container};
use vgpu_kubelet_plugin::fake::{ContainerSpec, ContainerView, Pod};
use vgpu_plugin::sockets::HookReply;

use node::{MEM, Node, SLOT, WHOLE, card};
use stage::raw::Raw;
use stage::{cdi_name, facts, nodes, pod};

/// The claim's own name, of a container that asked for a part by memory.
fn claim(pod: &Pod, container: &str) -> String {
    let name = cdi_name(pod, container, MEM);
    name.split_once('=').expect("kind=claim").1.to_owned()
}

fn caps(view: &ContainerView) -> Vec<String> {
    nodes(view).into_iter().filter(|n| n.contains("cambricon-caps")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_get_exactly_theirs_and_keep_it_through_restarts() {
    let Some(mut node) = Node::new() else { return };
    node.start();
    node.serves(16).await;
    // Two containers on one card, each with a part of its own size.
    let containers =
        [ContainerSpec::app("a").request(MEM, 4), ContainerSpec::app("b").request(MEM, 6)];
    let two = node.stage.kubelet.admit(pod("two", containers)).await.expect("admitted");
    let a = node.stage.start(&two.uid, "a").await;
    let b = node.stage.start(&two.uid, "b").await;
    assert_eq!(facts(&a).grants[0].size.memory, Some(Bytes::gib(4)));
    assert_eq!(facts(&b).grants[0].size.memory, Some(Bytes::gib(6)));
    assert_eq!((caps(&a).len(), caps(&b).len()), (1, 1));
    assert_ne!(caps(&a), caps(&b), "each its own");
    assert_eq!(node.instances(0).len(), 2);
    // Three cards in one container, with no other card's nodes.
    let (_, three) = node.stage.run("three", WHOLE, 3).await;
    let cards: Vec<String> =
        nodes(&three).into_iter().filter(|n| n.starts_with("/dev/cambricon_dev")).collect();
    assert_eq!(cards.len(), 3, "{cards:?}");
    assert!(caps(&three).is_empty());

    // The agent is killed, and the driver started anew, with the instances alive.
    let before = node.instances(0);
    node.kill().await;
    node.start();
    node.serves(10).await;
    assert_eq!(node.stage.start(&two.uid, "a").await, a);
    node.change(|s| s["starts"] = json!(s["starts"].as_u64().unwrap_or(1) + 1));
    assert_eq!(node.stage.start(&two.uid, "b").await, b);
    assert_eq!(node.instances(0), before);

    // An admin gives the first more, over the root-only socket.
    let part = facts(&a).grants[0].part.clone().expect("a part");
    let size = vgpu_core::Size { memory: Some(Bytes::gib(8)), ..vgpu_core::Size::ANY };
    let reply = node.resize(&part, size).await;
    assert!(reply.ok, "{reply:?}");
    assert_eq!(node.instances(0).len(), 2);
    let profile = &node.instances(0)[0]["profile"];
    let state = node.state();
    let profiles = state["cards"][0]["profiles"].as_array().expect("a list");
    let its = profiles.iter().find(|p| p["id"] == *profile).expect("its profile");
    assert_eq!(its["memory"], json!(8_u64 << 30), "{state}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_between_profile_and_instance_loses_nothing() {
    let Some(mut node) = Node::new() else { return };
    node.start();
    node.serves(16).await;
    let (first, _) = node.stage.run("first", MEM, 1).await;
    let pod = node.stage.admit("second", MEM, 3).await;
    node.change(|s| s["cards"][0]["die_after"] = json!(1));
    // The call that prepares it never comes back.
    let failed = node.stage.kubelet.start_container(&pod.uid, "main").await;
    assert!(failed.is_err(), "{failed:?}");
    node.ended().await;
    assert_eq!(node.instances(0).len(), 1, "only the first has its instance");
    let sizes = |node: &Node| node.state()["cards"][0]["profiles"].as_array().map(Vec::len);
    let left = sizes(&node);
    node.start();
    node.serves(12).await;
    let view = node.stage.start(&pod.uid, "main").await;
    assert_eq!(facts(&view).grants[0].size.memory, Some(Bytes::gib(3)));
    assert_eq!(node.instances(0).len(), 2);
    assert_eq!(sizes(&node), left, "the profile that was left is the one that is used");
    assert!(node.stage.kubelet.delete_pod(&first.uid));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_instances_fit_and_a_sixty_fifth_is_refused() {
    let Some(mut node) = Node::new() else { return };
    node.start();
    node.serves(16).await;
    let containers: [ContainerSpec; 64] =
        std::array::from_fn(|n| ContainerSpec::app(format!("c{n}")).request(SLOT, 1));
    let full = node.stage.kubelet.admit(pod("full", containers)).await.expect("admitted");
    for n in 0..64 {
        let view = node.stage.start(&full.uid, &format!("c{n}")).await;
        assert_eq!(caps(&view).len(), 1);
    }
    assert_eq!(node.instances(1).len(), 64);
    let one_more = pod("more", [ContainerSpec::app("main").request(SLOT, 1)]);
    let refused = node.stage.kubelet.admit(one_more).await;
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(node.instances(1).len(), 64);
}

/// A card has one offer, so an admin's resizes make its sizes differ.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seventeenth_size_is_refused_by_name_and_a_living_one_is_not() {
    let Some(mut node) = Node::new() else { return };
    node.start();
    node.serves(16).await;
    let containers: [ContainerSpec; 16] =
        std::array::from_fn(|n| ContainerSpec::app(format!("c{n}")).request(SLOT, 1));
    let full = node.stage.kubelet.admit(pod("full", containers)).await.expect("admitted");
    // Ids that the kubelet has by now and that nobody holds.
    let held: BTreeSet<&String> = full.allocations.iter().flat_map(|a| &a.device_ids).collect();
    let mut free = node.stage.kubelet_ids(SLOT).into_iter().filter(|id| !held.contains(id));
    let mut spare = || [free.next().expect("64 slots, 16 of them held")];
    let (waits, again) = (spare(), spare());
    let mut parts = Vec::new();
    for n in 0..16 {
        let view = node.stage.start(&full.uid, &format!("c{n}")).await;
        parts.push(facts(&view).grants[0].part.clone().expect("a part"));
    }
    // A slot has two steps of memory; from three on there are fifteen other sizes, and the slot's.
    let steps = |n: usize| vgpu_core::Size {
        memory: Some(Bytes::mib(256 * n as u64)),
        ..vgpu_core::Size::ANY
    };
    for (n, part) in parts.iter().enumerate().take(15) {
        let reply = node.resize(part, steps(n + 3)).await;
        assert!(reply.ok, "{reply:?}");
    }
    let sizes = |node: &Node| {
        let all = node.instances(1);
        let used: BTreeSet<i64> = all.iter().filter_map(|i| i["profile"].as_i64()).collect();
        (all.len(), used.len())
    };
    assert_eq!(sizes(&node), (16, 16));
    let refused = |why: &str| {
        println!("refused: {why}");
        for word in ["16", "size"] {
            assert!(why.contains(word), "{why} lacks {word}");
        }
    };
    refused(&node.resize(&parts[0], steps(18)).await.error.expect("a size too many"));
    // By way of a size that lives, the last one becomes the sixteenth; no slot's size is left.
    for n in [3, 18] {
        let reply = node.resize(&parts[15], steps(n)).await;
        assert!(reply.ok, "{reply:?}");
    }
    assert_eq!(sizes(&node), (16, 16));

    // No scheduler is told of more, and the kubelet refuses what comes all the same.
    node.gives(SLOT, 0..=16).await;
    let more = pod("more", [ContainerSpec::app("main").request(SLOT, 1)]);
    let why = node.stage.kubelet.admit(more).await.expect_err("a size too many").to_string();
    println!("the pod's author reads: {why}");
    assert!(why.contains(SLOT), "{why}");
    // A kubelet that has not taken that list yet: the pod waits, and its author reads why.
    let mut raw = Raw::to(&node.stage.kubelet.paths().device_plugins, SLOT).await;
    raw.allocate(&waits).await.expect("admission is not refused for room");
    refused(raw.pre_start(&waits).await.expect_err("a size too many").message());
    assert_eq!(sizes(&node), (16, 16), "nothing is made for it");

    // Two sizes become one; the pod that waited starts, and another has the same profile.
    let reply = node.resize(&parts[15], steps(3)).await;
    assert!(reply.ok, "{reply:?}");
    raw.pre_start(&waits).await.expect("it fits");
    assert_eq!(sizes(&node), (17, 16));
    node.gives(SLOT, 18..).await;
    raw.allocate(&again).await.expect("allocated");
    raw.pre_start(&again).await.expect("a size that lives");
    assert_eq!(sizes(&node), (18, 16));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_without_a_pid_namespace_of_its_own_does_not_start() {
    let Some(mut node) = Node::new() else { return };
    node.start();
    node.serves(16).await;
    let containers =
        [ContainerSpec::app("a").request(MEM, 4), ContainerSpec::app("b").request(MEM, 6)];
    let two = node.stage.kubelet.admit(pod("two", containers)).await.expect("admitted");
    for container in ["a", "b"] {
        node.stage.start(&two.uid, container).await;
    }
    let (a, b) = (claim(&two, "a"), claim(&two, "b"));
    let refused = |reply: HookReply, words: &[&str]| {
        let why = reply.error.unwrap_or_default();
        println!("the pod's author reads: {why}");
        assert!(!reply.ok);
        assert!(words.iter().all(|word| why.contains(word)), "{why} lacks one of {words:?}");
    };
    // The host's, by the kernel's constant, and of a host that is a container itself.
    let hosts = node.confine(&a, 50, Container::HOST_PID_NAMESPACE).await;
    refused(hosts, &["smlu", "hostPID", &a, &card(0)]);
    node.process(1, None);
    let nested = node.process(51, Some(1));
    refused(node.confine(&a, 51, nested).await, &["smlu", "hostPID", &a, &card(0)]);

    let ours = node.process(60, None);
    assert!(node.confine(&a, 60, ours).await.ok);
    let shared = node.process(61, Some(60));
    assert_eq!(shared, ours);
    let second = ["shareProcessNamespace", "container a of pod default/two", &b, &card(0)];
    refused(node.confine(&b, 61, shared).await, &second);
    // An agent that was killed knows still whose namespace it is.
    node.kill().await;
    node.start();
    node.serves(6).await;
    refused(node.confine(&b, 61, shared).await, &second);
    // The same container, started again in its pod's namespace.
    let restarted = node.process(62, Some(60));
    assert!(node.confine(&a, 62, restarted).await.ok);
    refused(node.confine(&b, 61, shared).await, &second);
    // One of its own is all that the second lacked.
    let own = node.process(63, None);
    let reply = node.confine(&b, 63, own).await;
    assert!(reply.ok, "{reply:?}");
    assert_eq!(node.instances(0).len(), 2, "refusals unmake nothing");
}
