//! What libcndev's functions answer: codes and what cannot be, as failures that name the call.

use vgpu_backend_kit::{Call, Missing, Pointer};

use crate::api::{CndevFailure, FailureCause};
use crate::bindings::{VGPU_CNDEV_SUCCESS, cndevRet_t};

/// What came of a call.
pub(crate) trait Checked {
    fn check(&self, code: cndevRet_t) -> Result<(), CndevFailure>;

    fn malformed(&self, what: String) -> CndevFailure;
}

impl<P: Pointer> Checked for Call<P> {
    fn check(&self, code: cndevRet_t) -> Result<(), CndevFailure> {
        check(self.name, code)
    }

    fn malformed(&self, what: String) -> CndevFailure {
        malformed(self.name, what)
    }
}

impl From<Missing> for CndevFailure {
    fn from(missing: Missing) -> Self {
        Self { call: missing.call, cause: FailureCause::SymbolMissing }
    }
}

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
