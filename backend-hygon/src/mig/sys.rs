//! Calls into libhydmi_mig.

#![expect(unsafe_code, reason = "calls into a C library through pointers found at run time")]

use std::ffi::{CString, OsStr, OsString};
use std::fmt::{self, Debug};
use std::path::Path;
use std::ptr;

use vgpu_backend_kit::{Call, Optional, Pointer, Required, load};
use vgpu_core::Slots;

use crate::api::{
    CallFailure, HyDmiMig, LoadFailure, MAX_INSTANCES, MigHandle, MigInstance, MigProfile,
};
use crate::mig::bindings::*;
use crate::symbols::Checked;

/// The library's name in errors.
pub(crate) const LIBRARY: &str = "libhydmi_mig";
/// Profiles are asked for by slices less one, below this.
pub(crate) const PROFILES: u32 = VGPU_HCU_PROFILES;

/// libhydmi_mig, loaded, for the rest of the process's life.
pub struct LoadedMig {
    file: OsString,
    missing: Vec<&'static str>,
    by_pci: Required<nvmlDeviceGetHandleByPciBusId_fn>,
    system_mode: Required<nvmlGetSystemMigMode_fn>,
    set_system_mode: Required<nvmlSetSystemMigMode_fn>,
    profile: Optional<nvmlDeviceGetGpuInstanceProfileInfo_fn>,
    placements: Optional<nvmlDeviceGetGpuInstancePossiblePlacements_fn>,
    create: Optional<nvmlDeviceCreateGpuInstanceWithPlacement_fn>,
    instances: Optional<nvmlDeviceGetGpuInstances_fn>,
    info: Optional<nvmlGpuInstanceGetInfo_fn>,
    destroy: Optional<nvmlGpuInstanceDestroy_fn>,
    compute_profile: Optional<nvmlGpuInstanceGetComputeInstanceProfileInfo_fn>,
    create_compute: Optional<nvmlGpuInstanceCreateComputeInstance_fn>,
    computes: Optional<nvmlGpuInstanceGetComputeInstances_fn>,
    compute_info: Optional<nvmlComputeInstanceGetInfo_fn>,
    destroy_compute: Optional<nvmlComputeInstanceDestroy_fn>,
}

impl LoadedMig {
    /// Loads `library` and checks that it is libhydmi_mig: it has the system's mode, which NVML has not.
    ///
    /// # Errors
    /// [`LoadFailure`].
    pub fn load(library: impl AsRef<OsStr>) -> Result<Self, LoadFailure> {
        let file = library.as_ref();
        load(file, LIBRARY, |finder| {
            Ok(Self {
                system_mode: finder.required("nvmlGetSystemMigMode")?,
                set_system_mode: finder.required("nvmlSetSystemMigMode")?,
                by_pci: finder.required("nvmlDeviceGetHandleByPciBusId")?,
                profile: finder.optional("nvmlDeviceGetGpuInstanceProfileInfo"),
                placements: finder.optional("nvmlDeviceGetGpuInstancePossiblePlacements"),
                create: finder.optional("nvmlDeviceCreateGpuInstanceWithPlacement"),
                instances: finder.optional("nvmlDeviceGetGpuInstances"),
                info: finder.optional("nvmlGpuInstanceGetInfo"),
                destroy: finder.optional("nvmlGpuInstanceDestroy"),
                compute_profile: finder.optional("nvmlGpuInstanceGetComputeInstanceProfileInfo"),
                create_compute: finder.optional("nvmlGpuInstanceCreateComputeInstance"),
                computes: finder.optional("nvmlGpuInstanceGetComputeInstances"),
                compute_info: finder.optional("nvmlComputeInstanceGetInfo"),
                destroy_compute: finder.optional("nvmlComputeInstanceDestroy"),
                missing: finder.missing(),
                file: file.to_owned(),
            })
        })
    }
}

impl HyDmiMig for LoadedMig {
    fn library(&self) -> &Path {
        Path::new(&self.file)
    }

    fn missing_symbols(&self) -> &[&'static str] {
        &self.missing
    }

    fn card(&self, address: &str) -> Result<MigHandle, CallFailure> {
        let call = self.by_pci.call();
        let Ok(address) = CString::new(address) else {
            return Err(call.malformed("a PCI address with a NUL".into()));
        };
        let mut device = ptr::null_mut();
        // SAFETY: the address ends in a NUL and lives through the call; `device` is writable.
        call.check(unsafe { (call.function)(address.as_ptr(), &raw mut device) })?;
        handle(&call, device)
    }

    fn system_mode(&self) -> Result<(bool, bool), CallFailure> {
        let call = self.system_mode.call();
        let (mut current, mut pending) = (0, 0);
        // SAFETY: both are writable.
        call.check(unsafe { (call.function)(&raw mut current, &raw mut pending) })?;
        if current > 1 || pending > 1 {
            return Err(call.malformed(format!("modes {current} and {pending}")));
        }
        Ok((current == 1, pending == 1))
    }

    fn set_system_mode(&self, on: bool) -> Result<(), CallFailure> {
        let call = self.set_system_mode.call();
        let mut status = 0;
        // SAFETY: `status` is writable.
        call.check(unsafe { (call.function)(u32::from(on), &raw mut status) })?;
        // What became of the activation itself.
        call.check(status)
    }

    fn profile(&self, card: MigHandle, slices_less_one: u32) -> Result<MigProfile, CallFailure> {
        let call = self.profile.call()?;
        let mut info = nvmlGpuInstanceProfileInfo_t {
            id: 0,
            gi_count_max: 0,
            cu_count: 0,
            gpu_slice_count: 0,
            memory_size_MB: 0,
            name: [0; 256],
        };
        // SAFETY: the handle came from this library; `info` is writable and of its layout.
        call.check(unsafe { (call.function)(device(card), slices_less_one, &raw mut info) })?;
        Ok(MigProfile {
            id: info.id,
            name: call.text(&info.name)?,
            max: info.gi_count_max,
            units: info.cu_count,
            slices: info.gpu_slice_count,
            memory_mib: info.memory_size_MB,
        })
    }

    fn placements(&self, card: MigHandle, profile: u32) -> Result<Vec<Slots>, CallFailure> {
        let call = self.placements.call()?;
        let mut room = [nvmlPlacement_t { start: 0, size: 0 }; MAX_INSTANCES as usize];
        let mut count = MAX_INSTANCES;
        // SAFETY: the handle came from this library; there is room for `count` placements.
        let code =
            unsafe { (call.function)(device(card), profile, room.as_mut_ptr(), &raw mut count) };
        call.check(code)?;
        let count = within(&call, count)?;
        Ok(room[..count].iter().map(|p| Slots::new(p.start, p.size)).collect())
    }

    fn create_instance(
        &self,
        card: MigHandle,
        profile: u32,
        at: Slots,
    ) -> Result<MigHandle, CallFailure> {
        let call = self.create.call()?;
        let place = nvmlPlacement_t { start: at.start, size: at.len };
        let mut made = ptr::null_mut();
        // SAFETY: the handle came from this library; `place` is readable, `made` writable.
        let code =
            unsafe { (call.function)(device(card), profile, &raw const place, &raw mut made) };
        call.check(code)?;
        handle(&call, made)
    }

    fn instances(&self, card: MigHandle, profile: u32) -> Result<Vec<MigHandle>, CallFailure> {
        let call = self.instances.call()?;
        let mut room: [nvmlGpuInstance_t; MAX_INSTANCES as usize] =
            [ptr::null_mut(); MAX_INSTANCES as usize];
        let mut count = MAX_INSTANCES;
        // SAFETY: the handle came from this library; there is room for `count` handles.
        let code =
            unsafe { (call.function)(device(card), profile, room.as_mut_ptr(), &raw mut count) };
        call.check(code)?;
        let count = within(&call, count)?;
        room[..count].iter().map(|p| handle(&call, *p)).collect()
    }

    fn instance_info(&self, instance: MigHandle) -> Result<MigInstance, CallFailure> {
        let call = self.info.call()?;
        let mut info = nvmlGpuInstanceInfo_t {
            device: ptr::null_mut(),
            id: 0,
            profile_id: 0,
            placement: nvmlPlacement_t { start: 0, size: 0 },
        };
        // SAFETY: the handle came from this library; `info` is writable and of its layout.
        call.check(unsafe { (call.function)(gpu_instance(instance), &raw mut info) })?;
        let slots = Slots::new(info.placement.start, info.placement.size);
        Ok(MigInstance { id: info.id, profile: info.profile_id, slots })
    }

    fn destroy_instance(&self, instance: MigHandle) -> Result<(), CallFailure> {
        let call = self.destroy.call()?;
        // SAFETY: the handle came from this library.
        call.check(unsafe { (call.function)(gpu_instance(instance)) })
    }

    fn compute_profile(
        &self,
        instance: MigHandle,
        slices_less_one: u32,
    ) -> Result<u32, CallFailure> {
        let call = self.compute_profile.call()?;
        let mut info = nvmlComputeInstanceProfileInfo_t {
            id: 0,
            ci_count_max: 0,
            cu_count: 0,
            gpu_slice_count: 0,
            name: [0; 256],
        };
        let engine = VGPU_HCU_ENGINE;
        let instance = gpu_instance(instance);
        // SAFETY: the handle came from this library; `info` is writable and of its layout.
        let code = unsafe { (call.function)(instance, slices_less_one, engine, &raw mut info) };
        call.check(code)?;
        Ok(info.id)
    }

    fn create_compute(&self, instance: MigHandle, profile: u32) -> Result<MigHandle, CallFailure> {
        let call = self.create_compute.call()?;
        let mut made = ptr::null_mut();
        // SAFETY: the handle came from this library; `made` is writable.
        let code = unsafe { (call.function)(gpu_instance(instance), profile, &raw mut made) };
        call.check(code)?;
        handle(&call, made)
    }

    fn computes(&self, instance: MigHandle, profile: u32) -> Result<Vec<MigHandle>, CallFailure> {
        let call = self.computes.call()?;
        let mut room: [nvmlComputeInstance_t; MAX_INSTANCES as usize] =
            [ptr::null_mut(); MAX_INSTANCES as usize];
        let mut count = MAX_INSTANCES;
        let instance = gpu_instance(instance);
        // SAFETY: the handle came from this library; there is room for `count` handles.
        let code = unsafe { (call.function)(instance, profile, room.as_mut_ptr(), &raw mut count) };
        call.check(code)?;
        let count = within(&call, count)?;
        room[..count].iter().map(|p| handle(&call, *p)).collect()
    }

    fn compute_id(&self, compute: MigHandle) -> Result<u32, CallFailure> {
        let call = self.compute_info.call()?;
        let mut info = nvmlComputeInstanceInfo_t {
            device: ptr::null_mut(),
            gpu_instance: ptr::null_mut(),
            id: 0,
            profile_id: 0,
            placement: nvmlPlacement_t { start: 0, size: 0 },
        };
        // SAFETY: the handle came from this library; `info` is writable and of its layout.
        call.check(unsafe { (call.function)(compute_instance(compute), &raw mut info) })?;
        Ok(info.id)
    }

    fn destroy_compute(&self, compute: MigHandle) -> Result<(), CallFailure> {
        let call = self.destroy_compute.call()?;
        // SAFETY: the handle came from this library.
        call.check(unsafe { (call.function)(compute_instance(compute)) })
    }
}

impl Debug for LoadedMig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing = &self.missing;
        f.debug_struct("LoadedMig")
            .field("file", &self.file)
            .field("missing", missing)
            .finish_non_exhaustive()
    }
}

fn handle<P: Pointer, T>(call: &Call<P>, pointer: *mut T) -> Result<MigHandle, CallFailure> {
    if pointer.is_null() {
        return Err(call.malformed("a null handle".into()));
    }
    Ok(MigHandle(pointer.expose_provenance()))
}

fn device(handle: MigHandle) -> nvmlDevice_t {
    ptr::with_exposed_provenance_mut(handle.0)
}

fn gpu_instance(handle: MigHandle) -> nvmlGpuInstance_t {
    ptr::with_exposed_provenance_mut(handle.0)
}

fn compute_instance(handle: MigHandle) -> nvmlComputeInstance_t {
    ptr::with_exposed_provenance_mut(handle.0)
}

fn within<P: Pointer>(call: &Call<P>, count: u32) -> Result<usize, CallFailure> {
    match usize::try_from(count) {
        Ok(n) if count <= MAX_INSTANCES => Ok(n),
        _ => Err(call.malformed(format!("{count} where {MAX_INSTANCES} fit"))),
    }
}

const _: () = {
    assert!(size_of::<nvmlGpuInstanceProfileInfo_t>() == 280);
    assert!(size_of::<nvmlComputeInstanceProfileInfo_t>() == 272);
    assert!(size_of::<nvmlGpuInstanceInfo_t>() == 24);
    assert!(size_of::<nvmlComputeInstanceInfo_t>() == 32);
    assert!(size_of::<nvmlPlacement_t>() == 8);
};
