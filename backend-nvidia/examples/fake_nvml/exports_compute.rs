//! Who may compute on a card; every driver has these.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::abi::{Handle, INVALID_ARGUMENT};
use crate::ffi::{answer, put};
use crate::world::{self, index_of};

/// By card; what was never set is the default, 0.
static MODES: Mutex<BTreeMap<u32, u32>> = Mutex::new(BTreeMap::new());

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
        MODES.lock().unwrap_or_else(PoisonError::into_inner).insert(index, mode);
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetComputeMode(device: Handle, to: *mut u32) -> u32 {
    answer(|| {
        world::card("nvmlDeviceGetComputeMode", device)?;
        let index = index_of(device)?;
        let modes = MODES.lock().unwrap_or_else(PoisonError::into_inner);
        let mode = modes.get(&index).copied().unwrap_or(0);
        // SAFETY: `to` is null or writable.
        unsafe { put(to, mode) }
    })
}
