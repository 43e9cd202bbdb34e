//! What NVML said, as the core's errors and values.

use std::num::NonZeroU32;
use std::path::Path;

use vgpu_core::device::LinkKind;
use vgpu_core::{Error, ErrorKind};

use crate::api::{FailureCause, LoadFailure, NvmlFailure, PciInfo, TopologyLevel, Version};
use crate::elf::Machine;

/// The library's name in [`vgpu_core::VendorCode`].
pub(crate) const LIBRARY: &str = "libnvidia-ml";

/// A failed call with the kind that policy looks at, and NVML's own number.
pub(crate) fn error(failure: &NvmlFailure) -> Error {
    let error = Error::new(kind(failure), message(failure));
    match failure.code() {
        Some(code) => error.vendor(LIBRARY, failure.call, code),
        None => error.with("call", failure.call),
    }
}

/// A library that could not be made use of, with what to do about it.
pub(crate) fn load_error(failure: &LoadFailure) -> Error {
    match failure {
        LoadFailure::Open { library, .. } if is_foreign(library) => Error::new(
            ErrorKind::Invalid,
            format!(
                "{library} is for {}, and this program is for {}; name the libnvidia-ml.so.1 of this \
                 machine's driver",
                Machine::of(Path::new(library)).map_or_else(String::new, |m| m.to_string()),
                Machine::here()
            ),
        ),
        failure => failure.to_error("name the libnvidia-ml.so.1 of the installed driver", error),
    }
}

fn is_foreign(library: &str) -> bool {
    Machine::of(Path::new(library)).is_some_and(|machine| machine != Machine::here())
}

/// Whether a failure is about NVML as a whole, so that asking about the next card is of no use.
pub(crate) fn is_of_the_driver(failure: &NvmlFailure) -> bool {
    matches!(failure.code(), Some(1 | 9 | 18))
}

/// Cards that meet at `level`, as the core calls it.
pub(crate) fn link_kind(level: TopologyLevel) -> LinkKind {
    match level {
        TopologyLevel::HostBridge => LinkKind::HostBridge,
        TopologyLevel::Internal => LinkKind::Board,
        TopologyLevel::Multiple => LinkKind::ManySwitches,
        TopologyLevel::Node => LinkKind::Node,
        TopologyLevel::Single => LinkKind::OneSwitch,
        TopologyLevel::System => LinkKind::System,
    }
}

/// Multiprocessors of a card with so many CUDA cores.
///
/// A driver before 470 does not tell the cores; the card then counts as one unit, which is true of
/// what can be handed out: neither a whole card nor a turn divides its compute.
pub(crate) fn multiprocessors(cores: Option<u32>, capability: Option<Version>) -> NonZeroU32 {
    let count = match (cores, capability) {
        (Some(cores), Some(capability)) => cores / cores_per_multiprocessor(capability),
        _ => 0,
    };
    NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN)
}

/// The model, by name, or by PCI id where the driver knows no name.
pub(crate) fn model(name: Option<String>, pci: Option<&PciInfo>) -> String {
    let name = name.unwrap_or_default();
    let known = !name.trim().is_empty() && !name.ends_with("Graphics Device");
    match pci {
        Some(pci) if !known => {
            format!("NVIDIA {:04x}:{:04x}", pci.device_id & 0xffff, pci.device_id >> 16)
        }
        None if !known => "NVIDIA".to_owned(),
        _ => name,
    }
}

fn kind(failure: &NvmlFailure) -> ErrorKind {
    let code = match failure.cause {
        FailureCause::Code(code) => code,
        FailureCause::Malformed(_) => return ErrorKind::Vendor,
        FailureCause::NotSupported | FailureCause::SymbolMissing => return ErrorKind::Unsupported,
    };
    match code {
        2 => ErrorKind::Invalid,
        4 | 17 => ErrorKind::Permission,
        6 | 28 => ErrorKind::NotFound,
        7 | 20 | 23 => ErrorKind::Exhausted,
        9 | 12 => ErrorKind::Io,
        10 => ErrorKind::InDoubt,
        13 | 22 | 24 | 25 => ErrorKind::Unsupported,
        // 16 is a card that answers nothing until it is reset.
        15 | 16 => ErrorKind::Lost,
        18 => ErrorKind::DriverReplaced,
        19 | 27 => ErrorKind::Busy,
        _ => ErrorKind::Vendor,
    }
}

fn message(failure: &NvmlFailure) -> String {
    let advice = match failure.code() {
        Some(4) => "run as root",
        Some(9) => "load the kernel driver, `modprobe nvidia`",
        Some(15) => "see the kernel log for an XID; the card needs a reset or the node a reboot",
        Some(16) => "reset the card, `nvidia-smi -r`",
        Some(18) => "the driver was replaced under the library; start this program anew",
        _ => "",
    };
    if advice.is_empty() { failure.to_string() } else { format!("{failure}; {advice}") }
}

/// Of the CUDA programming guide's table of compute capabilities.
fn cores_per_multiprocessor(capability: Version) -> u32 {
    match (capability.major, capability.minor) {
        (3, _) => 192,
        (6, 0) | (7, _) | (8, 0) => 64,
        _ => 128,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(code: i64) -> NvmlFailure {
        NvmlFailure { call: "nvmlDeviceGetUUID", cause: FailureCause::Code(code) }
    }

    #[test]
    fn kinds_follow_the_codes_and_the_number_stays() {
        for (code, kind) in [
            (2, ErrorKind::Invalid),
            (4, ErrorKind::Permission),
            (6, ErrorKind::NotFound),
            (7, ErrorKind::Exhausted),
            (9, ErrorKind::Io),
            (13, ErrorKind::Unsupported),
            (15, ErrorKind::Lost),
            (18, ErrorKind::DriverReplaced),
            (19, ErrorKind::Busy),
            (20, ErrorKind::Exhausted),
            (999, ErrorKind::Vendor),
            (12_345, ErrorKind::Vendor),
        ] {
            let error = error(&failed(code));
            assert_eq!(error.kind, kind, "{code}");
            let vendor = error.vendor.expect("the number is kept");
            assert_eq!((vendor.call.as_str(), vendor.code), ("nvmlDeviceGetUUID", code));
        }
    }

    #[test]
    fn a_missing_symbol_is_named() {
        let failure = NvmlFailure { call: "nvmlNew", cause: FailureCause::SymbolMissing };
        let error = error(&failure);
        assert_eq!((error.kind, error.vendor.is_none()), (ErrorKind::Unsupported, true));
        assert!(error.to_string().contains("nvmlNew"), "{error}");
    }

    #[test]
    fn cores_become_multiprocessors() {
        let cc = |major, minor| Some(Version { major, minor });
        for (cores, capability, expected) in [
            (Some(16_896), cc(9, 0), 132),
            (Some(6_912), cc(8, 0), 108),
            (Some(2_560), cc(7, 5), 40),
            (Some(18_176), cc(8, 9), 142),
            (None, cc(8, 0), 1),
            (Some(16_896), None, 1),
            (Some(0), cc(9, 0), 1),
        ] {
            assert_eq!(multiprocessors(cores, capability).get(), expected);
        }
    }

    #[test]
    fn a_nameless_card_is_named_by_its_pci_id() {
        let pci =
            PciInfo { address: "0000:1b:00.0".into(), device_id: 0x2335_10de, subsystem_id: 0 };
        assert_eq!(model(Some("NVIDIA H200".into()), Some(&pci)), "NVIDIA H200");
        for nameless in [None, Some(String::new()), Some("NVIDIA Graphics Device".into())] {
            assert_eq!(model(nameless, Some(&pci)), "NVIDIA 10de:2335");
        }
    }
}
