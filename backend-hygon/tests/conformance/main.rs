//! The contract on prepared hosts with the fakes, from `dlopen` on, with every fault that they can play.
//!
//! A fake reads its machine from the environment, so that each machine has a process of its own: this
//! program starts itself once for each, with the arguments that it got.

mod faults;
mod fixture;
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::process::{Command, ExitCode};

use crate::fixture::FakeHygon;
use crate::support::FakeHost;

/// Presets, and how virtual DCUs are made on them.
const MACHINES: &[(&str, &str)] = &[
    ("k100-ai-x4", "file"),
    ("k100-ai-x4", "library"),
    ("bw100-x4", "library"),
    ("z100-x2", "file"),
    ("k100-lce-x2", "library"),
    ("mixed", "file"),
    ("mixed", "library"),
];

fn main() -> ExitCode {
    match std::env::var(INSIDE) {
        Ok(way) => match FakeHygon::here(&way) {
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
    for (preset, way) in MACHINES {
        let folder = support::folder();
        let cards = support::preset(preset).expect("a preset");
        let host = FakeHost::write(folder.path(), cards).expect("the host is written");
        eprintln!("\nmachine {preset}, virtual DCUs by {way}");
        if !passes(preset, way, &host.scenario_file()) {
            eprintln!("machine {preset}, virtual DCUs by {way}, breaks the contract");
            all = ExitCode::FAILURE;
        }
    }
    all
}

fn passes(preset: &str, way: &str, scenario: &Path) -> bool {
    let own = std::env::current_exe().expect("a test knows its own path");
    Command::new(own)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, way)
        .env("VGPU_TEST_PRESET", preset)
        .env("FAKE_HYDMI", scenario)
        .status()
        .expect("it starts")
        .success()
}

const INSIDE: &str = "VGPU_TEST_WAY";
