//! Backends by name, as the suite takes them.

use std::collections::BTreeSet;
use std::time::Duration;

use strum::IntoEnumIterator as _;
use vgpu_backend_mock::{Defect, MachineSpec, MockFixture, Preset};
use vgpu_conformance::{Fixture, Permission};

use crate::backends::Name;
use crate::conformance::in_child::in_child;
use crate::conformance::real::RealFixture;
use crate::conformance::{Subject, unusable};
use crate::failure::Failure;

/// How fixtures behave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    /// What may be done to real cards.
    pub(super) permission: Permission,
    /// How long a call may take before it counts as hanging.
    pub(super) patience: Duration,
    /// A promise that the scripted machine breaks.
    pub(super) defect: Option<Defect>,
}

impl Manner {
    /// Only looks.
    pub(super) const READING: Self =
        Self { permission: Permission::ReadOnly, patience: Duration::from_secs(60), defect: None };
}

/// A fixture for each backend; for the mock one for each machine.
pub(super) fn of(subject: &Subject, manner: Manner) -> Result<Vec<Box<dyn Fixture>>, Failure> {
    let Manner { permission, patience, defect } = manner;
    let Subject { backends, sources } = subject;
    if backends.iter().collect::<BTreeSet<_>>().len() < backends.len() {
        return Err(Failure::input("a backend is named twice")
            .at("--backend")
            .so("name each once"));
    }
    sources.check(backends)?;
    if defect.is_some() && backends.as_slice() != [Name::Mock] {
        return Err(Failure::input("a defect can be planted in the scripted machine only")
            .at("--defect")
            .so("use `--backend mock` alone, or leave --defect out"));
    }
    if defect.is_some() && sources.child {
        return Err(Failure::input(
            "a defect is planted in this process, and --child runs another",
        )
        .at("--defect")
        .so("leave one of the two out"));
    }
    let mut fixtures: Vec<Box<dyn Fixture>> = Vec::new();
    for name in backends {
        if *name == Name::Mock && sources.child {
            for (name, spec) in machines(subject)? {
                let fixture = in_child(&name, spec, patience).map_err(|e| unusable(&e))?;
                fixtures.push(Box::new(fixture));
            }
        } else if *name == Name::Mock {
            for fixture in scripted(subject)? {
                let fixture = fixture.with_patience(patience);
                let fixture = match defect {
                    Some(defect) => fixture.with_defect(defect),
                    None => fixture,
                };
                fixtures.push(Box::new(fixture));
            }
        } else {
            let (factory, host) = sources.factory(*name)?;
            fixtures.push(Box::new(RealFixture::new(*name, factory, host, permission, patience)?));
        }
    }
    Ok(fixtures)
}

fn scripted(subject: &Subject) -> Result<Vec<MockFixture>, Failure> {
    let made = machines(subject)?.into_iter().map(|(name, spec)| MockFixture::new(&name, spec));
    made.collect::<Result<_, _>>().map_err(|error| unusable(&error))
}

/// The machines that are asked for, by the names of their fixtures.
fn machines(subject: &Subject) -> Result<Vec<(String, MachineSpec)>, Failure> {
    if let Some(name) = &subject.sources.machine {
        return Ok(vec![(format!("mock-{name}"), subject.sources.machine_spec()?)]);
    }
    let all = Preset::iter().filter(|preset| *preset != Preset::Empty);
    Ok(all.map(|preset| (format!("mock-{preset}"), preset.spec())).collect())
}
