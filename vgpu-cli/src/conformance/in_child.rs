//! A scripted machine in a file, and backends on it in children.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vgpu_backend_child::ChildFixture;
use vgpu_backend_mock::{Machine, MachineSpec, MockFixture, Preset};
use vgpu_core::{Error, Host, Result};

use crate::backends::Name;
use crate::child::Fresh;

/// A scripted machine whose backends run in children; its files go with the fixture.
pub(super) fn in_child(
    name: &str,
    spec: MachineSpec,
    patience: Duration,
) -> Result<ChildFixture<MockFixture>> {
    let files = tempfile::tempdir()
        .map_err(|error| Error::io("make a folder in", &std::env::temp_dir(), &error))?;
    let (file, empty) = (files.path().join("machine"), files.path().join("empty"));
    let machine = Machine::open(&file, spec)?;
    Machine::open(&empty, Preset::Empty)?;
    let mock = MockFixture::on(name, machine, None)?.with_patience(patience);
    let files = Arc::new(files);
    let factory = |machine: &Path| {
        let (files, fresh) = (Arc::clone(&files), fresh(machine));
        move || {
            // Whoever makes children needs the machine to be there.
            let _files = &files;
            fresh.factory()
        }
    };
    Ok(ChildFixture::new(mock, Host::default(), factory(&file)).with_empty(factory(&empty)))
}

fn fresh(machine: &Path) -> Fresh {
    let words: [OsString; 2] = ["--machine-state".into(), machine.into()];
    Fresh::new(Name::Mock, words)
}
