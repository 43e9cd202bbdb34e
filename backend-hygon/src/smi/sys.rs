//! Calls into librocm_smi64.

#![expect(unsafe_code, reason = "calls into a C library through pointers found at run time")]

use std::ffi::{OsStr, OsString, c_char, c_int};
use std::fmt::{self, Debug};
use std::path::Path;
use std::time::Duration;

use vgpu_backend_kit::{Optional, Required, at_most, load};

use crate::api::{CallFailure, LoadFailure, MAX_CARDS, RocmSmi, SmiEvent};
use crate::smi::bindings::*;
use crate::symbols::Checked;

/// The library's name in errors.
pub(crate) const LIBRARY: &str = "librocm_smi64";

/// Everything that a card can raise: 1 VM fault, 2 thermal throttling, 3 and 4 around a reset.
const EVENTS: u64 = 0b1111;

/// librocm_smi64, loaded and started, for the rest of the process's life.
pub struct LoadedSmi {
    file: OsString,
    missing: Vec<&'static str>,
    init: Required<rsmi_init_fn>,
    count: Required<rsmi_num_monitor_devices_fn>,
    version: Optional<rsmi_version_get_fn>,
    pci_id: Required<rsmi_dev_pci_id_get_fn>,
    serial: Optional<rsmi_dev_serial_number_get_fn>,
    memory_total: Optional<rsmi_dev_memory_total_get_fn>,
    memory_used: Optional<rsmi_dev_memory_usage_get_fn>,
    busy: Optional<rsmi_dev_busy_percent_get_fn>,
    ecc: Optional<rsmi_dev_ecc_count_get_fn>,
    cu_num: Optional<rsmi_dev_cu_num_get_fn>,
    event_init: Optional<rsmi_event_notification_init_fn>,
    event_mask: Optional<rsmi_event_notification_mask_set_fn>,
    event_get: Optional<rsmi_event_notification_get_fn>,
}

/// Room for whatever the library writes: each version has structs of other sizes.
#[repr(C, align(16))]
struct Room([u8; VGPU_RSMI_ROOM as usize]);

impl LoadedSmi {
    /// Loads `library`, checks that it is ROCm SMI, and starts it for cards of every vendor.
    ///
    /// # Errors
    /// [`LoadFailure`]; a library that finds no card does not start (code 8).
    pub fn load(library: impl AsRef<OsStr>) -> Result<Self, LoadFailure> {
        let file = library.as_ref();
        let smi: Self = load(file, LIBRARY, |finder| {
            Ok(Self {
                init: finder.required("rsmi_init")?,
                count: finder.required("rsmi_num_monitor_devices")?,
                pci_id: finder.required("rsmi_dev_pci_id_get")?,
                version: finder.optional("rsmi_version_get"),
                serial: finder.optional("rsmi_dev_serial_number_get"),
                memory_total: finder.optional("rsmi_dev_memory_total_get"),
                memory_used: finder.optional("rsmi_dev_memory_usage_get"),
                busy: finder.optional("rsmi_dev_busy_percent_get"),
                ecc: finder.optional("rsmi_dev_ecc_count_get"),
                cu_num: finder.optional("rsmi_dev_cu_num_get"),
                event_init: finder.optional("rsmi_event_notification_init"),
                event_mask: finder.optional("rsmi_event_notification_mask_set"),
                event_get: finder.optional("rsmi_event_notification_get"),
                missing: finder.missing(),
                file: file.to_owned(),
            })
        })?;
        let start = |failure| LoadFailure::Start {
            library: file.to_string_lossy().into_owned(),
            wanted: LIBRARY,
            failure,
        };
        // Read first, as the rule for a library of unknown version is.
        if smi.version.is_there() {
            smi.version().map_err(start)?;
        }
        let init = smi.init.call();
        // SAFETY: takes a number; may be called at any time.
        let code = unsafe { (init.function)(u64::from(VGPU_RSMI_INIT_ALL_GPUS)) };
        init.check(code).map_err(start)?;
        Ok(smi)
    }
}

impl RocmSmi for LoadedSmi {
    fn library(&self) -> &Path {
        Path::new(&self.file)
    }

    fn missing_symbols(&self) -> &[&'static str] {
        &self.missing
    }

    fn version(&self) -> Result<(u32, u32), CallFailure> {
        let call = self.version.call()?;
        let mut room = Room::zeroed();
        // SAFETY: the room is larger than the struct of any version.
        call.check(unsafe { (call.function)(room.pointer()) })?;
        // Major and minor lead it in every version.
        Ok((room.number(0), room.number(1)))
    }

    fn device_count(&self) -> Result<u32, CallFailure> {
        let call = self.count.call();
        let mut count = 0;
        // SAFETY: `count` is writable.
        call.check(unsafe { (call.function)(&raw mut count) })?;
        at_most(count, "cards", MAX_CARDS).map_err(|what| call.malformed(what))
    }

    fn pci_address(&self, index: u32) -> Result<String, CallFailure> {
        let call = self.pci_id.call();
        let mut id = 0;
        // SAFETY: `id` is writable.
        call.check(unsafe { (call.function)(index, &raw mut id) })?;
        Ok(address(id))
    }

    fn serial(&self, index: u32) -> Result<String, CallFailure> {
        let call = self.serial.call()?;
        let mut buffer: [c_char; 256] = [0; 256];
        // SAFETY: `buffer` is writable for 256 bytes.
        call.check(unsafe { (call.function)(index, buffer.as_mut_ptr(), 256) })?;
        call.text(&buffer)
    }

    fn memory_total(&self, index: u32) -> Result<u64, CallFailure> {
        let call = self.memory_total.call()?;
        let mut bytes = 0;
        // SAFETY: `bytes` is writable.
        let code = unsafe { (call.function)(index, VGPU_RSMI_MEMORY_VRAM, &raw mut bytes) };
        call.check(code)?;
        Ok(bytes)
    }

    fn memory_used(&self, index: u32) -> Result<u64, CallFailure> {
        let call = self.memory_used.call()?;
        let mut bytes = 0;
        // SAFETY: `bytes` is writable.
        let code = unsafe { (call.function)(index, VGPU_RSMI_MEMORY_VRAM, &raw mut bytes) };
        call.check(code)?;
        Ok(bytes)
    }

    fn busy_percent(&self, index: u32) -> Result<u32, CallFailure> {
        let call = self.busy.call()?;
        let mut percent = 0;
        // SAFETY: `percent` is writable.
        call.check(unsafe { (call.function)(index, &raw mut percent) })?;
        Ok(percent)
    }

    fn compute_units(&self, index: u32) -> Result<u32, CallFailure> {
        let call = self.cu_num.call()?;
        let mut count: c_int = 0;
        // SAFETY: `count` is writable.
        call.check(unsafe { (call.function)(index, &raw mut count) })?;
        u32::try_from(count).map_err(|_e| call.malformed(format!("{count} compute units")))
    }

    fn uncorrected_errors(&self, index: u32) -> Result<u64, CallFailure> {
        let call = self.ecc.call()?;
        let mut room = Room::zeroed();
        // SAFETY: the room is larger than the struct of any version.
        let code =
            unsafe { (call.function)(index, u64::from(VGPU_RSMI_BLOCK_UMC), room.pointer()) };
        call.check(code)?;
        Ok(room.wide(1))
    }

    fn watch(&self, index: u32) -> Result<(), CallFailure> {
        let init = self.event_init.call()?;
        // SAFETY: takes a number.
        init.check(unsafe { (init.function)(index) })?;
        let mask = self.event_mask.call()?;
        // SAFETY: takes numbers.
        mask.check(unsafe { (mask.function)(index, EVENTS) })
    }

    fn next_event(&self, timeout: Duration) -> Result<Option<SmiEvent>, CallFailure> {
        // NO_DATA: nothing came.
        const NOTHING: i64 = 14;
        let call = self.event_get.call()?;
        let mut room = Room::zeroed();
        let mut count = 1;
        let timeout = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: room for one event of any version, and one is asked for.
        let code = unsafe { (call.function)(timeout, &raw mut count, room.pointer()) };
        match call.check(code) {
            Err(failure) if failure.code() == Some(NOTHING) => Ok(None),
            Err(failure) => Err(failure),
            Ok(()) if count == 0 => Ok(None),
            Ok(()) => Ok(Some(SmiEvent { index: room.number(0), kind: room.number(1) })),
        }
    }
}

impl Debug for LoadedSmi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing = &self.missing;
        f.debug_struct("LoadedSmi")
            .field("file", &self.file)
            .field("missing", missing)
            .finish_non_exhaustive()
    }
}

impl Room {
    fn zeroed() -> Box<Self> {
        Box::new(Self([0; VGPU_RSMI_ROOM as usize]))
    }

    fn pointer(&mut self) -> *mut core::ffi::c_void {
        self.0.as_mut_ptr().cast()
    }

    /// The nth 32-bit number.
    fn number(&self, n: usize) -> u32 {
        let bytes = self.0[n * 4..][..4].try_into().expect("four bytes");
        u32::from_ne_bytes(bytes)
    }

    /// The nth 64-bit number.
    fn wide(&self, n: usize) -> u64 {
        let bytes = self.0[n * 8..][..8].try_into().expect("eight bytes");
        u64::from_ne_bytes(bytes)
    }
}

/// `domain << 32 | partition << 28 | bus << 8 | device << 3 | function` as the kernel writes it.
fn address(id: u64) -> String {
    let (domain, bus, device) = (id >> 32, (id >> 8) & 0xff, (id >> 3) & 0x1f);
    format!("{domain:04x}:{bus:02x}:{device:02x}.{}", id & 7)
}

// What is read from the room lies where the header says.
const _: () = {
    assert!(size_of::<rsmi_version_t>() == 24);
    assert!(std::mem::offset_of!(rsmi_version_t, minor) == 4);
    assert!(size_of::<rsmi_error_count_head_t>() == 16);
    assert!(std::mem::offset_of!(rsmi_error_count_head_t, uncorrectable) == 8);
    assert!(size_of::<rsmi_evt_head_t>() == 8);
    assert!(std::mem::offset_of!(rsmi_evt_head_t, event) == 4);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_becomes_the_kernel_s_address() {
        assert_eq!(address(0x3300), "0000:33:00.0");
        assert_eq!(address((0x1_0000 << 32) | (3 << 28) | 0x9f0b), "10000:9f:01.3");
    }
}
