//! Cards as values for the tests: each mechanism with the arithmetic of a real one.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of this module")]

use std::num::NonZeroU32;

use vgpu_core::Device;
use vgpu_core::guarantee::{Axis, ComputeKind, Enforcement, Guarantees, Minimum};
use vgpu_core::id::{ClaimId, DeviceId, ProfileId, TrustDomain, Vendor};
use vgpu_core::plan::{Modes, Request, Selector, Want};
use vgpu_core::scheme::{
    Change, ComputeGrid, Form, MemoryGrid, ModeInfo, Need, Ownership, PlacedBy, Profile, Range,
    Scheme, SchemeInfo, Sizing, Slots,
};
use vgpu_core::size::{Bytes, ComputeShare, Size};

pub fn n(value: u32) -> NonZeroU32 {
    NonZeroU32::new(value).expect("not zero")
}

pub fn id(text: &str) -> DeviceId {
    DeviceId::new(text).expect("an id")
}

pub fn card(name: &str, memory: Bytes, units: u32, schemes: Vec<SchemeInfo>) -> Device {
    Device {
        id: id(name),
        vendor: Vendor::new("test"),
        model: "card".into(),
        pci: None,
        numa: None,
        memory,
        compute_units: n(units),
        counters: vec![],
        schemes,
    }
}

pub fn base(name: &str, scheme: Scheme, form: Form, sizing: Sizing) -> SchemeInfo {
    SchemeInfo {
        scheme,
        form,
        mode: ModeInfo::always(&id(name)),
        sizing,
        guarantees: Guarantees {
            memory: Axis::declared(Enforcement::Driver),
            compute: Axis::declared(Enforcement::Driver),
            compute_kind: ComputeKind::Throttle,
            faults: Axis::declared(Enforcement::None),
        },
        resize: None,
        max: None,
        max_per_container: None,
        ownership: Ownership::Placement,
        needs: Vec::new(),
    }
}

pub fn whole(name: &str) -> SchemeInfo {
    SchemeInfo {
        max: NonZeroU32::new(1),
        guarantees: Guarantees::uniform(Enforcement::Hardware, ComputeKind::Partition),
        ..base(name, Scheme::WHOLE, Form::Shared, Sizing::Whole)
    }
}

pub fn time_slice(name: &str) -> SchemeInfo {
    let mut info = base(name, Scheme::TIME_SLICE, Form::Shared, Sizing::Turns);
    info.guarantees = Guarantees::uniform(Enforcement::None, ComputeKind::Unlimited);
    info
}

pub fn smlu(name: &str, step: Bytes) -> SchemeInfo {
    let sizing = Sizing::Range(Range {
        compute: Some(ComputeGrid { min: 1, step: n(1), of: n(100) }),
        memory: Some(MemoryGrid { min: step, step }),
        distinct: NonZeroU32::new(16),
        placed_by: PlacedBy::Driver,
    });
    SchemeInfo {
        max: NonZeroU32::new(64),
        resize: Some(Change::Live),
        ownership: Ownership::Tag,
        needs: vec![Need::OwnPidNamespace],
        ..base(name, Scheme::SMLU, Form::Carved, sizing)
    }
}

pub fn vdcu(name: &str, cus: u32, max: Option<u32>) -> SchemeInfo {
    let sizing = Sizing::Range(Range {
        compute: Some(ComputeGrid { min: 1, step: n(1), of: n(cus) }),
        memory: Some(MemoryGrid { min: Bytes::mib(1), step: Bytes::mib(1) }),
        distinct: None,
        placed_by: PlacedBy::Planner,
    });
    SchemeInfo {
        max: max.and_then(NonZeroU32::new),
        max_per_container: NonZeroU32::new(1),
        ..base(name, Scheme::VDCU, Form::Carved, sizing)
    }
}

/// The table of an A100-40GB: name, SMs, memory in MiB, starts, length in memory slices.
pub fn mig(name: &str, mode: ModeInfo) -> SchemeInfo {
    let row = |name: &str, sms: u32, mib: u64, starts: &[u32], len: u32| Profile {
        id: ProfileId::new(name).expect("a profile"),
        size: Size {
            compute: Some(ComputeShare { units: sms, of: n(98) }),
            memory: Some(Bytes::mib(mib)),
        },
        placements: starts.iter().map(|start| Slots::new(*start, len)).collect(),
        uses: vec![],
    };
    let table = vec![
        row("1g.5gb", 14, 4864, &[0, 1, 2, 3, 4, 5, 6], 1),
        row("1g.10gb", 14, 9856, &[0, 2, 4, 6], 2),
        row("2g.10gb", 28, 9856, &[0, 2, 4], 2),
        row("3g.20gb", 42, 19968, &[0, 4], 4),
        row("4g.20gb", 56, 19968, &[0], 4),
        row("7g.40gb", 98, 40192, &[0], 8),
    ];
    SchemeInfo {
        mode,
        max: NonZeroU32::new(7),
        guarantees: Guarantees::uniform(Enforcement::Hardware, ComputeKind::Partition),
        ..base(name, Scheme::MIG, Form::Carved, Sizing::Profiles(table))
    }
}

pub fn request(claim: &str, want: Want) -> Request {
    Request {
        claim: ClaimId::new(claim).expect("a claim id"),
        want,
        count: 1,
        selector: Selector::default(),
        minimum: Minimum::default(),
        schemes: vec![],
        domain: TrustDomain::new("a").expect("a domain"),
        modes: Modes::Keep,
    }
}

pub fn memory(bytes: Bytes) -> Size {
    Size { compute: None, memory: Some(bytes) }
}
