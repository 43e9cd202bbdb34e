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

use vgpu_backend_child::{ChildFactory, ChildFixture, ChildOptions, Replaced};
use vgpu_backend_hygon::HygonFactory;
use vgpu_core::Vendor;

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
    // By library, each backend in a process of its own, as it is served on a node.
    ("k100-ai-x4", "child"),
    ("k100-lce-x2", "child"),
];

fn main() -> ExitCode {
    if std::env::var_os(CHILD).is_some() {
        return vgpu_backend_child::serve(HygonFactory::new(fixture::options()), "1");
    }
    match std::env::var(INSIDE) {
        Ok(way) => match FakeHygon::here(&way) {
            Ok(fixture) if way == "child" => {
                vgpu_conformance::test_main(vec![Box::new(child(fixture))])
            }
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

/// The machine with its backends in children; all that is played lies in files.
fn child(machine: FakeHygon) -> ChildFixture<FakeHygon> {
    let host = machine.host();
    let make = || {
        let options = ChildOptions {
            replaced: Replaced::Tell,
            ..ChildOptions::own(["child"]).variable(CHILD, "1")
        };
        ChildFactory::new(Vendor::HYGON, options)
    };
    ChildFixture::new(machine, host, make).with_empty(make)
}

const INSIDE: &str = "VGPU_TEST_WAY";
const CHILD: &str = "VGPU_TEST_CHILD";
