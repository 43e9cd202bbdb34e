//! A stand-in for `libhydmi.so`: its C ABI over a machine that `fake_hygon_host` prepared.
//!
//! The machine is named by `FAKE_HYDMI=<folder>/scenario.json`. See README.md beside this file. Layouts
//! are declared here from the tables; nothing of vgpu's own bindings is used, so that one wrong offset
//! cannot agree with itself.

#![expect(unsafe_code, reason = "a C ABI: callers hand in pointers")]

mod vdev;
mod world;

use std::mem::offset_of;

use crate::world::{Call, enter};

const NOT_INITIALIZED: u32 = 13;
const INVALID_ARGUMENTS: u32 = 10;
const OUT_OF_RESOURCES: u32 = 11;
const FILE_ERROR: u32 = 18;
const VDEV_NOT_EXIST: u32 = 15;
const DEVICE_BUSY: u32 = 17;

#[repr(C)]
struct DeviceInfo {
    name: [u8; 256],
    compute_unit_count: i32,
    global_mem_size: usize,
    usage_mem_size: usize,
    container_id: u64,
    device_id: i32,
}

const _: () = {
    assert!(size_of::<DeviceInfo>() == 296 && align_of::<DeviceInfo>() == 8);
    assert!(offset_of!(DeviceInfo, compute_unit_count) == 256);
    assert!(offset_of!(DeviceInfo, global_mem_size) == 264);
    assert!(offset_of!(DeviceInfo, usage_mem_size) == 272);
    assert!(offset_of!(DeviceInfo, container_id) == 280);
    assert!(offset_of!(DeviceInfo, device_id) == 288);
};

#[unsafe(no_mangle)]
unsafe extern "C" fn dmiGetDeviceCount(to: *mut i32) -> i32 {
    answer("dmiGetDeviceCount", |call| {
        let count = call.control.count.unwrap_or(call.cards().len() as i32);
        // SAFETY: `to` is null or writable.
        unsafe { put(to, count) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dmiGetMaxVDeviceCount(to: *mut i32) -> i32 {
    // SAFETY: `to` is null or writable.
    answer("dmiGetMaxVDeviceCount", |_| unsafe { put(to, vdev::MOST) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dmiGetVDeviceCount(to: *mut i32) -> i32 {
    answer("dmiGetVDeviceCount", |call| {
        let count = vdev::all(call).len() as i32;
        // SAFETY: `to` is null or writable.
        unsafe { put(to, count) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dmiGetDeviceInfo(device: i32, to: *mut DeviceInfo) -> i32 {
    answer("dmiGetDeviceInfo", |call| {
        let cards = call.cards();
        let card = cards.get(device as usize).ok_or(INVALID_ARGUMENTS)?;
        let info = info(&card.address, card.units as i32, card.memory_mib << 20, 0, device);
        // SAFETY: `to` is null or writable.
        unsafe { put(to, info) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dmiGetDeviceRemainingInfo(
    device: i32,
    units: *mut usize,
    bytes: *mut usize,
) -> i32 {
    answer("dmiGetDeviceRemainingInfo", |call| {
        let (left, memory_mib) = vdev::left(call, device)?;
        // SAFETY: `units` is null or writable.
        unsafe { put(units, left as usize) }?;
        // SAFETY: `bytes` is null or writable.
        unsafe { put(bytes, (memory_mib as usize) << 20) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dmiGetVDeviceInfo(vdevice: i32, to: *mut DeviceInfo) -> i32 {
    answer("dmiGetVDeviceInfo", |call| {
        let found = vdev::all(call).into_iter().find(|v| v.number == vdevice);
        let v = found.ok_or(VDEV_NOT_EXIST)?;
        let units: u32 = v.mask.iter().map(|w| w.count_ones()).sum();
        let used = call.control.used_mib.min(v.memory_mib) << 20;
        let device = vdev::device_of(call, &v.address);
        let info = info(&v.address, units as i32, v.memory_mib << 20, used, device);
        // SAFETY: `to` is null or writable.
        unsafe { put(to, info) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dmiGetVDevBusyPercent(vdevice: i32, to: *mut i32) -> i32 {
    answer("dmiGetVDevBusyPercent", |call| {
        let there = vdev::all(call).iter().any(|v| v.number == vdevice);
        if !there {
            return Err(VDEV_NOT_EXIST);
        }
        // SAFETY: `to` is null or writable.
        unsafe { put(to, 7) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dmiCreateVDevices(
    device: i32,
    count: i32,
    units: *mut i32,
    memory: *mut i32,
) -> i32 {
    answer("dmiCreateVDevices", |call| {
        if units.is_null() || memory.is_null() || !(1..=vdev::MOST).contains(&count) {
            return Err(INVALID_ARGUMENTS);
        }
        // SAFETY: not null, and `count` of them are readable.
        let units = unsafe { std::slice::from_raw_parts(units, count as usize) };
        // SAFETY: as above.
        let memory = unsafe { std::slice::from_raw_parts(memory, count as usize) };
        for (units, memory) in units.iter().zip(memory) {
            vdev::create(call, device, *units, *memory)?;
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn dmiDestroySingleVDevice(vdevice: i32) -> i32 {
    answer("dmiDestroySingleVDevice", |call| vdev::destroy(call, vdevice))
}

#[unsafe(no_mangle)]
extern "C" fn dmiUpdateSingleVDevice(vdevice: i32, units: i32, memory: i32) -> i32 {
    answer("dmiUpdateSingleVDevice", |call| vdev::update(call, vdevice, units, memory))
}

fn answer(function: &str, call: impl FnOnce(&Call) -> Result<(), u32>) -> i32 {
    let told = enter(function, NOT_INITIALIZED).and_then(|entered| call(&entered));
    told.map_or_else(|code| code as i32, |()| 0)
}

fn info(name: &str, units: i32, memory: u64, used: u64, device: i32) -> DeviceInfo {
    let mut text = [0; 256];
    text[..name.len()].copy_from_slice(name.as_bytes());
    DeviceInfo {
        name: text,
        compute_unit_count: units,
        global_mem_size: memory as usize,
        usage_mem_size: used as usize,
        container_id: 0,
        device_id: device,
    }
}

/// # Safety
///
/// `to` is null or writable for one `T`.
unsafe fn put<T>(to: *mut T, value: T) -> Result<(), u32> {
    if to.is_null() {
        return Err(INVALID_ARGUMENTS);
    }
    // SAFETY: not null, and so writable.
    unsafe { to.write(value) };
    Ok(())
}
