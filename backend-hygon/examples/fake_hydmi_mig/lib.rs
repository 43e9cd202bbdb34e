//! A stand-in for `libhydmi_mig.so`: NVML's names with structs that are not NVML's.
//!
//! What is made lies in the registry below `etc/dmi_mig_config` of the machine that `FAKE_HYDMI` names,
//! as the vendor's library keeps it. Layouts are declared here from the tables.

#![expect(unsafe_code, reason = "a C ABI: callers hand in pointers")]

#[path = "../fake_hydmi/world.rs"]
mod world;

mod registry;

use std::ffi::{CStr, c_char};

use crate::registry::{Instance, PROFILES, Profile};
use crate::world::{Call, Card, enter};

const INVALID_ARGUMENT: u32 = 2;
const NOT_SUPPORTED: u32 = 3;
const NOT_FOUND: u32 = 6;
const INSUFFICIENT_SIZE: u32 = 7;
const IN_USE: u32 = 19;
const INSUFFICIENT_RESOURCES: u32 = 23;
const UNKNOWN: u32 = 999;

/// Handles are numbers beyond these, so that one kind is never taken for the other or for null.
const CARDS: usize = 0x1_0000;
const INSTANCES: usize = 0x2_0000;
const COMPUTES: usize = 0x3_0000;

#[repr(C)]
#[derive(Clone, Copy)]
struct Placement {
    start: u32,
    size: u32,
}

#[repr(C)]
struct GpuProfile {
    id: u32,
    most: u32,
    units: u32,
    slices: u32,
    memory_mb: u64,
    name: [u8; 256],
}

#[repr(C)]
struct ComputeProfile {
    id: u32,
    most: u32,
    units: u32,
    slices: u32,
    name: [u8; 256],
}

#[repr(C)]
struct GpuInfo {
    device: usize,
    id: u32,
    profile: u32,
    placement: Placement,
}

#[repr(C)]
struct ComputeInfo {
    device: usize,
    instance: usize,
    id: u32,
    profile: u32,
    placement: Placement,
}

const _: () = {
    assert!(size_of::<GpuProfile>() == 280 && size_of::<ComputeProfile>() == 272);
    assert!(size_of::<GpuInfo>() == 24 && size_of::<ComputeInfo>() == 32);
    assert!(std::mem::offset_of!(GpuProfile, memory_mb) == 16);
    assert!(std::mem::offset_of!(GpuInfo, placement) == 16);
};

/// Names that NVML has as well and vgpu calls there: a test tells by them whose function was called.
macro_rules! foreign {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        extern "C" fn $name() -> u32 {
            registry::called(stringify!($name));
            UNKNOWN
        }
    )*};
}
foreign! {
    nvmlInit_v2 nvmlSystemGetDriverVersion nvmlDeviceGetCount_v2 nvmlDeviceGetHandleByIndex_v2
    nvmlDeviceGetName nvmlDeviceGetUUID nvmlDeviceGetMigMode nvmlDeviceGetMemoryInfo
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetHandleByPciBusId(address: *const c_char, to: *mut usize) -> u32 {
    answer("nvmlDeviceGetHandleByPciBusId", |call| {
        if address.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        // SAFETY: not null, and so a string with an end.
        let address = unsafe { CStr::from_ptr(address) }.to_string_lossy();
        let cards = call.cards();
        let at = cards.iter().position(|card| card.address == address).ok_or(NOT_FOUND)?;
        // SAFETY: `to` is null or writable.
        unsafe { put(to, CARDS + at) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGetSystemMigMode(current: *mut u32, pending: *mut u32) -> u32 {
    answer("nvmlGetSystemMigMode", |call| {
        let on = u32::from(registry::is_cut(call));
        // SAFETY: `current` is null or writable.
        unsafe { put(current, on) }?;
        // SAFETY: `pending` is null or writable.
        unsafe { put(pending, on) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSetSystemMigMode(mode: u32, status: *mut u32) -> u32 {
    answer("nvmlSetSystemMigMode", |call| {
        if !call.cards().iter().any(|card| card.mig) {
            return Err(NOT_SUPPORTED);
        }
        // /dev/kfd is held, or something is on a card.
        let held = std::fs::read_dir(call.at("sys/class/kfd/kfd/proc"));
        let held = held.is_ok_and(|mut entries| entries.next().is_some());
        if held || !registry::all(call).is_empty() {
            return Err(IN_USE);
        }
        registry::cut(call, mode == 1);
        // SAFETY: `status` is null or writable.
        unsafe { put(status, 0) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetGpuInstanceProfileInfo(
    device: usize,
    profile: u32,
    to: *mut GpuProfile,
) -> u32 {
    answer("nvmlDeviceGetGpuInstanceProfileInfo", |call| {
        let (_, card) = card(call, device)?;
        // A gap at three slices.
        let profile = PROFILES.iter().find(|p| p.slices == profile + 1).ok_or(INVALID_ARGUMENT)?;
        let info = GpuProfile {
            id: profile.id,
            most: profile.starts.len() as u32,
            units: card.units / 4 * profile.slices,
            slices: profile.slices,
            memory_mb: card.memory_mib / 4 * u64::from(profile.slices),
            name: text(&profile.name(card)),
        };
        // SAFETY: `to` is null or writable.
        unsafe { put(to, info) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetGpuInstancePossiblePlacements(
    device: usize,
    id: u32,
    to: *mut Placement,
    count: *mut u32,
) -> u32 {
    answer("nvmlDeviceGetGpuInstancePossiblePlacements", |call| {
        card(call, device)?;
        let profile = profile(id)?;
        let places =
            profile.starts.iter().map(|start| Placement { start: *start, size: profile.slices });
        // SAFETY: `to` has room for `count`.
        unsafe { put_all(to, count, places.collect()) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceCreateGpuInstanceWithPlacement(
    device: usize,
    id: u32,
    at: *const Placement,
    to: *mut usize,
) -> u32 {
    answer("nvmlDeviceCreateGpuInstanceWithPlacement", |call| {
        let (number, _) = card(call, device)?;
        let profile = profile(id)?;
        if at.is_null() || to.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        // SAFETY: not null, and so readable.
        let at = unsafe { at.read() };
        if at.size != profile.slices || !profile.starts.contains(&at.start) {
            return Err(INVALID_ARGUMENT);
        }
        let instance = registry::make(call, number, profile, at.start)?;
        // SAFETY: `to` is writable.
        unsafe { put(to, instance_handle(number, instance)) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetGpuInstances(
    device: usize,
    id: u32,
    to: *mut usize,
    count: *mut u32,
) -> u32 {
    answer("nvmlDeviceGetGpuInstances", |call| {
        let (number, _) = card(call, device)?;
        let all = registry::all(call);
        let ours = all.iter().filter(|i| i.card == number && i.profile == id);
        let handles = ours.map(|i| instance_handle(number, i.id)).collect();
        // SAFETY: `to` has room for `count`.
        unsafe { put_all(to, count, handles) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpuInstanceGetInfo(instance: usize, to: *mut GpuInfo) -> u32 {
    answer("nvmlGpuInstanceGetInfo", |call| {
        let i = instance_of(call, instance)?;
        let placement = Placement { start: i.start, size: profile(i.profile)?.slices };
        let info = GpuInfo { device: CARDS + i.card, id: i.id, profile: i.profile, placement };
        // SAFETY: `to` is null or writable.
        unsafe { put(to, info) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlGpuInstanceDestroy(instance: usize) -> u32 {
    answer("nvmlGpuInstanceDestroy", |call| {
        let i = instance_of(call, instance)?;
        if i.compute { Err(IN_USE) } else { registry::unmake(call, &i) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpuInstanceGetComputeInstanceProfileInfo(
    instance: usize,
    slices_less_one: u32,
    engine: u32,
    to: *mut ComputeProfile,
) -> u32 {
    answer("nvmlGpuInstanceGetComputeInstanceProfileInfo", |call| {
        let i = instance_of(call, instance)?;
        let slices = slices_less_one + 1;
        if engine != 0 || slices > profile(i.profile)?.slices {
            return Err(INVALID_ARGUMENT);
        }
        let units = call.cards()[i.card].units / 4 * slices;
        let info = ComputeProfile { id: 40 + slices, most: 1, units, slices, name: text("ci") };
        // SAFETY: `to` is null or writable.
        unsafe { put(to, info) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpuInstanceCreateComputeInstance(
    instance: usize,
    id: u32,
    to: *mut usize,
) -> u32 {
    answer("nvmlGpuInstanceCreateComputeInstance", |call| {
        let i = instance_of(call, instance)?;
        if id != 40 + profile(i.profile)?.slices {
            return Err(INVALID_ARGUMENT);
        }
        registry::make_compute(call, &i)?;
        // SAFETY: `to` is null or writable.
        unsafe { put(to, COMPUTES + (instance - INSTANCES)) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpuInstanceGetComputeInstances(
    instance: usize,
    _id: u32,
    to: *mut usize,
    count: *mut u32,
) -> u32 {
    answer("nvmlGpuInstanceGetComputeInstances", |call| {
        let i = instance_of(call, instance)?;
        let handles = if i.compute { vec![COMPUTES + (instance - INSTANCES)] } else { Vec::new() };
        // SAFETY: `to` has room for `count`.
        unsafe { put_all(to, count, handles) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlComputeInstanceGetInfo(compute: usize, to: *mut ComputeInfo) -> u32 {
    answer("nvmlComputeInstanceGetInfo", |call| {
        let i = compute_of(call, compute)?;
        let placement = Placement { start: i.start, size: profile(i.profile)?.slices };
        let instance = instance_handle(i.card, i.id);
        let device = CARDS + i.card;
        let info = ComputeInfo { device, instance, id: 0, profile: 40, placement };
        // SAFETY: `to` is null or writable.
        unsafe { put(to, info) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlComputeInstanceDestroy(compute: usize) -> u32 {
    answer("nvmlComputeInstanceDestroy", |call| {
        let i = compute_of(call, compute)?;
        registry::unmake_compute(call, &i)
    })
}

fn answer(function: &str, call: impl FnOnce(&Call) -> Result<(), u32>) -> u32 {
    registry::called(function);
    enter(function, UNKNOWN).and_then(|entered| call(&entered)).err().unwrap_or(0)
}

fn card(call: &Call, handle: usize) -> Result<(usize, &Card), u32> {
    let at = handle.checked_sub(CARDS).ok_or(INVALID_ARGUMENT)?;
    let card = *call.cards().get(at).ok_or(INVALID_ARGUMENT)?;
    if card.mig { Ok((at, card)) } else { Err(NOT_SUPPORTED) }
}

fn profile(id: u32) -> Result<&'static Profile, u32> {
    PROFILES.iter().find(|profile| profile.id == id).ok_or(INVALID_ARGUMENT)
}

fn instance_handle(card: usize, id: u32) -> usize {
    INSTANCES + card * 64 + id as usize
}

fn instance_of(call: &Call, handle: usize) -> Result<Instance, u32> {
    let n = handle.checked_sub(INSTANCES).filter(|n| *n < INSTANCES).ok_or(INVALID_ARGUMENT)?;
    let is_it = |i: &Instance| i.card == n / 64 && i.id as usize == n % 64;
    registry::all(call).into_iter().find(is_it).ok_or(NOT_FOUND)
}

fn compute_of(call: &Call, handle: usize) -> Result<Instance, u32> {
    let n = handle.checked_sub(COMPUTES).ok_or(INVALID_ARGUMENT)?;
    let instance = instance_of(call, INSTANCES + n)?;
    if instance.compute { Ok(instance) } else { Err(NOT_FOUND) }
}

fn text(words: &str) -> [u8; 256] {
    let mut text = [0; 256];
    text[..words.len()].copy_from_slice(words.as_bytes());
    text
}

/// # Safety
///
/// `to` is null or writable for one `T`.
unsafe fn put<T>(to: *mut T, value: T) -> Result<(), u32> {
    if to.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: not null, and so writable.
    unsafe { to.write(value) };
    Ok(())
}

/// # Safety
///
/// `count` is null or writable, and `to` is null or writable for as many `T` as `count` says.
unsafe fn put_all<T: Copy>(to: *mut T, count: *mut u32, values: Vec<T>) -> Result<(), u32> {
    if to.is_null() || count.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: not null, and so readable.
    let room = unsafe { count.read() } as usize;
    // SAFETY: not null, and so writable.
    unsafe { count.write(values.len() as u32) };
    if values.len() > room {
        return Err(INSUFFICIENT_SIZE);
    }
    let len = values.len();
    // SAFETY: there is room for as many, and a new vector does not lie there.
    unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), to, len) };
    Ok(())
}
