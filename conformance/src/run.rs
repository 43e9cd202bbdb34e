//! Every case on every subject, one at a time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use vgpu_core::{Backend, Device, DeviceId, Scheme};

use crate::case::{Case, Scope, cases};
use crate::context::{Context, Outcome, Stop};
use crate::fixture::Fixture;
use crate::report::{Capability, Card, Counts, Entry, Report, Run, Verdict};
use crate::scene::Scene;

/// Which cases are run, on which cards.
#[derive(Debug, Clone, Default)]
pub struct Select {
    /// Only cases whose full name, `fixture::card::scheme::CLAUSE title`, has this text.
    pub filter: Option<String>,
    /// Which cards.
    pub cards: Cards,
}

/// Which cards the cases are run on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Cards {
    /// Every card.
    Every,
    /// Of cards that are alike in model, schemes and modes, the first.
    #[default]
    OfEachKind,
    /// These, and no others.
    These(Vec<DeviceId>),
}

/// Runs the suite on these fixtures.
pub fn run(fixtures: &[Box<dyn Fixture>], select: &Select) -> Report {
    Report::of(fixtures.iter().map(|f| run_one(&**f, select)).collect())
}

/// Runs the suite on one fixture.
pub fn run_one(fixture: &dyn Fixture, select: &Select) -> Run {
    let mut run = Run {
        fixture: fixture.name().to_owned(),
        broken: None,
        library: None,
        cards: Vec::new(),
        entries: Vec::new(),
        unproven: Vec::new(),
        counts: Counts::default(),
    };
    let backend = match opened(fixture) {
        Ok(backend) => backend,
        Err(why) => {
            run.broken = Some(why);
            return run;
        }
    };
    run.library = Some(backend.info().into());
    let devices = match backend.scan() {
        Ok(scan) => scan.devices,
        Err(e) => {
            run.broken = Some(e.to_string());
            return run;
        }
    };
    drop(backend);
    let tried = chosen(&devices, &select.cards);
    run.cards = devices.iter().map(|d| Card::of(d, tried.iter().any(|t| t.id == d.id))).collect();
    for subject in subjects(&tried) {
        if select.filter.as_ref().is_none_or(|f| subject.name(fixture.name()).contains(f)) {
            run.entries.push(subject.run(fixture));
        }
    }
    for entry in &run.entries {
        run.counts.count(&entry.verdict);
    }
    run.unproven = unproven(&run.entries, &tried);
    run.counts.unproven = u32::try_from(run.unproven.len()).unwrap_or(u32::MAX);
    run
}

/// Calls `with` for each case that [`run_one`] would run: its name, and how to run it.
///
/// # Errors
/// Why the backend cannot be opened or scanned.
pub fn with_each_case(
    fixture: &Arc<dyn Fixture>,
    select: &Select,
    mut with: impl FnMut(String, Box<dyn FnOnce() -> Verdict + Send>),
) -> Result<(), String> {
    let devices = opened(&**fixture)?.scan().map_err(|e| e.to_string())?.devices;
    for subject in subjects(&chosen(&devices, &select.cards)) {
        let name = subject.name(fixture.name());
        if select.filter.as_ref().is_none_or(|f| name.contains(f)) {
            let fixture = Arc::clone(fixture);
            with(name, Box::new(move || subject.run(&*fixture).verdict));
        }
    }
    Ok(())
}

/// A case on what it is about.
#[derive(Debug, Clone)]
struct On {
    case: Case,
    device: Option<DeviceId>,
    scheme: Option<Scheme>,
}

impl On {
    fn name(&self, fixture: &str) -> String {
        let mut name = fixture.to_owned();
        for piece in
            [self.device.as_ref().map(DeviceId::as_str), self.scheme.as_ref().map(Scheme::as_str)]
                .into_iter()
                .flatten()
        {
            name.push_str("::");
            name.push_str(piece);
        }
        format!("{name}::{} {}", self.case.clause.id, self.case.clause.title)
    }

    fn run(&self, fixture: &dyn Fixture) -> Entry {
        let began = Instant::now();
        let verdict = match self.outcome(fixture) {
            Ok(()) => Verdict::Pass,
            Err(Stop::Fail(message)) => Verdict::Fail { message },
            Err(Stop::Skip(reason)) => Verdict::Skip { reason },
        };
        Entry {
            clause: self.case.clause.id.into(),
            title: self.case.clause.title.into(),
            device: self.device.as_ref().map(ToString::to_string),
            scheme: self.scheme.as_ref().map(ToString::to_string),
            verdict,
            millis: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }

    fn outcome(&self, fixture: &dyn Fixture) -> Outcome {
        let backend = opened(fixture).map_err(Stop::Fail)?;
        let scene = Scene::of(fixture, &*backend)?;
        let context =
            Context { fixture, backend, device: self.device.clone(), scheme: self.scheme.clone() };
        let result = catch_unwind(AssertUnwindSafe(|| (self.case.run)(&context)));
        drop(context);
        let undone = scene.undo();
        let outcome =
            result.unwrap_or_else(|panic| Err(Stop::Fail(format!("panicked: {}", said(&panic)))));
        // What could not be undone matters more than a pass or a skip, and less than a failure.
        match (outcome, undone) {
            (Err(Stop::Fail(message)), _) => Err(Stop::Fail(message)),
            (_, Err(why)) => Err(Stop::Fail(why)),
            (outcome, Ok(())) => outcome,
        }
    }
}

fn opened(fixture: &dyn Fixture) -> Result<Arc<dyn Backend>, String> {
    fixture.open().map_err(|e| format!("the backend does not open: {e}"))
}

fn subjects(devices: &[Device]) -> Vec<On> {
    let mut list = Vec::new();
    for case in cases() {
        match case.scope {
            Scope::Backend => list.push(On { case, device: None, scheme: None }),
            Scope::Device => list.extend(devices.iter().map(|d| On {
                case,
                device: Some(d.id.clone()),
                scheme: None,
            })),
            scope => list.extend(devices.iter().flat_map(|d| {
                d.schemes.iter().filter(move |s| scope.takes(s)).map(move |s| On {
                    case,
                    device: Some(d.id.clone()),
                    scheme: Some(s.scheme.clone()),
                })
            })),
        }
    }
    list
}

fn chosen(devices: &[Device], cards: &Cards) -> Vec<Device> {
    match cards {
        Cards::Every => devices.to_vec(),
        Cards::These(ids) => devices.iter().filter(|d| ids.contains(&d.id)).cloned().collect(),
        Cards::OfEachKind => {
            let kind = |d: &Device| {
                let schemes: Vec<_> =
                    d.schemes.iter().map(|s| (s.scheme.clone(), s.mode.active)).collect();
                (d.model.clone(), schemes)
            };
            let mut seen = Vec::new();
            let mut first = Vec::new();
            for device in devices {
                let kind = kind(device);
                if !seen.contains(&kind) {
                    seen.push(kind);
                    first.push(device.clone());
                }
            }
            first
        }
    }
}

/// Declared schemes of which nothing was shown, among those that were tried at all.
fn unproven(entries: &[Entry], tried: &[Device]) -> Vec<Capability> {
    let mut list = Vec::new();
    for (device, scheme) in tried.iter().flat_map(|d| d.schemes.iter().map(|s| (&d.id, &s.scheme)))
    {
        let about = |e: &&Entry| {
            e.device.as_deref() == Some(device.as_str())
                && e.scheme.as_deref() == Some(scheme.as_str())
        };
        let mut of = entries.iter().filter(about).peekable();
        let any = of.peek().is_some();
        if any && of.all(|e| matches!(e.verdict, Verdict::Skip { .. })) {
            list.push(Capability::of(device, scheme));
        }
    }
    list
}

fn said(panic: &Box<dyn std::any::Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
        .unwrap_or_else(|| "without a word".into())
}
