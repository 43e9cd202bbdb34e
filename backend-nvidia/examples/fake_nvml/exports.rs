//! The functions that every driver of the last years has.
//!
//! Each one is `unsafe` as C is: pointers are null or point to what the table of the function says.

use std::ffi::c_char;
use std::time::Duration;

use crate::abi::{
    EventData, FIELD_RECOVERY_ACTION, FieldValue, Handle, INSUFFICIENT_SIZE, INVALID_ARGUMENT,
    Memory, NO_INSTANCE, NOT_AVAILABLE, NOT_SUPPORTED, PciInfo, ProcessInfo, SUCCESS,
    VALUE_UNSIGNED_INT,
};
use crate::exports_mig;
use crate::ffi::{End, answer, numbers, put, put_text, text};
use crate::scenario::{Card, Process, Text};
use crate::world::{self, Answer};

pub(crate) const MIB: u64 = 1 << 20;

numbers! {
    nvmlDeviceGetMinorNumber(): u32 = |card| Ok(card.minor);
    nvmlDeviceGetSupportedEventTypes(): u64 = |card| Ok(card.supported_events);
    nvmlDeviceGetTemperature(_sensor: u32): u32 = |card, _| card.temperature.ok_or(NOT_SUPPORTED);
    nvmlDeviceGetTemperatureThreshold(kind: u32): u32 = |card, kind| match kind {
        0 => card.shutdown_temperature.ok_or(NOT_SUPPORTED),
        1 => card.slowdown_temperature.ok_or(NOT_SUPPORTED),
        _ => Err(NOT_SUPPORTED),
    };
    nvmlDeviceGetTotalEccErrors(kind: u32, counter: u32): u64 = |card, kind, counter| {
        let uncorrected = card.ecc_uncorrected.ok_or(NOT_SUPPORTED)?;
        match (kind, counter) {
            (0, 0 | 1) => Ok(0),
            (1, 0 | 1) => Ok(uncorrected),
            _ => Err(INVALID_ARGUMENT),
        }
    };
    nvmlDeviceGetRetiredPagesPendingStatus(): u32 = |card| {
        card.retired_pending.map(u32::from).ok_or(NOT_SUPPORTED)
    };
    nvmlDeviceGetNvLinkState(link: u32): u32 = |card, link| {
        link_of(card, link).map(|link| u32::from(link.active))
    };
    nvmlDeviceGetPciInfo_v3(): PciInfo = |card| pci_info(card, &card.pci);
    nvmlDeviceGetNvLinkRemotePciInfo_v2(link: u32): PciInfo = |card, link| {
        pci_info(card, &link_of(card, link)?.remote)
    };
}

#[unsafe(no_mangle)]
extern "C" fn nvmlInit_v2() -> u32 {
    answer(|| world::start("nvmlInit_v2"))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlInitWithFlags(_flags: u32) -> u32 {
    answer(|| world::start("nvmlInitWithFlags"))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlShutdown() -> u32 {
    answer(world::stop)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlErrorString(code: u32) -> *const c_char {
    let words = match code {
        0 => c"Success",
        3 => c"Not Supported",
        9 => c"Driver Not Loaded",
        10 => c"Timeout",
        15 => c"GPU is lost",
        _ => c"Another error of the fake",
    };
    words.as_ptr()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetDriverVersion(to: *mut c_char, length: u32) -> u32 {
    answer(|| {
        world::with("nvmlSystemGetDriverVersion", |world| {
            let scenario = &world.scenario;
            let end = End::missing_if(scenario.unterminated.contains(&Text::DriverVersion));
            // SAFETY: `to` is null or writable for `length` bytes.
            unsafe { put_text(to, length, scenario.driver_version.as_bytes(), end) }
        })
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(to: *mut i32) -> u32 {
    answer(|| {
        let function = "nvmlSystemGetCudaDriverVersion_v2";
        let version = world::with(function, |world| Ok(world.scenario.cuda_version))?;
        // SAFETY: `to` is null or writable.
        unsafe { put(to, version) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetCount_v2(to: *mut u32) -> u32 {
    answer(|| {
        let count = world::with("nvmlDeviceGetCount_v2", |world| Ok(world.count()))?;
        // SAFETY: `to` is null or writable.
        unsafe { put(to, count) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: u32, to: *mut Handle) -> u32 {
    answer(|| {
        let function = "nvmlDeviceGetHandleByIndex_v2";
        let handle = world::with(function, |world| world.handle_by_index(index))?;
        // SAFETY: `to` is null or writable.
        unsafe { put(to, handle) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, to: *mut Handle) -> u32 {
    answer(|| {
        // SAFETY: `uuid` is null or a string with an end.
        let uuid = unsafe { text(uuid) }?;
        let function = "nvmlDeviceGetHandleByUUID";
        let handle = world::with(function, |world| world.handle_by_uuid(uuid))?;
        // SAFETY: `to` is null or writable.
        unsafe { put(to, handle) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetIndex(device: Handle, to: *mut u32) -> u32 {
    answer(|| {
        world::card("nvmlDeviceGetIndex", device)?;
        let index = world::index_of(device)?;
        // SAFETY: `to` is null or writable.
        unsafe { put(to, index) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetName(device: Handle, to: *mut c_char, length: u32) -> u32 {
    answer(|| {
        let card = world::card("nvmlDeviceGetName", device)?;
        let name = card.name_bytes.as_deref().unwrap_or(card.name.as_bytes());
        let end = End::missing_if(card.unterminated.contains(&Text::Name));
        // SAFETY: `to` is null or writable for `length` bytes.
        unsafe { put_text(to, length, name, end) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMemoryInfo(device: Handle, to: *mut Memory) -> u32 {
    answer(|| {
        let function = "nvmlDeviceGetMemoryInfo";
        let (total, free) = match world::mig_device_of(device) {
            Some(mig) => {
                let (total, used) = exports_mig::memory(function, mig)?;
                (total, total.saturating_sub(used))
            }
            None => {
                let memory = world::card(function, device)?.memory;
                let taken = memory.reserved_mib + memory.used_mib;
                (memory.total_mib, memory.total_mib.saturating_sub(taken))
            }
        };
        let memory = Memory { total: total * MIB, free: free * MIB, used: (total - free) * MIB };
        // SAFETY: `to` is null or writable.
        unsafe { put(to, memory) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetUUID(device: Handle, to: *mut c_char, length: u32) -> u32 {
    answer(|| {
        if let Some(mig) = world::mig_device_of(device) {
            let uuid = exports_mig::uuid("nvmlDeviceGetUUID", mig)?;
            // SAFETY: `to` is null or writable for `length` bytes.
            return unsafe { put_text(to, length, uuid.as_bytes(), End::Nul) };
        }
        let card = world::card("nvmlDeviceGetUUID", device)?;
        let end = End::missing_if(card.unterminated.contains(&Text::Uuid));
        // SAFETY: `to` is null or writable for `length` bytes.
        unsafe { put_text(to, length, card.uuid.as_bytes(), end) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetCudaComputeCapability(
    device: Handle,
    major: *mut i32,
    minor: *mut i32,
) -> u32 {
    answer(|| {
        let card = world::card("nvmlDeviceGetCudaComputeCapability", device)?;
        let [big, small] = card.compute_capability.ok_or(NOT_SUPPORTED)?;
        // SAFETY: `major` is null or writable.
        unsafe { put(major, big) }?;
        // SAFETY: `minor` is null or writable.
        unsafe { put(minor, small) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetTopologyCommonAncestor(
    device: Handle,
    other: Handle,
    to: *mut u32,
) -> u32 {
    answer(|| {
        let function = "nvmlDeviceGetTopologyCommonAncestor";
        let (near, far) = (world::card(function, device)?, world::card(function, other)?);
        let level = if device == other {
            0
        } else if near.pci_switch.is_some() && near.pci_switch == far.pci_switch {
            10
        } else if near.numa == far.numa {
            40
        } else {
            50
        };
        // SAFETY: `to` is null or writable.
        unsafe { put(to, level) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v2(
    device: Handle,
    count: *mut u32,
    list: *mut ProcessInfo,
) -> u32 {
    let function = "nvmlDeviceGetComputeRunningProcesses_v2";
    // SAFETY: handed on as it came.
    answer(|| unsafe { processes(function, device, count, list) })
}

/// Both versions of the call; their entries are of one layout.
///
/// # Safety
///
/// `count` is null or readable and writable; `list` is null or writable for as many entries as `count` says.
pub(crate) unsafe fn processes(
    function: &str,
    device: Handle,
    count: *mut u32,
    list: *mut ProcessInfo,
) -> Answer<()> {
    let card = world::card(function, device)?;
    let index = world::index_of(device)?;
    let list_of = processes_on(&card, index)?;
    if count.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: not null, and so readable.
    let room = unsafe { count.read() };
    let present = u32::try_from(list_of.len()).map_err(|_too_many| INVALID_ARGUMENT)?;
    // SAFETY: not null, and so writable.
    unsafe { count.write(card.claimed_processes.unwrap_or(present)) };
    if card.claimed_processes.is_none() && present > room {
        return Err(INSUFFICIENT_SIZE);
    }
    let fit = usize::try_from(room).map_err(|_too_large| INVALID_ARGUMENT)?;
    for (at, process) in list_of.iter().take(fit).enumerate() {
        // SAFETY: `at` is below the room that the caller has.
        let entry = unsafe { list.add(at) };
        // SAFETY: within the caller's list.
        unsafe { put(entry, process_info(process)) }?;
    }
    Ok(())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetFieldValues(
    device: Handle,
    count: i32,
    values: *mut FieldValue,
) -> u32 {
    answer(|| {
        let card = world::card("nvmlDeviceGetFieldValues", device)?;
        let count = usize::try_from(count).map_err(|_below| INVALID_ARGUMENT)?;
        if values.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        // SAFETY: not null, and so readable and writable for `count` entries; nothing else refers to them.
        let values = unsafe { std::slice::from_raw_parts_mut(values, count) };
        for value in values {
            let known = match value.field {
                FIELD_RECOVERY_ACTION => card.recovery_action,
                _ => None,
            };
            value.value_type = VALUE_UNSIGNED_INT;
            // The upper half is junk, as it may be in a driver that writes only the union's int.
            value.value = u64::from(known.unwrap_or(0)) | 0xdead_beef << 32;
            value.result = if known.is_some() { SUCCESS } else { NOT_SUPPORTED };
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetCreate(to: *mut Handle) -> u32 {
    answer(|| {
        let set = world::with("nvmlEventSetCreate", |world| Ok(world.create_set()))?;
        // SAFETY: `to` is null or writable.
        unsafe { put(to, set) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlEventSetFree(set: Handle) -> u32 {
    answer(|| world::with("nvmlEventSetFree", |world| world.free_set(set)))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceRegisterEvents(device: Handle, types: u64, set: Handle) -> u32 {
    answer(|| {
        world::card("nvmlDeviceRegisterEvents", device)?;
        let index = world::index_of(device)?;
        world::locked(|world| world.register(set, index, types))
    })
}

/// The exported forms are in `exports_newer.rs`.
///
/// # Safety
///
/// `to` is null or writable.
pub(crate) unsafe fn wait(
    function: &str,
    set: Handle,
    to: *mut EventData,
    milliseconds: u32,
) -> Answer<()> {
    let timeout = Duration::from_millis(u64::from(milliseconds));
    let (device, event) = world::wait(function, set, timeout)?;
    let data = EventData {
        device,
        event_type: event.event_type,
        event_data: event.data,
        gpu_instance: event.gi.unwrap_or(NO_INSTANCE),
        compute_instance: event.ci.unwrap_or(NO_INSTANCE),
    };
    // SAFETY: as promised by the caller.
    unsafe { put(to, data) }
}

pub(crate) fn link_of(card: &Card, link: u32) -> Answer<&crate::scenario::NvLink> {
    if link >= 18 {
        return Err(INVALID_ARGUMENT);
    }
    let at = usize::try_from(link).map_err(|_too_large| INVALID_ARGUMENT)?;
    card.nvlinks.get(at).ok_or(NOT_SUPPORTED)
}

/// The card's processes, those that are named by a slice with the instance that lies there; where none does, the process
/// ended with it.
fn processes_on(card: &Card, index: u32) -> Answer<Vec<Process>> {
    let instances = world::locked(|world| world.mig(|state| state.instances(index).to_vec()))?;
    let instance = |process: &Process| {
        let Some(slice) = process.slice else { return Some(*process) };
        let found = instances.iter().find(|i| i.start == slice)?;
        let ci = found.computes.first().map(|c| c.id);
        Some(Process { gi: Some(found.id), ci, ..*process })
    };
    Ok(card.processes.iter().filter_map(instance).collect())
}

fn process_info(process: &Process) -> ProcessInfo {
    ProcessInfo {
        pid: process.pid,
        used_memory: process.used_mib.map_or(NOT_AVAILABLE, |mib| mib * MIB),
        gpu_instance: process.gi.unwrap_or(NO_INSTANCE),
        compute_instance: process.ci.unwrap_or(NO_INSTANCE),
    }
}

/// NVML writes domains of eight digits and upper case, unlike the kernel.
fn pci_info(card: &Card, address: &str) -> Answer<PciInfo> {
    let number = |text: &str| u32::from_str_radix(text, 16).map_err(|_digits| INVALID_ARGUMENT);
    let mut parts = address.split([':', '.']).map(number);
    let mut next = || parts.next().unwrap_or(Err(INVALID_ARGUMENT));
    let (domain, bus, device) = (next()?, next()?, next()?);
    Ok(PciInfo {
        bus_id_legacy: padded(&format!("{domain:04X}:{bus:02X}:{device:02X}.0")),
        domain,
        bus,
        device,
        pci_device_id: card.pci_device_id,
        pci_subsystem_id: card.pci_subsystem_id,
        bus_id: padded(&format!("{domain:08X}:{bus:02X}:{device:02X}.0")),
    })
}

fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    for (to, from) in bytes.iter_mut().zip(text.bytes().take(N - 1)) {
        *to = from;
    }
    bytes
}
