//! The ways to split an NVIDIA card that this backend serves, as data.

use std::num::NonZeroU32;

use vgpu_core::{
    Axis, Change, ComputeKind, DeviceId, Enforcement, Form, Guarantees, ModeInfo, Ownership,
    PlacedBy, Range, Scheme, SchemeInfo, Sizing,
};

use crate::api::MigMode;
use crate::limits::GRID;

/// Whole and time-slice. A card in MIG mode serves neither until it leaves that mode: its node
/// alone gives no compute.
/// `memory_limits`: the driver limits a container's memory (r615), which gives turns a size.
pub(crate) fn of_card(
    device: &DeviceId,
    mig: Option<MigMode>,
    memory_limits: bool,
) -> Vec<SchemeInfo> {
    let mode = match mig {
        Some(mig) if mig.current => behind_mig(device),
        _ => ModeInfo::always(device),
    };
    vec![whole(mode.clone()), time_slice(mode, memory_limits)]
}

/// A mode that this version does not enter by itself: leaving MIG destroys what others made, and
/// asks for a reset on some cards. That keeps the planner from trying.
fn behind_mig(device: &DeviceId) -> ModeInfo {
    let change = Change::DeviceReset;
    ModeInfo {
        active: false,
        enter: change,
        leave: change,
        affects: vec![device.clone()],
        domain: None,
    }
}

fn whole(mode: ModeInfo) -> SchemeInfo {
    SchemeInfo {
        scheme: Scheme::WHOLE,
        sizing: Sizing::Whole,
        guarantees: Guarantees::uniform(Enforcement::Hardware, ComputeKind::Partition),
        max: Some(NonZeroU32::MIN),
        ..time_slice(mode, false)
    }
}

/// Contexts have their own address spaces, so that a fault ends its own tenant's work only; time is
/// anybody's, and so is memory where the driver cannot limit it.
fn time_slice(mode: ModeInfo, memory_limits: bool) -> SchemeInfo {
    let memory = if memory_limits { Enforcement::Driver } else { Enforcement::None };
    SchemeInfo {
        scheme: Scheme::TIME_SLICE,
        form: Form::Shared,
        mode,
        sizing: if memory_limits { Sizing::Range(memory_only()) } else { Sizing::Turns },
        guarantees: Guarantees {
            memory: Axis::declared(memory),
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

fn memory_only() -> Range {
    Range { compute: None, memory: Some(GRID), distinct: None, placed_by: PlacedBy::Driver }
}
