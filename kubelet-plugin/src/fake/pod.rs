use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

/// A pod that asks for devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSpec {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The UID; another for each pod, also for one that comes back under its name.
    pub uid: String,
    /// The containers. Those of role `Init` and `Sidecar` are served first, in their order; then those of role `App`.
    pub containers: Vec<ContainerSpec>,
}

impl PodSpec {
    /// A pod without containers.
    #[must_use]
    pub fn new(
        namespace: impl Into<String>,
        name: impl Into<String>,
        uid: impl Into<String>,
    ) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            uid: uid.into(),
            containers: Vec::new(),
        }
    }

    /// The pod with one container more.
    #[must_use]
    pub fn with(mut self, container: ContainerSpec) -> Self {
        self.containers.push(container);
        self
    }

    pub(crate) fn in_order(&self) -> impl Iterator<Item = &ContainerSpec> {
        let first = self.containers.iter().filter(|container| container.role != Role::App);
        first.chain(self.containers.iter().filter(|container| container.role == Role::App))
    }

    pub(crate) fn container(&self, name: &str) -> Option<&ContainerSpec> {
        self.containers.iter().find(|container| container.name == name)
    }
}

/// A container that asks for devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSpec {
    /// The name, unique in the pod.
    pub name: String,
    /// When it runs.
    pub role: Role,
    /// How many devices of which resource.
    pub requests: BTreeMap<String, usize>,
}

impl ContainerSpec {
    /// A container without requests.
    #[must_use]
    pub fn new(name: impl Into<String>, role: Role) -> Self {
        Self { name: name.into(), role, requests: BTreeMap::new() }
    }

    /// A container that runs beside the others.
    #[must_use]
    pub fn app(name: impl Into<String>) -> Self {
        Self::new(name, Role::App)
    }

    /// An init container that ends before the app containers start; they may get its devices.
    #[must_use]
    pub fn init(name: impl Into<String>) -> Self {
        Self::new(name, Role::Init)
    }

    /// The container with one request more.
    #[must_use]
    pub fn request(mut self, resource: impl Into<String>, count: usize) -> Self {
        self.requests.insert(resource.into(), count);
        self
    }
}

/// When a container runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// With the other app containers.
    App,
    /// Before them, to its end.
    Init,
    /// From before them until the pod's end (an init container with restart policy Always); keeps its devices to itself.
    Sidecar,
}

/// A pod that was admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The UID.
    pub uid: String,
    /// What its containers were given.
    pub allocations: Vec<Allocation>,
}

impl Pod {
    /// The ids of one container and resource, sorted; empty if it has none.
    #[must_use]
    pub fn device_ids(&self, container: &str, resource: &str) -> &[String] {
        let ours = |a: &&Allocation| a.container == container && a.resource == resource;
        self.allocations.iter().find(ours).map_or(&[], |allocation| &allocation.device_ids)
    }
}

/// What a container was given of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// The container.
    pub container: String,
    /// The resource.
    pub resource: String,
    /// The ids, sorted.
    pub device_ids: Vec<String>,
    /// The CDI names in the plugin's answer.
    pub cdi_devices: Vec<String>,
}

/// What a started container sees.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerView {
    /// The plugin's CDI names, without repetitions.
    pub cdi_devices: Vec<ResolvedDevice>,
    /// Environment set by the plugin's answers (not by CDI).
    pub envs: BTreeMap<String, String>,
    /// Mounts of the plugin's answers (not of CDI): path in the container, path on the host.
    pub mounts: BTreeMap<PathBuf, PathBuf>,
    /// Annotations of the plugin's answers.
    pub annotations: BTreeMap<String, String>,
    /// Resources for which `PreStartContainer` was called.
    pub pre_started: Vec<String>,
}

/// A CDI name and what the runtime found for it when the container was created.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedDevice {
    /// The fully qualified name.
    pub name: String,
    /// The file that has it.
    pub file: PathBuf,
    /// `containerEdits` of the whole file; null if it has none.
    pub spec_edits: Value,
    /// `containerEdits` of the device.
    pub device_edits: Value,
}

/// Why a pod was rejected; for a bare pod this is final.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionError {
    /// The pod's status says `UnexpectedAdmissionError`, with this text.
    #[error("UnexpectedAdmissionError: {message}")]
    Rejected {
        /// The text.
        message: String,
    },
    /// There is no kubelet to admit it.
    #[error("the kubelet does not run; start it first")]
    Stopped,
    /// A pod with this UID is on the node.
    #[error(
        "a pod with uid {uid} is on the node already; pods that come back have a uid of their own"
    )]
    UidTaken {
        /// The UID.
        uid: String,
    },
}

/// Why a container does not start. The kubelet tries again; so may the test.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// Before the runtime was asked: `PreStartContainer` failed.
    #[error("CreateContainerConfigError: {message}")]
    Config {
        /// The text in the container's status.
        message: String,
    },
    /// The runtime refused.
    #[error("CreateContainerError: {message}")]
    Create {
        /// The text in the container's status.
        message: String,
    },
    /// There is no kubelet to start it.
    #[error("the kubelet does not run; start it first")]
    Stopped,
    /// No such pod or container was admitted.
    #[error("pod {uid} with a container {container} was not admitted on this node")]
    Unknown {
        /// The pod's UID.
        uid: String,
        /// The container.
        container: String,
    },
}
