//! NVML's calls about MIG through function pointers; see [`crate::sys`] for what holds of all of them.

#![expect(unsafe_code, reason = "calls into a C library through pointers found at run time")]

use vgpu_backend_kit::{Finder, Optional, at_most, text};

use crate::api::NvmlFailure;
use crate::bindings::*;
use crate::mig::api::{
    ComputeInstanceProfile, GpuInstance, GpuInstanceProfile, MAX_INSTANCES, MemorySlices,
};
use crate::symbols::Checked;
use crate::sys::Handle;

/// The functions of MIG that the library has.
pub(crate) struct MigTable {
    set_mode: Optional<nvmlDeviceSetMigMode_fn>,
    profile: Optional<nvmlDeviceGetGpuInstanceProfileInfo_fn>,
    profile_named: Optional<nvmlDeviceGetGpuInstanceProfileInfoV_fn>,
    placements: Optional<nvmlDeviceGetGpuInstancePossiblePlacements_v2_fn>,
    create: Optional<nvmlDeviceCreateGpuInstanceWithPlacement_fn>,
    instances: Optional<nvmlDeviceGetGpuInstances_fn>,
    by_id: Optional<nvmlDeviceGetGpuInstanceById_fn>,
    info: Optional<nvmlGpuInstanceGetInfo_fn>,
    destroy: Optional<nvmlGpuInstanceDestroy_fn>,
    compute_profile: Optional<nvmlGpuInstanceGetComputeInstanceProfileInfo_fn>,
    create_compute: Optional<nvmlGpuInstanceCreateComputeInstance_fn>,
    compute_by_id: Optional<nvmlGpuInstanceGetComputeInstanceById_fn>,
    compute_info: Optional<nvmlComputeInstanceGetInfo_v2_fn>,
    destroy_compute: Optional<nvmlComputeInstanceDestroy_fn>,
    max_devices: Optional<nvmlDeviceGetMaxMigDeviceCount_fn>,
    device: Optional<nvmlDeviceGetMigDeviceHandleByIndex_fn>,
    gpu_instance_of: Optional<nvmlDeviceGetGpuInstanceId_fn>,
    compute_instance_of: Optional<nvmlDeviceGetComputeInstanceId_fn>,
}

/// A MIG device with its handle.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MigHandle {
    pub(crate) handle: Handle,
    pub(crate) gpu_instance: u32,
    pub(crate) compute_instance: u32,
}

const NO_PLACE: nvmlGpuInstancePlacement_t = nvmlGpuInstancePlacement_t { start: 0, size: 0 };

impl MigTable {
    pub(crate) fn find(finder: &mut Finder<'_>) -> Self {
        Self {
            set_mode: finder.optional("nvmlDeviceSetMigMode"),
            profile: finder.optional("nvmlDeviceGetGpuInstanceProfileInfo"),
            profile_named: finder.optional("nvmlDeviceGetGpuInstanceProfileInfoV"),
            placements: finder.optional("nvmlDeviceGetGpuInstancePossiblePlacements_v2"),
            create: finder.optional("nvmlDeviceCreateGpuInstanceWithPlacement"),
            instances: finder.optional("nvmlDeviceGetGpuInstances"),
            by_id: finder.optional("nvmlDeviceGetGpuInstanceById"),
            info: finder.optional("nvmlGpuInstanceGetInfo"),
            destroy: finder.optional("nvmlGpuInstanceDestroy"),
            compute_profile: finder.optional("nvmlGpuInstanceGetComputeInstanceProfileInfo"),
            create_compute: finder.optional("nvmlGpuInstanceCreateComputeInstance"),
            compute_by_id: finder.optional("nvmlGpuInstanceGetComputeInstanceById"),
            compute_info: finder.optional("nvmlComputeInstanceGetInfo_v2"),
            destroy_compute: finder.optional("nvmlComputeInstanceDestroy"),
            max_devices: finder.optional("nvmlDeviceGetMaxMigDeviceCount"),
            device: finder.optional("nvmlDeviceGetMigDeviceHandleByIndex"),
            gpu_instance_of: finder.optional("nvmlDeviceGetGpuInstanceId"),
            compute_instance_of: finder.optional("nvmlDeviceGetComputeInstanceId"),
        }
    }

    /// Answers with the activation status.
    pub(crate) fn set_mode(&self, device: Handle, on: bool) -> Result<u32, NvmlFailure> {
        let call = self.set_mode.call()?;
        let mut activation = VGPU_NVML_SUCCESS;
        // SAFETY: the handle came from this library; `activation` is writable.
        call.check(unsafe { (call.function)(device.0, u32::from(on), &raw mut activation) })?;
        Ok(activation)
    }

    /// With its name where the library tells it.
    pub(crate) fn profile(
        &self,
        device: Handle,
        nth: u32,
    ) -> Result<GpuInstanceProfile, NvmlFailure> {
        match self.profile_named(device, nth) {
            // 25: the driver has the function and not this version of its argument.
            Err(failure)
                if failure.code() == Some(25)
                    || failure.code() == Some(13)
                    || !self.profile_named.is_there() => {}
            answer => return answer,
        }
        let call = self.profile.call()?;
        let mut info = nvmlGpuInstanceProfileInfo_t {
            id: 0,
            isP2pSupported: 0,
            sliceCount: 0,
            instanceCount: 0,
            multiprocessorCount: 0,
            copyEngineCount: 0,
            decoderCount: 0,
            encoderCount: 0,
            jpegCount: 0,
            ofaCount: 0,
            memorySizeMB: 0,
        };
        // SAFETY: the handle came from this library; `info` is writable and of the call's first layout.
        call.check(unsafe { (call.function)(device.0, nth, &raw mut info) })?;
        Ok(GpuInstanceProfile {
            id: info.id,
            name: None,
            slices: info.sliceCount,
            instances: info.instanceCount,
            multiprocessors: info.multiprocessorCount,
            engines: engines([
                info.copyEngineCount,
                info.decoderCount,
                info.encoderCount,
                info.jpegCount,
                info.ofaCount,
            ]),
            memory_mib: info.memorySizeMB,
        })
    }

    fn profile_named(&self, device: Handle, nth: u32) -> Result<GpuInstanceProfile, NvmlFailure> {
        let call = self.profile_named.call()?;
        let mut info = nvmlGpuInstanceProfileInfo_v2_t {
            version: VGPU_NVML_GPU_INSTANCE_PROFILE_V2,
            id: 0,
            isP2pSupported: 0,
            sliceCount: 0,
            instanceCount: 0,
            multiprocessorCount: 0,
            copyEngineCount: 0,
            decoderCount: 0,
            encoderCount: 0,
            jpegCount: 0,
            ofaCount: 0,
            memorySizeMB: 0,
            name: [0; 96],
        };
        // SAFETY: the handle came from this library; `info` is writable and says which layout it is of.
        call.check(unsafe { (call.function)(device.0, nth, &raw mut info) })?;
        Ok(GpuInstanceProfile {
            id: info.id,
            name: Some(text(&info.name).map_err(|_endless| {
                call.malformed(format!("the name of profile {nth} has no end within 96 bytes"))
            })?),
            slices: info.sliceCount,
            instances: info.instanceCount,
            multiprocessors: info.multiprocessorCount,
            engines: engines([
                info.copyEngineCount,
                info.decoderCount,
                info.encoderCount,
                info.jpegCount,
                info.ofaCount,
            ]),
            memory_mib: info.memorySizeMB,
        })
    }

    /// Asks how many there are, and then for them, with more room than any card needs: the call takes no bound.
    pub(crate) fn placements(
        &self,
        device: Handle,
        profile_id: u32,
    ) -> Result<Vec<MemorySlices>, NvmlFailure> {
        let call = self.placements.call()?;
        let mut count = 0;
        let nowhere = std::ptr::null_mut();
        // SAFETY: the handle came from this library; null asks for the count alone, which is writable.
        call.check(unsafe { (call.function)(device.0, profile_id, nowhere, &raw mut count) })?;
        let beyond = |count| {
            call.malformed(format!(
                "{count} placements of profile {profile_id}, and {MAX_INSTANCES} at most are read"
            ))
        };
        if count > MAX_INSTANCES {
            return Err(beyond(count));
        }
        let mut list = [NO_PLACE; MAX_INSTANCES as usize];
        // SAFETY: the handle came from this library; `list` is writable for more than the `count` just told.
        let code =
            unsafe { (call.function)(device.0, profile_id, list.as_mut_ptr(), &raw mut count) };
        call.check(code)?;
        let known = list.get(..count as usize).ok_or_else(|| beyond(count))?;
        Ok(known.iter().map(slices).collect())
    }

    pub(crate) fn create(
        &self,
        device: Handle,
        profile_id: u32,
        place: MemorySlices,
    ) -> Result<GpuInstance, NvmlFailure> {
        let (call, undo) = (self.create.call()?, self.destroy.call()?);
        let place = nvmlGpuInstancePlacement_t { start: place.start, size: place.size };
        let mut instance: nvmlGpuInstance_t = std::ptr::null_mut();
        // SAFETY: the handle came from this library; `place` lives through the call; `instance` is writable.
        let code =
            unsafe { (call.function)(device.0, profile_id, &raw const place, &raw mut instance) };
        call.check(code)?;
        if instance.is_null() {
            return Err(call.malformed("a null GPU instance".to_owned()));
        }
        self.info(instance).inspect_err(|_unread| {
            // One that cannot be named can be used by nobody. Whether this succeeds, `sweep` will find out.
            // SAFETY: the instance was made a moment ago and nobody else has its handle.
            let _ = unsafe { (undo.function)(instance) };
        })
    }

    /// The buffer is larger than any card needs: the call takes no bound.
    pub(crate) fn instances(
        &self,
        device: Handle,
        profile_id: u32,
    ) -> Result<Vec<GpuInstance>, NvmlFailure> {
        let call = self.instances.call()?;
        let mut list = [std::ptr::null_mut(); MAX_INSTANCES as usize];
        let mut count = 0;
        // SAFETY: the handle came from this library; `list` is writable for more instances than a card has slices.
        let code =
            unsafe { (call.function)(device.0, profile_id, list.as_mut_ptr(), &raw mut count) };
        call.check(code)?;
        let Some(known) = list.get(..count as usize) else {
            return Err(call.malformed(format!(
                "{count} GPU instances of profile {profile_id}, and {MAX_INSTANCES} at most are read"
            )));
        };
        if known.iter().any(|instance| instance.is_null()) {
            return Err(call.malformed("a null GPU instance".to_owned()));
        }
        known.iter().map(|instance| self.info(*instance)).collect()
    }

    pub(crate) fn destroy(&self, device: Handle, gpu_instance: u32) -> Result<(), NvmlFailure> {
        let call = self.destroy.call()?;
        let instance = self.by_id(device, gpu_instance)?;
        // SAFETY: the instance came from this library just now; a stale handle is refused by it.
        call.check(unsafe { (call.function)(instance) })
    }

    pub(crate) fn compute_profile(
        &self,
        device: Handle,
        gpu_instance: u32,
        nth: u32,
    ) -> Result<ComputeInstanceProfile, NvmlFailure> {
        let call = self.compute_profile.call()?;
        let instance = self.by_id(device, gpu_instance)?;
        let mut info = nvmlComputeInstanceProfileInfo_t {
            id: 0,
            sliceCount: 0,
            instanceCount: 0,
            multiprocessorCount: 0,
            sharedCopyEngineCount: 0,
            sharedDecoderCount: 0,
            sharedEncoderCount: 0,
            sharedJpegCount: 0,
            sharedOfaCount: 0,
        };
        let engines = VGPU_NVML_ENGINES_SHARED;
        // SAFETY: the instance came from this library just now; `info` is writable.
        call.check(unsafe { (call.function)(instance, nth, engines, &raw mut info) })?;
        Ok(ComputeInstanceProfile {
            id: info.id,
            slices: info.sliceCount,
            multiprocessors: info.multiprocessorCount,
        })
    }

    pub(crate) fn create_compute(
        &self,
        device: Handle,
        gpu_instance: u32,
        profile_id: u32,
    ) -> Result<u32, NvmlFailure> {
        let (call, undo) = (self.create_compute.call()?, self.destroy_compute.call()?);
        let read = self.compute_info.call()?;
        let instance = self.by_id(device, gpu_instance)?;
        let mut compute: nvmlComputeInstance_t = std::ptr::null_mut();
        // SAFETY: the instance came from this library just now; `compute` is writable.
        call.check(unsafe { (call.function)(instance, profile_id, &raw mut compute) })?;
        if compute.is_null() {
            return Err(call.malformed("a null compute instance".to_owned()));
        }
        let mut info = nvmlComputeInstanceInfo_t {
            device: std::ptr::null_mut(),
            gpuInstance: std::ptr::null_mut(),
            id: 0,
            profileId: 0,
            placement: NO_PLACE,
        };
        // SAFETY: the compute instance was made a moment ago; `info` is writable.
        let read = read.check(unsafe { (read.function)(compute, &raw mut info) });
        match read {
            Ok(()) => Ok(info.id),
            Err(failure) => {
                // SAFETY: the compute instance was made a moment ago and nobody else has its handle.
                let _ = unsafe { (undo.function)(compute) };
                Err(failure)
            }
        }
    }

    pub(crate) fn destroy_compute(
        &self,
        device: Handle,
        gpu_instance: u32,
        compute_instance: u32,
    ) -> Result<(), NvmlFailure> {
        let (find, call) = (self.compute_by_id.call()?, self.destroy_compute.call()?);
        let instance = self.by_id(device, gpu_instance)?;
        let mut compute: nvmlComputeInstance_t = std::ptr::null_mut();
        // SAFETY: the instance came from this library just now; `compute` is writable.
        find.check(unsafe { (find.function)(instance, compute_instance, &raw mut compute) })?;
        if compute.is_null() {
            return Err(find.malformed("a null compute instance".to_owned()));
        }
        // SAFETY: the compute instance came from this library just now.
        call.check(unsafe { (call.function)(compute) })
    }

    pub(crate) fn max_devices(&self, device: Handle) -> Result<u32, NvmlFailure> {
        let call = self.max_devices.call()?;
        let mut count = 0;
        // SAFETY: the handle came from this library; `count` is writable.
        call.check(unsafe { (call.function)(device.0, &raw mut count) })?;
        let most = at_most(count, "MIG devices at most", MAX_INSTANCES);
        most.map_err(|what| call.malformed(what))
    }

    pub(crate) fn device(&self, device: Handle, nth: u32) -> Result<MigHandle, NvmlFailure> {
        let call = self.device.call()?;
        let mut mig: nvmlDevice_t = std::ptr::null_mut();
        // SAFETY: the handle came from this library; `mig` is writable.
        call.check(unsafe { (call.function)(device.0, nth, &raw mut mig) })?;
        let handle = Handle::of(call.name, mig)?;
        let (gpu, compute) = (self.gpu_instance_of.call()?, self.compute_instance_of.call()?);
        let (mut gpu_instance, mut compute_instance) = (0, 0);
        // SAFETY: the handle came from this library just now; `gpu_instance` is writable.
        gpu.check(unsafe { (gpu.function)(handle.0, &raw mut gpu_instance) })?;
        // SAFETY: as above; `compute_instance` is writable.
        compute.check(unsafe { (compute.function)(handle.0, &raw mut compute_instance) })?;
        Ok(MigHandle { handle, gpu_instance, compute_instance })
    }

    fn info(&self, instance: nvmlGpuInstance_t) -> Result<GpuInstance, NvmlFailure> {
        let call = self.info.call()?;
        let mut info = nvmlGpuInstanceInfo_t {
            device: std::ptr::null_mut(),
            id: 0,
            profileId: 0,
            placement: NO_PLACE,
        };
        // SAFETY: the instance came from this library just now; `info` is writable.
        call.check(unsafe { (call.function)(instance, &raw mut info) })?;
        let place = slices(&info.placement);
        Ok(GpuInstance { id: info.id, profile_id: info.profileId, slices: place })
    }

    fn by_id(&self, device: Handle, id: u32) -> Result<nvmlGpuInstance_t, NvmlFailure> {
        let call = self.by_id.call()?;
        let mut instance: nvmlGpuInstance_t = std::ptr::null_mut();
        // SAFETY: the handle came from this library; `instance` is writable.
        call.check(unsafe { (call.function)(device.0, id, &raw mut instance) })?;
        if instance.is_null() {
            return Err(call.malformed("a null GPU instance".to_owned()));
        }
        Ok(instance)
    }
}

fn slices(raw: &nvmlGpuInstancePlacement_t) -> MemorySlices {
    MemorySlices { start: raw.start, size: raw.size }
}

fn engines([copy, decoder, encoder, jpeg, ofa]: [u32; 5]) -> [(&'static str, u32); 5] {
    [
        ("copy-engine", copy),
        ("decoder", decoder),
        ("encoder", encoder),
        ("jpeg-engine", jpeg),
        ("ofa-engine", ofa),
    ]
}
