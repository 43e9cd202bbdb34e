//! Calls into libhydmi.

#![expect(unsafe_code, reason = "calls into a C library through pointers found at run time")]

use std::ffi::{OsStr, OsString, c_int};
use std::fmt::{self, Debug};
use std::path::Path;

use vgpu_backend_kit::{Call, Optional, Pointer, Required, load};

use crate::api::{CallFailure, DmiInfo, HyDmi, LoadFailure, MAX_CARDS, MAX_VDCUS};
use crate::dmi::bindings::*;
use crate::symbols::Checked;

/// The library's name in errors.
pub(crate) const LIBRARY: &str = "libhydmi";

/// libhydmi, loaded, for the rest of the process's life.
pub struct LoadedDmi {
    file: OsString,
    missing: Vec<&'static str>,
    device_count: Required<dmiGetDeviceCount_fn>,
    device_info: Optional<dmiGetDeviceInfo_fn>,
    max: Optional<dmiGetMaxVDeviceCount_fn>,
    vdevice_count: Optional<dmiGetVDeviceCount_fn>,
    vdevice_info: Required<dmiGetVDeviceInfo_fn>,
    remaining: Optional<dmiGetDeviceRemainingInfo_fn>,
    create: Required<dmiCreateVDevices_fn>,
    destroy: Required<dmiDestroySingleVDevice_fn>,
    update: Optional<dmiUpdateSingleVDevice_fn>,
    busy: Optional<dmiGetVDevBusyPercent_fn>,
}

impl LoadedDmi {
    /// Loads `library`, checks that it is libhydmi, and makes its first call, which forks a shell.
    ///
    /// # Errors
    /// [`LoadFailure`]; without a card its first call fails (code 13).
    pub fn load(library: impl AsRef<OsStr>) -> Result<Self, LoadFailure> {
        let file = library.as_ref();
        let dmi: Self = load(file, LIBRARY, |finder| {
            Ok(Self {
                device_count: finder.required("dmiGetDeviceCount")?,
                vdevice_info: finder.required("dmiGetVDeviceInfo")?,
                create: finder.required("dmiCreateVDevices")?,
                destroy: finder.required("dmiDestroySingleVDevice")?,
                device_info: finder.optional("dmiGetDeviceInfo"),
                max: finder.optional("dmiGetMaxVDeviceCount"),
                vdevice_count: finder.optional("dmiGetVDeviceCount"),
                remaining: finder.optional("dmiGetDeviceRemainingInfo"),
                update: finder.optional("dmiUpdateSingleVDevice"),
                busy: finder.optional("dmiGetVDevBusyPercent"),
                missing: finder.missing(),
                file: file.to_owned(),
            })
        })?;
        dmi.device_count().map_err(|failure| LoadFailure::Start {
            library: file.to_string_lossy().into_owned(),
            wanted: LIBRARY,
            failure,
        })?;
        Ok(dmi)
    }
}

impl HyDmi for LoadedDmi {
    fn library(&self) -> &Path {
        Path::new(&self.file)
    }

    fn missing_symbols(&self) -> &[&'static str] {
        &self.missing
    }

    fn device_count(&self) -> Result<u32, CallFailure> {
        let call = self.device_count.call();
        let mut count = 0;
        // SAFETY: `count` is writable.
        call.check(unsafe { (call.function)(&raw mut count) })?;
        bounded(&call, count, MAX_CARDS)
    }

    fn max_vdevices(&self) -> Result<u32, CallFailure> {
        let call = self.max.call()?;
        let mut count = 0;
        // SAFETY: `count` is writable.
        call.check(unsafe { (call.function)(&raw mut count) })?;
        bounded(&call, count, MAX_VDCUS)
    }

    fn vdevice_count(&self) -> Result<u32, CallFailure> {
        let call = self.vdevice_count.call()?;
        let mut count = 0;
        // SAFETY: `count` is writable.
        call.check(unsafe { (call.function)(&raw mut count) })?;
        bounded(&call, count, MAX_VDCUS)
    }

    fn device_info(&self, device: u32) -> Result<DmiInfo, CallFailure> {
        let call = self.device_info.call()?;
        let device = argument(&call, device)?;
        let mut info = EMPTY;
        // SAFETY: `info` is writable and of the library's layout (size and offsets are asserted).
        call.check(unsafe { (call.function)(device, &raw mut info) })?;
        told(&call, &info)
    }

    fn remaining(&self, device: u32) -> Result<(u64, u64), CallFailure> {
        let call = self.remaining.call()?;
        let device = argument(&call, device)?;
        let (mut units, mut bytes) = (0, 0);
        // SAFETY: both are writable.
        call.check(unsafe { (call.function)(device, &raw mut units, &raw mut bytes) })?;
        Ok((units, bytes))
    }

    fn vdevice_info(&self, vdevice: u32) -> Result<DmiInfo, CallFailure> {
        let call = self.vdevice_info.call();
        let vdevice = argument(&call, vdevice)?;
        let mut info = EMPTY;
        // SAFETY: `info` is writable and of the library's layout (size and offsets are asserted).
        call.check(unsafe { (call.function)(vdevice, &raw mut info) })?;
        told(&call, &info)
    }

    fn create(&self, device: u32, units: u32, memory_mib: u32) -> Result<(), CallFailure> {
        let call = self.create.call();
        let device = argument(&call, device)?;
        let mut units = [argument(&call, units)?];
        let mut memory = [argument(&call, memory_mib)?];
        // SAFETY: one of each is asked for, and one of each is there.
        let code = unsafe { (call.function)(device, 1, units.as_mut_ptr(), memory.as_mut_ptr()) };
        call.check(code)
    }

    fn destroy(&self, vdevice: u32) -> Result<(), CallFailure> {
        let call = self.destroy.call();
        let vdevice = argument(&call, vdevice)?;
        // SAFETY: takes a number.
        call.check(unsafe { (call.function)(vdevice) })
    }

    fn update(
        &self,
        vdevice: u32,
        units: Option<u32>,
        memory_mib: Option<u32>,
    ) -> Result<(), CallFailure> {
        let call = self.update.call()?;
        let vdevice = argument(&call, vdevice)?;
        let quota = |quota: Option<u32>| match quota {
            Some(quota) => argument(&call, quota),
            None => Ok(VGPU_DMI_KEEP),
        };
        let (units, memory) = (quota(units)?, quota(memory_mib)?);
        // SAFETY: takes numbers.
        call.check(unsafe { (call.function)(vdevice, units, memory) })
    }

    fn vdevice_busy(&self, vdevice: u32) -> Result<u32, CallFailure> {
        let call = self.busy.call()?;
        let vdevice = argument(&call, vdevice)?;
        let mut percent = 0;
        // SAFETY: `percent` is writable.
        call.check(unsafe { (call.function)(vdevice, &raw mut percent) })?;
        bounded(&call, percent, 100)
    }
}

impl Debug for LoadedDmi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing = &self.missing;
        f.debug_struct("LoadedDmi")
            .field("file", &self.file)
            .field("missing", missing)
            .finish_non_exhaustive()
    }
}

const EMPTY: dmiDeviceInfo = dmiDeviceInfo {
    name: [0; 256],
    compute_unit_count: 0,
    global_mem_size: 0,
    usage_mem_size: 0,
    container_id: 0,
    device_id: 0,
};

fn told<P: Pointer>(call: &Call<P>, info: &dmiDeviceInfo) -> Result<DmiInfo, CallFailure> {
    Ok(DmiInfo {
        units: bounded(call, info.compute_unit_count, 4096)?,
        memory: info.global_mem_size,
        used: info.usage_mem_size,
        device: bounded(call, info.device_id, MAX_CARDS)?,
    })
}

fn bounded<P: Pointer>(call: &Call<P>, number: c_int, most: u32) -> Result<u32, CallFailure> {
    match u32::try_from(number) {
        Ok(number) if number <= most => Ok(number),
        _ => Err(call.malformed(format!("{number}, and 0 to {most} can be true"))),
    }
}

fn argument<P: Pointer>(call: &Call<P>, number: u32) -> Result<c_int, CallFailure> {
    c_int::try_from(number).map_err(|_e| call.malformed(format!("{number} as an argument")))
}

const _: () = assert!(size_of::<dmiDeviceInfo>() == 296);
