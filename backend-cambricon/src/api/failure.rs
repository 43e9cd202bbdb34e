//! How calls of the library and loading it fail.

use std::fmt;

/// A failed call: which C function, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CndevFailure {
    /// The C function.
    pub call: &'static str,
    /// Why.
    pub cause: FailureCause,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FailureCause {
    /// The library returned this number.
    Code(i64),
    /// The library said success and gave what cannot be: a number beyond a bound, a string without end.
    Malformed(String),
    /// The driver under the loaded library is another than the one it was started on.
    Replaced {
        /// The version then.
        was: String,
        /// The version now, or why none can be told.
        now: String,
    },
    /// The library has no such function: it is older or newer than it.
    SymbolMissing,
}

impl CndevFailure {
    /// Reads the number that the library returned, if it returned one.
    pub fn code(&self) -> Option<i64> {
        match self.cause {
            FailureCause::Code(code) => Some(code),
            _ => None,
        }
    }

    /// Tells whether the card, its mode, the driver or the library simply lacks what was asked for.
    pub fn is_unsupported(&self) -> bool {
        matches!(self.cause, FailureCause::Code(10) | FailureCause::SymbolMissing)
    }

    /// Tells whether the library must be started (anew) before it answers anybody: not initialized, no driver, no
    /// devices.
    pub fn wants_start(&self) -> bool {
        matches!(self.code(), Some(1 | 4 | 12))
    }
}

impl fmt::Display for CndevFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let call = self.call;
        match &self.cause {
            FailureCause::Code(code) => write!(f, "{call} failed with {code} ({})", meaning(*code)),
            FailureCause::Malformed(what) => write!(f, "{call} gave what cannot be: {what}"),
            FailureCause::Replaced { was, now } => {
                write!(f, "the driver was {was} when the library was started and is {now} now")
            }
            FailureCause::SymbolMissing => write!(f, "the library has no {call}"),
        }
    }
}

impl std::error::Error for CndevFailure {}

/// A libcndev that could not be made use of.
pub type LoadFailure = vgpu_backend_kit::LoadFailure<CndevFailure>;

/// The library's numbers in words, so that a person need not look them up.
fn meaning(code: i64) -> &'static str {
    match code {
        1 => "no driver",
        2 => "driver too old for the library",
        3 => "structure version not supported",
        4 => "not initialized",
        5 => "invalid argument",
        6 => "no such device",
        7 => "unknown error",
        8 => "out of host memory",
        9 => "no space: the buffer is too small, or the card is full",
        10 => "not supported by card, driver or present mode",
        11 => "no such link",
        12 => "no devices",
        13 => "no permission",
        14 => "not found",
        15 => "in use",
        16 => "exists already",
        17 => "timeout",
        18 => "the device is in problem",
        _ => "a code this version does not know",
    }
}
