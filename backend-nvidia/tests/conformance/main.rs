//! The contract on the fake library, from `dlopen` on, with every fault that it can play.
//!
//! A library is never unloaded and reads its machine when it starts, so that each machine has a
//! process of its own: this program starts itself once for each, with the arguments that it got.

#[path = "../support/built.rs"]
mod built;
mod fixture;
mod mps;

use std::path::Path;
use std::process::{Command, ExitCode};

use vgpu_backend_child::{ChildFactory, ChildFixture, ChildOptions, Replaced};
use vgpu_backend_nvidia::NvidiaFactory;
use vgpu_core::Vendor;

use crate::fixture::FakeNvml;

/// Presets of the fake, the library that plays them, and where the backend runs.
const MACHINES: &[(&str, &str, Where)] = &[
    ("h200x8", "libfake_nvml.so", Where::Here),
    ("h100-mig", "libfake_nvml.so", Where::Here),
    ("a100-mig", "libfake_nvml.so", Where::Here),
    ("driver-470", "libfake_nvml.so", Where::Here),
    ("a100x4", "libfake_nvml.so", Where::Here),
    ("a100x4", "libfake_nvml_old.so", Where::Here),
    ("mixed-models", "libfake_nvml.so", Where::Here),
    ("t4x1", "libfake_nvml.so", Where::Here),
    // Memory limits of cgroups.
    ("driver-615", "libfake_nvml.so", Where::Here),
    // MIG, and MPS daemons that outlive the child that started them.
    ("h100-mig", "libfake_nvml.so", Where::Child),
    ("h200x8", "libfake_nvml.so", Where::Child),
];

/// Where the backend and the library run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Where {
    /// In a process of their own, which each opened backend starts.
    Child,
    /// With the suite.
    Here,
}

fn main() -> ExitCode {
    if std::env::var_os(CHILD).is_some() {
        return vgpu_backend_child::serve(NvidiaFactory::new(fixture::options()), "1");
    }
    let in_child = std::env::var_os(IN_CHILD).is_some();
    match std::env::var(INSIDE) {
        Ok(library) => match FakeNvml::here(&library) {
            Ok(fixture) if in_child => vgpu_conformance::test_main(vec![Box::new(child(fixture))]),
            Ok(fixture) => vgpu_conformance::test_main(vec![Box::new(fixture)]),
            Err(why) => {
                eprintln!("the machine cannot be prepared: {why}");
                ExitCode::FAILURE
            }
        },
        Err(_) => on_every_machine(),
    }
}

fn on_every_machine() -> ExitCode {
    let mut all = ExitCode::SUCCESS;
    for (preset, library, place) in MACHINES {
        let folder = tempfile::tempdir().expect("a folder for the scenario");
        let scenario = folder.path().join("scenario.yaml");
        let control = fixture::control_of(folder.path());
        let root = fixture::root_of(folder.path());
        // What children share.
        let state = match place {
            Where::Child => format!("state: {}\n", folder.path().join("state.json").display()),
            Where::Here => String::new(),
        };
        let text = format!(
            "preset: {preset}\ncontrol: {}\nhost_root: {}\n{state}",
            control.display(),
            root.display()
        );
        std::fs::write(&scenario, text).expect("the scenario is written");
        eprintln!("\nmachine {preset} behind {library}, backend {place:?}");
        if !passes(library, &scenario, *place) {
            eprintln!("machine {preset} behind {library} breaks the contract");
            all = ExitCode::FAILURE;
        }
    }
    all
}

fn passes(library: &str, scenario: &Path, place: Where) -> bool {
    let own = std::env::current_exe().expect("a test knows its own path");
    let mut command = Command::new(own);
    command.args(std::env::args_os().skip(1)).env(INSIDE, library).env("FAKE_NVML", scenario);
    if place == Where::Child {
        command.env(IN_CHILD, "1");
    }
    command.status().expect("it starts").success()
}

/// The machine with its backends in children; the library's state and the faults lie in files.
fn child(machine: FakeNvml) -> ChildFixture<FakeNvml> {
    let host = machine.host().clone();
    let make = || {
        let options = ChildOptions {
            replaced: Replaced::Tell,
            ..ChildOptions::own(["child"]).variable(CHILD, "1")
        };
        ChildFactory::new(Vendor::NVIDIA, options)
    };
    ChildFixture::new(machine, host, make).with_empty(make)
}

const INSIDE: &str = "VGPU_TEST_LIBRARY";
const IN_CHILD: &str = "VGPU_TEST_IN_CHILD";
const CHILD: &str = "VGPU_TEST_CHILD";
