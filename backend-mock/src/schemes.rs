//! A card as a scan describes it: every scheme of its model with its real arithmetic.

use std::num::NonZeroU32;

use vgpu_core::scheme::{ComputeGrid, MemoryGrid};
use vgpu_core::{
    Axis, Bytes, Change, ComputeKind, Device, DeviceId, Enforcement, Form, Guarantees, ModeInfo,
    Need, Ownership, Per, PlacedBy, Profile, Range, Scheme, SchemeInfo, Sizing, Vendor,
};

use crate::spec::{Kernel, VdcuWay};
use crate::state::{Card, State};

/// SMs of one static MPS chunk.
pub(crate) const SMS_PER_CHUNK: u32 = 8;
/// Most sMLU instances of a card.
pub(crate) const SMLU_INSTANCES: u32 = 64;
/// Most sMLU profiles of a card.
pub(crate) const SMLU_PROFILES: u32 = 16;
/// Most virtual DCUs of a card.
pub(crate) const VDCUS: u32 = 4;
/// Most MPS clients of a card.
const MPS_CLIENTS: u32 = 48;

/// The card as a scan tells it now.
pub(crate) fn describe(state: &State, card: &Card) -> Device {
    let facts = card.facts();
    let counters = facts.table.map(|table| table().counters).unwrap_or_default();
    Device {
        id: card.id.clone(),
        vendor: facts.vendor.clone(),
        model: facts.name.to_owned(),
        pci: Some(card.pci.clone()),
        numa: Some(card.numa),
        memory: facts.memory,
        compute_units: facts.units,
        counters,
        schemes: schemes(state, card),
    }
}

/// The schemes that the card has, `whole` first.
fn schemes(state: &State, card: &Card) -> Vec<SchemeInfo> {
    let facts = card.facts();
    let table = || facts.table.map(|table| table().profiles).unwrap_or_default();
    let mut list = vec![SchemeInfo::whole(default_mode(state, card)), time_slice(state, card)];
    match card.spec.model {
        crate::model::Model::K100Ai => list.push(vdcu(card)),
        crate::model::Model::Bw1000 => list.push(hcu_mig(state, card, table())),
        crate::model::Model::Mlu370X8 => {
            list.push(smlu(card));
            list.push(mim(card, table()));
        }
        _ => {
            list.push(mps(card));
            list.push(mps_static(card));
            list.push(mig(card, table()));
        }
    }
    list.retain(|info| info.scheme == Scheme::WHOLE || !card.spec.without.contains(&info.scheme));
    list
}

fn time_slice(state: &State, card: &Card) -> SchemeInfo {
    let limited = card.spec.kernel == Kernel::CgroupMemory;
    // Contexts of one NVIDIA card die alone; of the others nobody has said so.
    let nvidia = card.vendor() == Vendor::NVIDIA;
    let faults = if nvidia { Enforcement::Driver } else { Enforcement::None };
    let memory = if limited { Enforcement::Driver } else { Enforcement::None };
    SchemeInfo {
        sizing: if limited { Sizing::Range(mib(None)) } else { Sizing::Turns },
        guarantees: Guarantees {
            memory: Axis::declared(memory),
            faults: Axis::declared(faults),
            ..Guarantees::uniform(Enforcement::None, ComputeKind::Unlimited)
        },
        resize: limited.then_some(Change::Live),
        ..SchemeInfo::time_slice(default_mode(state, card))
    }
}

fn mps(card: &Card) -> SchemeInfo {
    let mut memory = Axis::declared(Enforcement::Driver);
    if card.spec.kernel == Kernel::Plain {
        memory.per = Per::Process;
    }
    SchemeInfo {
        scheme: Scheme::MPS,
        form: Form::Shared,
        mode: own_mode(card, &Scheme::MPS, Change::IdleDevice),
        sizing: Sizing::Range(mib(Some(grid(100)))),
        guarantees: Guarantees {
            memory,
            compute: Axis::declared(Enforcement::Driver),
            compute_kind: ComputeKind::Cap,
            faults: Axis::declared(Enforcement::None),
        },
        resize: None,
        max: NonZeroU32::new(MPS_CLIENTS),
        max_per_container: NonZeroU32::new(1),
        ownership: Ownership::Placement,
        needs: Vec::new(),
    }
}

fn mps_static(card: &Card) -> SchemeInfo {
    let chunks = card.facts().units.get() / SMS_PER_CHUNK;
    SchemeInfo {
        scheme: Scheme::MPS_STATIC,
        form: Form::Carved,
        mode: own_mode(card, &Scheme::MPS_STATIC, Change::IdleDevice),
        sizing: Sizing::Range(Range {
            compute: Some(grid(chunks)),
            memory: None,
            distinct: None,
            placed_by: PlacedBy::Driver,
        }),
        guarantees: Guarantees {
            memory: Axis::declared(Enforcement::None),
            // The client names its chunk itself.
            compute: Axis::declared(Enforcement::Cooperative),
            compute_kind: ComputeKind::Partition,
            faults: Axis::declared(Enforcement::None),
        },
        resize: None,
        max: NonZeroU32::new(chunks),
        max_per_container: NonZeroU32::new(1),
        ownership: Ownership::Difference,
        needs: Vec::new(),
    }
}

fn mig(card: &Card, table: Vec<Profile>) -> SchemeInfo {
    let change = if card.facts().ampere { Change::DeviceReset } else { Change::IdleDevice };
    instances(Scheme::MIG, own_mode(card, &Scheme::MIG, change), table, 7)
}

fn mim(card: &Card, table: Vec<Profile>) -> SchemeInfo {
    let mode = own_mode(card, &Scheme::MIM, Change::IdleDevice);
    SchemeInfo { ownership: Ownership::Tag, ..instances(Scheme::MIM, mode, table, 6) }
}

fn hcu_mig(state: &State, card: &Card, table: Vec<Profile>) -> SchemeInfo {
    let mode = ModeInfo {
        active: card.is_in(&Scheme::HCU_MIG),
        enter: Change::IdleNode,
        leave: Change::IdleNode,
        affects: node_wide(state),
        domain: None,
    };
    SchemeInfo {
        max_per_container: NonZeroU32::new(1),
        ..instances(Scheme::HCU_MIG, mode, table, 4)
    }
}

fn instances(scheme: Scheme, mode: ModeInfo, table: Vec<Profile>, max: u32) -> SchemeInfo {
    SchemeInfo {
        scheme,
        form: Form::Carved,
        mode,
        sizing: Sizing::Profiles(table),
        guarantees: Guarantees::uniform(Enforcement::Hardware, ComputeKind::Partition),
        resize: None,
        max: NonZeroU32::new(max),
        max_per_container: None,
        ownership: Ownership::Placement,
        needs: Vec::new(),
    }
}

fn smlu(card: &Card) -> SchemeInfo {
    SchemeInfo {
        scheme: Scheme::SMLU,
        form: Form::Carved,
        mode: own_mode(card, &Scheme::SMLU, Change::IdleDevice),
        sizing: Sizing::Range(Range {
            compute: Some(grid(100)),
            memory: Some(MemoryGrid { min: Bytes::mib(256), step: Bytes::mib(256) }),
            distinct: NonZeroU32::new(SMLU_PROFILES),
            placed_by: PlacedBy::Driver,
        }),
        guarantees: Guarantees {
            memory: Axis::declared(Enforcement::Driver),
            compute: Axis::declared(Enforcement::Driver),
            compute_kind: ComputeKind::Throttle,
            faults: Axis::declared(Enforcement::None),
        },
        resize: Some(Change::Live),
        max: NonZeroU32::new(SMLU_INSTANCES),
        max_per_container: None,
        ownership: Ownership::Tag,
        needs: vec![Need::OwnPidNamespace],
    }
}

fn vdcu(card: &Card) -> SchemeInfo {
    let (placed_by, ownership) = match card.spec.vdcu {
        VdcuWay::File => (PlacedBy::Planner, Ownership::Placement),
        VdcuWay::Library => (PlacedBy::Driver, Ownership::Difference),
    };
    SchemeInfo {
        scheme: Scheme::VDCU,
        form: Form::Carved,
        mode: ModeInfo::always(&card.id),
        sizing: Sizing::Range(Range { placed_by, ..mib(Some(grid(card.facts().units.get()))) }),
        guarantees: Guarantees {
            // Who checks the quota is not known: the weaker word until it is measured.
            memory: Axis::declared(Enforcement::Cooperative),
            compute: Axis::declared(Enforcement::Cooperative),
            compute_kind: ComputeKind::Partition,
            faults: Axis::declared(Enforcement::None),
        },
        resize: Some(Change::Live),
        max: NonZeroU32::new(VDCUS),
        max_per_container: NonZeroU32::new(1),
        ownership,
        needs: Vec::new(),
    }
}

/// Memory by the MiB, and compute on this grid.
fn mib(compute: Option<ComputeGrid>) -> Range {
    Range {
        compute,
        memory: Some(MemoryGrid { min: Bytes::mib(1), step: Bytes::mib(1) }),
        distinct: None,
        placed_by: PlacedBy::Driver,
    }
}

fn grid(of: u32) -> ComputeGrid {
    ComputeGrid { min: 1, step: NonZeroU32::MIN, of: crate::model::units_of(of) }
}

fn own_mode(card: &Card, scheme: &Scheme, change: Change) -> ModeInfo {
    // Entering it from another mode asks for leaving that one as well.
    let enter = if card.is_in(scheme) { change } else { change.max(leaving(card)) };
    let own = card.mode.as_ref().filter(|mode| mode.scheme == *scheme);
    ModeInfo {
        active: own.is_some_and(|mode| !mode.dead),
        enter,
        leave: change,
        affects: vec![card.id.clone()],
        domain: own.and_then(|mode| mode.domain.clone()),
    }
}

/// The mode of a scheme that uses the card as it is: entering it is leaving whatever it is in.
fn default_mode(state: &State, card: &Card) -> ModeInfo {
    let affects = match &card.mode {
        None => return ModeInfo::always(&card.id),
        Some(mode) if mode.scheme == Scheme::HCU_MIG => node_wide(state),
        Some(_) => vec![card.id.clone()],
    };
    ModeInfo { active: false, enter: leaving(card), leave: Change::Live, affects, domain: None }
}

/// What leaving the card's present mode asks for.
fn leaving(card: &Card) -> Change {
    match &card.mode {
        None => Change::Live,
        Some(mode) if mode.scheme == Scheme::HCU_MIG => Change::IdleNode,
        Some(mode) if mode.scheme == Scheme::MIG && card.facts().ampere => Change::DeviceReset,
        Some(_) => Change::IdleDevice,
    }
}

/// Every card that changes when one changes to HCU-MIG.
fn node_wide(state: &State) -> Vec<DeviceId> {
    let hygon = state.cards.iter().filter(|c| c.vendor() == Vendor::HYGON);
    hygon.map(|c| c.id.clone()).collect()
}
