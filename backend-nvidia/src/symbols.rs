//! Functions of the library as types: one that every NVML has is not one that some have.

use crate::api::{FailureCause, NvmlFailure};
use crate::bindings::{VGPU_NVML_ERROR_NOT_SUPPORTED, VGPU_NVML_SUCCESS, nvmlReturn_t};

/// A C function pointer as bindgen writes it: an `Option` of the function.
pub(crate) trait Pointer: Copy + 'static {
    /// The function itself.
    type Function: Copy;

    /// The function, unless the pointer is null.
    fn function(self) -> Option<Self::Function>;
}

impl<F: Copy + 'static> Pointer for Option<F> {
    type Function = F;

    fn function(self) -> Self {
        self
    }
}

/// A function that every NVML has; without it the library is not loaded.
pub(crate) struct Required<P: Pointer>(pub(crate) NvmlCall<P>);

/// A function that some NVML has.
pub(crate) struct Optional<P: Pointer> {
    pub(crate) name: &'static str,
    pub(crate) call: Option<NvmlCall<P>>,
}

/// A function that is there, with its name for errors.
pub(crate) struct NvmlCall<P: Pointer> {
    pub(crate) name: &'static str,
    pub(crate) function: P::Function,
}

impl<P: Pointer> Required<P> {
    pub(crate) fn call(&self) -> NvmlCall<P> {
        self.0
    }
}

impl<P: Pointer> Optional<P> {
    pub(crate) fn call(&self) -> Result<NvmlCall<P>, NvmlFailure> {
        self.call.ok_or(NvmlFailure { call: self.name, cause: FailureCause::SymbolMissing })
    }
}

impl<P: Pointer> NvmlCall<P> {
    pub(crate) fn check(&self, code: nvmlReturn_t) -> Result<(), NvmlFailure> {
        match code {
            VGPU_NVML_SUCCESS => Ok(()),
            VGPU_NVML_ERROR_NOT_SUPPORTED => Err(self.failure(FailureCause::NotSupported)),
            other => Err(self.failure(FailureCause::Code(i64::from(other)))),
        }
    }

    pub(crate) fn failure(&self, cause: FailureCause) -> NvmlFailure {
        NvmlFailure { call: self.name, cause }
    }

    pub(crate) fn malformed(&self, what: String) -> NvmlFailure {
        malformed(self.name, what)
    }
}

impl<P: Pointer> Clone for NvmlCall<P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P: Pointer> Copy for NvmlCall<P> {}

/// An answer that cannot be.
pub(crate) fn malformed(call: &'static str, what: String) -> NvmlFailure {
    NvmlFailure { call, cause: FailureCause::Malformed(what) }
}
