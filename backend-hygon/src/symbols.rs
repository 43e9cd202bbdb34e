//! What the three libraries' functions answer: codes and what cannot be, as failures that name the
//! library and the call.

use std::ffi::c_char;

use vgpu_backend_kit::{Call, Missing, Pointer};

use crate::api::{CallFailure, FailureCause};

/// What came of a call.
pub(crate) trait Checked {
    /// # Errors
    /// Every code but 0.
    fn check(&self, code: impl Into<i64>) -> Result<(), CallFailure>;

    fn malformed(&self, what: String) -> CallFailure;

    /// The text in a buffer that the library filled; nothing is read beyond it.
    fn text(&self, buffer: &[c_char]) -> Result<String, CallFailure> {
        vgpu_backend_kit::text(buffer).map_err(|endless| self.malformed(endless.to_string()))
    }
}

impl<P: Pointer> Checked for Call<P> {
    fn check(&self, code: impl Into<i64>) -> Result<(), CallFailure> {
        match code.into() {
            0 => Ok(()),
            code => {
                let cause = FailureCause::Code(code);
                Err(CallFailure { library: self.library, call: self.name, cause })
            }
        }
    }

    fn malformed(&self, what: String) -> CallFailure {
        let cause = FailureCause::Malformed(what);
        CallFailure { library: self.library, call: self.name, cause }
    }
}

impl From<Missing> for CallFailure {
    fn from(missing: Missing) -> Self {
        let Missing { library, call } = missing;
        Self { library, call, cause: FailureCause::SymbolMissing }
    }
}
