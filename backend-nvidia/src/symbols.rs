//! What NVML's functions answer: codes and what cannot be, as failures that name the call.

use vgpu_backend_kit::{Call, Missing, Pointer};

use crate::api::{FailureCause, NvmlFailure};
use crate::bindings::{VGPU_NVML_ERROR_NOT_SUPPORTED, VGPU_NVML_SUCCESS, nvmlReturn_t};

/// What came of a call.
pub(crate) trait Checked {
    fn check(&self, code: nvmlReturn_t) -> Result<(), NvmlFailure>;

    fn failure(&self, cause: FailureCause) -> NvmlFailure;

    fn malformed(&self, what: String) -> NvmlFailure;
}

impl<P: Pointer> Checked for Call<P> {
    fn check(&self, code: nvmlReturn_t) -> Result<(), NvmlFailure> {
        match code {
            VGPU_NVML_SUCCESS => Ok(()),
            VGPU_NVML_ERROR_NOT_SUPPORTED => Err(self.failure(FailureCause::NotSupported)),
            other => Err(self.failure(FailureCause::Code(i64::from(other)))),
        }
    }

    fn failure(&self, cause: FailureCause) -> NvmlFailure {
        NvmlFailure { call: self.name, cause }
    }

    fn malformed(&self, what: String) -> NvmlFailure {
        malformed(self.name, what)
    }
}

impl From<Missing> for NvmlFailure {
    fn from(missing: Missing) -> Self {
        Self { call: missing.call, cause: FailureCause::SymbolMissing }
    }
}

/// An answer that cannot be.
pub(crate) fn malformed(call: &'static str, what: String) -> NvmlFailure {
    NvmlFailure { call, cause: FailureCause::Malformed(what) }
}
