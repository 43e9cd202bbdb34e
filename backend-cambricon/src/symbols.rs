//! Functions of the library as types: one that every libcndev has is not one that some have.

use crate::api::{CndevFailure, FailureCause};
use crate::bindings::{VGPU_CNDEV_SUCCESS, cndevRet_t};

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

/// A function that every libcndev has; without it the library is not loaded.
pub(crate) struct Required<P: Pointer>(pub(crate) CndevCall<P>);

/// A function that some libcndev has.
pub(crate) struct Optional<P: Pointer> {
    pub(crate) name: &'static str,
    pub(crate) call: Option<CndevCall<P>>,
}

/// A function that is there, with its name for errors.
pub(crate) struct CndevCall<P: Pointer> {
    pub(crate) name: &'static str,
    pub(crate) function: P::Function,
}

impl<P: Pointer> Required<P> {
    pub(crate) fn call(&self) -> CndevCall<P> {
        self.0
    }
}

impl<P: Pointer> Optional<P> {
    pub(crate) fn call(&self) -> Result<CndevCall<P>, CndevFailure> {
        self.call.ok_or(CndevFailure { call: self.name, cause: FailureCause::SymbolMissing })
    }
}

impl<P: Pointer> CndevCall<P> {
    pub(crate) fn check(&self, code: cndevRet_t) -> Result<(), CndevFailure> {
        check(self.name, code)
    }

    pub(crate) fn malformed(&self, what: String) -> CndevFailure {
        malformed(self.name, what)
    }
}

impl<P: Pointer> Clone for CndevCall<P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P: Pointer> Copy for CndevCall<P> {}

/// What a call's code came to.
pub(crate) fn check(call: &'static str, code: cndevRet_t) -> Result<(), CndevFailure> {
    match u32::try_from(code) {
        Ok(VGPU_CNDEV_SUCCESS) => Ok(()),
        _ => Err(CndevFailure { call, cause: FailureCause::Code(i64::from(code)) }),
    }
}

/// An answer that cannot be.
pub(crate) fn malformed(call: &'static str, what: String) -> CndevFailure {
    CndevFailure { call, cause: FailureCause::Malformed(what) }
}
