//! What the vendors call things: libraries, drivers, codes.

use vgpu_core::{Error, ErrorKind, Vendor};

/// The library of a vendor.
pub(crate) fn library(vendor: &Vendor) -> &'static str {
    match vendor.as_str() {
        "cambricon" => "libcndev",
        "hygon" => "libhydmi",
        "nvidia" => "libnvidia-ml",
        _ => "mock",
    }
}

/// A usual driver version of a vendor.
pub(crate) fn driver(vendor: &Vendor) -> &'static str {
    match vendor.as_str() {
        "cambricon" => "6.2.11",
        "hygon" => "6.3.8",
        _ => "615.43.02",
    }
}

/// The call that counts the cards of a vendor.
pub(crate) fn counts_cards(vendor: &Vendor) -> &'static str {
    match vendor.as_str() {
        "cambricon" => "cndevGetDeviceCount",
        "hygon" => "rsmi_num_monitor_devices",
        _ => "nvmlDeviceGetCount_v2",
    }
}

/// The call that lists the parts of a card.
pub(crate) fn lists_parts(vendor: &Vendor) -> &'static str {
    match vendor.as_str() {
        "cambricon" => "cndevGetAllSMluInstanceInfo",
        "hygon" => "dmiGetVDeviceInfo",
        _ => "nvmlDeviceGetGpuInstances",
    }
}

/// The call that reads which number a card's node has.
pub(crate) fn reads_minor(vendor: &Vendor) -> &'static str {
    match vendor.as_str() {
        "cambricon" => "cndevGetNodeDeviceInfo",
        "hygon" => "rsmi_dev_drm_render_minor_get",
        _ => "nvmlDeviceGetMinorNumber",
    }
}

/// The call that waits for events.
pub(crate) fn waits(vendor: &Vendor) -> &'static str {
    match vendor.as_str() {
        "cambricon" => "cndevEventWait",
        "hygon" => "rsmi_event_notification_get",
        _ => "nvmlEventSetWait_v2",
    }
}

/// The call that reads one card of a vendor.
pub(crate) fn reads_card(vendor: &Vendor) -> &'static str {
    match vendor.as_str() {
        "cambricon" => "cndevGetDeviceHandleByIndex",
        "hygon" => "rsmi_dev_pci_id_get",
        _ => "nvmlDeviceGetHandleByIndex_v2",
    }
}

/// The call that reads how near two cards are.
pub(crate) fn reads_topology(vendor: &Vendor) -> &'static str {
    match vendor.as_str() {
        "cambricon" => "cndevGetMLULinkRemoteInfo",
        "hygon" => "rsmi_topo_get_link_type",
        _ => "nvmlDeviceGetTopologyCommonAncestor",
    }
}

/// The call that reads a card's state of health.
pub(crate) fn reads_health(vendor: &Vendor) -> &'static str {
    match vendor.as_str() {
        "cambricon" => "cndevGetCardHealthState",
        "hygon" => "rsmi_dev_memory_usage_get",
        _ => "nvmlDeviceGetFieldValues",
    }
}

/// The call that reads memory in use.
pub(crate) fn reads_usage(vendor: &Vendor) -> &'static str {
    match vendor.as_str() {
        "cambricon" => "cndevGetMemoryUsageV2",
        "hygon" => "rsmi_dev_memory_usage_get",
        _ => "nvmlDeviceGetMemoryInfo_v2",
    }
}

/// An error of a vendor's call, with the vendor's code for its kind.
pub(crate) fn refuse(vendor: &Vendor, call: &str, kind: ErrorKind, why: &str) -> Error {
    Error::new(kind, format!("{call}: {why}")).vendor(library(vendor), call, code(vendor, kind))
}

fn code(vendor: &Vendor, kind: ErrorKind) -> i64 {
    match vendor.as_str() {
        "cambricon" => match kind {
            ErrorKind::AlreadyExists => 16,
            ErrorKind::Busy => 15,
            ErrorKind::DriverReplaced => 3,
            ErrorKind::Exhausted => 9,
            ErrorKind::InDoubt => 17,
            ErrorKind::Invalid => 5,
            ErrorKind::Lost => 18,
            ErrorKind::NotFound => 14,
            ErrorKind::Permission => 13,
            ErrorKind::Unsupported => 10,
            _ => 7,
        },
        "hygon" => match kind {
            ErrorKind::AlreadyExists => 8,
            ErrorKind::Busy => 17,
            ErrorKind::DriverReplaced => 5,
            ErrorKind::Exhausted => 11,
            ErrorKind::InDoubt => 25,
            ErrorKind::Invalid => 10,
            ErrorKind::Io => 18,
            ErrorKind::Lost => 27,
            ErrorKind::NotFound => 15,
            ErrorKind::Permission => 19,
            ErrorKind::Unsupported => 6,
            _ => 32,
        },
        _ => match kind {
            ErrorKind::Busy => 19,
            ErrorKind::DriverReplaced => 18,
            ErrorKind::Exhausted => 23,
            ErrorKind::InDoubt => 10,
            ErrorKind::Invalid => 2,
            ErrorKind::Lost => 15,
            ErrorKind::NotFound => 6,
            ErrorKind::Permission => 4,
            ErrorKind::Unsupported => 3,
            _ => 999,
        },
    }
}
