//! A machine of the fake library as the suite wants it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;
use vgpu_backend_cambricon::CambriconFactory;
use vgpu_conformance::{FaultPlan, Fixture, Permission, Support};
use vgpu_core::{Backend, BackendFactory, Container, Error, ErrorKind, Host, Probe, Result};

use crate::built::built;
use crate::control::Control;
use crate::plan::Plan;

/// The machine that this process's environment names.
#[derive(Debug)]
pub(crate) struct FakeCndev {
    name: String,
    factory: Arc<CambriconFactory>,
    host: Host,
    /// Has no driver at all.
    empty: TempDir,
    root: TempDir,
    plan: Plan,
    /// As it was before the first case.
    before: Value,
}

impl FakeCndev {
    pub(crate) fn here(library: &str) -> Result<Self> {
        let scenario = std::env::var_os("FAKE_CNDEV").map(PathBuf::from).unwrap_or_default();
        let text = fs::read_to_string(&scenario).map_err(|e| Error::io("read", &scenario, &e))?;
        let preset = text.lines().next().and_then(|line| line.strip_prefix("preset: "));
        let folder = scenario.parent().unwrap_or(Path::new(""));
        let temporary =
            || tempfile::tempdir().map_err(|e| Error::io("make", &std::env::temp_dir(), &e));
        let (root, empty) = (temporary()?, temporary()?);
        let host = Host { root: root.path().to_owned(), library: Some(built(library)) };
        let factory = Arc::new(CambriconFactory::default());
        let backend = open(&factory, &host)?;
        let control = Control::of(folder);
        let cards = backend.scan()?.devices.into_iter().map(|device| device.id).collect();
        let before = control.change(|state| state.clone());
        let before = before.map_err(|e| Error::io("read", &control.file, &e))?;
        let no_events = backend.info().missing_symbols.iter().any(|s| s == "cndevEventWait");
        Ok(Self {
            name: format!("{}-{}", preset.unwrap_or("machine"), library.trim_end_matches(".so")),
            factory,
            plan: Plan { control, cards, no_events, root: root.path().to_owned() },
            host,
            empty,
            root,
            before,
        })
    }
}

impl Fixture for FakeCndev {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&self) -> Result<Arc<dyn Backend>> {
        open(&self.factory, &self.host)
    }

    fn permission(&self) -> Permission {
        Permission::Destructive
    }

    fn faults(&self) -> Option<&dyn FaultPlan> {
        Some(&self.plan)
    }

    fn empty_host(&self) -> Option<(Arc<dyn BackendFactory>, Host)> {
        let host = Host { root: self.empty.path().to_owned(), library: None };
        Some((Arc::clone(&self.factory) as _, host))
    }

    fn container(&self) -> Option<Container> {
        Some(Container {
            cgroup: self.root.path().join("sys/fs/cgroup/container"),
            pid: std::process::id(),
            pid_namespace: 1,
        })
    }

    fn reset(&self) -> Result<Support> {
        self.plan.change(|state| {
            // Whoever was started on another driver starts anew on this one.
            let starts = state["starts"].as_u64().unwrap_or(1);
            let replaced = state["driver"] != self.before["driver"];
            *state = self.before.clone();
            state["starts"] = serde_json::json!(starts + u64::from(replaced));
        })?;
        let processes = self.root.path().join("proc");
        match fs::remove_dir_all(&processes) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", &processes, &e))
            }
            _ => Ok(Support::Played),
        }
    }
}

fn open(factory: &CambriconFactory, host: &Host) -> Result<Arc<dyn Backend>> {
    match factory.probe(host) {
        Probe::Absent(why) => Err(Error::new(ErrorKind::NotFound, why)),
        Probe::Broken(error) => Err(error),
        Probe::Ready(backend) => Ok(backend),
    }
}
