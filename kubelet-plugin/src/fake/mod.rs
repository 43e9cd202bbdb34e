//! A kubelet in-process over real Unix sockets, for tests and demos.
//!
//! It behaves as a kubelet 1.36 does where a device plugin can tell: it dials back inside Register, opens one list stream and
//! never again, wipes the sockets in its folder when it starts, takes the new plugin down when the old one's stream ends
//! (unless told otherwise), chooses devices at random, follows preferences as hints, reuses an init container's devices,
//! skips `PreStartContainer` for what is not registered since its start, and keeps its checkpoint in the real file. What it
//! has not: NUMA alignment, pods that end by themselves, and readmission of running pods after a restart.

mod admission;
mod cdi;
mod chance;
mod checkpoint_file;
mod clock;
mod endpoint;
mod inner;
mod kubelet;
mod lister;
mod options;
mod pod;
mod registry;
mod runtime;
mod start;
mod state;

pub use crate::fake::clock::FakeClock;
pub use crate::fake::kubelet::{FakeKubelet, WaitError};
pub use crate::fake::options::{FakeOptions, Forget, OldStreamEnd};
pub use crate::fake::pod::{
    AdmissionError, Allocation, ContainerSpec, ContainerView, Pod, PodSpec, ResolvedDevice, Role,
    StartError,
};
pub use crate::fake::runtime::FakeRuntime;
pub use crate::fake::state::Counters;
