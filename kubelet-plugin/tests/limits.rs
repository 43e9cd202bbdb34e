//! What the kubelet refuses, and messages that are too large.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Node, SLOT, TestPlugin, resource};
use tokio::sync::watch;
use vgpu_kubelet_plugin::fake::{ContainerSpec, FakeKubelet, PodSpec};
use vgpu_kubelet_plugin::{
    AllocateRequest, AllocateResponse, DeviceList, DevicePlugin, PluginOptions, PreStartRequest,
    PreferredRequest, Refusal,
};

/// Panics whenever it is asked.
struct Panicking(watch::Sender<DeviceList>);

#[vgpu_kubelet_plugin::async_trait]
impl DevicePlugin for Panicking {
    fn options(&self) -> PluginOptions {
        PluginOptions { pre_start: true, preferred_allocation: true }
    }

    fn devices(&self) -> watch::Receiver<DeviceList> {
        self.0.subscribe()
    }

    async fn preferred_allocation(&self, _request: PreferredRequest) -> Vec<String> {
        panic!("no preference")
    }

    async fn allocate(&self, _request: AllocateRequest) -> Result<AllocateResponse, Refusal> {
        panic!("no allocation")
    }

    async fn pre_start(&self, _request: PreStartRequest) -> Result<(), Refusal> {
        panic!("no start")
    }
}

#[tokio::test]
async fn a_panic_is_an_answer_and_not_the_end() {
    let node = Node::new();
    let (kubelet, host) = (node.kubelet(), node.host());
    let plugin = Arc::new(Panicking(watch::Sender::new(common::healthy(2))));
    host.start(resource(SLOT), plugin).unwrap();
    kubelet.wait_allocatable(SLOT, 2).await.unwrap();
    let pod = PodSpec::new("ns", "p", "u").with(ContainerSpec::app("main").request(SLOT, 1));
    let error = kubelet.admit(pod).await.unwrap_err().to_string();
    // The panic in the preference only lost the preference; the one in Allocate is the answer.
    assert!(error.contains("code = Internal desc = the plugin's Allocate panicked"), "{error}");
    assert_eq!((kubelet.allocatable(SLOT), kubelet.counters().streams_ended), (2, 0));
}

#[tokio::test]
async fn a_plugin_without_listener_is_refused_after_the_dial_limit() {
    let node = Node::new();
    let mut options = node.options();
    options.dial_limit = Duration::from_millis(100);
    let kubelet = FakeKubelet::new(options).unwrap();
    let refused = |version: &str, resource: &str| {
        let (version, resource) = (version.to_owned(), resource.to_owned());
        let socket = kubelet.paths().registration_socket();
        async move { raw::register(&socket, &version, &resource).await }
    };
    let nobody = refused("v1beta1", SLOT).await;
    assert!(nobody.contains("failed to dial device plugin"), "{nobody}");
    let version = refused("v1alpha1", SLOT).await;
    assert!(version.contains("v1beta1"), "{version}");
    let name = refused("v1beta1", "cpu").await;
    assert!(name.contains("domain"), "{name}");
    assert_eq!(kubelet.counters().registrations_refused, 3);
}

#[tokio::test]
async fn a_message_of_100_mb_is_refused_and_the_plugin_serves_on() {
    let node = Node::new();
    let (kubelet, host) = (node.kubelet(), node.host());
    host.start(resource(SLOT), TestPlugin::new(2)).unwrap();
    kubelet.wait_allocatable(SLOT, 2).await.unwrap();
    let [socket] = node.plugin_sockets().try_into().unwrap();
    let text = raw::allocate(&socket, vec!["x".repeat(100 << 20)]).await.unwrap_err();
    assert!(text.contains("too large"), "{text}");
    raw::allocate(&socket, vec!["s0".to_owned()]).await.unwrap();
    assert_eq!(kubelet.allocatable(SLOT), 2);
}

/// Clients that say what no sound one would, with messages of their own.
mod raw {
    use std::path::Path;

    use tonic::client::Grpc;
    use tonic::transport::{Channel, Endpoint};
    use tonic_prost::ProstCodec;

    #[derive(Clone, PartialEq, prost::Message)]
    struct Register {
        #[prost(string, tag = "1")]
        version: String,
        #[prost(string, tag = "2")]
        endpoint: String,
        #[prost(string, tag = "3")]
        resource: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Allocate {
        #[prost(message, repeated, tag = "1")]
        requests: Vec<Ids>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Ids {
        #[prost(string, repeated, tag = "1")]
        ids: Vec<String>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Nothing {}

    pub(crate) async fn register(socket: &Path, version: &str, resource: &str) -> String {
        let message = Register {
            version: version.to_owned(),
            endpoint: "nobody.sock".to_owned(),
            resource: resource.to_owned(),
        };
        call(socket, "/v1beta1.Registration/Register", message).await.unwrap_err()
    }

    pub(crate) async fn allocate(socket: &Path, ids: Vec<String>) -> Result<(), String> {
        let message = Allocate { requests: vec![Ids { ids }] };
        call(socket, "/v1beta1.DevicePlugin/Allocate", message).await
    }

    async fn call<M>(socket: &Path, path: &'static str, message: M) -> Result<(), String>
    where
        M: prost::Message + 'static,
    {
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap();
        let channel: Channel = endpoint.connect().await.unwrap();
        let mut grpc = Grpc::new(channel);
        grpc.ready().await.unwrap();
        let codec = ProstCodec::<M, Nothing>::default();
        let path = http::uri::PathAndQuery::from_static(path);
        match grpc.unary(tonic::Request::new(message), path, codec).await {
            Ok(_) => Ok(()),
            Err(status) => Err(status.message().to_owned()),
        }
    }
}
