//! Why a library is of no use.

use std::fmt;
use std::path::Path;

use vgpu_core::{Error, ErrorKind};

/// A library that could not be made use of; `F` is how a call of it fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadFailure<F> {
    /// Nothing of that name can be loaded; the loader's own words.
    Open {
        /// What was asked for.
        library: String,
        /// Why not.
        why: String,
    },
    /// It is loaded and is some other library.
    Other {
        /// What was asked for.
        library: String,
        /// What it was to be.
        wanted: &'static str,
        /// The function that every such library has.
        lacks: &'static str,
    },
    /// It is the one and does not start.
    Start {
        /// What was asked for.
        library: String,
        /// What it is.
        wanted: &'static str,
        /// The call that failed, and why.
        failure: F,
    },
}

impl<F: fmt::Display> LoadFailure<F> {
    /// As the core's error: `NotFound` for a path where nothing is, `Io` for what the loader refuses,
    /// `Invalid` for another library, each with `advice`; a library that does not start fails as `call`
    /// says of its call.
    pub fn to_error(&self, advice: &str, call: impl FnOnce(&F) -> Error) -> Error {
        match self {
            Self::Open { library, .. } => {
                // The loader's words do not tell the two apart, the file does.
                let absent = library.contains('/') && !Path::new(library).exists();
                let kind = if absent { ErrorKind::NotFound } else { ErrorKind::Io };
                Error::new(kind, format!("{self}; {advice}"))
            }
            Self::Other { .. } => Error::new(ErrorKind::Invalid, format!("{self}; {advice}")),
            Self::Start { library, failure, .. } => call(failure).with("library", library),
        }
    }
}

impl<F: fmt::Display> fmt::Display for LoadFailure<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { library, why } => write!(f, "{library} cannot be loaded: {why}"),
            Self::Other { library, wanted, lacks } => {
                write!(f, "{library} is loaded but is not {wanted}: lacks {lacks}")
            }
            Self::Start { library, wanted, failure } => {
                write!(f, "{library} is {wanted} and does not start: {failure}")
            }
        }
    }
}

impl<F: fmt::Debug + fmt::Display> std::error::Error for LoadFailure<F> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_is_an_error_of_its_kind() {
        let refused = |failure: &&str| Error::new(ErrorKind::Busy, failure.to_string());
        let library = "/proc/version".to_owned();
        for (failure, kind, text) in [
            (
                LoadFailure::Open { library: "/nonexistent".to_owned(), why: "w".to_owned() },
                ErrorKind::NotFound,
                "/nonexistent cannot be loaded: w; name it",
            ),
            (
                LoadFailure::Open { library: library.clone(), why: "w".to_owned() },
                ErrorKind::Io,
                "/proc/version cannot be loaded: w; name it",
            ),
            // A name for the loader is no path.
            (
                LoadFailure::Open { library: "libx.so".to_owned(), why: "w".to_owned() },
                ErrorKind::Io,
                "libx.so cannot be loaded: w; name it",
            ),
            (
                LoadFailure::Other { library: library.clone(), wanted: "NVML", lacks: "f" },
                ErrorKind::Invalid,
                "/proc/version is loaded but is not NVML: lacks f; name it",
            ),
            (
                LoadFailure::Start { library, wanted: "NVML", failure: "f is held" },
                ErrorKind::Busy,
                "f is held",
            ),
        ] {
            let error = failure.to_error("name it", refused);
            assert_eq!((error.kind, error.message.as_str()), (kind, text));
        }
    }
}
