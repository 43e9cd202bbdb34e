//! Container starts: `PreStartContainer`, its deadlines, and CDI names.

mod common;

use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{Node, SLOT, TestPlugin, resource, within};
use vgpu_kubelet_plugin::fake::{ContainerSpec, FakeKubelet, PodSpec, StartError};
use vgpu_kubelet_plugin::{Farewell, PluginHost, Refusal, RefusalKind};

fn pod() -> PodSpec {
    PodSpec::new("default", "p", "u").with(ContainerSpec::app("main").request(SLOT, 1))
}

fn config(error: StartError) -> String {
    match error {
        StartError::Config { message } => message,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_container_sees_the_edits_of_its_devices_as_they_are_at_its_start() {
    let node = Node::new();
    let (kubelet, host, plugin) = (node.kubelet(), node.host(), TestPlugin::new(1));
    host.start(resource(SLOT), plugin.clone()).unwrap();
    kubelet.wait_allocatable(SLOT, 1).await.unwrap();
    kubelet.admit(pod()).await.unwrap();

    let missing = kubelet.start_container("u", "main").await.unwrap_err();
    assert_eq!(
        missing.to_string(),
        "CreateContainerError: failed to create containerd container: CDI device injection failed: \
         unresolvable CDI devices vgpu.dev/slot=s0"
    );
    for env in ["A=1", "A=2"] {
        node.write_cdi("s0", env);
        let view = kubelet.restart_container("u", "main").await.unwrap();
        assert_eq!(view.cdi_devices[0].name, "vgpu.dev/slot=s0");
        assert_eq!(view.cdi_devices[0].device_edits, serde_json::json!({ "env": [env] }));
        assert_eq!(view.envs["SLOTS"], "s0");
        assert_eq!(view.pre_started, [SLOT]);
    }
    assert_eq!(plugin.pre_start_begun.load(Ordering::SeqCst), 3);
    let unknown = kubelet.start_container("u", "side").await.unwrap_err();
    assert!(matches!(unknown, StartError::Unknown { .. }));
}

#[tokio::test]
async fn a_refusal_reaches_the_user_and_a_later_try_heals() {
    let node = Node::new();
    let (kubelet, host, plugin) = (node.kubelet(), node.host(), TestPlugin::new(1));
    host.start(resource(SLOT), plugin.clone()).unwrap();
    kubelet.wait_allocatable(SLOT, 1).await.unwrap();
    kubelet.admit(pod()).await.unwrap();
    node.write_cdi("s0", "A=1");
    let refusal = Refusal::new(RefusalKind::NotReady, "the part is still held by process 17");
    *plugin.refuse_pre_start.lock().unwrap() = Some(refusal);
    let message = config(kubelet.start_container("u", "main").await.unwrap_err());
    assert_eq!(
        message,
        "device plugin PreStartContainer rpc failed with err: rpc error: code = Unavailable desc = \
         the part is still held by process 17"
    );
    *plugin.refuse_pre_start.lock().unwrap() = None;
    kubelet.start_container("u", "main").await.unwrap();
}

#[tokio::test]
async fn work_survives_the_kubelets_deadline() {
    let node = Node::new();
    let mut options = node.options();
    options.pre_start_limit = Duration::from_millis(50);
    let kubelet = FakeKubelet::new(options).unwrap();
    let (host, plugin) = (node.host(), TestPlugin::gated(2));
    host.start(resource(SLOT), plugin.clone()).unwrap();
    kubelet.wait_allocatable(SLOT, 2).await.unwrap();
    kubelet.admit(pod()).await.unwrap();
    // A busy machine may let the deadline pass before the call arrives; a kubelet tries again, and so do we.
    while plugin.pre_start_begun.load(Ordering::SeqCst) == 0 {
        let message = config(kubelet.start_container("u", "main").await.unwrap_err());
        assert!(message.contains("DeadlineExceeded"), "{message}");
    }
    // Calls share one connection in order: when this one is answered, the other's end has arrived.
    let mut other = pod();
    other.uid = "other".to_owned();
    kubelet.admit(other).await.unwrap();
    ends_once_let(&plugin).await;
}

#[tokio::test]
async fn work_survives_the_hosts_own_limit_and_the_text_says_so() {
    let node = Node::new();
    let kubelet = node.kubelet();
    let mut options = node.host_options();
    options.limits.pre_start = Duration::from_millis(50);
    let (host, plugin) = (PluginHost::new(options).unwrap(), TestPlugin::gated(1));
    host.start(resource(SLOT), plugin.clone()).unwrap();
    kubelet.wait_allocatable(SLOT, 1).await.unwrap();
    kubelet.admit(pod()).await.unwrap();
    let message = config(kubelet.start_container("u", "main").await.unwrap_err());
    assert!(message.contains("still under way after 50ms"), "{message}");
    ends_once_let(&plugin).await;
}

#[tokio::test]
async fn work_survives_the_kubelets_death() {
    let node = Node::new();
    let kubelet = std::sync::Arc::new(node.kubelet());
    let (host, plugin) = (node.host(), TestPlugin::gated(1));
    host.start(resource(SLOT), plugin.clone()).unwrap();
    kubelet.wait_allocatable(SLOT, 1).await.unwrap();
    kubelet.admit(pod()).await.unwrap();
    let starter = kubelet.clone();
    let starting = tokio::spawn(async move { starter.start_container("u", "main").await });
    within("the call", async {
        while plugin.pre_start_begun.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    kubelet.stop().await;
    assert_eq!(within("the start", starting).await.unwrap().unwrap_err(), StartError::Stopped);
    // The plugin has seen the connection end, and came back.
    kubelet.start().await.unwrap();
    kubelet.wait_allocatable(SLOT, 1).await.unwrap();
    ends_once_let(&plugin).await;
}

#[tokio::test]
async fn pre_start_is_skipped_until_the_plugin_registers_and_fails_when_it_left() {
    let node = Node::new();
    let (kubelet, host, plugin) = (node.kubelet(), node.host(), TestPlugin::new(1));
    host.start(resource(SLOT), plugin.clone()).unwrap();
    kubelet.wait_allocatable(SLOT, 1).await.unwrap();
    kubelet.admit(pod()).await.unwrap();
    host.shutdown(Farewell::Disconnect).await;
    kubelet.wait_allocatable(SLOT, 0).await.unwrap();
    let message = config(kubelet.start_container("u", "main").await.unwrap_err());
    assert!(message.contains("has been stopped"), "{message}");

    // A new kubelet does not know that the plugin wants to be called: the CDI file alone is the gate.
    kubelet.restart().await.unwrap();
    assert!(matches!(kubelet.start_container("u", "main").await, Err(StartError::Create { .. })));
    node.write_cdi("s0", "A=1");
    assert_eq!(kubelet.start_container("u", "main").await.unwrap().pre_started.len(), 0);
    assert_eq!(kubelet.counters().pre_start_skipped, 2);
    assert_eq!(plugin.pre_start_begun.load(Ordering::SeqCst), 0);

    let host = node.host();
    host.start(resource(SLOT), plugin.clone()).unwrap();
    kubelet.wait_allocatable(SLOT, 1).await.unwrap();
    assert_eq!(kubelet.start_container("u", "main").await.unwrap().pre_started, [SLOT]);
}

/// Opens the gate; the call that nobody waits for any more must end.
async fn ends_once_let(plugin: &TestPlugin) {
    let mut ended = plugin.pre_start_ended.subscribe();
    assert_eq!(*ended.borrow_and_update(), 0);
    for _ in 0..100 {
        tokio::task::yield_now().await; // let what was cut be dropped, if it is
    }
    plugin.gate.add_permits(100);
    let ending = ended.wait_for(|ended| *ended > 0);
    within("the end of the work", ending).await.expect("the plugin holds the sender");
}
