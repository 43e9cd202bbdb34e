//! Who may compute on a card; every driver has these.

use crate::abi::{Handle, INVALID_ARGUMENT};
use crate::ffi::{answer, put};
use crate::world::{self, index_of};

/// Default, (exclusive thread, gone), prohibited, exclusive process.
const KNOWN: &[u32] = &[0, 2, 3];

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceSetComputeMode(device: Handle, mode: u32) -> u32 {
    answer(|| {
        world::card("nvmlDeviceSetComputeMode", device)?;
        if !KNOWN.contains(&mode) {
            return Err(INVALID_ARGUMENT);
        }
        let index = index_of(device)?;
        world::locked(|world| {
            world.kept(|kept| kept.compute_modes.insert(index, mode)).map(|_before| ())
        })
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetComputeMode(device: Handle, to: *mut u32) -> u32 {
    answer(|| {
        world::card("nvmlDeviceGetComputeMode", device)?;
        let index = index_of(device)?;
        let mode =
            world::locked(|world| world.kept(|kept| kept.compute_modes.get(&index).copied()))?;
        let mode = mode.unwrap_or(0);
        // SAFETY: `to` is null or writable.
        unsafe { put(to, mode) }
    })
}
