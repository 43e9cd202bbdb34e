//! The ways to split an MLU, as data.

use std::num::NonZeroU32;

use vgpu_core::scheme::{ComputeGrid, MemoryGrid};
use vgpu_core::{
    Axis, Bytes, Change, ComputeKind, DeviceId, Enforcement, Form, Guarantees, ModeInfo, Need,
    Ownership, PlacedBy, Profile, Range, Scheme, SchemeInfo, Sizing,
};

/// Most sMLU instances of a card, and most sizes that they may have: the kernel driver's numbers.
const SMLU_INSTANCES: NonZeroU32 = NonZeroU32::new(64).expect("64 is not 0");
const SMLU_PROFILES: NonZeroU32 = NonZeroU32::new(16).expect("16 is not 0");
const PERCENT: NonZeroU32 = NonZeroU32::new(100).expect("100 is not 0");

/// What a card can do, and what it is doing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Abilities {
    /// Whether it is in sMLU mode; `None` where it has none.
    pub(crate) smlu: Option<bool>,
    /// Whether living instances can change their size.
    pub(crate) smlu_resize: bool,
    /// Whether it is in MIM mode, and its table; `None` where it has none.
    pub(crate) mim: Option<(bool, Vec<Profile>, u32)>,
}

impl Abilities {
    fn mode(&self) -> Option<Scheme> {
        if self.smlu == Some(true) {
            return Some(Scheme::SMLU);
        }
        self.mim.as_ref().filter(|(active, ..)| *active).map(|_| Scheme::MIM)
    }
}

/// Whole, time-slice, and what else the card has.
pub(crate) fn of_card(device: &DeviceId, abilities: Abilities, step: Bytes) -> Vec<SchemeInfo> {
    let present = abilities.mode();
    let mode = |wanted: Option<Scheme>| mode(device, present.as_ref(), wanted.as_ref());
    // Nobody has said that the fault of one process leaves the others alone: turns as they are.
    let mut list = vec![SchemeInfo::whole(mode(None)), SchemeInfo::time_slice(mode(None))];
    if abilities.smlu.is_some() {
        list.push(smlu(mode(Some(Scheme::SMLU)), step, abilities.smlu_resize));
    }
    if let Some((_, table, max)) = abilities.mim {
        list.push(mim(mode(Some(Scheme::MIM)), table, max));
    }
    list
}

/// The driver changes a mode while nobody has the card open and no instance is there; the modes exclude one
/// another, and a card in either of them serves nobody whole.
fn mode(device: &DeviceId, present: Option<&Scheme>, wanted: Option<&Scheme>) -> ModeInfo {
    let active = present == wanted;
    let idle = Change::IdleDevice;
    match wanted {
        None if active => ModeInfo::always(device),
        None => ModeInfo { active, enter: idle, ..ModeInfo::always(device) },
        Some(_) => ModeInfo { active, enter: idle, leave: idle, ..ModeInfo::always(device) },
    }
}

/// The kernel driver refuses memory beyond the quota, and holds work back when the mean use of the cores is
/// beyond it; copies and codecs are not held back. It tells tenants apart by their PID namespace.
fn smlu(mode: ModeInfo, step: Bytes, resize: bool) -> SchemeInfo {
    SchemeInfo {
        scheme: Scheme::SMLU,
        form: Form::Carved,
        mode,
        sizing: Sizing::Range(Range {
            compute: Some(ComputeGrid { min: 1, step: NonZeroU32::MIN, of: PERCENT }),
            memory: Some(MemoryGrid { min: step, step }),
            distinct: Some(SMLU_PROFILES),
            placed_by: PlacedBy::Driver,
        }),
        guarantees: Guarantees {
            memory: Axis::declared(Enforcement::Driver),
            compute: Axis::declared(Enforcement::Driver),
            compute_kind: ComputeKind::Throttle,
            faults: Axis::declared(Enforcement::None),
        },
        resize: resize.then_some(Change::Live),
        max: Some(SMLU_INSTANCES),
        max_per_container: None,
        ownership: Ownership::Tag,
        needs: vec![Need::OwnPidNamespace],
    }
}

fn mim(mode: ModeInfo, table: Vec<Profile>, max: u32) -> SchemeInfo {
    SchemeInfo {
        scheme: Scheme::MIM,
        form: Form::Carved,
        mode,
        sizing: Sizing::Profiles(table),
        guarantees: Guarantees::uniform(Enforcement::Hardware, ComputeKind::Partition),
        resize: None,
        max: NonZeroU32::new(max),
        max_per_container: None,
        ownership: Ownership::Tag,
        needs: Vec::new(),
    }
}
