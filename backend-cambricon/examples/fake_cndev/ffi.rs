//! Between C and the machine: no panic gets out, null is refused, structures must say their version.

use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::abi::{INVALID_ARGUMENT, SUCCESS, UNKNOWN, UNSUPPORTED_API_VERSION, VERSION};
use crate::world::Answer;

/// The library's code for what `call` came to; a panic is an unknown error, as it would be in a driver.
pub(crate) fn answer(call: impl FnOnce() -> Answer<()>) -> i32 {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => SUCCESS,
        Ok(Err(code)) => code,
        Err(_panic) => UNKNOWN,
    }
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

/// Reads what the caller gave.
///
/// # Safety
///
/// `from` is null or readable for one `T`, of which every pattern of bits is a value.
pub(crate) unsafe fn get<T>(from: *const T) -> Answer<T> {
    if from.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: not null, and so readable.
    Ok(unsafe { from.read() })
}

/// Refuses a structure whose first field is not the version.
///
/// # Safety
///
/// `at` is null or readable for one `T`, which begins with a number of 32 bits.
pub(crate) unsafe fn versioned<T>(at: *const T) -> Answer<()> {
    // SAFETY: as the caller promises.
    match unsafe { get(at.cast::<i32>()) }? {
        VERSION => Ok(()),
        _ => Err(UNSUPPORTED_API_VERSION),
    }
}

/// Reads a string of the caller.
///
/// # Safety
///
/// `from` is null or ends in a NUL.
pub(crate) unsafe fn text(from: *const c_char) -> Answer<String> {
    if from.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: not null, and so a string with an end.
    let text = unsafe { CStr::from_ptr(from) };
    text.to_str().map(str::to_owned).map_err(|_not_utf8| INVALID_ARGUMENT)
}

/// A text in an array, with its end; or, as a broken library may, all of the array full and no end.
pub(crate) fn array<const N: usize>(text: &str, ended: bool) -> [u8; N] {
    let mut array = [if ended { 0 } else { b'A' }; N];
    let length = text.len().min(if ended { N - 1 } else { N });
    array[..length].copy_from_slice(&text.as_bytes()[..length]);
    array
}

/// Writes a list as far as there is room, and how long it is; less room than that is refused.
///
/// # Safety
///
/// `count` is null or readable and writable; `list` is null or writable for as many entries as `count` says.
pub(crate) unsafe fn put_list<T>(
    count: *mut u32,
    list: *mut T,
    entries: Vec<T>,
    claimed: Option<u32>,
) -> Answer<()> {
    // SAFETY: as the caller promises.
    let room = unsafe { get(count) }?;
    let there = u32::try_from(entries.len()).map_err(|_too_many| INVALID_ARGUMENT)?;
    // SAFETY: not null, since it was read.
    unsafe { put(count, claimed.unwrap_or(there)) }?;
    if claimed.is_none() && there > room {
        return Err(crate::abi::INSUFFICIENT_SPACE);
    }
    for (at, entry) in entries.into_iter().take(room as usize).enumerate() {
        // SAFETY: `at` is below the room that the caller has.
        let to = unsafe { list.add(at) };
        // SAFETY: within the caller's list.
        unsafe { put(to, entry) }?;
    }
    Ok(())
}

/// Functions that fill one structure about a card. `versioned` ones begin with their version.
macro_rules! readers {
    ($($kind:ident $name:ident -> $type:ty = $read:expr;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(to: *mut $type, device: i32) -> i32 {
            crate::ffi::answer(|| {
                $crate::ffi::readers!(@$kind to);
                let read: fn(crate::world::Here<'_>) -> crate::world::Answer<$type> = $read;
                let value = crate::world::on(stringify!($name), device, false, read)?;
                // SAFETY: `to` is null or writable.
                unsafe { crate::ffi::put(to, value) }
            })
        }
    )*};
    (@versioned $to:ident) => {
        // SAFETY: `to` is null or readable.
        unsafe { crate::ffi::versioned($to) }?;
    };
    (@bare $to:ident) => {};
}
pub(crate) use readers;
