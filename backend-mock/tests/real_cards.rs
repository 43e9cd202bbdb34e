//! The suite as it runs on real cards: no faults, no reset, everything undone step by step.

use std::sync::Arc;

use vgpu_backend_mock::{MockFixture, Preset};
use vgpu_conformance::{Fixture, Permission, Select, Verdict, run};
use vgpu_core::{Backend, Device, DeviceId, Partition, Result};

/// A machine that plays no faults and cannot be rewound.
#[derive(Debug)]
struct Real(MockFixture);

impl Fixture for Real {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn open(&self) -> Result<Arc<dyn Backend>> {
        self.0.open()
    }
    fn permission(&self) -> Permission {
        self.0.permission()
    }
}

/// What a machine holds: each card as it is described, and its parts.
fn holds(fixture: &MockFixture) -> Vec<(Device, Vec<Partition>)> {
    let machine = fixture.machine();
    let one = |id: &DeviceId| {
        let parts = machine.truth(id).expect("a card");
        (machine.describe(id).expect("a card"), parts)
    };
    machine.devices().expect("cards").iter().map(one).collect()
}

fn runs_and_leaves_no_trace(permission: Permission) {
    use strum::IntoEnumIterator;
    for preset in Preset::iter().filter(|p| *p != Preset::Empty) {
        let fixture = MockFixture::preset(preset).expect("a machine").permitting(permission);
        let machine = Arc::clone(fixture.machine());
        let before = holds(&fixture);
        let fixtures: Vec<Box<dyn Fixture>> = vec![Box::new(Real(fixture))];
        let report = run(&fixtures, &Select::default());
        for entry in &report.runs[0].entries {
            assert!(!matches!(entry.verdict, Verdict::Fail { .. }), "{preset}: {entry}");
        }
        assert!(report.counts.passed > 0);
        let after: Vec<_> = before
            .iter()
            .map(|(d, _)| {
                let parts = machine.truth(&d.id).expect("a card");
                (machine.describe(&d.id).expect("a card"), parts)
            })
            .collect();
        assert_eq!(before, after, "{preset} is not as it was");
        // Nor does a reset bring a mode that the suite left pending.
        for (card, _) in &before {
            machine.faults().reset(&card.id).expect("a card");
            assert_eq!(machine.describe(&card.id).expect("a card"), *card, "{preset}");
        }
        if permission == Permission::ReadOnly {
            let changing = ["create", "destroy", "resize", "set_mode", "sweep", "confine"];
            let calls = machine.calls();
            for op in changing {
                let op = op.parse().expect("an operation");
                assert_eq!(calls.of(op), 0, "{preset}: read only, and {op} was called");
            }
        }
    }
}

#[test]
fn with_permission_everything_is_undone() {
    runs_and_leaves_no_trace(Permission::Destructive);
}

#[test]
fn without_permission_nothing_is_touched() {
    runs_and_leaves_no_trace(Permission::ReadOnly);
}
