//! NVIDIA GPUs through NVML, loaded at run time.
//!
//! [`NvidiaFactory`] finds the library; what it makes serves whole cards, time-slice, MIG and, with the
//! control program, MPS: discovery, topology, parts, health and edits.
//!
//! | module | holds |
//! | --- | --- |
//! | `factory` | from a host to a backend, or the reason why there is none |
//! | `backend`, `cards`, `schemes`, `topology` | discovery |
//! | `partition` (a file for each scheme with objects), `isolation`, `health` | the other traits |
//! | `limits` | memory limits of a container's cgroup (r615): calls, probe, set and read back |
//! | `mps` | MPS daemons: their lives, shares and static partitions |
//! | `host` | what the host's own files say |
//! | `convert` | NVML's codes and values as the core's |
//! | `api`, `loaded` | NVML as a safe trait, and the loaded library behind it; `mig` has its MIG part |
//! | `symbols`, `decode`, `sys`, `bindings` | the C side; `sys` has all the `unsafe` |

mod api;
mod backend;
mod bindings;
mod cards;
mod convert;
mod decode;
mod elf;
mod factory;
mod health;
mod host;
mod isolation;
mod limits;
mod loaded;
mod mig;
mod mps;
mod partition;
mod schemes;
mod symbols;
mod sys;
mod topology;

pub use crate::api::{
    ComputeMode, ComputeProcess, FIELD_RECOVERY_ACTION, FailureCause, LinkEnd, LoadFailure,
    MAX_CARDS, MAX_NVLINKS, MAX_PROCESSES, MemoryInfo, MemoryLimits, MigMode, NvmlApi,
    NvmlEventSet, NvmlFailure, PciInfo, RawEvent, RemappedRows, TemperatureLimit, TopologyLevel,
    Version,
};
pub use crate::backend::{NvidiaBackend, NvidiaOptions};
pub use crate::factory::NvidiaFactory;
pub use crate::health::{Action, XID_RECOVERY_ACTION, XIDS, Xid, xid};
pub use crate::isolation::{Capability, Delivery};
pub use crate::loaded::LoadedNvml;
pub use crate::mig::api::{
    ComputeInstanceProfile, GpuInstance, GpuInstanceProfile, MAX_INSTANCES, MAX_PROFILES,
    MIG_SYMBOLS, MemorySlices, MigApi, MigDevice,
};
pub use crate::mps::{Launch, MpsOptions};
