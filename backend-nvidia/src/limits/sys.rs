//! The two calls of r615 that limit a cgroup's memory on a card.

#![expect(unsafe_code, reason = "calls into a C library through pointers found at run time")]

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use vgpu_backend_kit::{Call, Finder, Optional, Pointer};

use crate::api::{FailureCause, MemoryLimits, NvmlFailure};
use crate::bindings::{
    VGPU_NVML_ERROR_INVALID_ARGUMENT, nvmlDeviceGetMemoryLimits_v1_fn,
    nvmlDeviceSetMemoryLimits_v1_fn, nvmlGetMemoryLimits_v1_t, nvmlSetMemoryLimits_v1_t,
};
use crate::symbols::Checked;
use crate::sys::Handle;

/// What no limit is written as.
const NO_LIMIT: u64 = u64::MAX;

/// Both calls, as far as the library has them.
pub(crate) struct LimitCalls {
    set: Optional<nvmlDeviceSetMemoryLimits_v1_fn>,
    read: Optional<nvmlDeviceGetMemoryLimits_v1_fn>,
}

impl LimitCalls {
    pub(crate) fn find(finder: &mut Finder<'_>) -> Self {
        Self {
            set: finder.optional("nvmlDeviceSetMemoryLimits_v1"),
            read: finder.optional("nvmlDeviceGetMemoryLimits_v1"),
        }
    }

    pub(crate) fn set(
        &self,
        device: Handle,
        cgroup: &Path,
        soft: u64,
        hard: Option<u64>,
    ) -> Result<(), NvmlFailure> {
        let call = self.set.call()?;
        let path = text(&call, cgroup)?;
        let mut limits = nvmlSetMemoryLimits_v1_t {
            nameSpace: path.as_ptr(),
            softLimit: soft,
            hardLimit: hard.unwrap_or(NO_LIMIT),
        };
        // SAFETY: the handle came from this library; `limits` and the string in it, which ends in a NUL, live through
        // the call.
        call.check(unsafe { (call.function)(device.0, &raw mut limits) })
    }

    pub(crate) fn read(&self, device: Handle, cgroup: &Path) -> Result<MemoryLimits, NvmlFailure> {
        let call = self.read.call()?;
        let path = text(&call, cgroup)?;
        let mut limits = nvmlGetMemoryLimits_v1_t {
            nameSpace: path.as_ptr(),
            softLimit: 0,
            hardLimit: NO_LIMIT,
            currentUsed: 0,
        };
        // SAFETY: as for `set`; the numbers are writable.
        call.check(unsafe { (call.function)(device.0, &raw mut limits) })?;
        Ok(MemoryLimits {
            soft: limits.softLimit,
            hard: (limits.hardLimit != NO_LIMIT).then_some(limits.hardLimit),
            used: limits.currentUsed,
        })
    }
}

fn text<P: Pointer>(call: &Call<P>, path: &Path) -> Result<CString, NvmlFailure> {
    let invalid = FailureCause::Code(i64::from(VGPU_NVML_ERROR_INVALID_ARGUMENT));
    CString::new(path.as_os_str().as_bytes()).map_err(|_nul| call.failure(invalid))
}
