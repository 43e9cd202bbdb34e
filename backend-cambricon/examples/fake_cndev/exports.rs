//! The functions that every release has, but for instances.
//!
//! Each one is `unsafe` as C is: pointers are null or point to what the table of the function says.

use std::ffi::c_char;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::abi::{
    Health, INVALID_LINK, MemEcc, NOT_FOUND, NOT_SUPPORTED, Pair, Process, Remote, Utilization,
    Uuid, VERSION, Versions,
};
use crate::ffi::{answer, array, put, put_list, readers, text, versioned};
use crate::world::{self, Answer, Here};

pub(crate) const MIB: u64 = 1 << 20;

readers! {
    versioned cndevGetUUID -> Uuid = |here| Ok(Uuid {
        version: VERSION,
        uuid: array(&here.card.uuid, !here.card.unterminated),
        ncs: 7,
    });
    versioned cndevGetNUMANodeIdByDevId -> Pair = |here| {
        here.card.numa.map(pair).ok_or(NOT_SUPPORTED)
    };
    versioned cndevGetCoreCount -> Pair = |here| Ok(pair(here.card.cores.cast_signed()));
    versioned cndevGetClusterCount -> Pair = |here| Ok(pair(here.card.cores.cast_signed() / 4));
    versioned cndevGetDeviceUtilizationInfo -> Utilization = |here| Ok(Utilization {
        version: VERSION,
        average: here.state.busy,
        core: [0; 80],
    });
    versioned cndevGetCardHealthState -> Health = |here| Ok(Health {
        version: VERSION,
        health: i32::from(here.state.good),
        device: i32::from(here.state.good),
        driver: here.state.driver_state,
    });
    versioned cndevGetCardHeartbeatCount -> Pair = |here| {
        static BEATS: AtomicU32 = AtomicU32::new(0);
        let beats = if here.state.heart_stopped { 0 } else { BEATS.fetch_add(1, Ordering::Relaxed) };
        Ok(pair((here.state.heartbeat + beats).cast_signed()))
    };
    versioned cndevGetComputeMode -> Pair = |here| Ok(pair(if here.state.prohibited { 2 } else { 0 }));
    versioned cndevGetMemEccCounter -> MemEcc = |here| Ok(MemEcc {
        version: VERSION,
        volatile: [3, 0, 0, 5, here.state.uncorrected],
        aggregate: [5, here.state.uncorrected.into(), 3, 0, 0],
        exceeded: u8::from(here.state.ecc_exceeded),
        spare: [0; 11],
    });
}

pub(crate) fn pair(value: i32) -> Pair {
    Pair { version: VERSION, value }
}

#[unsafe(no_mangle)]
extern "C" fn cndevInit(_reserved: i32) -> i32 {
    answer(world::start)
}

#[unsafe(no_mangle)]
extern "C" fn cndevRelease() -> i32 {
    answer(world::stop)
}

#[unsafe(no_mangle)]
extern "C" fn cndevGetErrorString(code: i32) -> *const c_char {
    match code {
        0 => c"Success.",
        10 => c"Not supported.",
        15 => c"In use.",
        _ => c"Another error of the fake.",
    }
    .as_ptr()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cndevGetVersionInfo(to: *mut Versions, device: i32) -> i32 {
    answer(|| {
        // SAFETY: `to` is null or readable.
        unsafe { versioned(to) }?;
        let function = "cndevGetVersionInfo";
        world::on(function, device, false, |_| Ok(()))?;
        let driver = world::with(function, |_, state| Ok(state.driver))?;
        // SAFETY: `to` is null or writable.
        unsafe { put(to, Versions { version: VERSION, mcu: [1, 1, 4], driver }) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cndevGetDeviceCount(to: *mut Pair) -> i32 {
    answer(|| {
        // SAFETY: `to` is null or readable.
        unsafe { versioned(to) }?;
        let count = world::with("cndevGetDeviceCount", |scenario, _| {
            let there = u32::try_from(scenario.cards.len()).unwrap_or(u32::MAX);
            Ok(scenario.device_count.unwrap_or(there))
        })?;
        // SAFETY: `to` is null or writable.
        unsafe { put(to, pair(count.cast_signed())) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cndevGetDeviceHandleByIndex(index: i32, to: *mut i32) -> i32 {
    answer(|| {
        let handle = world::handle_at(index)?;
        // SAFETY: `to` is null or writable.
        unsafe { put(to, handle) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cndevGetDeviceHandleByPciBusId(address: *const c_char, to: *mut i32) -> i32 {
    answer(|| {
        // SAFETY: `address` is null or a string with an end.
        let address = unsafe { text(address) }?;
        let handle = world::by_pci(&address)?;
        // SAFETY: `to` is null or writable.
        unsafe { put(to, handle) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cndevGetCardNameStringByDevId(device: i32) -> *const c_char {
    let name = world::on("cndevGetCardNameStringByDevId", device, false, |here| {
        Ok(match here.card.name.as_str() {
            "MLU370-S4" => c"MLU370-S4",
            "MLU370-X4" => c"MLU370-X4",
            "MLU370-X8" => c"MLU370-X8",
            "MLU590-H8" => c"MLU590-H8",
            _ => c"",
        })
    });
    name.map_or(std::ptr::null(), |name| name.as_ptr())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cndevGetProcessInfo(count: *mut u32, list: *mut Process, device: i32) -> i32 {
    answer(|| {
        // SAFETY: `list` is null or readable for an entry.
        unsafe { versioned(list) }?;
        let pids = world::on("cndevGetProcessInfo", device, false, |here| Ok(pids(&here)))?;
        let process = |pid| Process { version: VERSION, pid, used_kib: 1024, virtual_kib: 4096 };
        // SAFETY: as the table says.
        unsafe { put_list(count, list, pids.into_iter().map(process).collect(), None) }
    })
}

/// All processes on a card, each once.
pub(crate) fn pids(here: &Here<'_>) -> Vec<u32> {
    let held = here.state.instances.iter().flat_map(|i| &i.holders);
    let mut pids: Vec<u32> = here.state.holders.iter().chain(held).copied().collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cndevTopologyGetRelationship(to: *mut Pair, one: i32, other: i32) -> i32 {
    answer(|| {
        // SAFETY: `to` is null or readable.
        unsafe { versioned(to) }?;
        let relation = world::pair("cndevTopologyGetRelationship", one, other, |a, b| {
            Ok(match (a.board.is_some() && a.board == b.board, a.numa == b.numa) {
                (true, _) => 1,
                (false, true) => 4,
                (false, false) => 6,
            })
        })?;
        // SAFETY: `to` is null or writable.
        unsafe { put(to, pair(relation)) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cndevGetMLULinkPortNumber(device: i32) -> i32 {
    let ports = world::on("cndevGetMLULinkPortNumber", device, false, |here| {
        Ok(i32::try_from(here.card.links.len()).unwrap_or(0))
    });
    ports.unwrap_or(-1)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cndevGetMLULinkRemoteInfo(to: *mut Remote, device: i32, port: i32) -> i32 {
    answer(|| {
        // SAFETY: `to` is null or readable.
        unsafe { versioned(to) }?;
        let uuid = link("cndevGetMLULinkRemoteInfo", device, port)?;
        let remote = Remote {
            version: VERSION,
            serials: [1, 2],
            slot: 0,
            port: port.cast_unsigned(),
            ip: [0; 16],
            uuid: array(&uuid, true),
            ip_version: 0,
            ip_valid: 0,
            connect: 1,
            ncs: 0,
            mac: [2; 6],
            port_name: array("port", true),
        };
        // SAFETY: `to` is null or writable.
        unsafe { put(to, remote) }
    })
}

/// The UUID at the other end of a port that is there.
pub(crate) fn link(function: &str, device: i32, port: i32) -> Answer<String> {
    world::on(function, device, false, |here| {
        let port = usize::try_from(port).map_err(|_below| INVALID_LINK)?;
        here.card.links.get(port).cloned().ok_or(INVALID_LINK)
    })
}

/// An instance's UUID: its card's, with the instance's number as byte 9.
pub(crate) fn instance_uuid(here: &Here<'_>, id: i32) -> String {
    let mut uuid = here.card.uuid.clone();
    uuid.replace_range(21..23, &format!("{:02x}", id & 0xff));
    uuid
}

/// The node that is an instance's own.
pub(crate) fn cap(here: &Here<'_>, id: i32) -> String {
    format!("/dev/cambricon-caps/cap_dev{}_mi{id}", here.card.minor)
}

/// Domain, bus, device and function.
pub(crate) fn address(here: &Here<'_>) -> Answer<[u32; 4]> {
    let part = |text: Option<&str>| u32::from_str_radix(text?, 16).ok();
    let mut pieces = here.card.pci.split([':', '.']);
    let all = [part(pieces.next()), part(pieces.next()), part(pieces.next()), part(pieces.next())];
    match all {
        [Some(a), Some(b), Some(c), Some(d)] => Ok([a, b, c, d]),
        _ => Err(NOT_FOUND),
    }
}
