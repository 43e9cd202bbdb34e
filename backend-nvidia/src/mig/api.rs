//! NVML's calls about MIG as a safe trait: one method per C call, plain data out, what is returned bounded.
//!
//! Instances are named by their numbers on their card, as NVML's own events and process lists name them.

use crate::api::{MemoryInfo, NvmlFailure};

/// Profiles that are asked for, whatever the library claims; the newest header known has 18.
pub const MAX_PROFILES: u32 = 64;
/// Instances of one card or placements of one profile that are read, whatever the library claims; cards have 8 slices.
pub const MAX_INSTANCES: u32 = 64;

/// The C functions without which a card is not split by MIG.
pub const MIG_SYMBOLS: &[&str] = &[
    "nvmlComputeInstanceDestroy",
    "nvmlComputeInstanceGetInfo_v2",
    "nvmlDeviceCreateGpuInstanceWithPlacement",
    "nvmlDeviceGetComputeInstanceId",
    "nvmlDeviceGetGpuInstanceById",
    "nvmlDeviceGetGpuInstanceId",
    "nvmlDeviceGetGpuInstancePossiblePlacements_v2",
    "nvmlDeviceGetGpuInstanceProfileInfo",
    "nvmlDeviceGetGpuInstances",
    "nvmlDeviceGetMaxMigDeviceCount",
    "nvmlDeviceGetMigDeviceHandleByIndex",
    "nvmlDeviceSetMigMode",
    "nvmlGpuInstanceCreateComputeInstance",
    "nvmlGpuInstanceDestroy",
    "nvmlGpuInstanceGetComputeInstanceById",
    "nvmlGpuInstanceGetComputeInstanceProfileInfo",
    "nvmlGpuInstanceGetInfo",
];

/// NVML's calls about MIG; `index` is the card's.
///
/// # Errors
///
/// As those of [`NvmlApi`](crate::NvmlApi): each names the C function.
pub trait MigApi {
    /// Asks for MIG mode or for the default mode.
    ///
    /// Answers with what became of it: 0 it is in effect, any other number is the reason why it is only pending, as a
    /// return code (16: after a reset, 19: the card is in use).
    fn set_mig_mode(&self, index: u32, on: bool) -> Result<u32, NvmlFailure>;
    /// Reads the profile of this place in NVML's list, which is not its id; what the card lacks is not supported (3),
    /// and what is beyond the list is an invalid argument (2).
    fn gpu_instance_profile(&self, index: u32, nth: u32)
    -> Result<GpuInstanceProfile, NvmlFailure>;
    /// Lists where a profile may lie, whatever is there now; at most [`MAX_INSTANCES`].
    fn gpu_instance_placements(
        &self,
        index: u32,
        profile_id: u32,
    ) -> Result<Vec<MemorySlices>, NvmlFailure>;
    /// Makes a GPU instance in these slices.
    fn create_gpu_instance(
        &self,
        index: u32,
        profile_id: u32,
        slices: MemorySlices,
    ) -> Result<GpuInstance, NvmlFailure>;
    /// Lists the GPU instances of a profile; at most [`MAX_INSTANCES`].
    fn gpu_instances(&self, index: u32, profile_id: u32) -> Result<Vec<GpuInstance>, NvmlFailure>;
    /// Unmakes a GPU instance that has no compute instance.
    fn destroy_gpu_instance(&self, index: u32, gpu_instance: u32) -> Result<(), NvmlFailure>;
    /// Reads the compute profile of this place in NVML's list, all engines shared.
    fn compute_instance_profile(
        &self,
        index: u32,
        gpu_instance: u32,
        nth: u32,
    ) -> Result<ComputeInstanceProfile, NvmlFailure>;
    /// Makes a compute instance in a GPU instance; answers with its number there.
    fn create_compute_instance(
        &self,
        index: u32,
        gpu_instance: u32,
        profile_id: u32,
    ) -> Result<u32, NvmlFailure>;
    /// Unmakes a compute instance.
    fn destroy_compute_instance(
        &self,
        index: u32,
        gpu_instance: u32,
        compute_instance: u32,
    ) -> Result<(), NvmlFailure>;
    /// Counts the places of [`MigApi::mig_device`]; at most [`MAX_INSTANCES`].
    fn max_mig_devices(&self, index: u32) -> Result<u32, NvmlFailure>;
    /// Reads the MIG device, a compute instance as CUDA sees it, at this place; not found (6) where there is none.
    fn mig_device(&self, index: u32, nth: u32) -> Result<MigDevice, NvmlFailure>;
    /// Reads the memory of the MIG device at this place.
    fn mig_device_memory(&self, index: u32, nth: u32) -> Result<MemoryInfo, NvmlFailure>;
}

/// What a GPU instance of some profile is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuInstanceProfile {
    /// What calls name it by.
    pub id: u32,
    /// The vendor's name, `MIG 1g.5gb`; `None` before driver 510.
    pub name: Option<String>,
    /// Slices of compute.
    pub slices: u32,
    /// How many fit an empty card.
    pub instances: u32,
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Engines by name: `copy-engine`, `decoder`, `encoder`, `jpeg-engine`, `ofa-engine`.
    pub engines: [(&'static str, u32); 5],
    /// Memory in MiB.
    pub memory_mib: u64,
}

/// Slices `[start, start + size)` of a card's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemorySlices {
    /// The first.
    pub start: u32,
    /// How many.
    pub size: u32,
}

/// A GPU instance, as NVML lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuInstance {
    /// Its number on the card; given again once it is unmade.
    pub id: u32,
    /// Its profile.
    pub profile_id: u32,
    /// Where it lies.
    pub slices: MemorySlices,
}

/// What a compute instance of some profile is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ComputeInstanceProfile {
    /// What calls name it by.
    pub id: u32,
    /// Slices of its GPU instance's compute.
    pub slices: u32,
    /// Multiprocessors.
    pub multiprocessors: u32,
}

/// A compute instance as CUDA sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigDevice {
    /// `MIG-…`; another one each time it is made.
    pub uuid: String,
    /// Its GPU instance.
    pub gpu_instance: u32,
    /// Its compute instance.
    pub compute_instance: u32,
}
