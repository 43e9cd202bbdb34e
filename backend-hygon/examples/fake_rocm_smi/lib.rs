//! A stand-in for Hygon's own `librocm_smi64.so` (7.6), whose structs are larger than upstream's.
//!
//! Whoever passes room for upstream's `rsmi_error_count_t` of 16 bytes has its stack overwritten: 64 are
//! written. The machine is named by `FAKE_HYDMI`; cards are numbered in an order of their own.

#![expect(unsafe_code, reason = "a C ABI: callers hand in pointers")]

#[path = "../fake_hydmi/world.rs"]
mod world;

use std::collections::HashSet;
use std::ffi::c_char;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::world::{Call, Card, enter};

const INVALID_ARGS: u32 = 1;
const NOT_SUPPORTED: u32 = 2;
const INIT_ERROR: u32 = 8;
const INSUFFICIENT_SIZE: u32 = 11;
const NO_DATA: u32 = 14;

#[repr(C)]
struct Version {
    major: u32,
    minor: u32,
    patch: u32,
    build: *const c_char,
}

/// 64 bytes: upstream has the first two.
#[repr(C)]
struct ErrorCount {
    correctable: u64,
    uncorrectable: u64,
    deferred: u64,
    reserved: [u64; 5],
}

/// 104 bytes: upstream has 72.
#[repr(C)]
struct Notification {
    index: u32,
    event: u32,
    message: [u8; 96],
}

const _: () = {
    assert!(size_of::<ErrorCount>() == 64 && size_of::<Notification>() == 104);
    assert!(size_of::<Version>() == 24);
};

#[unsafe(no_mangle)]
extern "C" fn rsmi_init(_flags: u64) -> u32 {
    answer("rsmi_init", |call| if call.all().is_empty() { Err(INIT_ERROR) } else { Ok(()) })
}

#[unsafe(no_mangle)]
extern "C" fn rsmi_shut_down() -> u32 {
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rsmi_version_get(to: *mut Version) -> u32 {
    let version = Version { major: 7, minor: 6, patch: 0, build: c"fake".as_ptr() };
    // SAFETY: `to` is null or writable.
    answer("rsmi_version_get", |_| unsafe { put(to, version) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rsmi_num_monitor_devices(to: *mut u32) -> u32 {
    // SAFETY: `to` is null or writable.
    answer("rsmi_num_monitor_devices", |call| unsafe { put(to, call.all().len() as u32) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rsmi_dev_pci_id_get(index: u32, to: *mut u64) -> u32 {
    answer("rsmi_dev_pci_id_get", |call| {
        let card = card(call, index)?;
        let piece = |n: usize| {
            let text = card.address.split([':', '.']).nth(n).unwrap_or("0");
            u64::from_str_radix(text, 16).unwrap_or(0)
        };
        // Partitions have a number of their own in four bits that are no part of the address.
        let id = piece(0) << 32 | 5 << 28 | piece(1) << 8 | piece(2) << 3 | piece(3);
        // SAFETY: `to` is null or writable.
        unsafe { put(to, id) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rsmi_dev_serial_number_get(index: u32, to: *mut c_char, length: u32) -> u32 {
    answer("rsmi_dev_serial_number_get", |call| {
        let serial = card(call, index)?.serial.clone().ok_or(NOT_SUPPORTED)?;
        if to.is_null() || serial.len() >= length as usize {
            return Err(INSUFFICIENT_SIZE);
        }
        let bytes: Vec<u8> = serial.bytes().chain([0]).collect();
        // SAFETY: `to` is writable for `length` bytes, which is more than there are.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.cast(), bytes.len()) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rsmi_dev_memory_total_get(index: u32, _kind: u32, to: *mut u64) -> u32 {
    // SAFETY: `to` is null or writable.
    answer("rsmi_dev_memory_total_get", |call| unsafe {
        put(to, card(call, index)?.memory_mib << 20)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rsmi_dev_memory_usage_get(index: u32, _kind: u32, to: *mut u64) -> u32 {
    answer("rsmi_dev_memory_usage_get", |call| {
        card(call, index)?;
        // SAFETY: `to` is null or writable.
        unsafe { put(to, 96 << 20) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rsmi_dev_busy_percent_get(index: u32, to: *mut u32) -> u32 {
    answer("rsmi_dev_busy_percent_get", |call| {
        card(call, index)?;
        // SAFETY: `to` is null or writable.
        unsafe { put(to, 3) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rsmi_dev_cu_num_get(index: u32, to: *mut i32) -> u32 {
    // SAFETY: `to` is null or writable.
    answer("rsmi_dev_cu_num_get", |call| unsafe { put(to, card(call, index)?.units as i32) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rsmi_dev_ecc_count_get(index: u32, block: u64, to: *mut ErrorCount) -> u32 {
    answer("rsmi_dev_ecc_count_get", |call| {
        card(call, index)?;
        if block != 1 {
            return Err(NOT_SUPPORTED);
        }
        let (deferred, reserved) = (u64::MAX, [u64::MAX; 5]);
        let count = ErrorCount { correctable: 9, uncorrectable: 4, deferred, reserved };
        // SAFETY: `to` is null or writable.
        unsafe { put(to, count) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn rsmi_event_notification_init(index: u32) -> u32 {
    answer("rsmi_event_notification_init", |call| card(call, index).map(drop))
}

#[unsafe(no_mangle)]
extern "C" fn rsmi_event_notification_mask_set(index: u32, _mask: u64) -> u32 {
    answer("rsmi_event_notification_mask_set", |call| card(call, index).map(drop))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rsmi_event_notification_get(
    timeout_ms: i32,
    count: *mut u32,
    to: *mut Notification,
) -> u32 {
    static GIVEN: Mutex<Option<HashSet<String>>> = Mutex::new(None);
    let until = Instant::now() + Duration::from_millis(timeout_ms.max(0) as u64);
    loop {
        let code = answer("rsmi_event_notification_get", |call| {
            let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
            let given = given.get_or_insert_default();
            let new = call.control.events.iter().find(|event| given.insert(event.id.clone()));
            let event = new.ok_or(NO_DATA)?;
            let at = call.all().iter().position(|card| card.address == event.address);
            let index = at.ok_or(INVALID_ARGS)? as u32;
            let notification = Notification { index, event: event.kind, message: [b'!'; 96] };
            // SAFETY: `to` is null or writable for one.
            unsafe { put(to, notification) }?;
            // SAFETY: `count` is null or writable.
            unsafe { put(count, 1) }
        });
        if code != NO_DATA || Instant::now() >= until {
            return code;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn answer(function: &str, call: impl FnOnce(&Call) -> Result<(), u32>) -> u32 {
    enter(function, INIT_ERROR).and_then(|entered| call(&entered)).err().unwrap_or(0)
}

fn card(call: &Call, index: u32) -> Result<&Card, u32> {
    call.all().get(index as usize).copied().ok_or(INVALID_ARGS)
}

/// # Safety
///
/// `to` is null or writable for one `T`.
unsafe fn put<T>(to: *mut T, value: T) -> Result<(), u32> {
    if to.is_null() {
        return Err(INVALID_ARGS);
    }
    // SAFETY: not null, and so writable.
    unsafe { to.write(value) };
    Ok(())
}
