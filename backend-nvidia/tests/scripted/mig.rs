//! MIG on a scripted card: its mode can be asked for, and nothing can be made.

use vgpu_backend_nvidia::{
    ComputeInstanceProfile, FailureCause, GpuInstance, GpuInstanceProfile, MemoryInfo,
    MemorySlices, MigApi, MigDevice, MigMode, NvmlFailure,
};

use crate::nvml::Scripted;

type Answer<T> = Result<T, NvmlFailure>;

impl Scripted {
    fn none_of<T>(&self, call: &'static str, index: u32) -> Answer<T> {
        self.of(call, index, |_| None)
    }
}

impl MigApi for Scripted {
    /// Every change waits for a reset.
    fn set_mig_mode(&self, index: u32, on: bool) -> Answer<u32> {
        let call = "nvmlDeviceSetMigMode";
        let mode = self.of(call, index, |card| card.mig)?;
        let mut state = self.state();
        let card = state.cards.get_mut(index as usize);
        let card = card.ok_or(NvmlFailure { call, cause: FailureCause::Code(2) })?;
        card.mig = Some(MigMode { pending: on, ..mode });
        Ok(if mode.current == on { 0 } else { 16 })
    }

    fn gpu_instance_profile(&self, index: u32, _nth: u32) -> Answer<GpuInstanceProfile> {
        self.none_of("nvmlDeviceGetGpuInstanceProfileInfoV", index)
    }

    fn gpu_instance_placements(&self, index: u32, _id: u32) -> Answer<Vec<MemorySlices>> {
        self.none_of("nvmlDeviceGetGpuInstancePossiblePlacements_v2", index)
    }

    fn create_gpu_instance(&self, index: u32, _id: u32, _at: MemorySlices) -> Answer<GpuInstance> {
        self.none_of("nvmlDeviceCreateGpuInstanceWithPlacement", index)
    }

    fn gpu_instances(&self, index: u32, _id: u32) -> Answer<Vec<GpuInstance>> {
        self.none_of("nvmlDeviceGetGpuInstances", index)
    }

    fn destroy_gpu_instance(&self, index: u32, _gpu: u32) -> Answer<()> {
        self.none_of("nvmlGpuInstanceDestroy", index)
    }

    fn compute_instance_profile(
        &self,
        index: u32,
        _gpu: u32,
        _nth: u32,
    ) -> Answer<ComputeInstanceProfile> {
        self.none_of("nvmlGpuInstanceGetComputeInstanceProfileInfo", index)
    }

    fn create_compute_instance(&self, index: u32, _gpu: u32, _id: u32) -> Answer<u32> {
        self.none_of("nvmlGpuInstanceCreateComputeInstance", index)
    }

    fn destroy_compute_instance(&self, index: u32, _gpu: u32, _compute: u32) -> Answer<()> {
        self.none_of("nvmlComputeInstanceDestroy", index)
    }

    fn max_mig_devices(&self, index: u32) -> Answer<u32> {
        self.none_of("nvmlDeviceGetMaxMigDeviceCount", index)
    }

    fn mig_device(&self, index: u32, _nth: u32) -> Answer<MigDevice> {
        self.none_of("nvmlDeviceGetMigDeviceHandleByIndex", index)
    }

    fn mig_device_memory(&self, index: u32, _nth: u32) -> Answer<MemoryInfo> {
        self.none_of("nvmlDeviceGetMemoryInfo", index)
    }
}
