//! Prepares a host with Hygon cards below a folder, and the scenario that the fake libraries read.
//!
//! `fake_hygon_host <preset> <folder>`, then
//! `FAKE_HYDMI=<folder>/scenario.json vgpu … --backend hygon --host-root <folder>
//! --hydmi-library target/debug/examples/libfake_hydmi.so`.

mod host;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, folder] = arguments.as_slice() else {
        eprintln!("name a preset ({}) and a folder", host::PRESETS.join(", "));
        return ExitCode::FAILURE;
    };
    let Some(cards) = host::preset(name) else {
        eprintln!("there is no preset {name}; there are {}", host::PRESETS.join(", "));
        return ExitCode::FAILURE;
    };
    match host::FakeHost::write(Path::new(folder), cards) {
        Ok(host) => {
            eprintln!("{} cards below {}", host.cards.len(), host.root.display());
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("{folder} cannot be prepared: {e}");
            ExitCode::FAILURE
        }
    }
}
