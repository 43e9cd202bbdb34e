//! NVML's numbers and layouts, from the tables of the field notes, with every size and offset checked.

use std::mem::{offset_of, size_of};

pub(crate) const SUCCESS: u32 = 0;
pub(crate) const UNINITIALIZED: u32 = 1;
pub(crate) const INVALID_ARGUMENT: u32 = 2;
pub(crate) const NOT_SUPPORTED: u32 = 3;
pub(crate) const NO_PERMISSION: u32 = 4;
pub(crate) const NOT_FOUND: u32 = 6;
pub(crate) const INSUFFICIENT_SIZE: u32 = 7;
pub(crate) const DRIVER_NOT_LOADED: u32 = 9;
pub(crate) const TIMEOUT: u32 = 10;
pub(crate) const FUNCTION_NOT_FOUND: u32 = 13;
pub(crate) const GPU_IS_LOST: u32 = 15;
pub(crate) const ARGUMENT_VERSION_MISMATCH: u32 = 25;
pub(crate) const UNKNOWN: u32 = 999;

/// No GPU or compute instance.
pub(crate) const NO_INSTANCE: u32 = 0xffff_ffff;
/// A size that the driver may not tell.
pub(crate) const NOT_AVAILABLE: u64 = u64::MAX;
/// The type of a field's value that is an unsigned int.
pub(crate) const VALUE_UNSIGNED_INT: u32 = 1;
/// The field of the recovery action.
pub(crate) const FIELD_RECOVERY_ACTION: u32 = 230;
/// What the second memory call wants in `version`: its size, and 2 in the top byte.
pub(crate) const MEMORY_V2: u32 = 40 | 2 << 24;

/// An opaque pointer in C; here a number that means a card or an event set, and that nobody may look behind.
pub(crate) type Handle = usize;

#[repr(C)]
pub(crate) struct EventData {
    pub(crate) device: Handle,
    pub(crate) event_type: u64,
    pub(crate) event_data: u64,
    pub(crate) gpu_instance: u32,
    pub(crate) compute_instance: u32,
}

#[repr(C)]
pub(crate) struct Memory {
    pub(crate) total: u64,
    pub(crate) free: u64,
    pub(crate) used: u64,
}

#[repr(C)]
pub(crate) struct MemoryV2 {
    pub(crate) version: u32,
    pub(crate) total: u64,
    pub(crate) reserved: u64,
    pub(crate) free: u64,
    pub(crate) used: u64,
}

#[repr(C)]
pub(crate) struct PciInfo {
    pub(crate) bus_id_legacy: [u8; 16],
    pub(crate) domain: u32,
    pub(crate) bus: u32,
    pub(crate) device: u32,
    pub(crate) pci_device_id: u32,
    pub(crate) pci_subsystem_id: u32,
    pub(crate) bus_id: [u8; 32],
}

#[repr(C)]
pub(crate) struct ProcessInfo {
    pub(crate) pid: u32,
    pub(crate) used_memory: u64,
    pub(crate) gpu_instance: u32,
    pub(crate) compute_instance: u32,
}

#[repr(C)]
pub(crate) struct FieldValue {
    pub(crate) field: u32,
    pub(crate) scope: u32,
    pub(crate) timestamp: i64,
    pub(crate) latency_us: i64,
    pub(crate) value_type: u32,
    pub(crate) result: u32,
    /// The union's first bytes; every field that the fake knows is an unsigned int.
    pub(crate) value: u64,
}

const _: () = {
    assert!(size_of::<EventData>() == 32);
    assert!(offset_of!(EventData, event_type) == 8);
    assert!(offset_of!(EventData, event_data) == 16);
    assert!(offset_of!(EventData, gpu_instance) == 24);
    assert!(offset_of!(EventData, compute_instance) == 28);
    assert!(size_of::<Memory>() == 24);
    assert!(size_of::<MemoryV2>() == 40);
    assert!(offset_of!(MemoryV2, total) == 8);
    assert!(offset_of!(MemoryV2, used) == 32);
    assert!(size_of::<PciInfo>() == 68);
    assert!(offset_of!(PciInfo, domain) == 16);
    assert!(offset_of!(PciInfo, bus_id) == 36);
    assert!(size_of::<ProcessInfo>() == 24);
    assert!(offset_of!(ProcessInfo, used_memory) == 8);
    assert!(offset_of!(ProcessInfo, gpu_instance) == 16);
    assert!(size_of::<FieldValue>() == 40);
    assert!(offset_of!(FieldValue, timestamp) == 8);
    assert!(offset_of!(FieldValue, value_type) == 24);
    assert!(offset_of!(FieldValue, result) == 28);
    assert!(offset_of!(FieldValue, value) == 32);
};
