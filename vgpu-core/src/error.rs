//! One error for the whole library: what, where, whether again, and the vendor's own number.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Result with our error.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the library.
///
/// `Display` is one line: operation, message, context, vendor code. It crosses a pipe unchanged, so
/// that a backend in a child process reports exactly what one in this process would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{}", Line(self))]
pub struct Error {
    /// What kind; policy looks at this and at nothing else.
    pub kind: ErrorKind,
    /// One sentence: what happened and what to do.
    pub message: String,
    /// The operation that failed, `create`, `scan`; added by the caller's lane where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// `key=value` facts: device, partition, scheme, path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub context: Vec<(String, String)>,
    /// The vendor's own code, if a vendor call failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor: Option<Box<VendorCode>>,
    /// What caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Box<Self>>,
}

impl Error {
    /// An error of `kind` with a message.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            operation: None,
            context: Vec::new(),
            vendor: None,
            source: None,
        }
    }

    /// Adds a `key=value` fact.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl fmt::Display) -> Self {
        self.context.push((key.to_owned(), value.to_string()));
        self
    }

    /// Names the operation, unless a deeper layer did so already.
    #[must_use]
    pub fn during(mut self, operation: &str) -> Self {
        self.operation.get_or_insert_with(|| operation.to_owned());
        self
    }

    /// Keeps the vendor's own code.
    #[must_use]
    pub fn vendor(mut self, library: &str, call: &str, code: i64) -> Self {
        self.vendor =
            Some(Box::new(VendorCode { library: library.into(), call: call.into(), code }));
        self
    }

    /// Keeps the error that caused this one.
    #[must_use]
    pub fn caused_by(mut self, source: Self) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// An error of the host: a file, disk or socket that refused.
    pub fn io(what: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::PermissionDenied => ErrorKind::Permission,
            _ => ErrorKind::Io,
        };
        Self::new(kind, format!("cannot {what} {}: {error}", path.display()))
    }

    /// Whether the same call may succeed later without anybody changing the request.
    pub fn is_retryable(&self) -> bool {
        self.kind.is_retryable()
    }
}

/// What kind of failure it was.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumIter,
    strum::EnumString,
    strum::IntoStaticStr,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The thing is there already and is not ours to take over.
    AlreadyExists,
    /// In use by a process or by another change; try again later.
    Busy,
    /// The driver under the loaded library was replaced; only a new process can load the new one.
    DriverReplaced,
    /// No room left: placements, profiles, instances, memory.
    Exhausted,
    /// The deadline passed; the call may still succeed later, the state is in doubt until it returns.
    InDoubt,
    /// The request contradicts the device's own description.
    Invalid,
    /// The host refused: a file, disk or socket.
    Io,
    /// The card does not answer (fell off the bus, driver says lost).
    Lost,
    /// No device, partition or mode of that name.
    NotFound,
    /// Not root, or not in the host PID namespace.
    Permission,
    /// The driver does not have this function; a capability was asked for that was not declared.
    Unsupported,
    /// The driver said something we do not know; its number is in `vendor`.
    Vendor,
}

impl ErrorKind {
    /// Whether the same call may succeed later without anybody changing the request.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Busy | Self::Exhausted | Self::InDoubt | Self::Io)
    }
}

/// The vendor's own code, kept whatever we made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VendorCode {
    /// Library, for example `libcndev`.
    pub library: String,
    /// Function that returned it.
    pub call: String,
    /// The number.
    pub code: i64,
}

/// The one-line form.
struct Line<'e>(&'e Error);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = self.0;
        if let Some(operation) = &e.operation {
            write!(f, "{operation}: ")?;
        }
        f.write_str(&e.message)?;
        if !e.context.is_empty() {
            let facts: Vec<String> = e.context.iter().map(|(k, v)| format!("{k}={v}")).collect();
            write!(f, " ({})", facts.join(", "))?;
        }
        if let Some(v) = &e.vendor {
            write!(f, " [{} {} = {}]", v.library, v.call, v.code)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_says_everything_and_survives_a_pipe() {
        let e = Error::new(ErrorKind::Busy, "two processes hold the part; end them first")
            .with("partition", "GPU-1/mig/4+4")
            .during("destroy")
            .vendor("libnvidia-ml", "nvmlGpuInstanceDestroy", 19)
            .caused_by(Error::new(ErrorKind::Vendor, "in use"));
        assert_eq!(
            e.to_string(),
            "destroy: two processes hold the part; end them first (partition=GPU-1/mig/4+4) \
             [libnvidia-ml nvmlGpuInstanceDestroy = 19]"
        );
        let text = serde_json::to_string(&e).expect("serializes");
        assert_eq!(serde_json::from_str::<Error>(&text).expect("parses"), e);
        assert!(std::error::Error::source(&e).is_some());
    }
}
