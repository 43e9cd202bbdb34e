//! How the fake kubelet chooses, allocates and writes down; and what the host makes of its questions.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::collections::BTreeSet;

use common::{Node, Preference, SLOT, TestPlugin, resource};
use vgpu_kubelet_plugin::fake::{
    AdmissionError, ContainerSpec, FakeKubelet, Forget, Pod, PodSpec, Role,
};
use vgpu_kubelet_plugin::{Checkpoint, PluginHost, Refusal, RefusalKind};

struct Running {
    node: Node,
    kubelet: FakeKubelet,
    _host: PluginHost,
    plugin: std::sync::Arc<TestPlugin>,
}

async fn running(devices: usize) -> Running {
    let node = Node::new();
    let kubelet = node.kubelet();
    let host = node.host();
    let plugin = TestPlugin::new(devices);
    host.start(resource(SLOT), plugin.clone()).unwrap();
    kubelet.wait_allocatable(SLOT, devices).await.unwrap();
    Running { node, kubelet, _host: host, plugin }
}

fn pod(name: &str, count: usize) -> PodSpec {
    PodSpec::new("default", name, format!("uid-{name}"))
        .with(ContainerSpec::app("main").request(SLOT, count))
}

fn ids(pod: &Pod, container: &str) -> BTreeSet<String> {
    pod.device_ids(container, SLOT).iter().cloned().collect()
}

fn rejection(error: AdmissionError) -> String {
    match error {
        AdmissionError::Rejected { message } => message,
        other => panic!("{other}"),
    }
}

fn set(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

#[tokio::test]
async fn a_complete_preference_is_followed() {
    let run = running(40).await;
    *run.plugin.preference.lock().unwrap() = Preference::Lowest;
    let first = run.kubelet.admit(pod("a", 3)).await.unwrap();
    assert_eq!(ids(&first, "main"), set(&["s0", "s1", "s10"]));
    let asked = run.plugin.preferred.lock().unwrap()[0].clone();
    assert_eq!((asked.available.len(), asked.must_include.len(), asked.size), (40, 0, 3));
    assert!(
        !asked.available.is_sorted(),
        "the order is random, whatever the seed (1 of 40! aside)"
    );
    assert_eq!(first.allocations[0].cdi_devices.len(), 3);
}

#[tokio::test]
async fn a_short_or_foreign_preference_is_filled_at_random() {
    let run = running(10).await;
    let these = ["s3", "nonsense"].map(str::to_owned).to_vec();
    *run.plugin.preference.lock().unwrap() = Preference::These(these);
    let first = run.kubelet.admit(pod("a", 3)).await.unwrap();
    let held = ids(&first, "main");
    assert!(held.contains("s3") && held.len() == 3 && !held.contains("nonsense"), "{held:?}");
    // s3 is taken now and a preference for it says nothing.
    let second = ids(&run.kubelet.admit(pod("b", 7)).await.unwrap(), "main");
    assert!(held.is_disjoint(&second) && second.len() == 7);
    let message = rejection(run.kubelet.admit(pod("c", 1)).await.unwrap_err());
    assert!(message.contains("Requested: 1, Available: 0"), "{message}");
}

#[tokio::test]
async fn a_refused_pod_reads_the_plugins_text_and_holds_nothing() {
    let run = running(4).await;
    let refusal = Refusal::new(RefusalKind::Exhausted, "card 3 has 2 GiB free, 10 are asked");
    *run.plugin.refuse_allocate.lock().unwrap() = Some(refusal);
    let spec = pod("a", 2).with(ContainerSpec::app("second").request(SLOT, 1));
    let error = run.kubelet.admit(spec.clone()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "UnexpectedAdmissionError: Allocate failed due to rpc error: code = ResourceExhausted desc = \
         card 3 has 2 GiB free, 10 are asked, which is unexpected"
    );
    *run.plugin.refuse_allocate.lock().unwrap() = None;
    assert!(run.kubelet.pods().is_empty());
    run.kubelet.admit(spec.clone()).await.unwrap();
    run.kubelet.admit(pod("b", 1)).await.unwrap();
    let twice = run.kubelet.admit(spec).await.unwrap_err();
    assert!(matches!(twice, AdmissionError::UidTaken { .. }));
}

#[tokio::test]
async fn app_containers_reuse_the_devices_of_init_containers_and_not_of_sidecars() {
    let run = running(10).await;
    let container = |name: &str, role| ContainerSpec::new(name, role).request(SLOT, 2);
    let spec = PodSpec::new("default", "p", "u")
        .with(container("app1", Role::App).request(SLOT, 3))
        .with(container("init", Role::Init))
        .with(container("side", Role::Sidecar))
        .with(container("app2", Role::App));
    let pod = run.kubelet.admit(spec).await.unwrap();
    let (init, side, app1, app2) =
        (ids(&pod, "init"), ids(&pod, "side"), ids(&pod, "app1"), ids(&pod, "app2"));
    println!("init {init:?} side {side:?} app1 {app1:?} app2 {app2:?}");
    // The sidecar comes after the init container and takes its devices for good.
    assert_eq!(init, side);
    assert!(app1.is_disjoint(&side) && app2.is_disjoint(&side) && app1.is_disjoint(&app2));

    let spec = PodSpec::new("default", "q", "v")
        .with(container("init", Role::Init))
        .with(ContainerSpec::app("app").request(SLOT, 3));
    let pod = run.kubelet.admit(spec).await.unwrap();
    assert!(ids(&pod, "init").is_subset(&ids(&pod, "app")));
    let asked = run.plugin.preferred.lock().unwrap().last().unwrap().clone();
    let must: BTreeSet<String> = asked.must_include.into_iter().collect();
    assert_eq!((must, asked.size), (ids(&pod, "init"), 3));
    // Allocate is called for the app container with the reused ids too.
    let told = run.plugin.allocated.lock().unwrap().last().unwrap().clone();
    assert_eq!(told.into_iter().collect::<BTreeSet<_>>(), ids(&pod, "app"));
}

#[tokio::test]
async fn an_unhealthy_or_unregistered_resource_admits_nobody() {
    let run = running(1).await;
    run.kubelet.admit(pod("a", 1)).await.unwrap();
    run.kubelet.delete_pod("uid-a");
    run.kubelet.stop().await;
    let stopped = run.kubelet.admit(pod("b", 1)).await.unwrap_err();
    assert_eq!(stopped, AdmissionError::Stopped);
    run.kubelet.start().await.unwrap();
    // Nothing has been awaited since, so the plugin on this thread cannot have registered.
    let message = rejection(run.kubelet.admit(pod("b", 1)).await.unwrap_err());
    assert_eq!(
        message,
        "Allocate failed due to no healthy devices present; cannot allocate unhealthy devices vgpu.dev/slot, \
         which is unexpected"
    );
    run.kubelet.wait_allocatable(SLOT, 1).await.unwrap();
    run.kubelet.admit(pod("c", 1)).await.unwrap();
}

#[tokio::test]
async fn the_checkpoint_is_the_real_one_and_survives_a_restart() {
    let run = running(6).await;
    let spec = pod("a", 2).with(ContainerSpec::init("init").request(SLOT, 1));
    let before = run.kubelet.admit(spec).await.unwrap();
    let read = || Checkpoint::read(&run.kubelet.paths().checkpoint()).unwrap().unwrap();
    let checkpoint = read();
    assert_eq!(checkpoint.entries.len(), 2);
    for entry in &checkpoint.entries {
        assert_eq!((entry.pod_uid.as_str(), entry.resource.as_str()), ("uid-a", SLOT));
        assert_eq!(entry.device_ids, before.device_ids(&entry.container, SLOT));
        let names: Vec<_> = entry.device_ids.iter().map(|id| format!("{SLOT}={id}")).collect();
        assert_eq!(entry.cdi_devices, names);
    }
    assert_eq!(checkpoint.registered[SLOT].len(), 6);

    run.kubelet.restart().await.unwrap();
    assert_eq!(run.kubelet.pods(), [before]);
    run.kubelet.wait_allocatable(SLOT, 6).await.unwrap();
    run.kubelet.admit(pod("b", 4)).await.unwrap();
    assert!(run.kubelet.admit(pod("c", 1)).await.is_err(), "the ids of a are still its own");

    assert!(run.kubelet.delete_pod("uid-a") && !run.kubelet.delete_pod("uid-a"));
    assert!(read().entries.iter().all(|entry| entry.pod_uid == "uid-b"));
    run.kubelet.admit(pod("c", 2)).await.unwrap();
    drop(run.node);
}

#[tokio::test]
async fn a_lazy_kubelet_keeps_a_deleted_pod_in_its_file_until_it_writes_again() {
    let node = Node::new();
    let mut options = node.options();
    options.forget = Forget::Lazily;
    let kubelet = FakeKubelet::new(options).unwrap();
    let (host, plugin) = (node.host(), TestPlugin::new(2));
    host.start(resource(SLOT), plugin.clone()).unwrap();
    kubelet.wait_allocatable(SLOT, 2).await.unwrap();
    kubelet.admit(pod("a", 2)).await.unwrap();
    kubelet.delete_pod("uid-a");
    let uids = || -> Vec<String> {
        let entries = Checkpoint::read(&kubelet.paths().checkpoint()).unwrap().unwrap().entries;
        entries.into_iter().map(|entry| entry.pod_uid).collect()
    };
    assert_eq!(uids(), ["uid-a"]);
    // Sending the list again makes it write, but only what it has tidied is gone: list PodResources first.
    let lists = kubelet.counters().lists;
    plugin.list.send_modify(|_| {});
    kubelet.wait_until("another list", |k| k.counters().lists == lists + 1).await.unwrap();
    assert_eq!(uids(), ["uid-a"]);
    kubelet.admit(pod("b", 2)).await.unwrap();
    assert_eq!(uids(), ["uid-b"]);
}

#[tokio::test]
async fn several_resources_in_one_container_each_get_their_own_call() {
    let run = running(3).await;
    let other = TestPlugin::new(3);
    let host = run.node.host();
    host.start(resource("vgpu.dev/other"), other.clone()).unwrap();
    run.kubelet.wait_allocatable("vgpu.dev/other", 3).await.unwrap();
    let spec = PodSpec::new("default", "p", "u").with(
        ContainerSpec::app("main").request(SLOT, 1).request("vgpu.dev/other", 2).request("cpu", 4),
    );
    let pod = run.kubelet.admit(spec).await.unwrap();
    assert_eq!(pod.device_ids("main", SLOT).len(), 1);
    assert_eq!(pod.device_ids("main", "vgpu.dev/other").len(), 2);
    assert_eq!(run.plugin.allocated.lock().unwrap().len(), 1);
    assert_eq!(other.allocated.lock().unwrap().len(), 1);
}
