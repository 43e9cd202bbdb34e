//! The ways to split an NVIDIA card that this backend serves, as data.

use std::num::NonZeroU32;

use vgpu_core::{
    Axis, Change, ComputeKind, DeviceId, Enforcement, Form, Guarantees, ModeInfo, Ownership,
    Scheme, SchemeInfo, Sizing,
};

use crate::api::{MigMode, Version};

/// Whole and time-slice. A card in MIG mode serves neither until it leaves that mode: its node
/// alone gives no compute.
pub(crate) fn of_card(
    device: &DeviceId,
    mig: Option<MigMode>,
    capability: Option<Version>,
) -> Vec<SchemeInfo> {
    let mode = match mig {
        Some(mig) if mig.current => leave_mig(device, mig, capability),
        _ => ModeInfo::always(device),
    };
    vec![whole(mode.clone()), time_slice(mode)]
}

/// What it asks to get a card out of MIG mode: a reset on Ampere, an idle card after it.
fn leave_mig(device: &DeviceId, mig: MigMode, capability: Option<Version>) -> ModeInfo {
    let needs_reset = !mig.pending || capability.is_none_or(|version| version.major < 9);
    let change = if needs_reset { Change::DeviceReset } else { Change::IdleDevice };
    ModeInfo { active: false, enter: change, leave: change, affects: vec![device.clone()] }
}

fn whole(mode: ModeInfo) -> SchemeInfo {
    SchemeInfo {
        scheme: Scheme::WHOLE,
        sizing: Sizing::Whole,
        guarantees: Guarantees::uniform(Enforcement::Hardware, ComputeKind::Partition),
        max: Some(NonZeroU32::MIN),
        ..time_slice(mode)
    }
}

/// Contexts have their own address spaces, so that a fault ends its own tenant's work only; memory
/// and time are anybody's.
fn time_slice(mode: ModeInfo) -> SchemeInfo {
    SchemeInfo {
        scheme: Scheme::TIME_SLICE,
        form: Form::Shared,
        mode,
        sizing: Sizing::Turns,
        guarantees: Guarantees {
            faults: Axis::declared(Enforcement::Driver),
            ..Guarantees::uniform(Enforcement::None, ComputeKind::Unlimited)
        },
        resize: None,
        max: None,
        max_per_container: None,
        // Nothing is created, so nothing is ever found after a crash.
        ownership: Ownership::Placement,
    }
}
