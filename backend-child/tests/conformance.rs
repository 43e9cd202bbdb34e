//! The whole suite on the mock in a child: this program starts itself once for each backend that is
//! opened, with the machine in a file.

use std::path::PathBuf;
use std::process::ExitCode;

use vgpu_backend_child::{ChildFactory, ChildFixture, ChildOptions, Replaced, serve};
use vgpu_backend_mock::{Machine, MockFactory, MockFixture, Preset};
use vgpu_conformance::{Fixture, test_main};
use vgpu_core::{Host, Vendor};

/// Names the machine's file to the child; only children have it.
const MACHINE: &str = "VGPU_TEST_MACHINE";

fn main() -> ExitCode {
    if let Some(file) = std::env::var_os(MACHINE) {
        let machine = Machine::open(&PathBuf::from(file), Preset::Empty).expect("a machine");
        return serve(MockFactory::combined(&machine), "1");
    }
    let dir = tempfile::tempdir().expect("a folder");
    let mut fixtures: Vec<Box<dyn Fixture>> = Vec::new();
    for preset in [Preset::Mixed, Preset::A100x4Mig] {
        let file = dir.path().join(format!("{preset}.json"));
        let empty = dir.path().join("empty.json");
        let machine = Machine::open(&file, preset).expect("presets are machines");
        Machine::open(&empty, Preset::Empty).expect("presets are machines");
        let inner = MockFixture::on(&format!("mock-{preset}"), machine, None).expect("a fixture");
        let fixture = ChildFixture::new(inner, Host::default(), move || child(&file))
            .with_empty(move || child(&empty));
        fixtures.push(Box::new(fixture));
    }
    let code = test_main(fixtures);
    drop(dir);
    code
}

fn child(machine: &std::path::Path) -> ChildFactory {
    let options = ChildOptions {
        replaced: Replaced::Tell,
        ..ChildOptions::own(["child"]).variable(MACHINE, machine)
    };
    ChildFactory::new(Vendor::new("mock"), options)
}
