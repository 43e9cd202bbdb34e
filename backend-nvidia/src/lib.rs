//! NVIDIA GPUs through NVML, loaded at run time.

mod api;
mod bindings;
mod decode;
mod loaded;
mod symbols;
mod sys;

pub use crate::api::{
    ComputeProcess, FIELD_RECOVERY_ACTION, FailureCause, LinkEnd, LoadFailure, MAX_CARDS,
    MAX_NVLINKS, MAX_PROCESSES, MemoryInfo, MigMode, NvmlApi, NvmlEventSet, NvmlFailure, PciInfo,
    RawEvent, RemappedRows, TemperatureLimit, TopologyLevel, Version,
};
pub use crate::loaded::LoadedNvml;
