use std::collections::BTreeMap;
use std::path::PathBuf;

use tokio::sync::watch;

use crate::device_list::DeviceList;
use crate::pb::device_plugin as pb;

/// What one resource does when the kubelet asks; the agent implements it, [`PluginHost`](crate::PluginHost) serves it.
///
/// The host calls every method that can take long in a task of its own and only waits for it. So a call whose deadline
/// passes, or whose kubelet goes away, **still runs to its end**: the kubelet cuts `pre_start` after 30 s and comes back
/// with the same ids, possibly while the earlier call still runs. Make it idempotent.
///
/// Calls may overlap.
#[tonic::async_trait]
pub trait DevicePlugin: Send + Sync + 'static {
    /// What the kubelet is told once per registration.
    fn options(&self) -> PluginOptions;

    /// The full list of devices, now and after each change. Changes that follow each other faster than the kubelet reads
    /// are merged: only the newest list is sent.
    fn devices(&self) -> watch::Receiver<DeviceList>;

    /// Which of the available ids the kubelet should rather take; a hint. An empty answer means no preference.
    ///
    /// There is no error, because the kubelet rejects the pod for good on one.
    async fn preferred_allocation(&self, request: PreferredRequest) -> Vec<String>;

    /// What a container gets with these ids. It runs inside the kubelet's sync loop: answer in well under a second.
    ///
    /// # Errors
    ///
    /// A refusal rejects the pod for good and its text reaches the pod's status.
    async fn allocate(&self, request: AllocateRequest) -> Result<AllocateResponse, Refusal>;

    /// Prepares these ids for a container that is about to start, or to start again.
    ///
    /// # Errors
    ///
    /// The container stays waiting with the refusal's text and the kubelet asks again every 10 to 16 s.
    async fn pre_start(&self, request: PreStartRequest) -> Result<(), Refusal>;
}

/// What the kubelet is told about a plugin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PluginOptions {
    /// Whether `pre_start` is to be called before each container start.
    pub pre_start: bool,
    /// Whether `preferred_allocation` is to be called before `allocate`.
    pub preferred_allocation: bool,
}

/// Ids to choose from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreferredRequest {
    /// All ids that can be chosen, in no order.
    pub available: Vec<String>,
    /// Ids that the container has already; part of `available`.
    pub must_include: Vec<String>,
    /// How many ids the container asks for, `must_include` counted.
    pub size: usize,
}

/// Ids that the kubelet has chosen for one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllocateRequest {
    /// The ids, in no order.
    pub device_ids: Vec<String>,
}

/// Ids whose container is about to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreStartRequest {
    /// The ids, in no order.
    pub device_ids: Vec<String>,
}

/// What one container gets.
///
/// Where two resources of one container set the same variable, mount path or annotation, a random one wins; CDI names are
/// safe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllocateResponse {
    /// Fully qualified CDI names, `vendor/class=name`; resolved by the runtime when the container is created.
    pub cdi_devices: Vec<String>,
    /// Environment variables.
    pub envs: BTreeMap<String, String>,
    /// Bind mounts.
    pub mounts: Vec<Mount>,
    /// Annotations for the container runtime.
    pub annotations: BTreeMap<String, String>,
}

/// One bind mount of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Absolute path in the container.
    pub container_path: PathBuf,
    /// Absolute path on the host.
    pub host_path: PathBuf,
    /// Whether the container may write.
    pub access: Access,
}

/// Whether a mount may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Reads only.
    ReadOnly,
    /// Reads and writes.
    ReadWrite,
}

/// A plugin's no, with the text that the user sees in the pod's status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Why, in a word.
    pub kind: RefusalKind,
    /// What is wrong, where, and what to do.
    pub message: String,
}

impl Refusal {
    /// A refusal with a text.
    #[must_use]
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// Why a plugin refuses; it becomes the gRPC code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalKind {
    /// There is not enough left (`ResourceExhausted`).
    Exhausted,
    /// Something broke (`Internal`).
    Internal,
    /// The ids make no sense (`InvalidArgument`).
    Invalid,
    /// Not now; a later call may do (`Unavailable`).
    NotReady,
}

impl From<Refusal> for tonic::Status {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal.kind {
            RefusalKind::Exhausted => tonic::Code::ResourceExhausted,
            RefusalKind::Internal => tonic::Code::Internal,
            RefusalKind::Invalid => tonic::Code::InvalidArgument,
            RefusalKind::NotReady => tonic::Code::Unavailable,
        };
        Self::new(code, refusal.message)
    }
}

impl From<PluginOptions> for pb::DevicePluginOptions {
    fn from(options: PluginOptions) -> Self {
        Self {
            pre_start_required: options.pre_start,
            get_preferred_allocation_available: options.preferred_allocation,
        }
    }
}

impl From<AllocateResponse> for pb::ContainerAllocateResponse {
    fn from(response: AllocateResponse) -> Self {
        Self {
            envs: response.envs.into_iter().collect(),
            mounts: response.mounts.into_iter().map(Into::into).collect(),
            devices: Vec::new(),
            annotations: response.annotations.into_iter().collect(),
            cdi_devices: response
                .cdi_devices
                .into_iter()
                .map(|name| pb::CdiDevice { name })
                .collect(),
        }
    }
}

impl From<Mount> for pb::Mount {
    fn from(mount: Mount) -> Self {
        Self {
            container_path: mount.container_path.to_string_lossy().into_owned(),
            host_path: mount.host_path.to_string_lossy().into_owned(),
            read_only: mount.access == Access::ReadOnly,
        }
    }
}
