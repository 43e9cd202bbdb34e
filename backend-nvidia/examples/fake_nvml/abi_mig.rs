//! Numbers and layouts of MIG, from the tables of the field notes, with every size and offset checked.

use std::mem::{offset_of, size_of};

use crate::abi::Handle;

pub(crate) const NO_PERMISSION: u32 = 4;
pub(crate) const RESET_REQUIRED: u32 = 16;
pub(crate) const IN_USE: u32 = 19;
pub(crate) const INSUFFICIENT_RESOURCES: u32 = 23;
/// The event that instances or the mode changed.
pub(crate) const MIG_CONFIG_CHANGE: u64 = 0x100;
/// What the second profile call wants in `version`: its size, and 2 in the top byte.
pub(crate) const PROFILE_V2: u32 = 152 | 2 << 24;

#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) start: u32,
    pub(crate) size: u32,
}

/// The counts of a profile, alike in both versions.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) id: u32,
    pub(crate) p2p: u32,
    pub(crate) slices: u32,
    pub(crate) instances: u32,
    pub(crate) multiprocessors: u32,
    pub(crate) copy_engines: u32,
    pub(crate) decoders: u32,
    pub(crate) encoders: u32,
    pub(crate) jpegs: u32,
    pub(crate) ofas: u32,
}

#[repr(C)]
pub(crate) struct ProfileInfo {
    pub(crate) counts: Counts,
    pub(crate) memory_mib: u64,
}

#[repr(C)]
pub(crate) struct ProfileInfoV2 {
    pub(crate) version: u32,
    pub(crate) counts: Counts,
    pub(crate) memory_mib: u64,
    pub(crate) name: [u8; 96],
}

#[repr(C)]
pub(crate) struct GpuInstanceInfo {
    pub(crate) device: Handle,
    pub(crate) id: u32,
    pub(crate) profile_id: u32,
    pub(crate) place: Place,
}

#[repr(C)]
pub(crate) struct ComputeProfileInfo {
    pub(crate) id: u32,
    pub(crate) slices: u32,
    pub(crate) instances: u32,
    pub(crate) multiprocessors: u32,
    /// Copy engines, decoders, encoders, jpeg and ofa engines.
    pub(crate) shared: [u32; 5],
}

#[repr(C)]
pub(crate) struct ComputeInstanceInfo {
    pub(crate) device: Handle,
    pub(crate) gpu_instance: Handle,
    pub(crate) id: u32,
    pub(crate) profile_id: u32,
    pub(crate) place: Place,
}

const _: () = {
    assert!(size_of::<Place>() == 8);
    assert!(size_of::<Counts>() == 40);
    assert!(size_of::<ProfileInfo>() == 48);
    assert!(offset_of!(ProfileInfo, memory_mib) == 40);
    assert!(size_of::<ProfileInfoV2>() == 152);
    assert!(offset_of!(ProfileInfoV2, counts) == 4);
    assert!(offset_of!(ProfileInfoV2, memory_mib) == 48);
    assert!(offset_of!(ProfileInfoV2, name) == 56);
    assert!(size_of::<GpuInstanceInfo>() == 24);
    assert!(offset_of!(GpuInstanceInfo, place) == 16);
    assert!(size_of::<ComputeProfileInfo>() == 36);
    assert!(size_of::<ComputeInstanceInfo>() == 32);
    assert!(offset_of!(ComputeInstanceInfo, gpu_instance) == 8);
    assert!(offset_of!(ComputeInstanceInfo, place) == 24);
};
