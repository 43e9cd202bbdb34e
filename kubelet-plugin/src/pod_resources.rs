use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tonic::transport::Channel;

use crate::pb::pod_resources as pb;
use crate::pb::pod_resources::pod_resources_lister_client::PodResourcesListerClient;
use crate::single_flight::SingleFlight;
use crate::transport;

/// A node's list with some 100 000 devices; `tonic`'s own limit of 4 MiB would be too small for a full node.
const ANSWER_LIMIT: usize = 16 * 1024 * 1024;

/// Asks the kubelet which container holds which device.
///
/// Each request opens a connection of its own, so a restarted kubelet needs no care.
///
/// The answer has no pod UID, leaves out plain init containers, is empty for a while after the kubelet's start, and where an
/// init container and an app container of a pod share ids it names the app container only: trust the pod, not the
/// container.
#[derive(Debug)]
pub struct PodResourcesClient {
    options: PodResourcesOptions,
    list: SingleFlight<Result<Arc<PodList>, PodResourcesError>>,
}

impl PodResourcesClient {
    /// A client; nothing is opened yet.
    #[must_use]
    pub fn new(options: PodResourcesOptions) -> Self {
        Self { options, list: SingleFlight::new() }
    }

    /// Everything on the node. Callers at the same time share one request, always one that began after they had called.
    ///
    /// # Errors
    ///
    /// [`PodResourcesError`] with the socket and the reason, after at most twice the timeout (one request under way, one
    /// of one's own).
    pub async fn list(&self) -> Result<Arc<PodList>, PodResourcesError> {
        self.list.run(async || self.ask_list().await.map(Arc::new)).await
    }

    /// One pod; `None` if the kubelet does not know it. Before Kubernetes 1.36 a kubelet may not have this call.
    ///
    /// # Errors
    ///
    /// [`PodResourcesError`] with the socket and the reason, after at most the timeout.
    pub async fn pod(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Vec<Holding>>, PodResourcesError> {
        let request =
            pb::GetPodResourcesRequest { pod_name: name.into(), pod_namespace: namespace.into() };
        let answer = self.limited(async {
            let mut client = self.connect().await?;
            match client.get(request).await {
                Ok(answer) => Ok(answer.into_inner().pod_resources),
                Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
                // The kubelet reports an unknown pod as a plain error with code Unknown.
                Err(status)
                    if status.code() == tonic::Code::Unknown
                        && status.message().contains("not found") =>
                {
                    Ok(None)
                }
                Err(status) => Err(self.refused(&status)),
            }
        });
        Ok(answer.await?.map(|pod| holdings(&pod)))
    }

    async fn ask_list(&self) -> Result<PodList, PodResourcesError> {
        let answer = self.limited(async {
            let mut client = self.connect().await?;
            let answer = client.list(pb::ListPodResourcesRequest {}).await;
            answer.map(tonic::Response::into_inner).map_err(|status| self.refused(&status))
        });
        let pods = answer.await?.pod_resources;
        Ok(PodList { pods: pods.len(), holdings: pods.iter().flat_map(holdings).collect() })
    }

    async fn connect(&self) -> Result<PodResourcesListerClient<Channel>, PodResourcesError> {
        let channel = transport::connect(&self.options.socket)
            .await
            .map_err(|error| PodResourcesError::Unreachable { why: error.to_string() })?;
        Ok(PodResourcesListerClient::new(channel).max_decoding_message_size(ANSWER_LIMIT))
    }

    async fn limited<T>(
        &self,
        work: impl Future<Output = Result<T, PodResourcesError>>,
    ) -> Result<T, PodResourcesError> {
        match tokio::time::timeout(self.options.timeout, work).await {
            Ok(result) => result,
            Err(_elapsed) => Err(PodResourcesError::Timeout {
                socket: self.options.socket.display().to_string(),
                limit: self.options.timeout,
            }),
        }
    }

    fn refused(&self, status: &tonic::Status) -> PodResourcesError {
        let socket = self.options.socket.display().to_string();
        if status.code() == tonic::Code::Unimplemented {
            return PodResourcesError::Unsupported { socket };
        }
        PodResourcesError::Refused {
            socket,
            code: format!("{:?}", status.code()),
            message: status.message().to_owned(),
        }
    }
}

/// Where and how long to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodResourcesOptions {
    /// The kubelet's socket, see [`KubeletPaths`](crate::KubeletPaths).
    pub socket: PathBuf,
    /// For one request, connecting counted.
    pub timeout: Duration,
}

impl PodResourcesOptions {
    /// The socket, with 5 s for a request.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), timeout: Duration::from_secs(5) }
    }
}

/// What all pods of the node hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodList {
    /// How many pods the kubelet listed, those without devices counted.
    pub pods: usize,
    /// One entry for each container and resource.
    pub holdings: Vec<Holding>,
}

impl PodList {
    /// The entries that hold this id of this resource; several where containers of a pod share it.
    pub fn holders<'a>(
        &'a self,
        resource: &'a str,
        device_id: &'a str,
    ) -> impl Iterator<Item = &'a Holding> {
        self.holdings.iter().filter(move |holding| {
            holding.resource == resource && holding.device_ids.iter().any(|id| id == device_id)
        })
    }
}

/// What one container holds of one resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holding {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container; not to be trusted where an init container asks for the resource too.
    pub container: String,
    /// The resource's name.
    pub resource: String,
    /// The device ids, sorted.
    pub device_ids: Vec<String>,
}

/// Why the kubelet's answer is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PodResourcesError {
    /// The kubelet answered with an error; code `ResourceExhausted` is its limit of 100 calls a second.
    #[error("the kubelet refused a PodResources request at {socket}: {code}: {message}")]
    Refused {
        /// The socket asked.
        socket: String,
        /// The gRPC code.
        code: String,
        /// The kubelet's words.
        message: String,
    },
    /// No answer in time.
    #[error("the kubelet did not answer a PodResources request at {socket} within {limit:?}")]
    Timeout {
        /// The socket asked.
        socket: String,
        /// How long was waited.
        limit: Duration,
    },
    /// Nobody listens.
    #[error("{why}; is the kubelet running, and is this its pod-resources socket?")]
    Unreachable {
        /// Socket and reason.
        why: String,
    },
    /// The kubelet is older than the call.
    #[error("the kubelet at {socket} does not have this PodResources call; use the list instead")]
    Unsupported {
        /// The socket asked.
        socket: String,
    },
}

/// The kubelet sends an entry per device (and NUMA node); we want one per resource.
fn holdings(pod: &pb::PodResources) -> Vec<Holding> {
    let mut result = Vec::new();
    for container in &pod.containers {
        let mut by_resource: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for devices in &container.devices {
            let ids = by_resource.entry(&devices.resource_name).or_default();
            ids.extend(devices.device_ids.iter().cloned());
        }
        for (resource, mut device_ids) in by_resource {
            device_ids.sort_unstable();
            device_ids.dedup();
            result.push(Holding {
                namespace: pod.namespace.clone(),
                pod: pod.name.clone(),
                container: container.name.clone(),
                resource: resource.to_owned(),
                device_ids,
            });
        }
    }
    result
}
