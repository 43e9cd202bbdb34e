//! The older forms of two functions, which later releases dropped.

use crate::abi::{LinkV1, MemoryV1, VERSION};
use crate::exports::link;
use crate::ffi::{answer, put, readers, versioned};

readers! {
    versioned cndevGetMemoryUsage -> MemoryV1 = |here| Ok(MemoryV1 {
        version: VERSION,
        total: here.card.memory_mib.cast_signed(),
        used: here.state.used_mib.cast_signed(),
        virtual_total: 1 << 30,
        virtual_used: 0,
        channels: 0,
        channel_used: [0; 20],
        global: 0,
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cndevGetMLULinkStatus(to: *mut LinkV1, device: i32, port: i32) -> i32 {
    answer(|| {
        // SAFETY: `to` is null or readable.
        unsafe { versioned(to) }?;
        link("cndevGetMLULinkStatus", device, port)?;
        // SAFETY: `to` is null or writable.
        unsafe { put(to, LinkV1 { version: VERSION, active: 1, serdes: 1, presence: 1 }) }
    })
}
