//! The ways to split a card, as data.

use std::num::NonZeroU32;

use vgpu_core::{
    Axis, Bytes, Change, ComputeKind, ComputeShare, DeviceId, Enforcement, Form, Guarantees,
    ModeInfo, Ownership, Profile, ProfileId, Range, Scheme, SchemeInfo, Size, Sizing,
    scheme::{ComputeGrid, MemoryGrid, PlacedBy},
};

use crate::backend::Row;
use crate::cards::Card;

/// How virtual DCUs are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VdcuWay {
    /// A file of ours, with the planner's mask.
    File,
    /// libhydmi, which picks the units.
    Library,
}

/// What is true of all cards of the node.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) way: VdcuWay,
    /// Virtual DCUs on one card, at most.
    pub(crate) most: NonZeroU32,
    /// Whether the node is cut into hardware instances.
    pub(crate) cut: bool,
    /// Every card: one that changes the mode changes it for all.
    pub(crate) all: Vec<DeviceId>,
}

/// A file has two words of mask.
pub(crate) const MOST_UNITS: u32 = 128;

/// Everything that a card can do; `table` is empty where it cannot be cut.
pub(crate) fn of_card(card: &Card, node: &Node, table: Vec<Profile>) -> Vec<SchemeInfo> {
    let mode = match node.cut {
        false => ModeInfo::always(&card.id),
        true => ModeInfo {
            active: false,
            enter: Change::IdleNode,
            leave: Change::Live,
            affects: node.all.clone(),
            domain: None,
        },
    };
    // Nobody has said that one tenant's fault ends only its own work: turns as they are.
    let mut schemes = vec![SchemeInfo::whole(mode.clone()), SchemeInfo::time_slice(mode.clone())];
    if let Some(units) = card.units.filter(|units| units.get() <= MOST_UNITS) {
        schemes.push(vdcu(mode, node, units));
    }
    if !table.is_empty() {
        schemes.push(hcu_mig(node, table));
    }
    schemes
}

/// The profiles of a card, with where each may lie.
pub(crate) fn table(card: &Card, rows: &[Row]) -> Vec<Profile> {
    let one = |(row, places): &Row| {
        let of = card.units?;
        let compute = ComputeShare { units: row.units, of };
        let fits = row.units > 0 && row.units <= of.get() && row.memory_mib > 0;
        (fits && !places.is_empty()).then_some(())?;
        Some(Profile {
            id: ProfileId::new(row.name.as_str()).ok()?,
            size: Size { compute: Some(compute), memory: Some(Bytes::mib(row.memory_mib)) },
            placements: places.clone(),
            uses: Vec::new(),
        })
    };
    rows.iter().filter_map(one).collect()
}

/// Who checks mask and quota against a tenant that wants more is not known: the weaker word, until a
/// card shows another.
fn vdcu(mode: ModeInfo, node: &Node, units: NonZeroU32) -> SchemeInfo {
    let (placed_by, ownership, resize) = match node.way {
        // The container's copy is read when its process starts.
        VdcuWay::File => (PlacedBy::Planner, Ownership::Placement, Change::IdleDevice),
        VdcuWay::Library => (PlacedBy::Driver, Ownership::Difference, Change::Live),
    };
    SchemeInfo {
        scheme: Scheme::VDCU,
        form: Form::Carved,
        mode,
        sizing: Sizing::Range(Range {
            compute: Some(ComputeGrid { min: 1, step: NonZeroU32::MIN, of: units }),
            memory: Some(MemoryGrid { min: Bytes::mib(1), step: Bytes::mib(1) }),
            distinct: None,
            placed_by,
        }),
        guarantees: Guarantees {
            memory: Axis::declared(Enforcement::Cooperative),
            compute: Axis::declared(Enforcement::Cooperative),
            compute_kind: ComputeKind::Partition,
            faults: Axis::declared(Enforcement::None),
        },
        resize: Some(resize),
        max: Some(node.most),
        max_per_container: Some(NonZeroU32::MIN),
        ownership,
        needs: Vec::new(),
    }
}

fn hcu_mig(node: &Node, table: Vec<Profile>) -> SchemeInfo {
    let most = table.iter().map(|p| p.placements.len()).max().unwrap_or(1);
    SchemeInfo {
        scheme: Scheme::HCU_MIG,
        form: Form::Carved,
        mode: ModeInfo {
            active: node.cut,
            enter: Change::IdleNode,
            leave: Change::IdleNode,
            affects: node.all.clone(),
            domain: None,
        },
        sizing: Sizing::Profiles(table),
        guarantees: Guarantees::uniform(Enforcement::Hardware, ComputeKind::Partition),
        resize: None,
        max: u32::try_from(most).ok().and_then(NonZeroU32::new),
        max_per_container: Some(NonZeroU32::MIN),
        ownership: Ownership::Placement,
        needs: Vec::new(),
    }
}
