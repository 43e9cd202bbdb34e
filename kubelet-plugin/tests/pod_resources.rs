//! The `PodResources` client against the fake kubelet.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Node, SLOT, TestPlugin, healthy, resource};
use vgpu_kubelet_plugin::fake::{ContainerSpec, FakeKubelet, PodSpec};
use vgpu_kubelet_plugin::{
    DeviceList, Holding, PodResourcesClient, PodResourcesError, PodResourcesOptions,
};

fn client(kubelet: &FakeKubelet) -> PodResourcesClient {
    PodResourcesClient::new(PodResourcesOptions::new(&kubelet.paths().pod_resources_socket))
}

fn spec(name: &str) -> PodSpec {
    PodSpec::new("ns", name, format!("uid-{name}"))
        .with(ContainerSpec::init("init").request(SLOT, 1))
        .with(ContainerSpec::app("main").request(SLOT, 2))
}

#[tokio::test]
async fn pods_are_listed_with_ids_and_without_init_containers() {
    let node = Node::new();
    let (kubelet, host, plugin) = (node.kubelet(), node.host(), TestPlugin::new(4));
    let mut entries = healthy(4).entries().to_vec();
    for entry in &mut entries {
        entry.numa = vec![0, 1]; // one entry per node on the wire, one per resource in the answer
    }
    plugin.list.send_replace(DeviceList::new(entries).unwrap());
    host.start(resource(SLOT), plugin).unwrap();
    kubelet.wait_allocatable(SLOT, 4).await.unwrap();
    let pod = kubelet.admit(spec("p")).await.unwrap();
    kubelet.admit(PodSpec::new("ns", "bare", "uid-bare")).await.unwrap();

    let client = client(&kubelet);
    let list = client.list().await.unwrap();
    let main = Holding {
        namespace: "ns".to_owned(),
        pod: "p".to_owned(),
        container: "main".to_owned(),
        resource: SLOT.to_owned(),
        device_ids: pod.device_ids("main", SLOT).to_vec(),
    };
    assert_eq!((list.pods, &list.holdings), (2, &vec![main.clone()]));
    let init = &pod.device_ids("init", SLOT)[0];
    assert_eq!(list.holders(SLOT, init).collect::<Vec<_>>(), [&main], "the trap of shared ids");
    assert_eq!(client.pod("ns", "p").await.unwrap(), Some(vec![main]));
    assert_eq!(client.pod("ns", "bare").await.unwrap(), Some(vec![]));
    assert_eq!(client.pod("other", "p").await.unwrap(), None);
    kubelet.delete_pod("uid-p");
    assert_eq!(client.pod("ns", "p").await.unwrap(), None);
    assert!(client.list().await.unwrap().holdings.is_empty());
}

#[tokio::test]
async fn a_restarted_kubelet_has_no_pods_for_a_while_and_the_client_needs_no_care() {
    let node = Node::new();
    let mut options = node.options();
    options.pods_hidden = Duration::from_secs(30);
    let kubelet = FakeKubelet::new(options).unwrap();
    let (host, plugin) = (node.host(), TestPlugin::new(4));
    host.start(resource(SLOT), plugin).unwrap();
    kubelet.wait_allocatable(SLOT, 4).await.unwrap();
    kubelet.admit(spec("p")).await.unwrap();
    let client = client(&kubelet);
    assert_eq!(client.list().await.unwrap().pods, 1);

    kubelet.stop().await;
    let error = client.list().await.unwrap_err();
    assert!(matches!(error, PodResourcesError::Unreachable { .. }));
    assert!(error.to_string().contains("pod-resources/kubelet.sock"), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");

    kubelet.start().await.unwrap();
    assert_eq!(client.list().await.unwrap().pods, 0);
    kubelet.options().clock.advance(Duration::from_secs(29));
    assert_eq!(client.list().await.unwrap().pods, 0);
    kubelet.options().clock.advance(Duration::from_secs(1));
    assert_eq!(client.list().await.unwrap().pods, 1);
}

#[tokio::test]
async fn callers_at_the_same_time_share_two_requests() {
    let node = Node::new();
    let kubelet = node.kubelet();
    let client = Arc::new(client(&kubelet));
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.list().await.unwrap().pods })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), 0);
    }
    let asked = kubelet.counters().pod_resources_calls;
    assert!(asked <= 2, "{asked} requests for 50 callers");
}

#[tokio::test]
async fn a_silent_kubelet_is_given_up() {
    let node = Node::new();
    let socket = node.folder.path().join("silent.sock");
    // Bound and never accepted from: a connection is made and nothing is answered.
    let _silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let timeout = Duration::from_millis(100);
    let client = PodResourcesClient::new(PodResourcesOptions { socket, timeout });
    assert!(matches!(client.list().await, Err(PodResourcesError::Timeout { .. })));
}
