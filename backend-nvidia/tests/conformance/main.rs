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

use crate::fixture::FakeNvml;

/// Presets of the fake, the library that plays them, and what is changed about them.
const MACHINES: &[(&str, &str, &str)] = &[
    ("h200x8", "libfake_nvml.so", ""),
    ("h100-mig", "libfake_nvml.so", ""),
    ("a100-mig", "libfake_nvml.so", ""),
    ("driver-470", "libfake_nvml.so", ""),
    ("a100x4", "libfake_nvml.so", ""),
    ("a100x4", "libfake_nvml_old.so", ""),
    ("mixed-models", "libfake_nvml.so", ""),
    ("t4x1", "libfake_nvml.so", ""),
    // Memory limits of cgroups.
    ("driver-615", "libfake_nvml.so", ""),
];

fn main() -> ExitCode {
    match std::env::var(INSIDE) {
        Ok(library) => match FakeNvml::here(&library) {
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
    for (preset, library, changed) in MACHINES {
        let folder = tempfile::tempdir().expect("a folder for the scenario");
        let scenario = folder.path().join("scenario.yaml");
        let control = fixture::control_of(folder.path());
        let root = fixture::root_of(folder.path());
        let text = format!(
            "preset: {preset}\n{changed}\ncontrol: {}\nhost_root: {}\n",
            control.display(),
            root.display()
        );
        std::fs::write(&scenario, text).expect("the scenario is written");
        eprintln!("\nmachine {preset} behind {library} {changed}");
        if !passes(library, &scenario) {
            eprintln!("machine {preset} behind {library} breaks the contract");
            all = ExitCode::FAILURE;
        }
    }
    all
}

fn passes(library: &str, scenario: &Path) -> bool {
    let own = std::env::current_exe().expect("a test knows its own path");
    Command::new(own)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, library)
        .env("FAKE_NVML", scenario)
        .status()
        .expect("it starts")
        .success()
}

const INSIDE: &str = "VGPU_TEST_LIBRARY";
