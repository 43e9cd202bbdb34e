//! Symbols that a driver of the scenario's version does not have are taken out of this library when it is loaded.
//!
//! A function can answer "function not found", but what an old driver lacks is the symbol, and one library is to play
//! them all. So before anybody looks a function up, the names of those that are lacking are spoilt in the table of
//! names that the loader searches. (A function that is not there is found by no other way: nothing here calls one.)

use std::ffi::{c_int, c_long, c_void};

use crate::scenario::Scenario;

#[repr(C)]
struct Dyn {
    tag: usize,
    value: usize,
}

unsafe extern "C" {
    /// The library's own dynamic section; the linker makes it.
    #[link_name = "_DYNAMIC"]
    static DYNAMIC: Dyn;
    fn mprotect(from: *mut c_void, length: usize, protection: c_int) -> c_int;
    fn sysconf(name: c_int) -> c_long;
}

/// Run by the loader before it returns the library.
#[used]
#[unsafe(link_section = ".init_array")]
static HIDE: extern "C" fn() = hide;

const DT_NULL: usize = 0;
const DT_STRTAB: usize = 5;
const DT_STRSZ: usize = 10;
const PAGE_SIZE: c_int = 30;
const READ_WRITE_EXECUTE: c_int = 7;
const READ_EXECUTE: c_int = 5;

extern "C" fn hide() {
    let Ok(name) = std::env::var("FAKE_NVML") else { return };
    // A scenario that cannot be read is told when NVML is started.
    let Ok(scenario) = Scenario::named(&name) else { return };
    if scenario.hidden.is_empty() {
        return;
    }
    if let Err(why) = spoil(&scenario.hidden) {
        eprintln!("fake_nvml: no symbol is hidden: {why}");
    }
}

fn spoil(hidden: &[String]) -> Result<(), String> {
    let (mut table, mut length) = (0, 0);
    let mut entry = &raw const DYNAMIC;
    loop {
        // SAFETY: the dynamic section is an array that ends with a null entry, and is not changed after loading.
        let Dyn { tag, value } = unsafe { entry.read() };
        match tag {
            DT_NULL => break,
            DT_STRTAB => table = value,
            DT_STRSZ => length = value,
            _ => {}
        }
        // SAFETY: not beyond the null entry.
        entry = unsafe { entry.add(1) };
    }
    if table == 0 || length == 0 {
        return Err("the table of names is not found".to_owned());
    }
    // SAFETY: takes a number and answers with one.
    let page = usize::try_from(unsafe { sysconf(PAGE_SIZE) }).map_err(|e| e.to_string())?;
    let first = table / page * page;
    let whole = (table + length).div_ceil(page) * page - first;
    let start = first as *mut c_void;
    // SAFETY: these pages are this library's own; nothing that runs now depends on their protection.
    if unsafe { mprotect(start, whole, READ_WRITE_EXECUTE) } != 0 {
        return Err(std::io::Error::last_os_error().to_string());
    }
    // SAFETY: the loader made the table `length` bytes long, it is writable now, and no lookup runs in a library that
    // is still being loaded.
    let names = unsafe { std::slice::from_raw_parts_mut(table as *mut u8, length) };
    let mut missed = Vec::new();
    for name in hidden {
        let whole = [b"\0", name.as_bytes(), b"\0"].concat();
        match names.windows(whole.len()).position(|found| found == whole) {
            Some(at) => names[at + 1] = b'-',
            None => missed.push(name.as_str()),
        }
    }
    // SAFETY: as above.
    unsafe { mprotect(start, whole, READ_EXECUTE) };
    if missed.is_empty() { Ok(()) } else { Err(format!("there is none of {}", missed.join(", "))) }
}
