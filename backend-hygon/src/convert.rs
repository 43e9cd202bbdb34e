//! What libraries and files said, as the core's errors.

use std::io;
use std::path::Path;

use vgpu_core::{Error, ErrorKind};

use crate::api::{CallFailure, FailureCause, LoadFailure};
use crate::{dmi, mig};

/// What stands for a library where a file of `/etc/vdev` is the object.
pub(crate) const FILES: &str = "vdev.conf";

/// A failed call with the kind that policy looks at, and the library's own number.
pub(crate) fn error(failure: &CallFailure) -> Error {
    let error = Error::new(kind(failure), message(failure));
    match failure.code() {
        Some(code) => error.vendor(failure.library, failure.call, code),
        None => error.with("call", failure.call),
    }
}

/// A library that could not be made use of, with what to do about it.
pub(crate) fn load_error(failure: &LoadFailure) -> Error {
    failure.to_error(
        "name the file that the driver installed, for example below /opt/hyhal/lib",
        error,
    )
}

/// A step on a virtual DCU's file that the host refused, with its number.
pub(crate) fn file_error(step: &str, path: &Path, failure: &io::Error) -> Error {
    const EREMOTEIO: i32 = 121;
    let code = failure.raw_os_error();
    let kind = match failure.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied => ErrorKind::Permission,
        io::ErrorKind::ResourceBusy => ErrorKind::Busy,
        // What is behind the file refuses, and not the file.
        _ if code == Some(EREMOTEIO) => ErrorKind::Vendor,
        _ => ErrorKind::Io,
    };
    let error = Error::new(kind, format!("cannot {step} {}: {failure}", path.display()));
    match code {
        Some(code) => error.vendor(FILES, step, i64::from(code)),
        None => error,
    }
}

/// Whether a failure only says that there is no such reading; of ROCm SMI that may also be a card that
/// fell off the bus, so that it is "not known" and never "fine".
pub(crate) fn is_unsupported(failure: &CallFailure) -> bool {
    match failure.cause {
        FailureCause::SymbolMissing => true,
        FailureCause::Malformed(_) => false,
        FailureCause::Code(_) => kind(failure) == ErrorKind::Unsupported,
    }
}

/// A library's numbers in words.
pub(crate) fn meaning(library: &str, code: i64) -> &'static str {
    let table = match library {
        dmi::LIBRARY => DMI,
        mig::LIBRARY => MIG,
        _ => SMI,
    };
    let row = table.iter().find(|(number, _, _)| *number == code);
    row.map_or("a code this version does not know", |(_, _, words)| words)
}

fn kind(failure: &CallFailure) -> ErrorKind {
    let code = match failure.cause {
        FailureCause::Code(code) => code,
        FailureCause::Malformed(_) => return ErrorKind::Vendor,
        FailureCause::SymbolMissing => return ErrorKind::Unsupported,
    };
    let table = match failure.library {
        dmi::LIBRARY => DMI,
        mig::LIBRARY => MIG,
        _ => SMI,
    };
    let row = table.iter().find(|(number, _, _)| *number == code);
    row.map_or(ErrorKind::Vendor, |(_, kind, _)| *kind)
}

fn message(failure: &CallFailure) -> String {
    let advice = match (kind(failure), failure.library, failure.code()) {
        (ErrorKind::Permission, _, _) => "run as root on the host",
        (_, dmi::LIBRARY, Some(13)) => "it sees no card: is the driver loaded, and hymgr running?",
        (_, mig::LIBRARY, Some(19)) => "end what has /dev/kfd open on any card of the node",
        (_, mig::LIBRARY, Some(23)) => {
            "no room, or a leftover of an instance below /etc/dmi_mig_config/ci"
        }
        _ => return failure.to_string(),
    };
    format!("{failure}; {advice}")
}

type Rows = &'static [(i64, ErrorKind, &'static str)];

const SMI: Rows = &[
    (1, ErrorKind::Invalid, "invalid arguments"),
    (2, ErrorKind::Unsupported, "not supported, or the card is gone"),
    (3, ErrorKind::Io, "file error"),
    (4, ErrorKind::Permission, "no permission"),
    (5, ErrorKind::Exhausted, "out of resources"),
    (6, ErrorKind::Vendor, "internal exception"),
    (7, ErrorKind::Invalid, "input out of bounds"),
    (8, ErrorKind::Io, "it found no card to start with"),
    (9, ErrorKind::Unsupported, "not yet implemented"),
    (10, ErrorKind::NotFound, "not found"),
    (11, ErrorKind::Vendor, "insufficient size"),
    (12, ErrorKind::InDoubt, "interrupted"),
    (13, ErrorKind::Vendor, "unexpected size"),
    (14, ErrorKind::Vendor, "no data"),
    (15, ErrorKind::Vendor, "unexpected data"),
    (16, ErrorKind::Busy, "busy: another holds its lock"),
    (17, ErrorKind::Vendor, "reference count overflow"),
    (0xffff_ffff, ErrorKind::Vendor, "unknown error"),
];

const DMI: Rows = &[
    (1, ErrorKind::Vendor, "error"),
    (2, ErrorKind::Exhausted, "no memory"),
    (3, ErrorKind::Io, "/dev/mkfd cannot be opened"),
    (4, ErrorKind::Busy, "/dev/mkfd is open already"),
    (5, ErrorKind::Io, "a system node does not exist"),
    (6, ErrorKind::Unsupported, "not supported"),
    (7, ErrorKind::Io, "/dev/mkfd is not open"),
    (8, ErrorKind::Vendor, "the virtual device was not created"),
    (9, ErrorKind::Vendor, "the virtual device was not destroyed"),
    (10, ErrorKind::Invalid, "invalid arguments"),
    (11, ErrorKind::Exhausted, "out of resources"),
    (12, ErrorKind::Vendor, "the virtual device cannot be read"),
    (13, ErrorKind::Io, "not initialized"),
    (14, ErrorKind::Unsupported, "not supported by the card"),
    (15, ErrorKind::NotFound, "no such virtual device"),
    (16, ErrorKind::Vendor, "the card was not initialized"),
    (17, ErrorKind::Busy, "in use"),
    (18, ErrorKind::Io, "file error"),
    (19, ErrorKind::Permission, "no permission"),
    (20, ErrorKind::Vendor, "internal exception"),
    (21, ErrorKind::Invalid, "input out of bounds"),
    (22, ErrorKind::Io, "ROCm SMI does not start"),
    (23, ErrorKind::NotFound, "not found"),
    (25, ErrorKind::InDoubt, "interrupted"),
    (29, ErrorKind::Busy, "ROCm SMI is busy"),
    (31, ErrorKind::Unsupported, "not yet implemented"),
];

const MIG: Rows = &[
    (1, ErrorKind::Io, "not initialized"),
    (2, ErrorKind::Invalid, "invalid argument"),
    (3, ErrorKind::Unsupported, "not supported"),
    (4, ErrorKind::Permission, "no permission"),
    (6, ErrorKind::NotFound, "not found"),
    (7, ErrorKind::Vendor, "buffer too small"),
    (9, ErrorKind::Io, "driver not loaded"),
    (10, ErrorKind::InDoubt, "timeout"),
    (13, ErrorKind::Unsupported, "function not found"),
    (15, ErrorKind::Lost, "card is lost"),
    (16, ErrorKind::Lost, "reset required"),
    (19, ErrorKind::Busy, "in use"),
    (20, ErrorKind::Exhausted, "out of memory"),
    (23, ErrorKind::Exhausted, "insufficient resources"),
    (999, ErrorKind::Vendor, "unknown error"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_follow_the_codes_of_each_library_and_the_number_stays() {
        let smi = crate::smi::LIBRARY;
        for (library, code, expected) in [
            (smi, 2, ErrorKind::Unsupported),
            (smi, 16, ErrorKind::Busy),
            (smi, 77, ErrorKind::Vendor),
            (dmi::LIBRARY, 11, ErrorKind::Exhausted),
            (dmi::LIBRARY, 15, ErrorKind::NotFound),
            (dmi::LIBRARY, 33, ErrorKind::Vendor),
            (mig::LIBRARY, 19, ErrorKind::Busy),
            (mig::LIBRARY, 23, ErrorKind::Exhausted),
        ] {
            let cause = FailureCause::Code(code);
            let error = error(&CallFailure { library, call: "f", cause });
            assert_eq!(error.kind, expected, "{library} {code}");
            let vendor = error.vendor.expect("the number is kept");
            assert_eq!((vendor.library.as_str(), vendor.code), (library, code));
        }
    }

    #[test]
    fn a_file_s_refusal_keeps_its_number() {
        let refused = io::Error::from_raw_os_error(13);
        let error = file_error("write", Path::new("/etc/vdev/vdev0.conf"), &refused);
        assert_eq!(error.kind, ErrorKind::Permission);
        assert_eq!(error.vendor.map(|v| v.code), Some(13));
    }
}
