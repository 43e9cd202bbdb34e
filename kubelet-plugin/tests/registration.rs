//! Plugin host and fake kubelet against each other: who comes first, who leaves, who comes back.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Node, SLOT, TestPlugin, healthy, resource, serving, within};
use vgpu_kubelet_plugin::fake::{FakeKubelet, OldStreamEnd};
use vgpu_kubelet_plugin::{DeviceEntry, DeviceList, Farewell, HostError, PluginHost, Registration};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_list_reaches_the_node_and_follows_changes() {
    let node = Node::new();
    let kubelet = node.kubelet();
    let host = node.host();
    let plugin = TestPlugin::new(4);
    let mut registration = host.start(resource(SLOT), plugin.clone()).unwrap();
    serving(&mut registration).await;
    kubelet.wait_allocatable(SLOT, 4).await.unwrap();
    assert_eq!(kubelet.counters().registrations, 1, "one registration, not one per event");

    let mut entries = healthy(4).entries().to_vec();
    entries[0] = DeviceEntry::unhealthy("s0");
    plugin.list.send_replace(DeviceList::new(entries).unwrap());
    kubelet.wait_allocatable(SLOT, 3).await.unwrap();
    assert_eq!(kubelet.capacity(SLOT), 4);
    plugin.list.send_replace(healthy(6));
    kubelet.wait_allocatable(SLOT, 6).await.unwrap();
}

#[tokio::test]
async fn a_plugin_may_come_before_the_kubelet_and_its_folder() {
    let node = Node::new();
    let host = node.host();
    let mut registration = host.start(resource(SLOT), TestPlugin::new(2)).unwrap();
    let why = |r: &Registration| matches!(r, Registration::Waiting { reason } if reason.contains("device-plugins"));
    within("a reason", registration.wait_for(why)).await.unwrap();
    let kubelet = node.kubelet();
    kubelet.wait_allocatable(SLOT, 2).await.unwrap();
    serving(&mut registration).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_resources_come_back_after_each_kubelet_restart() {
    let node = Node::new();
    let kubelet = node.kubelet();
    let host = node.host();
    let names: Vec<String> = (1..=5).map(|n| format!("vgpu.dev/r{n}")).collect();
    for (count, name) in names.iter().enumerate() {
        host.start(resource(name), TestPlugin::new(count + 1)).unwrap();
    }
    for round in 0..8 {
        for (count, name) in names.iter().enumerate() {
            kubelet.wait_allocatable(name, count + 1).await.unwrap();
        }
        println!("round {round}: {kubelet:?}");
        kubelet.restart().await.unwrap();
    }
}

#[tokio::test]
async fn a_new_kubelet_sock_alone_is_enough() {
    let node = Node::new();
    let kubelet = node.kubelet();
    let mut options = node.host_options();
    // No pause between tries ends in the test's time: only the folder can tell.
    (options.retry.first, options.retry.limit, options.poll) = (HOUR, HOUR, HOUR);
    let host = PluginHost::new(options).unwrap();
    let mut registration = host.start(resource(SLOT), TestPlugin::new(2)).unwrap();
    for _ in 0..3 {
        kubelet.wait_allocatable(SLOT, 2).await.unwrap();
        kubelet.stop().await;
        let lost = |r: &Registration| matches!(r, Registration::Waiting { .. });
        within("the loss", registration.wait_for(lost)).await.unwrap();
        kubelet.start().await.unwrap();
    }
}

#[tokio::test]
async fn both_may_be_down_and_start_in_any_order() {
    let node = Node::new();
    let kubelet = node.kubelet();
    for kubelet_first in [true, false] {
        let host = node.host();
        host.start(resource(SLOT), TestPlugin::new(3)).unwrap();
        kubelet.wait_allocatable(SLOT, 3).await.unwrap();
        kubelet.stop().await;
        drop(host); // a kill: no farewell, the socket stays
        assert_eq!(kubelet.allocatable(SLOT), 0);
        if kubelet_first {
            kubelet.start().await.unwrap();
        }
        let host = node.host();
        host.start(resource(SLOT), TestPlugin::new(3)).unwrap();
        if !kubelet_first {
            kubelet.start().await.unwrap();
        }
        kubelet.wait_allocatable(SLOT, 3).await.unwrap();
        host.shutdown(Farewell::Disconnect).await;
        kubelet.wait_allocatable(SLOT, 0).await.unwrap();
    }
}

/// A new instance registers while the old one serves; then the old one dies.
async fn overlap(node: &Node, kubelet: &FakeKubelet) -> PluginHost {
    let old = node.host();
    old.start(resource(SLOT), TestPlugin::new(1)).unwrap();
    kubelet.wait_allocatable(SLOT, 1).await.unwrap();
    let new = node.host();
    let mut registration = new.start(resource(SLOT), TestPlugin::new(2)).unwrap();
    serving(&mut registration).await;
    kubelet.wait_allocatable(SLOT, 2).await.unwrap();
    drop(old);
    new
}

#[tokio::test]
async fn the_old_instances_end_takes_the_new_one_down_and_it_comes_back() {
    let node = Node::new();
    let kubelet = node.kubelet();
    let _new = overlap(&node, &kubelet).await;
    // The race disconnects the new instance too, so a third registration must have come.
    kubelet.wait_until("a third registration", |k| k.counters().registrations == 3).await.unwrap();
    assert!(kubelet.counters().streams_ended >= 2);
    kubelet.wait_allocatable(SLOT, 2).await.unwrap();
}

#[tokio::test]
async fn a_kubelet_without_the_race_leaves_the_new_instance_alone() {
    let node = Node::new();
    let mut options = node.options();
    options.old_stream_end = OldStreamEnd::IsIgnored;
    let kubelet = FakeKubelet::new(options).unwrap();
    let _new = overlap(&node, &kubelet).await;
    kubelet
        .wait_until("the end of the old stream", |k| k.counters().streams_ended == 1)
        .await
        .unwrap();
    assert_eq!((kubelet.allocatable(SLOT), kubelet.counters().registrations), (2, 2));
}

#[tokio::test]
async fn a_dropped_stream_is_noticed_with_kubelet_sock_unchanged() {
    let node = Node::new();
    let kubelet = node.kubelet();
    let mut options = node.host_options();
    // Only the end of the stream itself can tell.
    (options.stream_grace, options.poll) = (HOUR, HOUR);
    let host = PluginHost::new(options).unwrap();
    host.start(resource(SLOT), TestPlugin::new(2)).unwrap();
    for round in 1..=3 {
        kubelet
            .wait_until("a registration", |k| k.counters().registrations == round)
            .await
            .unwrap();
        kubelet.wait_allocatable(SLOT, 2).await.unwrap();
        kubelet.drop_stream(SLOT);
        assert_eq!((kubelet.allocatable(SLOT), kubelet.capacity(SLOT)), (0, 2));
    }
}

#[tokio::test]
async fn a_wiped_socket_is_bound_again_without_losing_the_stream() {
    let node = Node::new();
    let kubelet = node.kubelet();
    let host = node.host();
    let plugin = TestPlugin::new(2);
    host.start(resource(SLOT), plugin.clone()).unwrap();
    kubelet.wait_allocatable(SLOT, 2).await.unwrap();
    let [socket] = node.plugin_sockets().try_into().unwrap();
    std::fs::remove_file(&socket).unwrap();
    within("the socket", async {
        while tokio::net::UnixStream::connect(&socket).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    plugin.list.send_replace(healthy(5));
    kubelet.wait_allocatable(SLOT, 5).await.unwrap();
    assert_eq!(kubelet.counters().streams_ended, 0);
}

#[tokio::test]
async fn a_withdrawn_resource_is_at_0_at_once_and_a_disconnected_one_after_the_grace() {
    let node = Node::new();
    let kubelet = node.kubelet();
    let host = node.host();
    for name in ["vgpu.dev/a", "vgpu.dev/b"] {
        host.start(resource(name), TestPlugin::new(2)).unwrap();
        kubelet.wait_allocatable(name, 2).await.unwrap();
    }
    assert_eq!(node.plugin_sockets().len(), 2);
    host.stop(&resource("vgpu.dev/a"), Farewell::Withdraw).await.unwrap();
    kubelet.wait_capacity("vgpu.dev/a", 0).await.unwrap();
    host.stop(&resource("vgpu.dev/b"), Farewell::Disconnect).await.unwrap();
    kubelet.wait_allocatable("vgpu.dev/b", 0).await.unwrap();
    assert_eq!(node.plugin_sockets().len(), 0);

    let clock = &kubelet.options().clock;
    clock.advance(Duration::from_secs(299));
    assert_eq!(kubelet.capacity("vgpu.dev/b"), 2);
    clock.advance(Duration::from_secs(1));
    assert_eq!(kubelet.capacity("vgpu.dev/b"), 0);
}

#[tokio::test]
async fn a_stopped_resource_can_be_started_again() {
    let node = Node::new();
    let kubelet = node.kubelet();
    let host = node.host();
    for _ in 0..5 {
        host.start(resource(SLOT), TestPlugin::new(2)).unwrap();
        kubelet.wait_allocatable(SLOT, 2).await.unwrap();
        host.stop(&resource(SLOT), Farewell::Withdraw).await.unwrap();
        kubelet.wait_capacity(SLOT, 0).await.unwrap();
    }
}

#[tokio::test]
async fn sockets_of_a_killed_instance_are_swept() {
    let node = Node::new();
    let kubelet = node.kubelet();
    let old = node.host();
    old.start(resource(SLOT), TestPlugin::new(1)).unwrap();
    kubelet.wait_allocatable(SLOT, 1).await.unwrap();
    drop(old);
    kubelet.wait_allocatable(SLOT, 0).await.unwrap();
    let left = node.plugin_sockets();
    assert_eq!(left.len(), 1, "a kill leaves the file");
    let _new = node.host();
    within("the sweep", async {
        while left[0].exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn mistakes_are_told() {
    let node = Node::new();
    let host = node.host();
    let plugin = TestPlugin::new(1);
    host.start(resource(SLOT), plugin.clone()).unwrap();
    let twice = host.start(resource(SLOT), Arc::clone(&plugin) as _).unwrap_err();
    assert!(matches!(twice, HostError::Running { .. }));
    let unknown = host.stop(&resource("vgpu.dev/x"), Farewell::Withdraw).await.unwrap_err();
    assert!(matches!(unknown, HostError::NotRunning { .. }));

    let mut options = node.host_options();
    options.device_plugins = node.folder.path().join("d".repeat(100));
    let deep = PluginHost::new(options).unwrap().start(resource(SLOT), plugin.clone()).unwrap_err();
    assert!(deep.to_string().contains("107"), "{deep}");

    let mut options = node.host_options();
    options.socket_prefix = "a/b".to_owned();
    assert!(matches!(PluginHost::new(options), Err(HostError::Prefix { .. })));

    host.shutdown(Farewell::Disconnect).await;
    assert_eq!(host.start(resource(SLOT), plugin).unwrap_err(), HostError::ShutDown);
}
