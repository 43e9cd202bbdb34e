//! Calls into libhydmi_mig.

#![expect(unsafe_code, reason = "calls into a C library through pointers found at run time")]

use std::ffi::{CString, OsStr, OsString};
use std::fmt::{self, Debug};
use std::path::Path;
use std::ptr;

use vgpu_core::Slots;

use crate::api::{
    CallFailure, FailureCause, HyDmiMig, LoadFailure, MAX_INSTANCES, MigHandle, MigInstance,
    MigProfile,
};
use crate::mig::bindings::*;
use crate::sys::{Finder, Pointer, Symbol, text};

/// The library's name in errors.
pub(crate) const LIBRARY: &str = "libhydmi_mig";
/// Profiles are asked for by slices less one, below this.
pub(crate) const PROFILES: u32 = VGPU_HCU_PROFILES;

/// libhydmi_mig, loaded, for the rest of the process's life.
pub struct LoadedMig {
    file: OsString,
    missing: Vec<&'static str>,
    by_pci: Symbol<nvmlDeviceGetHandleByPciBusId_fn>,
    system_mode: Symbol<nvmlGetSystemMigMode_fn>,
    set_system_mode: Symbol<nvmlSetSystemMigMode_fn>,
    profile: Symbol<nvmlDeviceGetGpuInstanceProfileInfo_fn>,
    placements: Symbol<nvmlDeviceGetGpuInstancePossiblePlacements_fn>,
    create: Symbol<nvmlDeviceCreateGpuInstanceWithPlacement_fn>,
    instances: Symbol<nvmlDeviceGetGpuInstances_fn>,
    info: Symbol<nvmlGpuInstanceGetInfo_fn>,
    destroy: Symbol<nvmlGpuInstanceDestroy_fn>,
    compute_profile: Symbol<nvmlGpuInstanceGetComputeInstanceProfileInfo_fn>,
    create_compute: Symbol<nvmlGpuInstanceCreateComputeInstance_fn>,
    computes: Symbol<nvmlGpuInstanceGetComputeInstances_fn>,
    compute_info: Symbol<nvmlComputeInstanceGetInfo_fn>,
    destroy_compute: Symbol<nvmlComputeInstanceDestroy_fn>,
}

impl LoadedMig {
    /// Loads `library` and checks that it is libhydmi_mig: it has the system's mode, which NVML has not.
    ///
    /// # Errors
    /// [`LoadFailure`].
    pub fn load(library: impl AsRef<OsStr>) -> Result<Self, LoadFailure> {
        let file = library.as_ref();
        let mut finder = Finder::open(file, LIBRARY)?;
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
            missing: finder.pin(),
            file: file.to_owned(),
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
        let call = self.by_pci.get()?;
        let Ok(address) = CString::new(address) else {
            return Err(self.by_pci.malformed("a PCI address with a NUL".into()));
        };
        let mut device = ptr::null_mut();
        // SAFETY: the address ends in a NUL and lives through the call; `device` is writable.
        self.by_pci.check(unsafe { call(address.as_ptr(), &raw mut device) })?;
        handle(&self.by_pci, device)
    }

    fn system_mode(&self) -> Result<(bool, bool), CallFailure> {
        let call = self.system_mode.get()?;
        let (mut current, mut pending) = (0, 0);
        // SAFETY: both are writable.
        self.system_mode.check(unsafe { call(&raw mut current, &raw mut pending) })?;
        if current > 1 || pending > 1 {
            return Err(self.system_mode.malformed(format!("modes {current} and {pending}")));
        }
        Ok((current == 1, pending == 1))
    }

    fn set_system_mode(&self, on: bool) -> Result<(), CallFailure> {
        let call = self.set_system_mode.get()?;
        let mut status = 0;
        // SAFETY: `status` is writable.
        self.set_system_mode.check(unsafe { call(u32::from(on), &raw mut status) })?;
        // What became of the activation itself.
        self.set_system_mode.check(status)
    }

    fn profile(&self, card: MigHandle, slices_less_one: u32) -> Result<MigProfile, CallFailure> {
        let call = self.profile.get()?;
        let mut info = nvmlGpuInstanceProfileInfo_t {
            id: 0,
            gi_count_max: 0,
            cu_count: 0,
            gpu_slice_count: 0,
            memory_size_MB: 0,
            name: [0; 256],
        };
        // SAFETY: the handle came from this library; `info` is writable and of its layout.
        self.profile.check(unsafe { call(device(card), slices_less_one, &raw mut info) })?;
        Ok(MigProfile {
            id: info.id,
            name: text(&self.profile, &info.name)?,
            max: info.gi_count_max,
            units: info.cu_count,
            slices: info.gpu_slice_count,
            memory_mib: info.memory_size_MB,
        })
    }

    fn placements(&self, card: MigHandle, profile: u32) -> Result<Vec<Slots>, CallFailure> {
        let call = self.placements.get()?;
        let mut room = [nvmlPlacement_t { start: 0, size: 0 }; MAX_INSTANCES as usize];
        let mut count = MAX_INSTANCES;
        // SAFETY: the handle came from this library; there is room for `count` placements.
        let code = unsafe { call(device(card), profile, room.as_mut_ptr(), &raw mut count) };
        self.placements.check(code)?;
        let count = within(&self.placements, count)?;
        Ok(room[..count].iter().map(|p| Slots::new(p.start, p.size)).collect())
    }

    fn create_instance(
        &self,
        card: MigHandle,
        profile: u32,
        at: Slots,
    ) -> Result<MigHandle, CallFailure> {
        let call = self.create.get()?;
        let place = nvmlPlacement_t { start: at.start, size: at.len };
        let mut made = ptr::null_mut();
        // SAFETY: the handle came from this library; `place` is readable, `made` writable.
        let code = unsafe { call(device(card), profile, &raw const place, &raw mut made) };
        self.create.check(code)?;
        handle(&self.create, made)
    }

    fn instances(&self, card: MigHandle, profile: u32) -> Result<Vec<MigHandle>, CallFailure> {
        let call = self.instances.get()?;
        let mut room: [nvmlGpuInstance_t; MAX_INSTANCES as usize] =
            [ptr::null_mut(); MAX_INSTANCES as usize];
        let mut count = MAX_INSTANCES;
        // SAFETY: the handle came from this library; there is room for `count` handles.
        let code = unsafe { call(device(card), profile, room.as_mut_ptr(), &raw mut count) };
        self.instances.check(code)?;
        let count = within(&self.instances, count)?;
        room[..count].iter().map(|p| handle(&self.instances, *p)).collect()
    }

    fn instance_info(&self, instance: MigHandle) -> Result<MigInstance, CallFailure> {
        let call = self.info.get()?;
        let mut info = nvmlGpuInstanceInfo_t {
            device: ptr::null_mut(),
            id: 0,
            profile_id: 0,
            placement: nvmlPlacement_t { start: 0, size: 0 },
        };
        // SAFETY: the handle came from this library; `info` is writable and of its layout.
        self.info.check(unsafe { call(gpu_instance(instance), &raw mut info) })?;
        let slots = Slots::new(info.placement.start, info.placement.size);
        Ok(MigInstance { id: info.id, profile: info.profile_id, slots })
    }

    fn destroy_instance(&self, instance: MigHandle) -> Result<(), CallFailure> {
        let call = self.destroy.get()?;
        // SAFETY: the handle came from this library.
        self.destroy.check(unsafe { call(gpu_instance(instance)) })
    }

    fn compute_profile(
        &self,
        instance: MigHandle,
        slices_less_one: u32,
    ) -> Result<u32, CallFailure> {
        let call = self.compute_profile.get()?;
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
        let code = unsafe { call(instance, slices_less_one, engine, &raw mut info) };
        self.compute_profile.check(code)?;
        Ok(info.id)
    }

    fn create_compute(&self, instance: MigHandle, profile: u32) -> Result<MigHandle, CallFailure> {
        let call = self.create_compute.get()?;
        let mut made = ptr::null_mut();
        // SAFETY: the handle came from this library; `made` is writable.
        let code = unsafe { call(gpu_instance(instance), profile, &raw mut made) };
        self.create_compute.check(code)?;
        handle(&self.create_compute, made)
    }

    fn computes(&self, instance: MigHandle, profile: u32) -> Result<Vec<MigHandle>, CallFailure> {
        let call = self.computes.get()?;
        let mut room: [nvmlComputeInstance_t; MAX_INSTANCES as usize] =
            [ptr::null_mut(); MAX_INSTANCES as usize];
        let mut count = MAX_INSTANCES;
        let instance = gpu_instance(instance);
        // SAFETY: the handle came from this library; there is room for `count` handles.
        let code = unsafe { call(instance, profile, room.as_mut_ptr(), &raw mut count) };
        self.computes.check(code)?;
        let count = within(&self.computes, count)?;
        room[..count].iter().map(|p| handle(&self.computes, *p)).collect()
    }

    fn compute_id(&self, compute: MigHandle) -> Result<u32, CallFailure> {
        let call = self.compute_info.get()?;
        let mut info = nvmlComputeInstanceInfo_t {
            device: ptr::null_mut(),
            gpu_instance: ptr::null_mut(),
            id: 0,
            profile_id: 0,
            placement: nvmlPlacement_t { start: 0, size: 0 },
        };
        // SAFETY: the handle came from this library; `info` is writable and of its layout.
        self.compute_info.check(unsafe { call(compute_instance(compute), &raw mut info) })?;
        Ok(info.id)
    }

    fn destroy_compute(&self, compute: MigHandle) -> Result<(), CallFailure> {
        let call = self.destroy_compute.get()?;
        // SAFETY: the handle came from this library.
        self.destroy_compute.check(unsafe { call(compute_instance(compute)) })
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

fn handle<P: Pointer, T>(symbol: &Symbol<P>, pointer: *mut T) -> Result<MigHandle, CallFailure> {
    if pointer.is_null() {
        return Err(symbol.malformed("a null handle".into()));
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

fn within<P: Pointer>(symbol: &Symbol<P>, count: u32) -> Result<usize, CallFailure> {
    match usize::try_from(count) {
        Ok(n) if count <= MAX_INSTANCES => Ok(n),
        _ => {
            let cause = FailureCause::Malformed(format!("{count} where {MAX_INSTANCES} fit"));
            Err(CallFailure { library: symbol.library, call: symbol.name, cause })
        }
    }
}

const _: () = {
    assert!(size_of::<nvmlGpuInstanceProfileInfo_t>() == 280);
    assert!(size_of::<nvmlComputeInstanceProfileInfo_t>() == 272);
    assert!(size_of::<nvmlGpuInstanceInfo_t>() == 24);
    assert!(size_of::<nvmlComputeInstanceInfo_t>() == 32);
    assert!(size_of::<nvmlPlacement_t>() == 8);
};
