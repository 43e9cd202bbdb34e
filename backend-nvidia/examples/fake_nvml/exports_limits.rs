//! Functions since r615: memory limits of cgroups.

use std::ffi::{OsStr, c_char};
use std::mem::{offset_of, size_of};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::abi::{Handle, INVALID_ARGUMENT};
use crate::ffi::{answer, text};
use crate::limits::{self, Pair};
use crate::world;

#[repr(C)]
struct SetLimits {
    name_space: *const c_char,
    soft: u64,
    hard: u64,
}

#[repr(C)]
struct GetLimits {
    name_space: *const c_char,
    soft: u64,
    hard: u64,
    used: u64,
}

const _: () = {
    assert!(size_of::<SetLimits>() == 24);
    assert!(offset_of!(SetLimits, hard) == 16);
    assert!(size_of::<GetLimits>() == 32);
    assert!(offset_of!(GetLimits, soft) == 8);
    assert!(offset_of!(GetLimits, used) == 24);
};

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceSetMemoryLimits_v1(device: Handle, limits: *mut SetLimits) -> u32 {
    answer(|| {
        let card = world::card("nvmlDeviceSetMemoryLimits_v1", device)?;
        let index = world::index_of(device)?;
        if limits.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        // SAFETY: not null, and so readable.
        let SetLimits { name_space, soft, hard } = unsafe { limits.read() };
        // SAFETY: null or a string with an end.
        let cgroup = Path::new(OsStr::from_bytes(unsafe { text(name_space) }?));
        world::locked(|world| {
            let way = limits::admit(&world.scenario, &card)?;
            world.kept(|kept| kept.limits.set(way, index, cgroup, Pair { soft, hard }))?
        })
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMemoryLimits_v1(device: Handle, limits: *mut GetLimits) -> u32 {
    answer(|| {
        let card = world::card("nvmlDeviceGetMemoryLimits_v1", device)?;
        let index = world::index_of(device)?;
        if limits.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        // SAFETY: not null, and so readable.
        let name_space = unsafe { (*limits).name_space };
        // SAFETY: null or a string with an end.
        let cgroup = Path::new(OsStr::from_bytes(unsafe { text(name_space) }?));
        let (Pair { soft, hard }, used) = world::locked(|world| {
            let way = limits::admit(&world.scenario, &card)?;
            world.kept(|kept| kept.limits.read(way, (index, &card), cgroup))?
        })?;
        // SAFETY: not null, and so writable.
        unsafe { limits.write(GetLimits { name_space, soft, hard, used }) };
        Ok(())
    })
}
