//! A CUDA program that needs nothing but what a container gets: it fills memory of the first card and reads it back.

#![expect(unsafe_code, reason = "calls into a C library")]

use std::ffi::{c_int, c_uint, c_void};
use std::process::ExitCode;

use libloading::{Library, Symbol};

type Call<A> = unsafe extern "C" fn(A) -> c_int;
type Call2<A, B> = unsafe extern "C" fn(A, B) -> c_int;
type Call3<A, B, C> = unsafe extern "C" fn(A, B, C) -> c_int;

const LENGTH: usize = 64 << 20;

fn main() -> ExitCode {
    match run() {
        Ok(cards) => {
            say(&format!("cuda: {cards} card(s) seen, {LENGTH} bytes written and read back"));
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("cuda_probe: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<c_int, String> {
    // SAFETY: runs the driver's constructors, as any CUDA program does.
    let cuda = unsafe { Library::new("libcuda.so.1") }.map_err(|e| e.to_string())?;
    let init: Symbol<'_, Call<c_uint>> = find(&cuda, "cuInit")?;
    let count: Symbol<'_, Call<*mut c_int>> = find(&cuda, "cuDeviceGetCount")?;
    let get: Symbol<'_, Call2<*mut c_int, c_int>> = find(&cuda, "cuDeviceGet")?;
    let retain: Symbol<'_, Call2<*mut *mut c_void, c_int>> =
        find(&cuda, "cuDevicePrimaryCtxRetain")?;
    let current: Symbol<'_, Call<*mut c_void>> = find(&cuda, "cuCtxSetCurrent")?;
    let alloc: Symbol<'_, Call2<*mut u64, usize>> = find(&cuda, "cuMemAlloc_v2")?;
    let fill: Symbol<'_, Call3<u64, u8, usize>> = find(&cuda, "cuMemsetD8_v2")?;
    let read: Symbol<'_, Call3<*mut c_void, u64, usize>> = find(&cuda, "cuMemcpyDtoH_v2")?;
    let (mut cards, mut device, mut memory) = (0, 0, 0);
    let mut context = std::ptr::null_mut();
    // SAFETY: takes a number.
    check("cuInit", unsafe { init(0) })?;
    // SAFETY: the number is writable.
    check("cuDeviceGetCount", unsafe { count(&raw mut cards) })?;
    // SAFETY: the number is writable.
    check("cuDeviceGet", unsafe { get(&raw mut device, 0) })?;
    // SAFETY: the handle is writable.
    check("cuDevicePrimaryCtxRetain", unsafe { retain(&raw mut context, device) })?;
    // SAFETY: the context came from the call before.
    check("cuCtxSetCurrent", unsafe { current(context) })?;
    // SAFETY: the address is writable.
    check("cuMemAlloc", unsafe { alloc(&raw mut memory, LENGTH) })?;
    // SAFETY: the memory was allocated with this length.
    check("cuMemsetD8", unsafe { fill(memory, 0x5a, LENGTH) })?;
    let mut back = vec![0_u8; LENGTH];
    // SAFETY: both are of this length.
    check("cuMemcpyDtoH", unsafe { read(back.as_mut_ptr().cast(), memory, LENGTH) })?;
    if back.iter().any(|byte| *byte != 0x5a) {
        return Err("what was read back is not what was written".into());
    }
    Ok(cards)
}

fn find<'l, T>(cuda: &'l Library, name: &str) -> Result<Symbol<'l, T>, String> {
    // SAFETY: the types above are those of CUDA's driver API for these names.
    unsafe { cuda.get(name.as_bytes()) }.map_err(|e| e.to_string())
}

fn check(call: &str, code: c_int) -> Result<(), String> {
    if code == 0 { Ok(()) } else { Err(format!("{call} failed with {code}")) }
}

#[expect(clippy::print_stdout, reason = "the answer of a program")]
fn say(text: &str) {
    println!("{text}");
}
