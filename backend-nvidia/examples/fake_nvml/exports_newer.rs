//! Functions that an old driver lacks; `old.rs` leaves this file out.

use std::ffi::c_ulong;

use crate::abi::{
    ARGUMENT_VERSION_MISMATCH, EventData, Handle, INVALID_ARGUMENT, MEMORY_V2, MemoryV2,
    NOT_SUPPORTED, ProcessInfo,
};
use crate::abi_mig::{PROFILE_V2, ProfileInfoV2};
use crate::exports::{MIB, link_of, processes, wait};
use crate::exports_mig;
use crate::ffi::{answer, numbers, put};
use crate::scenario::LinkKind;
use crate::world;

numbers! {
    nvmlDeviceGetNumGpuCores(): u32 = |card| card.cores.ok_or(NOT_SUPPORTED);
    nvmlDeviceGetNvLinkRemoteDeviceType(link: u32): u32 = |card, link| {
        Ok(match link_of(card, link)?.kind {
            LinkKind::Gpu => 0,
            LinkKind::Npu => 1,
            LinkKind::Switch => 2,
            LinkKind::Unknown => 255,
        })
    };
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(device: Handle, to: *mut MemoryV2) -> u32 {
    answer(|| {
        let memory = world::card("nvmlDeviceGetMemoryInfo_v2", device)?.memory;
        if to.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        // SAFETY: not null, and so readable; the version comes first.
        let version = unsafe { to.cast::<u32>().read() };
        if version != MEMORY_V2 {
            return Err(ARGUMENT_VERSION_MISMATCH);
        }
        let free = memory.total_mib.saturating_sub(memory.reserved_mib + memory.used_mib);
        let filled = MemoryV2 {
            version,
            total: memory.total_mib * MIB,
            reserved: memory.reserved_mib * MIB,
            free: free * MIB,
            used: memory.used_mib * MIB,
        };
        // SAFETY: not null, and so writable.
        unsafe { put(to, filled) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMemoryAffinity(
    device: Handle,
    words: u32,
    to: *mut c_ulong,
    scope: u32,
) -> u32 {
    answer(|| {
        let node = world::card("nvmlDeviceGetMemoryAffinity", device)?.numa.ok_or(NOT_SUPPORTED)?;
        let words = usize::try_from(words).map_err(|_too_large| INVALID_ARGUMENT)?;
        let word = usize::try_from(node / c_ulong::BITS).map_err(|_too_large| INVALID_ARGUMENT)?;
        if to.is_null() || word >= words || scope > 1 {
            return Err(INVALID_ARGUMENT);
        }
        // SAFETY: not null, and so writable for `words` words; nothing else refers to them.
        let mask = unsafe { std::slice::from_raw_parts_mut(to, words) };
        mask.fill(0);
        mask[word] = 1 << (node % c_ulong::BITS);
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    device: Handle,
    count: *mut u32,
    list: *mut ProcessInfo,
) -> u32 {
    let function = "nvmlDeviceGetComputeRunningProcesses_v3";
    // SAFETY: handed on as it came.
    answer(|| unsafe { processes(function, device, count, list) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetRemappedRows(
    device: Handle,
    corrected: *mut u32,
    uncorrected: *mut u32,
    pending: *mut u32,
    failed: *mut u32,
) -> u32 {
    answer(|| {
        let card = world::card("nvmlDeviceGetRemappedRows", device)?;
        let rows = card.remapped_rows.ok_or(NOT_SUPPORTED)?;
        // SAFETY: `corrected` is null or writable.
        unsafe { put(corrected, rows.corrected) }?;
        // SAFETY: `uncorrected` is null or writable.
        unsafe { put(uncorrected, rows.uncorrected) }?;
        // SAFETY: `pending` is null or writable.
        unsafe { put(pending, u32::from(rows.pending)) }?;
        // SAFETY: `failed` is null or writable.
        unsafe { put(failed, u32::from(rows.failed)) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetWait_v2(set: Handle, to: *mut EventData, timeout: u32) -> u32 {
    // SAFETY: handed on as it came.
    answer(|| unsafe { wait("nvmlEventSetWait_v2", set, to, timeout) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetGpuInstanceProfileInfoV(
    device: Handle,
    nth: u32,
    to: *mut ProfileInfoV2,
) -> u32 {
    answer(|| {
        let profile = exports_mig::listed("nvmlDeviceGetGpuInstanceProfileInfoV", device, nth)?;
        if to.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        // SAFETY: not null, and so readable; the version comes first.
        let version = unsafe { to.cast::<u32>().read() };
        if version != PROFILE_V2 {
            return Err(ARGUMENT_VERSION_MISMATCH);
        }
        let mut name = [if profile.unterminated { b'A' } else { 0 }; 96];
        if !profile.unterminated {
            name.iter_mut().zip(profile.name.bytes().take(95)).for_each(|(to, from)| *to = from);
        }
        let counts = exports_mig::counts(&profile);
        let info = ProfileInfoV2 { version, counts, memory_mib: profile.memory_mib, name };
        // SAFETY: not null, and so writable.
        unsafe { put(to, info) }
    })
}
