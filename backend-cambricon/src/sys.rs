//! Loading libcndev and calling it: the only unsafe code of this crate.
//!
//! A libcndev that was opened stays mapped for the life of the process: it starts threads and keeps state, and no
//! pointer into it may outlive it. So everything here is `'static` and nothing is ever unloaded.

#![expect(unsafe_code, reason = "calls into a C library through pointers found at run time")]

use std::ffi::{CString, OsStr, c_char, c_int};
use std::fmt::{self, Debug};
use std::time::Duration;

use vgpu_backend_kit::{Call, ListOf, Optional, Pointer, Required, Told, list, load};

use crate::api::{CndevFailure, LoadFailure, MAX_NAME};
use crate::bindings::*;
use crate::symbols::{Checked, check, malformed};
use crate::table::Table;

/// The library's name in errors.
pub(crate) const LIBRARY: &str = "libcndev";

/// What the library calls a card; neither its index nor the number of its node.
pub(crate) type Handle = cndevDevice_t;

type Answer<T> = Result<T, CndevFailure>;

/// A call that fills one structure about a card.
pub(crate) type Reader<T> = Option<unsafe extern "C" fn(*mut T, cndevDevice_t) -> cndevRet_t>;
/// A call that takes an instance's handle only.
pub(crate) type Unmaker = Option<unsafe extern "C" fn(cndevMluInstance_t) -> cndevRet_t>;

impl Table {
    /// Opens `library` (a path, or a name for the loader to search), finds its functions and pins it.
    ///
    /// # Errors
    ///
    /// [`LoadFailure::Open`], or [`LoadFailure::Other`] where a function that every libcndev has is missing.
    pub(crate) fn open(library: &OsStr) -> Result<Self, LoadFailure> {
        load(library, LIBRARY, Self::find)
    }

    /// Starts the library.
    pub(crate) fn init(&self) -> Answer<()> {
        let call = self.init.call();
        // SAFETY: takes a number that the library reserves, 0; may be called at any time from any thread.
        call.check(unsafe { (call.function)(0) })
    }

    /// Ends it, so that it can be started on a driver that is another than before.
    pub(crate) fn release(&self) -> Answer<()> {
        let call = self.release.call()?;
        // SAFETY: takes nothing; no pointer of the library is kept, so that none dangles.
        call.check(unsafe { (call.function)() })
    }

    pub(crate) fn driver_version(&self) -> Answer<(u32, u32, u32)> {
        let call = self.driver_version.call()?;
        let (mut major, mut minor, mut build) = (0, 0, 0);
        // SAFETY: all three numbers are writable.
        let code = unsafe { (call.function)(&raw mut major, &raw mut minor, &raw mut build) };
        call.check(code)?;
        Ok((major, minor, build))
    }

    pub(crate) fn device_count(&self) -> Answer<u32> {
        let call = self.device_count.call();
        let mut count: Roomy<cndevCardInfo_t> = empty();
        // SAFETY: `count` is writable, and roomier than the call's structure.
        call.check(unsafe { (call.function)(&raw mut count.value) })?;
        Ok(count.value.number)
    }

    pub(crate) fn handle_by_index(&self, index: u32) -> Answer<Handle> {
        let call = self.handle_by_index.call();
        let index = c_int::try_from(index).map_err(|e| call.malformed(e.to_string()))?;
        let mut device = 0;
        // SAFETY: `device` is writable.
        call.check(unsafe { (call.function)(index, &raw mut device) })?;
        Ok(device)
    }

    pub(crate) fn handle_by_pci(&self, address: &str) -> Answer<Handle> {
        let call = self.handle_by_pci.call()?;
        let text = CString::new(address).map_err(|e| call.malformed(e.to_string()))?;
        let mut device = 0;
        // SAFETY: `text` ends in a NUL and lives through the call; `device` is writable.
        call.check(unsafe { (call.function)(text.as_ptr(), &raw mut device) })?;
        Ok(device)
    }

    pub(crate) fn minor(&self, device: Handle) -> Answer<u32> {
        let call = self.minor.call()?;
        let mut minor = 0;
        // SAFETY: `minor` is writable.
        call.check(unsafe { (call.function)(&raw mut minor, device) })?;
        Ok(minor)
    }

    /// The model's name: a string of the library's own, scanned to a bound.
    pub(crate) fn name(&self, device: Handle) -> Answer<String> {
        const LONGEST: usize = 64;
        let call = self.name.call()?;
        // SAFETY: takes a number.
        let text = unsafe { (call.function)(device) };
        let mut bytes = Vec::new();
        for at in 0..LONGEST {
            if text.is_null() {
                return Ok(String::new());
            }
            let at = text.wrapping_add(at);
            // SAFETY: not null, and so a string of the library, of which no byte before this one was its end.
            match unsafe { at.read() }.to_ne_bytes() {
                [0] => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
                [byte] => bytes.push(byte),
            }
        }
        Err(call.malformed(format!("a string without an end within {LONGEST} bytes")))
    }

    pub(crate) fn event_types(&self, device: Handle) -> Answer<u64> {
        let call = self.event_types.call()?;
        let mut types = 0;
        // SAFETY: `types` is writable.
        call.check(unsafe { (call.function)(&raw mut types, device) })?;
        Ok(types)
    }

    /// Makes a set only where all four calls of its life are there.
    pub(crate) fn events(&self) -> Answer<EventSet> {
        let create = self.event_create.call()?;
        let (register, wait) = (self.event_register.call()?, self.event_wait.call()?);
        let destroy = self.event_destroy.call()?;
        let mut raw: cndevEventHandle = std::ptr::null_mut();
        // SAFETY: `raw` is a writable handle.
        create.check(unsafe { (create.function)(&raw mut raw) })?;
        if raw.is_null() {
            return Err(create.malformed("a null event handle".to_owned()));
        }
        Ok(EventSet { raw, register, wait, destroy })
    }

    pub(crate) fn relation(&self, device: Handle, other: Handle) -> Answer<i32> {
        let call = self.relation.call()?;
        let mut relation: Roomy<cndevTopologyRelationship_t> = empty();
        // SAFETY: `relation` is writable, and roomier than the call's structure.
        call.check(unsafe { (call.function)(&raw mut relation.value, device, other) })?;
        Ok(relation.value.relation)
    }

    pub(crate) fn link_ports(&self, device: Handle) -> Answer<i32> {
        let call = self.link_ports.call()?;
        // SAFETY: takes a number.
        Ok(unsafe { (call.function)(device) })
    }

    pub(crate) fn mim_profile(
        &self,
        device: Handle,
        number: i32,
    ) -> Answer<cndevMluInstanceProfileInfo_t> {
        numbered(self.mim_profile.call()?, |call, to| {
            // SAFETY: `to` is writable, and roomier than the call's structure.
            unsafe { call(to, number, device) }
        })
    }

    pub(crate) fn mim_placements(
        &self,
        device: Handle,
        profile: i32,
        most: u32,
    ) -> Answer<Vec<cndevMluInstancePlacement_t>> {
        let call = self.mim_placements.call()?;
        read_list(call.name, "places", most, |count, to| {
            // SAFETY: `to` is writable for as many entries as `count` says.
            unsafe { (call.function)(count.cast(), to, profile, device) }
        })
    }

    pub(crate) fn mim_most(&self, device: Handle, profile: i32) -> Answer<i32> {
        let call = self.mim_most.call()?;
        let mut count = 0;
        // SAFETY: `count` is writable.
        call.check(unsafe { (call.function)(&raw mut count, profile, device) })?;
        Ok(count)
    }

    pub(crate) fn create_mim(
        &self,
        device: Handle,
        profile: i32,
        place: (i32, i32),
        name: &str,
    ) -> Answer<cndevMluInstance_t> {
        let call = self.create_mim.call()?;
        let mut name = named(call.name, name)?;
        let profile = u32::try_from(profile).map_err(|e| call.malformed(e.to_string()))?;
        let mut placement: Roomy<cndevMluInstancePlacement_t> = empty();
        (placement.value.start, placement.value.size) = place;
        let mut made = 0;
        let (to, at) = (&raw mut made, &raw mut placement.value);
        // SAFETY: both are writable; `name` ends in a NUL and outlives the call.
        call.check(unsafe { (call.function)(at, to, profile, device, name.as_mut_ptr()) })?;
        Ok(made)
    }

    pub(crate) fn mim_list(
        &self,
        device: Handle,
        most: u32,
    ) -> Answer<Vec<cndevMluInstanceInfo_t>> {
        let call = self.mim_list.call()?;
        read_list(call.name, "instances", most, |count, to| {
            // SAFETY: `to` is writable for as many entries as `count` says.
            unsafe { (call.function)(count.cast(), to, device) }
        })
    }

    pub(crate) fn processes(&self, device: Handle, most: u32) -> Answer<Vec<cndevProcessInfo_t>> {
        let call = self.processes.call()?;
        read_list(call.name, "processes", most, |count, to| {
            // SAFETY: `to` is writable for as many entries as `count` says.
            unsafe { (call.function)(count, to, device) }
        })
    }

    pub(crate) fn smlu_profile(&self, device: Handle, id: i32) -> Answer<cndevSMluProfileInfo_t> {
        numbered(self.smlu_profile.call()?, |call, to| {
            // SAFETY: `to` is writable, and roomier than the call's structure.
            unsafe { call(to, id, device) }
        })
    }

    pub(crate) fn create_smlu_profile(
        &self,
        device: Handle,
        percent: u32,
        memory: u64,
    ) -> Answer<i32> {
        let call = self.create_smlu_profile.call()?;
        let mut size = sized(percent, memory);
        let mut made = 0;
        // SAFETY: both are writable, and `size` roomier than the call's structure.
        let code = unsafe { (call.function)(&raw mut size.value, &raw mut made, device) };
        call.check(code)?;
        Ok(made)
    }

    pub(crate) fn destroy_smlu_profile(&self, device: Handle, id: i32) -> Answer<()> {
        let call = self.destroy_smlu_profile.call()?;
        // SAFETY: takes numbers.
        call.check(unsafe { (call.function)(id, device) })
    }

    pub(crate) fn create_smlu(
        &self,
        device: Handle,
        profile: i32,
        name: &str,
    ) -> Answer<cndevMluInstance_t> {
        let call = self.create_smlu.call()?;
        let mut name = named(call.name, name)?;
        let profile = u32::try_from(profile).map_err(|e| call.malformed(e.to_string()))?;
        let mut made = 0;
        // SAFETY: `made` is writable; `name` ends in a NUL and outlives the call.
        let code = unsafe { (call.function)(&raw mut made, profile, device, name.as_mut_ptr()) };
        call.check(code)?;
        Ok(made)
    }

    pub(crate) fn smlu_list(&self, device: Handle, most: u32) -> Answer<Vec<cndevSMluInfo_t>> {
        let call = self.smlu_list.call()?;
        read_list(call.name, "instances", most, |count, to| {
            // SAFETY: `to` is writable for as many entries as `count` says.
            unsafe { (call.function)(count.cast(), to, device) }
        })
    }

    pub(crate) fn update_smlu(&self, instance: i32, percent: u32, memory: u64) -> Answer<()> {
        let call = self.update_smlu.call()?;
        let mut size = sized(percent, memory);
        // SAFETY: `size` is writable, and roomier than the call's structure.
        call.check(unsafe { (call.function)(instance, &raw mut size.value) })
    }

    pub(crate) fn link_up(&self, device: Handle, port: i32) -> Answer<bool> {
        const UP: i32 = 1;
        match (self.link_status.call(), self.link_status_v1.call()) {
            (Ok(call), _) => {
                let status = numbered(call, |call, to| {
                    // SAFETY: `to` is writable, and roomier than the call's structure.
                    unsafe { call(to, device, port) }
                })?;
                Ok(status.macState == UP)
            }
            (Err(_), Ok(older)) => {
                let status = numbered(older, |call, to| {
                    // SAFETY: `to` is writable, and roomier than the call's structure.
                    unsafe { call(to, device, port) }
                })?;
                Ok(status.isActive == UP)
            }
            (Err(missing), Err(_)) => Err(missing.into()),
        }
    }

    pub(crate) fn link_remote(
        &self,
        device: Handle,
        port: i32,
    ) -> Answer<cndevMLULinkRemoteInfo_t> {
        numbered(self.link_remote.call()?, |call, to| {
            // SAFETY: `to` is writable, and roomier than the call's structure.
            unsafe { call(to, device, port) }
        })
    }
}

/// Reads one structure about a card or, where the call is of one, an instance.
pub(crate) fn read<T: Plain>(of: &Optional<Reader<T>>, handle: i32) -> Answer<T> {
    let call = of.call()?;
    fill(call, handle, empty())
}

/// As [`read`], of a function that every libcndev has.
pub(crate) fn read_required<T: Plain>(of: &Required<Reader<T>>, handle: i32) -> Answer<T> {
    fill(of.call(), handle, empty())
}

/// Writes one structure about a card.
pub(crate) fn write<T: Plain>(of: &Optional<Reader<T>>, handle: i32, value: T) -> Answer<()> {
    let call = of.call()?;
    let mut whole: Roomy<T> = empty();
    whole.value = value;
    whole.value.stamp();
    fill(call, handle, whole).map(drop)
}

/// Unmakes an instance.
pub(crate) fn unmake(of: &Optional<Unmaker>, handle: i32) -> Answer<()> {
    let call = of.call()?;
    // SAFETY: takes a number.
    call.check(unsafe { (call.function)(handle) })
}

fn fill<T: Plain>(call: Call<Reader<T>>, handle: i32, mut to: Roomy<T>) -> Answer<T> {
    // SAFETY: `to` is writable, and roomier than the call's structure.
    call.check(unsafe { (call.function)(&raw mut to.value, handle) })?;
    Ok(to.value)
}

fn numbered<P: Pointer, T: Plain>(
    call: Call<P>,
    ask: impl FnOnce(P::Function, *mut T) -> cndevRet_t,
) -> Answer<T> {
    let mut to: Roomy<T> = empty();
    call.check(ask(call.function, &raw mut to.value))?;
    Ok(to.value)
}

/// Reads a list, of which the library says by a code that it wants more room.
fn read_list<T: Plain>(
    call: &'static str,
    what: &str,
    most: u32,
    mut ask: impl FnMut(*mut u32, *mut T) -> cndevRet_t,
) -> Answer<Vec<T>> {
    const WANTS_ROOM: cndevRet_t = VGPU_CNDEV_ERROR_INSUFFICIENT_SPACE.cast_signed();
    let of = ListOf { what, empty: empty::<T>().value, first: 16, most };
    let ask = |count: &mut u32, entries: &mut [T]| match ask(count, entries.as_mut_ptr()) {
        WANTS_ROOM => Ok(Told::WantsRoom),
        code => check(call, code).map(|()| Told::All),
    };
    list(of, ask, |why| malformed(call, why))
}

fn sized(percent: u32, memory: u64) -> Roomy<cndevSMluSet_t> {
    let mut size: Roomy<cndevSMluSet_t> = empty();
    (size.value.mluQuota, size.value.memorySize) = (percent, memory);
    size
}

/// A name in a buffer as large as the library's own, so that whatever it reads of it is ours.
fn named(call: &'static str, name: &str) -> Answer<[c_char; MAX_NAME + 1]> {
    if name.len() > MAX_NAME || name.bytes().any(|b| b == 0) {
        return Err(malformed(call, format!("{name:?} is no name of at most {MAX_NAME} bytes")));
    }
    let mut text = [0; MAX_NAME + 1];
    for (to, byte) in text.iter_mut().zip(name.bytes()) {
        *to = c_char::from_ne_bytes([byte]);
    }
    Ok(text)
}

/// A set of events of the library, freed when dropped.
pub(crate) struct EventSet {
    raw: cndevEventHandle,
    register: Call<cndevRegisterEvents_fn>,
    wait: Call<cndevEventWait_fn>,
    destroy: Call<cndevEventHandleDestroy_fn>,
}

// SAFETY: a set may be used from any thread, one at a time; every method takes `&mut self`.
unsafe impl Send for EventSet {}

impl EventSet {
    pub(crate) fn register(&mut self, device: Handle, types: u64) -> Answer<()> {
        let call = self.register;
        // SAFETY: the set came from this library and is not freed before drop.
        call.check(unsafe { (call.function)(self.raw, types, device) })
    }

    pub(crate) fn wait(&mut self, timeout: Duration) -> Answer<Option<cndevEventData_t>> {
        let call = self.wait;
        // Rounded up, so that a wait of less than a millisecond is not a busy loop.
        let milliseconds = timeout.as_nanos().div_ceil(1_000_000);
        let milliseconds = c_int::try_from(milliseconds).unwrap_or(c_int::MAX);
        let mut event: Roomy<cndevEventData_t> = empty();
        // SAFETY: the set came from this library and is not freed before drop; `event` is writable.
        let code = unsafe { (call.function)(self.raw, &raw mut event.value, milliseconds) };
        if u32::try_from(code) == Ok(VGPU_CNDEV_ERROR_TIMEOUT) {
            return Ok(None);
        }
        call.check(code)?;
        Ok(Some(event.value))
    }
}

impl Debug for EventSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventSet").finish_non_exhaustive()
    }
}

impl Drop for EventSet {
    fn drop(&mut self) {
        // SAFETY: the set came from this library and is freed once; a failure leaves nothing that we could do.
        let _ = unsafe { (self.destroy.function)(self.raw) };
    }
}

/// A structure and room behind it: a newer library may have made it longer.
#[repr(C)]
#[derive(Clone, Copy)]
struct Roomy<T> {
    value: T,
    spare: [u64; 64],
}

fn empty<T: Plain>() -> Roomy<T> {
    // SAFETY: `T` is plain and the rest are numbers: all zeroes are a value of each.
    let mut empty: Roomy<T> = unsafe { std::mem::zeroed() };
    empty.value.stamp();
    empty
}

/// A structure of numbers only.
///
/// # Safety
///
/// Every pattern of bits is a value of it.
pub(crate) unsafe trait Plain: Copy + 'static {
    /// Writes the version where the structure has one.
    fn stamp(&mut self) {}
}

macro_rules! plain {
    (stamped $($stamped:ty)*; bare $($bare:ty)*) => {
        $(
            // SAFETY: all its fields are numbers and arrays of them.
            unsafe impl Plain for $stamped {
                fn stamp(&mut self) {
                    self.version = VGPU_CNDEV_VERSION.cast_signed() as _;
                }
            }
        )*
        $(
            // SAFETY: all its fields are numbers and arrays of them.
            unsafe impl Plain for $bare {}
        )*
    };
}

plain! {
    stamped
        cndevCardInfo_t cndevUUID_t cndevMemoryInfo_t cndevVersionInfo_t cndevNUMANodeId_t cndevUtilizationInfo_t
        cndevProcessInfo_t cndevMemEccCounter_t cndevRepairStatus_t cndevCardHealthState_t
        cndevCardHeartbeatCount_t cndevCardCoreCount_t cndevTopologyRelationship_t cndevMLULinkStatus_t
        cndevMLULinkRemoteInfo_t cndevComputeMode_t cndevMimMode_t cndevSMLUMode_t cndevMluInstancePlacement_t
        cndevMluInstanceProfileInfo_t cndevMluInstanceInfo_t cndevSMluSet_t cndevSMluInfo_t
        cndevSMluProfileIdInfo_t cndevSMluProfileInfo_t cndevEventData_t;
    bare
        cndevMemoryInfoV2_t cndevPCIeInfoV2_t cndevCardHealthStateV2_t cndevMLULinkStatusV2_t
}
