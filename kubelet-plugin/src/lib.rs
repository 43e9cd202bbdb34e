#![doc = include_str!("../README.md")]

mod authority;
mod backoff;
mod checkpoint;
mod device_list;
mod device_plugin;
#[cfg(feature = "fake-kubelet")]
pub mod fake;
mod host;
mod keeper;
mod paths;
mod pb;
mod pod_resources;
mod register;
mod resource;
mod runtime;
mod service;
mod single_flight;
mod socket_name;
mod sweep;
mod transport;
mod watch;

pub use tonic::async_trait;

pub use crate::authority::{RegistrationNameError, dra_registration_socket_name};
pub use crate::checkpoint::{Checkpoint, CheckpointEntry, CheckpointError};
pub use crate::device_list::{
    DeviceEntry, DeviceHealth, DeviceList, DeviceListError, KUBELET_MESSAGE_LIMIT,
};
pub use crate::device_plugin::{
    Access, AllocateRequest, AllocateResponse, DevicePlugin, Mount, PluginOptions, PreStartRequest,
    PreferredRequest, Refusal, RefusalKind,
};
pub use crate::host::{
    CallLimits, Farewell, HostError, HostOptions, PluginHost, Registration, Retry,
};
pub use crate::paths::{KubeletPaths, SocketPathError};
pub use crate::pod_resources::{
    Holding, PodList, PodResourcesClient, PodResourcesError, PodResourcesOptions,
};
pub use crate::resource::{Resource, ResourceError};
pub use crate::runtime::{CdiSupport, RuntimeError, RuntimeVersion};
