//! Loading NVML and calling what nvml-wrapper cannot: the only unsafe code of this crate.
//!
//! An NVML that was opened stays mapped for the life of the process: NVML starts threads and keeps state, and no
//! pointer into it may outlive it. So everything here is `'static` and nothing is ever unloaded.

#![expect(unsafe_code, reason = "calls into a C library through pointers found at run time")]

use std::ffi::{CString, OsStr, c_char, c_uint};
use std::fmt::{self, Debug};
use std::time::Duration;

use vgpu_backend_kit::{Call, Finder, Lacks, ListOf, Optional, Required, Told, list, load, text};

use crate::api::{
    ComputeProcess, FailureCause, LinkEnd, LoadFailure, MAX_PROCESSES, MemoryInfo, MigMode,
    NvmlFailure, PciInfo, RemappedRows,
};
use crate::bindings::*;
use crate::decode::{
    EMPTY_PCI, EMPTY_PROCESS, flag, instance, link_end, pci_address, process, whole_number,
};
use crate::limits::LimitCalls;
use crate::mig::sys::MigTable;
use crate::symbols::{Checked, malformed};

/// The library's name in errors.
pub(crate) const LIBRARY: &str = "NVML";

/// The raw part of a loaded NVML.
pub(crate) struct Table {
    init: Required<nvmlInit_v2_fn>,
    driver_version: Required<nvmlSystemGetDriverVersion_fn>,
    handle_by_index: Required<nvmlDeviceGetHandleByIndex_v2_fn>,
    name: Required<nvmlDeviceGetName_fn>,
    uuid: Required<nvmlDeviceGetUUID_fn>,
    handle_by_uuid: Optional<nvmlDeviceGetHandleByUUID_fn>,
    index: Optional<nvmlDeviceGetIndex_fn>,
    pci_info: Optional<nvmlDeviceGetPciInfo_v3_fn>,
    nvlink_remote: Optional<nvmlDeviceGetNvLinkRemotePciInfo_v2_fn>,
    nvlink_remote_kind: Optional<nvmlDeviceGetNvLinkRemoteDeviceType_fn>,
    memory_info: Optional<nvmlDeviceGetMemoryInfo_fn>,
    mig_mode: Optional<nvmlDeviceGetMigMode_fn>,
    pub(crate) mig: MigTable,
    processes: Optional<nvmlDeviceGetComputeRunningProcesses_v3_fn>,
    field_values: Optional<nvmlDeviceGetFieldValues_fn>,
    remapped_rows: Optional<nvmlDeviceGetRemappedRows_fn>,
    supported_events: Optional<nvmlDeviceGetSupportedEventTypes_fn>,
    register_events: Optional<nvmlDeviceRegisterEvents_fn>,
    event_set_create: Optional<nvmlEventSetCreate_fn>,
    event_set_free: Optional<nvmlEventSetFree_fn>,
    event_set_wait: Optional<nvmlEventSetWait_v2_fn>,
    pub(crate) limits: LimitCalls,
    missing: Vec<&'static str>,
}

/// Functions that only nvml-wrapper calls; it keeps to itself which of them it found.
const WRAPPER_SYMBOLS: &[&str] = &[
    "nvmlDeviceGetCudaComputeCapability",
    "nvmlDeviceGetMemoryAffinity",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetMinorNumber",
    "nvmlDeviceGetNumGpuCores",
    "nvmlDeviceGetNvLinkState",
    "nvmlDeviceGetRetiredPagesPendingStatus",
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetTemperatureThreshold",
    "nvmlDeviceGetTopologyCommonAncestor",
    "nvmlDeviceGetTotalEccErrors",
    "nvmlDeviceSetComputeMode",
    "nvmlSystemGetCudaDriverVersion_v2",
];

/// A card as the library names it; valid for as long as the library is initialized, which is for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Handle(pub(crate) nvmlDevice_t);

// SAFETY: NVML documents that its calls may come from any thread; the pointer is a name that only NVML looks behind.
unsafe impl Send for Handle {}
// SAFETY: as for Send; a shared handle is only ever copied.
unsafe impl Sync for Handle {}

/// An event set of the library, freed when dropped.
pub(crate) struct EventSet {
    raw: nvmlEventSet_t,
    register: Call<nvmlDeviceRegisterEvents_fn>,
    wait: Call<nvmlEventSetWait_v2_fn>,
    free: Call<nvmlEventSetFree_fn>,
}

// SAFETY: a set may be used from any thread, one at a time; every method takes `&mut self`.
unsafe impl Send for EventSet {}

/// An event with the card still as a handle.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SetEvent {
    pub(crate) device: Handle,
    pub(crate) event_type: u64,
    pub(crate) data: u64,
    pub(crate) gpu_instance: Option<u32>,
    pub(crate) compute_instance: Option<u32>,
}

impl Table {
    /// Opens `library` (a path, or a name for the loader to search), finds its functions and pins it.
    ///
    /// # Errors
    ///
    /// [`LoadFailure::Open`], or [`LoadFailure::Other`] where a function that every NVML has is missing.
    pub(crate) fn open(library: &OsStr) -> Result<Self, LoadFailure> {
        load(library, LIBRARY, Self::find)
    }

    fn find(finder: &mut Finder<'_>) -> Result<Self, Lacks> {
        let table = Self {
            init: finder.required("nvmlInit_v2")?,
            driver_version: finder.required("nvmlSystemGetDriverVersion")?,
            handle_by_index: finder.required("nvmlDeviceGetHandleByIndex_v2")?,
            name: finder.required("nvmlDeviceGetName")?,
            uuid: finder.required("nvmlDeviceGetUUID")?,
            handle_by_uuid: finder.optional("nvmlDeviceGetHandleByUUID"),
            index: finder.optional("nvmlDeviceGetIndex"),
            pci_info: finder.optional("nvmlDeviceGetPciInfo_v3"),
            nvlink_remote: finder.optional("nvmlDeviceGetNvLinkRemotePciInfo_v2"),
            nvlink_remote_kind: finder.optional("nvmlDeviceGetNvLinkRemoteDeviceType"),
            memory_info: finder.optional("nvmlDeviceGetMemoryInfo"),
            mig_mode: finder.optional("nvmlDeviceGetMigMode"),
            mig: MigTable::find(finder),
            processes: finder.newest([
                "nvmlDeviceGetComputeRunningProcesses_v3",
                "nvmlDeviceGetComputeRunningProcesses_v2",
            ]),
            field_values: finder.optional("nvmlDeviceGetFieldValues"),
            remapped_rows: finder.optional("nvmlDeviceGetRemappedRows"),
            supported_events: finder.optional("nvmlDeviceGetSupportedEventTypes"),
            register_events: finder.optional("nvmlDeviceRegisterEvents"),
            event_set_create: finder.optional("nvmlEventSetCreate"),
            event_set_free: finder.optional("nvmlEventSetFree"),
            event_set_wait: finder.optional("nvmlEventSetWait_v2"),
            limits: LimitCalls::find(finder),
            missing: Vec::new(),
        };
        // The wrapper counts the cards, so this one is only looked for.
        finder.required::<nvmlDeviceGetCount_v2_fn>("nvmlDeviceGetCount_v2")?;
        for name in WRAPPER_SYMBOLS {
            finder.optional::<nvmlInit_v2_fn>(name);
        }
        Ok(Self { missing: finder.missing(), ..table })
    }

    /// The optional functions that are not there, sorted.
    pub(crate) fn missing(&self) -> &[&'static str] {
        &self.missing
    }

    /// Starts NVML; starts are counted by the library, and we never end one.
    pub(crate) fn init(&self) -> Result<(), NvmlFailure> {
        let init = self.init.call();
        // SAFETY: takes nothing; may be called at any time from any thread.
        init.check(unsafe { (init.function)() })
    }

    pub(crate) fn driver_version(&self) -> Result<String, NvmlFailure> {
        let call = self.driver_version.call();
        read_string::<{ VGPU_NVML_DRIVER_VERSION_SIZE as usize }>(call.name, |text, length| {
            // SAFETY: `text` is writable for `length` bytes.
            call.check(unsafe { (call.function)(text, length) })
        })
    }

    pub(crate) fn handle_by_index(&self, index: u32) -> Result<Handle, NvmlFailure> {
        let call = self.handle_by_index.call();
        let mut device: nvmlDevice_t = std::ptr::null_mut();
        // SAFETY: `device` is a writable handle.
        call.check(unsafe { (call.function)(index, &raw mut device) })?;
        Handle::of(call.name, device)
    }

    pub(crate) fn handle_by_uuid(&self, uuid: &str) -> Result<Handle, NvmlFailure> {
        let call = self.handle_by_uuid.call()?;
        let Ok(text) = CString::new(uuid) else {
            return Err(call.failure(FailureCause::Code(i64::from(VGPU_NVML_ERROR_NOT_FOUND))));
        };
        let mut device: nvmlDevice_t = std::ptr::null_mut();
        // SAFETY: `text` ends in a NUL and lives through the call; `device` is a writable handle.
        call.check(unsafe { (call.function)(text.as_ptr(), &raw mut device) })?;
        Handle::of(call.name, device)
    }

    pub(crate) fn index(&self, device: Handle) -> Result<u32, NvmlFailure> {
        let call = self.index.call()?;
        let mut index = 0;
        // SAFETY: the handle came from this library; `index` is writable.
        call.check(unsafe { (call.function)(device.0, &raw mut index) })?;
        Ok(index)
    }

    pub(crate) fn name(&self, device: Handle) -> Result<String, NvmlFailure> {
        let call = self.name.call();
        read_string::<{ VGPU_NVML_NAME_SIZE as usize }>(call.name, |text, length| {
            // SAFETY: the handle came from this library; `text` is writable for `length` bytes.
            call.check(unsafe { (call.function)(device.0, text, length) })
        })
    }

    pub(crate) fn uuid(&self, device: Handle) -> Result<String, NvmlFailure> {
        let call = self.uuid.call();
        read_string::<{ VGPU_NVML_UUID_SIZE as usize }>(call.name, |text, length| {
            // SAFETY: the handle came from this library; `text` is writable for `length` bytes.
            call.check(unsafe { (call.function)(device.0, text, length) })
        })
    }

    pub(crate) fn pci_info(&self, device: Handle) -> Result<PciInfo, NvmlFailure> {
        let call = self.pci_info.call()?;
        let mut pci = EMPTY_PCI;
        // SAFETY: the handle came from this library; `pci` is writable and of the layout of the call's version 3.
        call.check(unsafe { (call.function)(device.0, &raw mut pci) })?;
        Ok(PciInfo {
            address: pci_address(call.name, &pci)?,
            device_id: pci.pciDeviceId,
            subsystem_id: pci.pciSubSystemId,
        })
    }

    pub(crate) fn nvlink_remote(&self, device: Handle, link: u32) -> Result<String, NvmlFailure> {
        let call = self.nvlink_remote.call()?;
        let mut pci = EMPTY_PCI;
        // SAFETY: the handle came from this library; `pci` is writable and of the layout of the call's version 2.
        call.check(unsafe { (call.function)(device.0, link, &raw mut pci) })?;
        pci_address(call.name, &pci)
    }

    pub(crate) fn nvlink_remote_kind(
        &self,
        device: Handle,
        link: u32,
    ) -> Result<LinkEnd, NvmlFailure> {
        let call = self.nvlink_remote_kind.call()?;
        let mut kind = 0;
        // SAFETY: the handle came from this library; `kind` is writable.
        call.check(unsafe { (call.function)(device.0, link, &raw mut kind) })?;
        Ok(link_end(kind))
    }

    /// The first version of the call, for drivers before the second; it does not tell what is reserved.
    pub(crate) fn memory_info(&self, device: Handle) -> Result<MemoryInfo, NvmlFailure> {
        let call = self.memory_info.call()?;
        let mut memory = nvmlMemory_t { total: 0, free: 0, used: 0 };
        // SAFETY: the handle came from this library; `memory` is writable.
        call.check(unsafe { (call.function)(device.0, &raw mut memory) })?;
        Ok(MemoryInfo { total: memory.total, reserved: None, free: memory.free, used: memory.used })
    }

    pub(crate) fn mig_mode(&self, device: Handle) -> Result<MigMode, NvmlFailure> {
        let call = self.mig_mode.call()?;
        let (mut current, mut pending) = (0, 0);
        // SAFETY: the handle came from this library; both numbers are writable.
        call.check(unsafe { (call.function)(device.0, &raw mut current, &raw mut pending) })?;
        Ok(MigMode {
            current: flag(call.name, "current MIG mode", current)?,
            pending: flag(call.name, "pending MIG mode", pending)?,
        })
    }

    pub(crate) fn processes(&self, device: Handle) -> Result<Vec<ComputeProcess>, NvmlFailure> {
        let call = self.processes.call()?;
        let of = ListOf { what: "processes", empty: EMPTY_PROCESS, first: 64, most: MAX_PROCESSES };
        let ask = |count: &mut u32, entries: &mut [nvmlProcessInfo_t]| {
            // SAFETY: the handle came from this library; `entries` is writable for `count` entries.
            let code = unsafe { (call.function)(device.0, count, entries.as_mut_ptr()) };
            match code {
                VGPU_NVML_ERROR_INSUFFICIENT_SIZE => Ok(Told::WantsRoom),
                code => call.check(code).map(|()| Told::All),
            }
        };
        let list = list(of, ask, |why| call.malformed(why))?;
        Ok(list.iter().map(process).collect())
    }

    pub(crate) fn field_value(&self, device: Handle, field: u32) -> Result<u64, NvmlFailure> {
        let call = self.field_values.call()?;
        let mut value = nvmlFieldValue_t {
            fieldId: field,
            scopeId: 0,
            timestamp: 0,
            latencyUsec: 0,
            valueType: VGPU_NVML_VALUE_UNSIGNED_INT,
            nvmlReturn: VGPU_NVML_SUCCESS,
            value: nvmlValue_t { ullVal: 0 },
        };
        // SAFETY: the handle came from this library; `value` is one writable entry.
        call.check(unsafe { (call.function)(device.0, 1, &raw mut value) })?;
        // Each field has a result of its own.
        call.check(value.nvmlReturn)?;
        // SAFETY: the whole union was written before the call, and every bit pattern is a number.
        let bits = unsafe { value.value.ullVal };
        whole_number(call.name, &value, bits)
    }

    pub(crate) fn remapped_rows(&self, device: Handle) -> Result<RemappedRows, NvmlFailure> {
        let call = self.remapped_rows.call()?;
        let (mut corrected, mut uncorrected, mut pending, mut failed) = (0, 0, 0, 0);
        let (to_corrected, to_uncorrected) = (&raw mut corrected, &raw mut uncorrected);
        let (to_pending, to_failed) = (&raw mut pending, &raw mut failed);
        // SAFETY: the handle came from this library; all four numbers are writable.
        let code = unsafe {
            (call.function)(device.0, to_corrected, to_uncorrected, to_pending, to_failed)
        };
        call.check(code)?;
        Ok(RemappedRows {
            corrected,
            uncorrected,
            pending: flag(call.name, "pending rows", pending)?,
            failed: flag(call.name, "failed rows", failed)?,
        })
    }

    pub(crate) fn supported_events(&self, device: Handle) -> Result<u64, NvmlFailure> {
        let call = self.supported_events.call()?;
        let mut types = 0;
        // SAFETY: the handle came from this library; `types` is writable.
        call.check(unsafe { (call.function)(device.0, &raw mut types) })?;
        Ok(types)
    }

    /// Makes a set only where all four calls of its life are there.
    pub(crate) fn event_set(&self) -> Result<EventSet, NvmlFailure> {
        let create = self.event_set_create.call()?;
        let register = self.register_events.call()?;
        let wait = self.event_set_wait.call()?;
        let free = self.event_set_free.call()?;
        let mut raw: nvmlEventSet_t = std::ptr::null_mut();
        // SAFETY: `raw` is a writable handle.
        create.check(unsafe { (create.function)(&raw mut raw) })?;
        if raw.is_null() {
            return Err(create.malformed("a null event set".to_owned()));
        }
        Ok(EventSet { raw, register, wait, free })
    }
}

impl EventSet {
    pub(crate) fn register(&mut self, device: Handle, types: u64) -> Result<(), NvmlFailure> {
        let call = self.register;
        // SAFETY: handle and set came from this library; the set is not freed before drop.
        call.check(unsafe { (call.function)(device.0, types, self.raw) })
    }

    pub(crate) fn wait(&mut self, timeout: Duration) -> Result<Option<SetEvent>, NvmlFailure> {
        let call = self.wait;
        // Rounded up, so that a wait of less than a millisecond is not a busy loop.
        let milliseconds = timeout.as_nanos().div_ceil(1_000_000);
        let milliseconds = u32::try_from(milliseconds).unwrap_or(u32::MAX);
        let mut event = nvmlEventData_t {
            device: std::ptr::null_mut(),
            eventType: 0,
            eventData: 0,
            gpuInstanceId: VGPU_NVML_NO_INSTANCE,
            computeInstanceId: VGPU_NVML_NO_INSTANCE,
        };
        // SAFETY: the set came from this library and is not freed before drop; `event` is writable.
        let code = unsafe { (call.function)(self.raw, &raw mut event, milliseconds) };
        if code == VGPU_NVML_ERROR_TIMEOUT {
            return Ok(None);
        }
        call.check(code)?;
        Ok(Some(SetEvent {
            device: Handle(event.device),
            event_type: event.eventType,
            data: event.eventData,
            gpu_instance: instance(event.gpuInstanceId),
            compute_instance: instance(event.computeInstanceId),
        }))
    }
}

impl Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("missing", &self.missing).finish_non_exhaustive()
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
        let _ = unsafe { (self.free.function)(self.raw) };
    }
}

impl Handle {
    pub(crate) fn of(call: &'static str, device: nvmlDevice_t) -> Result<Self, NvmlFailure> {
        if device.is_null() {
            return Err(malformed(call, "a null handle".to_owned()));
        }
        Ok(Self(device))
    }
}

/// Reads a string of at most `N` bytes; one without an end within them is malformed, and is not read beyond.
fn read_string<const N: usize>(
    call: &'static str,
    read: impl FnOnce(*mut c_char, c_uint) -> Result<(), NvmlFailure>,
) -> Result<String, NvmlFailure> {
    let mut buffer: [c_char; N] = [0; N];
    let length = c_uint::try_from(N).expect("the sizes above are small");
    read(buffer.as_mut_ptr(), length)?;
    text(&buffer).map_err(|endless| malformed(call, endless.to_string()))
}
