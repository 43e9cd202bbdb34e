//! What the library said, as the core's errors and values.

use std::num::NonZeroU32;

use vgpu_core::device::LinkKind;
use vgpu_core::{DeviceId, Error, ErrorKind, Result};

use crate::api::{CndevFailure, FailureCause, LoadFailure, PciInfo, Relation};

/// The library's name in [`vgpu_core::VendorCode`].
pub(crate) const LIBRARY: &str = "libcndev";

/// A failed call with the kind that policy looks at, and the library's own number.
pub(crate) fn error(failure: &CndevFailure) -> Error {
    let error = Error::new(kind(failure), message(failure));
    match failure.code() {
        Some(code) => error.vendor(LIBRARY, failure.call, code),
        None => error.with("call", failure.call),
    }
}

/// A library that could not be made use of, with what to do about it.
pub(crate) fn load_error(failure: &LoadFailure) -> Error {
    failure.to_error("name the libcndev.so of the installed driver", error)
}

/// Whether a failure is about the driver as a whole, so that asking about the next card is of no use.
pub(crate) fn is_of_the_driver(failure: &CndevFailure) -> bool {
    failure.wants_start() || matches!(failure.cause, FailureCause::Replaced { .. })
}

/// Whether the card itself does not answer: in problem, or no such device any more.
pub(crate) fn is_silent(failure: &CndevFailure) -> bool {
    matches!(failure.code(), Some(6 | 18))
}

/// The id of a card by its UUID.
pub(crate) fn device_id(uuid: &str) -> Result<DeviceId> {
    match uuid.starts_with("MLU-") {
        true => DeviceId::new(uuid),
        false => DeviceId::new(format!("MLU-{uuid}")),
    }
}

/// Cards of that relation, as the core calls it.
pub(crate) fn link_kind(relation: Relation) -> LinkKind {
    match relation {
        Relation::Cpu => LinkKind::Node,
        Relation::HostBridge => LinkKind::HostBridge,
        Relation::Internal => LinkKind::Board,
        Relation::Multiple => LinkKind::ManySwitches,
        Relation::Single => LinkKind::OneSwitch,
        Relation::System => LinkKind::System,
    }
}

/// Cores of a card. A library that does not tell them leaves one unit, which is true of what can be handed out:
/// shares of compute are percent.
pub(crate) fn units(cores: Option<u32>) -> NonZeroU32 {
    cores.and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN)
}

/// The model, by name, or by PCI id where the library knows no name.
pub(crate) fn model(name: Option<String>, pci: Option<&PciInfo>) -> String {
    match (name.filter(|name| !name.trim().is_empty()), pci) {
        (Some(name), _) => name,
        (None, Some(pci)) => format!("Cambricon {:04x}:{:04x}", pci.vendor, pci.device_id),
        (None, None) => "Cambricon".to_owned(),
    }
}

fn kind(failure: &CndevFailure) -> ErrorKind {
    let code = match failure.cause {
        FailureCause::Code(code) => code,
        FailureCause::Malformed(_) => return ErrorKind::Vendor,
        FailureCause::Replaced { .. } => return ErrorKind::DriverReplaced,
        FailureCause::SymbolMissing => return ErrorKind::Unsupported,
    };
    match code {
        1 | 4 | 12 => ErrorKind::Io,
        2 | 3 | 10 => ErrorKind::Unsupported,
        5 | 11 => ErrorKind::Invalid,
        6 | 18 => ErrorKind::Lost,
        8 | 9 => ErrorKind::Exhausted,
        13 => ErrorKind::Permission,
        14 => ErrorKind::NotFound,
        15 => ErrorKind::Busy,
        16 => ErrorKind::AlreadyExists,
        17 => ErrorKind::InDoubt,
        _ => ErrorKind::Vendor,
    }
}

fn message(failure: &CndevFailure) -> String {
    let advice = match failure.code() {
        Some(1 | 12) => "load the kernel driver, `modprobe cambricon-drv`, and see the kernel log",
        Some(2) => "the driver is older than the library; install the two of one release",
        Some(13) => "run as root in the host's PID namespace (hostPID: true)",
        Some(18) => "see the kernel log and `cnmon`; the card needs a reset or the node a reboot",
        _ => "",
    };
    let advice = match failure.cause {
        FailureCause::Replaced { .. } => "start this program anew",
        _ => advice,
    };
    if advice.is_empty() { failure.to_string() } else { format!("{failure}; {advice}") }
}
