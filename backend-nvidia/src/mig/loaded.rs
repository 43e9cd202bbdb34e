//! A loaded NVML's MIG calls.

use crate::api::{MemoryInfo, NvmlFailure};
use crate::loaded::LoadedNvml;
use crate::mig::api::{
    ComputeInstanceProfile, GpuInstance, GpuInstanceProfile, MemorySlices, MigApi, MigDevice,
};

impl MigApi for LoadedNvml {
    fn set_mig_mode(&self, index: u32, on: bool) -> Result<u32, NvmlFailure> {
        self.on(index, |card| self.table().mig.set_mode(card.raw, on))
    }

    fn gpu_instance_profile(
        &self,
        index: u32,
        nth: u32,
    ) -> Result<GpuInstanceProfile, NvmlFailure> {
        self.asked(index, |card| self.table().mig.profile(card.raw, nth))
    }

    fn gpu_instance_placements(
        &self,
        index: u32,
        profile_id: u32,
    ) -> Result<Vec<MemorySlices>, NvmlFailure> {
        self.on(index, |card| self.table().mig.placements(card.raw, profile_id))
    }

    fn create_gpu_instance(
        &self,
        index: u32,
        profile_id: u32,
        slices: MemorySlices,
    ) -> Result<GpuInstance, NvmlFailure> {
        self.on(index, |card| self.table().mig.create(card.raw, profile_id, slices))
    }

    fn gpu_instances(&self, index: u32, profile_id: u32) -> Result<Vec<GpuInstance>, NvmlFailure> {
        self.on(index, |card| self.table().mig.instances(card.raw, profile_id))
    }

    fn destroy_gpu_instance(&self, index: u32, gpu_instance: u32) -> Result<(), NvmlFailure> {
        self.on(index, |card| self.table().mig.destroy(card.raw, gpu_instance))
    }

    fn compute_instance_profile(
        &self,
        index: u32,
        gpu_instance: u32,
        nth: u32,
    ) -> Result<ComputeInstanceProfile, NvmlFailure> {
        self.asked(index, |card| self.table().mig.compute_profile(card.raw, gpu_instance, nth))
    }

    fn create_compute_instance(
        &self,
        index: u32,
        gpu_instance: u32,
        profile_id: u32,
    ) -> Result<u32, NvmlFailure> {
        self.on(index, |card| self.table().mig.create_compute(card.raw, gpu_instance, profile_id))
    }

    fn destroy_compute_instance(
        &self,
        index: u32,
        gpu_instance: u32,
        compute_instance: u32,
    ) -> Result<(), NvmlFailure> {
        self.on(index, |card| {
            self.table().mig.destroy_compute(card.raw, gpu_instance, compute_instance)
        })
    }

    fn max_mig_devices(&self, index: u32) -> Result<u32, NvmlFailure> {
        self.on(index, |card| self.table().mig.max_devices(card.raw))
    }

    fn mig_device(&self, index: u32, nth: u32) -> Result<MigDevice, NvmlFailure> {
        self.on(index, |card| {
            let found = self.table().mig.device(card.raw, nth)?;
            Ok(MigDevice {
                uuid: self.table().uuid(found.handle)?,
                gpu_instance: found.gpu_instance,
                compute_instance: found.compute_instance,
            })
        })
    }

    fn mig_device_memory(&self, index: u32, nth: u32) -> Result<MemoryInfo, NvmlFailure> {
        self.on(index, |card| {
            let found = self.table().mig.device(card.raw, nth)?;
            self.table().memory_info(found.handle)
        })
    }
}
