//! A scripted machine in a file, and backends on it in children.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use vgpu_backend_child::ChildFixture;
use vgpu_backend_mock::{Machine, MachineSpec, MockFixture, Preset};
use vgpu_conformance::{FaultPlan, Fixture, Permission, Support};
use vgpu_core::{Backend, BackendFactory, Container, Error, Host, Result};

use crate::backends::Name;
use crate::child::Fresh;

/// A scripted machine whose backends run in children; its files go with it.
#[derive(Debug)]
pub(super) struct InChild {
    inner: ChildFixture<MockFixture>,
    _files: TempDir,
}

impl InChild {
    pub(super) fn new(name: &str, spec: MachineSpec, patience: Duration) -> Result<Self> {
        let files = tempfile::tempdir()
            .map_err(|error| Error::io("make a folder in", &std::env::temp_dir(), &error))?;
        let (file, empty) = (files.path().join("machine"), files.path().join("empty"));
        let machine = Machine::open(&file, spec)?;
        Machine::open(&empty, Preset::Empty)?;
        let mock = MockFixture::on(name, machine, None)?.with_patience(patience);
        let (child, nothing) = (fresh(&file), fresh(&empty));
        let inner = ChildFixture::new(mock, Host::default(), move || child.factory())
            .with_empty(move || nothing.factory());
        Ok(Self { inner, _files: files })
    }
}

fn fresh(machine: &Path) -> Fresh {
    let words: [OsString; 2] = ["--machine-state".into(), machine.into()];
    Fresh::new(Name::Mock, words)
}

impl Fixture for InChild {
    fn name(&self) -> &str {
        self.inner.name()
    }
    fn open(&self) -> Result<Arc<dyn Backend>> {
        self.inner.open()
    }
    fn permission(&self) -> Permission {
        self.inner.permission()
    }
    fn faults(&self) -> Option<&dyn FaultPlan> {
        self.inner.faults()
    }
    fn empty_host(&self) -> Option<(Arc<dyn BackendFactory>, Host)> {
        self.inner.empty_host()
    }
    fn container(&self) -> Option<Container> {
        self.inner.container()
    }
    fn reset(&self) -> Result<Support> {
        self.inner.reset()
    }
    fn patience(&self) -> Duration {
        self.inner.patience()
    }
}
