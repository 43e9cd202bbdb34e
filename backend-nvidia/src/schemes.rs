//! The ways to split an NVIDIA card that this backend serves, as data.

use std::num::NonZeroU32;

use vgpu_core::{
    Axis, Change, ComputeKind, DeviceId, Enforcement, Form, Guarantees, ModeInfo, Ownership,
    Scheme, SchemeInfo, Sizing,
};

use crate::api::MigMode;

/// Whole and time-slice. A card in MIG mode serves neither until it leaves that mode: its node
/// alone gives no compute.
pub(crate) fn of_card(device: &DeviceId, mig: Option<MigMode>) -> Vec<SchemeInfo> {
    let mode = match mig {
        Some(mig) if mig.current => behind_mig(device),
        _ => ModeInfo::always(device),
    };
    vec![whole(mode.clone()), time_slice(mode)]
}

/// A mode that this version does not enter by itself: leaving MIG destroys what others made, and
/// asks for a reset on some cards. That keeps the planner from trying.
fn behind_mig(device: &DeviceId) -> ModeInfo {
    let change = Change::DeviceReset;
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
        needs: Vec::new(),
    }
}
