//! The kubelet's side of the device plugin's socket, by hand: a few messages of our own, so that a
//! test can send what no kubelet would.

use std::path::{Path, PathBuf};

use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

/// One plugin's socket.
pub struct Raw(tonic::client::Grpc<Channel>);

impl Raw {
    /// Connects to the socket of a resource in the kubelet's folder.
    pub async fn to(folder: &Path, resource: &str) -> Self {
        let socket = socket_of(folder, resource);
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()));
        let channel = endpoint.expect("a path").connect().await.expect("somebody listens");
        Self(tonic::client::Grpc::new(channel))
    }

    /// Allocates ids for one container; the answer's CDI names.
    pub async fn allocate(&mut self, ids: &[String]) -> Result<Vec<String>, Status> {
        let asked = Ids { ids: ids.to_vec() };
        let answer: Allocations =
            self.call("Allocate", IdsOfAll { containers: vec![asked] }).await?;
        let names = answer.containers.into_iter().flat_map(|c| c.cdi_devices);
        Ok(names.map(|device| device.name).collect())
    }

    /// Calls PreStartContainer.
    pub async fn pre_start(&mut self, ids: &[String]) -> Result<(), Status> {
        self.call::<_, Nothing>("PreStartContainer", Ids { ids: ids.to_vec() }).await.map(drop)
    }

    /// Asks which ids are liked best.
    pub async fn prefer(&mut self, available: &[String], size: i32) -> Result<Vec<String>, Status> {
        let asked = Preference { available: available.to_vec(), must: vec![], size };
        let asked = Preferences { containers: vec![asked] };
        let answer: IdsOfAll = self.call("GetPreferredAllocation", asked).await?;
        Ok(answer.containers.into_iter().flat_map(|c| c.ids).collect())
    }

    async fn call<Q, A>(&mut self, method: &str, message: Q) -> Result<A, Status>
    where
        Q: prost::Message + Default + 'static,
        A: prost::Message + Default + 'static,
    {
        self.0.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
        let path: PathAndQuery = format!("/v1beta1.DevicePlugin/{method}").parse().expect("a path");
        let codec = ProstCodec::<Q, A>::default();
        self.0.unary(Request::new(message), path, codec).await.map(tonic::Response::into_inner)
    }
}

/// The socket of a resource; its file names the resource's last word.
pub fn socket_of(folder: &Path, resource: &str) -> PathBuf {
    let word = resource.rsplit('/').next().expect("a word");
    let files = std::fs::read_dir(folder).expect("the kubelet's folder");
    let mut sockets: Vec<PathBuf> = files
        .map(|f| f.expect("a file").path())
        .filter(|p| {
            let name = p.file_name().and_then(|n| n.to_str()).expect("a name");
            let rest = name.strip_prefix(&format!("vgpu.{word}-"));
            // What follows is a hash, unless the word is only the beginning of another one.
            rest.is_some_and(|r| r.as_bytes()[..8].iter().all(u8::is_ascii_hexdigit))
        })
        .collect();
    assert_eq!(sockets.len(), 1, "sockets of {resource}: {sockets:?}");
    sockets.remove(0)
}

#[derive(Clone, PartialEq, prost::Message)]
struct Nothing {}

#[derive(Clone, PartialEq, prost::Message)]
struct Ids {
    #[prost(string, repeated, tag = "1")]
    ids: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Preference {
    #[prost(string, repeated, tag = "1")]
    available: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    must: Vec<String>,
    #[prost(int32, tag = "3")]
    size: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Allocated {
    #[prost(message, repeated, tag = "5")]
    cdi_devices: Vec<CdiDevice>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CdiDevice {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct IdsOfAll {
    #[prost(message, repeated, tag = "1")]
    containers: Vec<Ids>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Preferences {
    #[prost(message, repeated, tag = "1")]
    containers: Vec<Preference>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Allocations {
    #[prost(message, repeated, tag = "1")]
    containers: Vec<Allocated>,
}
