//! The library's numbers and layouts, from the tables of the field notes, with every size and offset checked.

use std::mem::{offset_of, size_of};

pub(crate) const SUCCESS: i32 = 0;
pub(crate) const NO_DRIVER: i32 = 1;
pub(crate) const UNSUPPORTED_API_VERSION: i32 = 3;
pub(crate) const UNINITIALIZED: i32 = 4;
pub(crate) const INVALID_ARGUMENT: i32 = 5;
pub(crate) const INVALID_DEVICE_ID: i32 = 6;
pub(crate) const UNKNOWN: i32 = 7;
pub(crate) const INSUFFICIENT_SPACE: i32 = 9;
pub(crate) const NOT_SUPPORTED: i32 = 10;
pub(crate) const INVALID_LINK: i32 = 11;
pub(crate) const NO_PERMISSION: i32 = 13;
pub(crate) const NOT_FOUND: i32 = 14;
pub(crate) const IN_USE: i32 = 15;
pub(crate) const DUPLICATE: i32 = 16;
pub(crate) const TIMEOUT: i32 = 17;
pub(crate) const IN_PROBLEM: i32 = 18;

/// What every versioned structure must say.
pub(crate) const VERSION: i32 = 6;

/// A structure whose first field is its version.
#[repr(C)]
pub(crate) struct Pair {
    pub(crate) version: i32,
    pub(crate) value: i32,
}

#[repr(C)]
pub(crate) struct Uuid {
    pub(crate) version: i32,
    pub(crate) uuid: [u8; 37],
    pub(crate) ncs: u64,
}

#[repr(C)]
pub(crate) struct MemoryV1 {
    pub(crate) version: i32,
    pub(crate) total: i64,
    pub(crate) used: i64,
    pub(crate) virtual_total: i64,
    pub(crate) virtual_used: i64,
    pub(crate) channels: i64,
    pub(crate) channel_used: [i64; 20],
    pub(crate) global: u64,
}

#[repr(C)]
pub(crate) struct MemoryV2 {
    pub(crate) total: i64,
    pub(crate) used: i64,
    pub(crate) reserved: i64,
    pub(crate) virtual_total: i64,
    pub(crate) virtual_used: i64,
    pub(crate) global: u64,
    pub(crate) spare: [u64; 16],
}

#[repr(C)]
pub(crate) struct Versions {
    pub(crate) version: i32,
    pub(crate) mcu: [u32; 3],
    pub(crate) driver: [u32; 3],
}

#[repr(C)]
pub(crate) struct Pcie {
    pub(crate) subsystem: u32,
    pub(crate) device_id: u32,
    pub(crate) vendor: u16,
    pub(crate) subsystem_vendor: u16,
    pub(crate) domain: u32,
    pub(crate) bus: u32,
    pub(crate) device: u32,
    pub(crate) function: u32,
    pub(crate) module: u16,
    pub(crate) slot: u16,
    pub(crate) spare: [u32; 8],
}

#[repr(C)]
pub(crate) struct Utilization {
    pub(crate) version: i32,
    pub(crate) average: i32,
    pub(crate) core: [i32; 80],
}

#[repr(C)]
pub(crate) struct Process {
    pub(crate) version: i32,
    pub(crate) pid: u32,
    pub(crate) used_kib: u64,
    pub(crate) virtual_kib: u64,
}

#[repr(C)]
pub(crate) struct MemEcc {
    pub(crate) version: i32,
    pub(crate) volatile: [u32; 5],
    pub(crate) aggregate: [u64; 5],
    pub(crate) exceeded: u8,
    pub(crate) spare: [u64; 11],
}

#[repr(C)]
pub(crate) struct Repair {
    pub(crate) version: i32,
    pub(crate) retire_pending: u8,
    pub(crate) pending: u8,
    pub(crate) failure: u8,
}

#[repr(C)]
pub(crate) struct Health {
    pub(crate) version: i32,
    pub(crate) health: i32,
    pub(crate) device: i32,
    pub(crate) driver: i32,
}

#[repr(C)]
pub(crate) struct Incident {
    pub(crate) system: i32,
    pub(crate) health: i32,
    pub(crate) text: [u8; 512],
    pub(crate) device_id: u32,
    pub(crate) bdf: u32,
    pub(crate) code: i32,
    pub(crate) category: u32,
    pub(crate) severity: u32,
}

#[repr(C)]
pub(crate) struct HealthV2 {
    pub(crate) health: i32,
    pub(crate) device: i32,
    pub(crate) driver: i32,
    pub(crate) overall: i32,
    pub(crate) count: u32,
    pub(crate) incidents: [Incident; 64],
    pub(crate) spare: [u32; 8],
}

#[repr(C)]
pub(crate) struct LinkV1 {
    pub(crate) version: i32,
    pub(crate) active: i32,
    pub(crate) serdes: i32,
    pub(crate) presence: i32,
}

#[repr(C)]
pub(crate) struct LinkV2 {
    pub(crate) mac: i32,
    pub(crate) serdes: i32,
    pub(crate) presence: i32,
    pub(crate) progress: u32,
    pub(crate) spare: [u32; 7],
}

#[repr(C)]
pub(crate) struct Remote {
    pub(crate) version: i32,
    pub(crate) serials: [u64; 2],
    pub(crate) slot: u32,
    pub(crate) port: u32,
    pub(crate) ip: [u8; 16],
    pub(crate) uuid: [u8; 37],
    pub(crate) ip_version: u32,
    pub(crate) ip_valid: u32,
    pub(crate) connect: i32,
    pub(crate) ncs: u64,
    pub(crate) mac: [u8; 6],
    pub(crate) port_name: [u8; 256],
}

#[repr(C)]
pub(crate) struct Place {
    pub(crate) version: i32,
    pub(crate) start: i32,
    pub(crate) size: i32,
}

#[repr(C)]
pub(crate) struct MimProfile {
    pub(crate) version: i32,
    pub(crate) id: i32,
    pub(crate) cores: i32,
    pub(crate) engines: [i32; 3],
    pub(crate) memory: i32,
    pub(crate) name: [u8; 100],
}

#[repr(C)]
pub(crate) struct MimInfo {
    pub(crate) version: i32,
    pub(crate) parent: i32,
    pub(crate) id: i32,
    pub(crate) profile: i32,
    pub(crate) uuid: [u8; 37],
    pub(crate) pci: [i32; 4],
    pub(crate) place: Place,
    pub(crate) cores: i32,
    pub(crate) engines: [i32; 3],
    pub(crate) memory: i32,
    pub(crate) profile_name: [u8; 100],
    pub(crate) node: [u8; 100],
    pub(crate) ipcm: [u8; 100],
    pub(crate) name: [u8; 100],
    pub(crate) spare: [u32; 128],
}

#[repr(C)]
pub(crate) struct SmluSet {
    pub(crate) version: i32,
    pub(crate) percent: u32,
    pub(crate) memory: u64,
}

#[repr(C)]
pub(crate) struct SmluInfo {
    pub(crate) version: i32,
    pub(crate) profile: i32,
    pub(crate) id: i32,
    pub(crate) uuid: [u8; 37],
    pub(crate) pci: [i32; 4],
    pub(crate) profile_name: [u8; 100],
    pub(crate) name: [u8; 100],
    pub(crate) node: [u8; 100],
    pub(crate) percent: [u32; 2],
    pub(crate) memory: [u64; 2],
    pub(crate) spare: [u32; 128],
}

#[repr(C)]
pub(crate) struct SmluIds {
    pub(crate) version: i32,
    pub(crate) count: i32,
    pub(crate) ids: [i32; 128],
}

#[repr(C)]
pub(crate) struct SmluProfile {
    pub(crate) version: i32,
    pub(crate) id: i32,
    pub(crate) name: [u8; 100],
    pub(crate) total: u32,
    pub(crate) remain: u32,
    pub(crate) percent: [u32; 2],
    pub(crate) memory: [u64; 2],
}

#[repr(C)]
pub(crate) struct EventData {
    pub(crate) version: u32,
    pub(crate) device: i32,
    pub(crate) data: u64,
    pub(crate) kind: u64,
    pub(crate) at: u64,
    pub(crate) compute_instance: u32,
    pub(crate) instance: u32,
    pub(crate) spare: [u64; 8],
}

const _: () = {
    assert!(size_of::<Pair>() == 8);
    assert!(size_of::<Uuid>() == 56);
    assert!(offset_of!(Uuid, uuid) == 4);
    assert!(offset_of!(Uuid, ncs) == 48);
    assert!(size_of::<MemoryV1>() == 216);
    assert!(size_of::<MemoryV2>() == 176);
    assert!(offset_of!(MemoryV2, reserved) == 16);
    assert!(size_of::<Versions>() == 28);
    assert!(offset_of!(Versions, driver) == 16);
    assert!(size_of::<Pcie>() == 64);
    assert!(offset_of!(Pcie, domain) == 12);
    assert!(offset_of!(Pcie, slot) == 30);
    assert!(size_of::<Utilization>() == 328);
    assert!(size_of::<Process>() == 24);
    assert!(offset_of!(Process, used_kib) == 8);
    assert!(size_of::<MemEcc>() == 160);
    assert!(offset_of!(MemEcc, aggregate) == 24);
    assert!(offset_of!(MemEcc, exceeded) == 64);
    assert!(size_of::<Repair>() == 8);
    assert!(offset_of!(Repair, failure) == 6);
    assert!(size_of::<Health>() == 16);
    assert!(size_of::<Incident>() == 540);
    assert!(offset_of!(Incident, code) == 528);
    assert!(size_of::<HealthV2>() == 34612);
    assert!(offset_of!(HealthV2, incidents) == 20);
    assert!(offset_of!(HealthV2, spare) == 34580);
    assert!(size_of::<LinkV1>() == 16);
    assert!(size_of::<LinkV2>() == 44);
    assert!(size_of::<Remote>() == 376);
    assert!(offset_of!(Remote, uuid) == 48);
    assert!(offset_of!(Remote, ncs) == 104);
    assert!(offset_of!(Remote, port_name) == 118);
    assert!(size_of::<Place>() == 12);
    assert!(size_of::<MimProfile>() == 128);
    assert!(offset_of!(MimProfile, memory) == 24);
    assert!(offset_of!(MimProfile, name) == 28);
    assert!(size_of::<MimInfo>() == 1016);
    assert!(offset_of!(MimInfo, pci) == 56);
    assert!(offset_of!(MimInfo, place) == 72);
    assert!(offset_of!(MimInfo, profile_name) == 104);
    assert!(offset_of!(MimInfo, name) == 404);
    assert!(size_of::<SmluSet>() == 16);
    assert!(size_of::<SmluInfo>() == 904);
    assert!(offset_of!(SmluInfo, pci) == 52);
    assert!(offset_of!(SmluInfo, node) == 268);
    assert!(offset_of!(SmluInfo, percent) == 368);
    assert!(offset_of!(SmluInfo, memory) == 376);
    assert!(size_of::<SmluIds>() == 520);
    assert!(size_of::<SmluProfile>() == 144);
    assert!(offset_of!(SmluProfile, percent) == 116);
    assert!(offset_of!(SmluProfile, memory) == 128);
    assert!(size_of::<EventData>() == 104);
    assert!(offset_of!(EventData, kind) == 16);
    assert!(offset_of!(EventData, instance) == 36);
};
