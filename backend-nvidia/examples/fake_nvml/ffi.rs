//! Between C and the machine: no panic gets out, null is refused, strings are written as C wants them.

use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::abi::{INSUFFICIENT_SIZE, INVALID_ARGUMENT, SUCCESS, UNKNOWN};
use crate::die;
use crate::world::Answer;

/// Functions that write one number of a card, or say that it has none.
macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident($($extra:ident: $of:ty),*): $type:ty = $read:expr;)*) => {$(
        $(#[$doc])*
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(device: crate::abi::Handle, $($extra: $of,)* to: *mut $type) -> u32 {
            crate::ffi::answer(|| {
                let card = crate::world::card(stringify!($name), device)?;
                let read: fn(&crate::scenario::Card, $($of),*) -> crate::world::Answer<$type> = $read;
                let value = read(&card, $($extra),*)?;
                // SAFETY: `to` is null or writable.
                unsafe { crate::ffi::put(to, value) }
            })
        }
    )*};
}
pub(crate) use numbers;

/// NVML's code for what `call` came to; a panic is an unknown error, as it would be in a driver.
pub(crate) fn answer(call: impl FnOnce() -> Answer<()>) -> u32 {
    let code = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => SUCCESS,
        Ok(Err(code)) => code,
        Err(_panic) => UNKNOWN,
    };
    die::if_doomed();
    code
}

/// Writes an answer where the caller wants it.
///
/// # Safety
///
/// `to` is null or writable for one `T`.
pub(crate) unsafe fn put<T>(to: *mut T, value: T) -> Answer<()> {
    if to.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: not null, and so writable.
    unsafe { to.write(value) };
    Ok(())
}

/// Writes `text` and its end; or, as a broken library may, fills all of the buffer and writes no end.
///
/// # Safety
///
/// `to` is null or writable for `length` bytes.
pub(crate) unsafe fn put_text(to: *mut c_char, length: u32, text: &[u8], end: End) -> Answer<()> {
    let room = usize::try_from(length).map_err(|_too_large| INVALID_ARGUMENT)?;
    if to.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    if text.len() >= room {
        return Err(INSUFFICIENT_SIZE);
    }
    // SAFETY: not null, and so writable for `room` bytes; nothing else refers to them during the call.
    let buffer = unsafe { std::slice::from_raw_parts_mut(to.cast::<u8>(), room) };
    match end {
        End::Missing => buffer.fill(b'A'),
        End::Nul => {
            buffer[..text.len()].copy_from_slice(text);
            buffer[text.len()] = 0;
        }
    }
    Ok(())
}

/// Whether a string gets its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Missing,
    Nul,
}

impl End {
    pub(crate) fn missing_if(missing: bool) -> Self {
        if missing { Self::Missing } else { Self::Nul }
    }
}

/// Reads a string of the caller.
///
/// # Safety
///
/// `from` is null or ends in a NUL and stays as it is during the call.
pub(crate) unsafe fn text<'a>(from: *const c_char) -> Answer<&'a [u8]> {
    if from.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: not null, and so a string with an end.
    Ok(unsafe { CStr::from_ptr(from) }.to_bytes())
}
