//! Both schemes as data, for a card, its driver and its control program.

use std::num::NonZeroU32;

use vgpu_core::id::TrustDomain;
use vgpu_core::scheme::{ComputeGrid, MemoryGrid};
use vgpu_core::{
    Axis, Bytes, Change, ComputeKind, DeviceId, Enforcement, Form, Guarantees, ModeInfo, Ownership,
    Per, PlacedBy, Range, Scheme, SchemeInfo, Sizing,
};

use crate::api::Version;
use crate::mps::Program;

/// Shares of threads are percent.
pub(crate) const PERCENT: NonZeroU32 = NonZeroU32::new(100).expect("not 0");

/// What is known of a card.
#[derive(Debug, Clone)]
pub(crate) struct Card<'d> {
    pub(crate) id: &'d DeviceId,
    pub(crate) capability: Version,
    pub(crate) cuda: Version,
    pub(crate) multiprocessors: NonZeroU32,
    /// Chunks, if its daemon has counted them.
    pub(crate) chunks: Option<NonZeroU32>,
    /// Whom its daemon serves now, and how.
    pub(crate) serves: Option<Serves>,
}

/// The mode that a daemon is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Serves {
    pub(crate) scheme: Scheme,
    pub(crate) domain: TrustDomain,
    /// Whether it runs; else it died.
    pub(crate) runs: bool,
}

/// The schemes that card, driver and program have together.
pub(crate) fn of_card(card: &Card<'_>, program: &Program) -> Vec<SchemeInfo> {
    let mut schemes = Vec::new();
    // Before Volta clients share one address space and nothing limits them.
    if card.capability.major >= 7 {
        schemes.push(shares(card, program));
    }
    if program.static_partitions
        && card.capability.major >= 8
        && let Some(chunks) = chunks(card)
    {
        schemes.push(partitions(card, chunks));
    }
    schemes
}

/// Most claims of a card: each has at least one client, and a server has so many.
pub(crate) fn most(cuda: Version) -> NonZeroU32 {
    NonZeroU32::new(if cuda.major >= 13 { 60 } else { 48 }).expect("not 0")
}

fn shares(card: &Card<'_>, program: &Program) -> SchemeInfo {
    let (level, per) = match program.namespaces {
        // The namespace holds its clients together, from outside the tenant.
        true => (Enforcement::Driver, Per::Container),
        // The daemon has one limit for all clients: a smaller share than the largest is held by its own
        // environment only.
        false => (Enforcement::Cooperative, Per::Process),
    };
    SchemeInfo {
        scheme: Scheme::MPS,
        // The daemon holds a namespace for each, or we a record, as its driver would.
        form: Form::Carved,
        mode: mode(card, &Scheme::MPS),
        sizing: Sizing::Range(Range {
            compute: Some(grid(PERCENT)),
            memory: Some(MemoryGrid { min: Bytes::mib(1), step: Bytes::mib(1) }),
            distinct: None,
            placed_by: PlacedBy::Driver,
        }),
        guarantees: Guarantees {
            memory: Axis { per, ..Axis::declared(level) },
            // Of each client's threads, with and without namespaces; two may run on the same ones.
            compute: Axis { per: Per::Process, ..Axis::declared(level) },
            compute_kind: ComputeKind::Cap,
            // A fault of one client ends the work of all.
            faults: Axis::declared(Enforcement::None),
        },
        resize: None,
        max: Some(most(card.cuda)),
        max_per_container: Some(NonZeroU32::MIN),
        ownership: Ownership::Tag,
        needs: Vec::new(),
    }
}

fn partitions(card: &Card<'_>, chunks: NonZeroU32) -> SchemeInfo {
    SchemeInfo {
        scheme: Scheme::MPS_STATIC,
        form: Form::Carved,
        mode: mode(card, &Scheme::MPS_STATIC),
        sizing: Sizing::Range(Range {
            compute: Some(grid(chunks)),
            memory: None,
            distinct: None,
            placed_by: PlacedBy::Driver,
        }),
        guarantees: Guarantees {
            memory: Axis::declared(Enforcement::None),
            // A client names its partition itself, and could name a neighbour's.
            compute: Axis::declared(Enforcement::Cooperative),
            compute_kind: ComputeKind::Partition,
            faults: Axis::declared(Enforcement::None),
        },
        resize: None,
        max: Some(chunks.min(most(card.cuda))),
        max_per_container: Some(NonZeroU32::MIN),
        ownership: Ownership::Difference,
        needs: Vec::new(),
    }
}

/// So many as the daemon counted; else as many as cards of this kind have, 8 multiprocessors each
/// from Hopper on and 4 before. Where the daemon counts others, its word is the next scan's.
fn chunks(card: &Card<'_>) -> Option<NonZeroU32> {
    let each = if card.capability.major >= 9 { 8 } else { 4 };
    card.chunks.or_else(|| NonZeroU32::new(card.multiprocessors.get() / each))
}

fn mode(card: &Card<'_>, scheme: &Scheme) -> ModeInfo {
    let own = card.serves.as_ref().filter(|serves| serves.scheme == *scheme);
    ModeInfo {
        active: own.is_some_and(|serves| serves.runs),
        enter: Change::IdleDevice,
        leave: Change::IdleDevice,
        affects: vec![card.id.clone()],
        domain: own.map(|serves| serves.domain.clone()),
    }
}

fn grid(of: NonZeroU32) -> ComputeGrid {
    ComputeGrid { min: 1, step: NonZeroU32::MIN, of }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schemes(capability: (u32, u32), namespaces: bool, statics: bool) -> Vec<SchemeInfo> {
        let id = DeviceId::new("GPU-1").expect("an id");
        let card = Card {
            id: &id,
            capability: Version { major: capability.0, minor: capability.1 },
            cuda: Version { major: 13, minor: 4 },
            multiprocessors: NonZeroU32::new(132).expect("not 0"),
            chunks: None,
            serves: None,
        };
        let program = Program { path: "x".into(), namespaces, static_partitions: statics };
        of_card(&card, &program)
    }

    #[test]
    fn a_card_or_program_that_lacks_it_does_not_claim_it() {
        assert_eq!(schemes((6, 1), true, true), []);
        let names = |s: Vec<SchemeInfo>| s.iter().map(|i| i.scheme.to_string()).collect::<Vec<_>>();
        assert_eq!(names(schemes((7, 5), true, true)), ["mps"]);
        assert_eq!(names(schemes((8, 0), true, false)), ["mps"]);
        assert_eq!(names(schemes((9, 0), false, true)), ["mps", "mps-static"]);
    }

    #[test]
    fn only_namespaces_hold_memory_from_outside() {
        let memory =
            |namespaces| schemes((9, 0), namespaces, true)[0].guarantees.memory.effective();
        assert_eq!(memory(true), Enforcement::Driver);
        assert_eq!(memory(false), Enforcement::Cooperative);
        for info in schemes((9, 0), true, true) {
            assert_eq!(info.guarantees.faults.effective(), Enforcement::None);
            assert!(!info.keeps_strangers_apart());
        }
    }

    #[test]
    fn chunks_are_of_the_card_s_kind_until_its_daemon_counts_them() {
        let of = |capability| match &schemes(capability, true, true)[1].sizing {
            Sizing::Range(range) => range.compute.expect("a grid").of.get(),
            _ => 0,
        };
        assert_eq!((of((8, 0)), of((9, 0))), (33, 16));
    }
}
