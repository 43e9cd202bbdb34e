//! The contract on the fake library, from `dlopen` on, with every fault that it can play.
//!
//! A library is never unloaded and reads its machine when it starts, so that each machine has a process of its own:
//! this program starts itself once for each, with the arguments that it got.

#[path = "../support/built.rs"]
mod built;
#[path = "../support/control.rs"]
mod control;
mod fixture;
mod plan;

use std::path::Path;
use std::process::{Command, ExitCode};

use crate::control::Control;
use crate::fixture::FakeCndev;

/// Presets of the fake, and behind which library.
const MACHINES: &[(&str, &str)] = &[
    ("mlu370x8", "libfake_cndev.so"),
    ("cndev-6.5", "libfake_cndev.so"),
    ("cndev-4.0", "libfake_cndev.so"),
    ("cndev-3.9", "libfake_cndev_old.so"),
];

fn main() -> ExitCode {
    match std::env::var(INSIDE) {
        Ok(library) => match FakeCndev::here(&library) {
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
    for (preset, library) in MACHINES {
        let folder = tempfile::tempdir().expect("a folder for the scenario");
        let (scenario, _) = Control::prepare(folder.path(), &format!("preset: {preset}"));
        eprintln!("\nmachine {preset} behind {library}");
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
        .env("FAKE_CNDEV", scenario)
        .status()
        .expect("it starts")
        .success()
}

const INSIDE: &str = "VGPU_TEST_LIBRARY";
