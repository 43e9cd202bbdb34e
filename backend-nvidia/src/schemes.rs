//! The ways to split an NVIDIA card that this backend serves, as data.

use vgpu_core::{
    Axis, Change, ComputeKind, DeviceId, Enforcement, Form, Guarantees, ModeInfo, Ownership,
    PlacedBy, Range, Scheme, SchemeInfo, Sizing,
};

use crate::api::{MigMode, Version};
use crate::limits::GRID;
use crate::partition::profiles::MigTable;

/// Whole, time-slice and MIG. A card in MIG mode serves neither of the first two until it leaves that
/// mode: its node alone gives no compute.
/// `memory_limits`: the driver limits a container's memory (r615), which gives turns a size.
pub(crate) fn of_card(
    device: &DeviceId,
    memory_limits: bool,
    mig: Option<MigMode>,
    capability: Option<Version>,
    table: Option<&MigTable>,
) -> Vec<SchemeInfo> {
    let mode = match mig {
        Some(mig) if mig.current => ModeInfo {
            active: false,
            enter: switching(mig, capability),
            ..ModeInfo::always(device)
        },
        _ => ModeInfo::always(device),
    };
    let mut schemes = vec![SchemeInfo::whole(mode.clone()), time_slice(mode, memory_limits)];
    if let (Some(mig), Some(table)) = (mig, table) {
        schemes.push(hardware_instances(device, mig, capability, table));
    }
    schemes
}

/// What a change of MIG mode asks for: an idle card since Hopper, a reset before. A change that is
/// pending already waits for a reset on any.
fn switching(mig: MigMode, capability: Option<Version>) -> Change {
    let live = capability.is_some_and(|version| version.major >= 9);
    if live && mig.current == mig.pending { Change::IdleDevice } else { Change::DeviceReset }
}

fn hardware_instances(
    device: &DeviceId,
    mig: MigMode,
    capability: Option<Version>,
    table: &MigTable,
) -> SchemeInfo {
    let change = switching(mig, capability);
    SchemeInfo {
        scheme: Scheme::MIG,
        form: Form::Carved,
        mode: ModeInfo {
            active: mig.current,
            enter: change,
            leave: change,
            affects: vec![device.clone()],
            domain: None,
        },
        sizing: Sizing::Profiles(table.profiles()),
        guarantees: Guarantees::uniform(Enforcement::Hardware, ComputeKind::Partition),
        resize: None,
        max: None,
        max_per_container: None,
        ownership: Ownership::Placement,
        needs: Vec::new(),
    }
}

/// Contexts have their own address spaces, so that a fault ends its own tenant's work only; time is
/// anybody's, and so is memory where the driver cannot limit it.
fn time_slice(mode: ModeInfo, memory_limits: bool) -> SchemeInfo {
    let memory = if memory_limits { Enforcement::Driver } else { Enforcement::None };
    SchemeInfo {
        sizing: if memory_limits { Sizing::Range(memory_only()) } else { Sizing::Turns },
        guarantees: Guarantees {
            memory: Axis::declared(memory),
            faults: Axis::declared(Enforcement::Driver),
            ..Guarantees::uniform(Enforcement::None, ComputeKind::Unlimited)
        },
        ..SchemeInfo::time_slice(mode)
    }
}

fn memory_only() -> Range {
    Range { compute: None, memory: Some(GRID), distinct: None, placed_by: PlacedBy::Driver }
}
