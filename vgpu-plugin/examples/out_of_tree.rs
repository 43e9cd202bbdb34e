//! The node agent with a vendor from outside this repository: such a `main` is all that it takes.
//!
//! The vendor here, `acme`, finds no card; its backend would be a type that implements
//! [`vgpu_core::Backend`]. It is served beside the vendors of this repository and has the same
//! command line as `vgpu-plugin`.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;
use vgpu_core::{BackendFactory, Host, Probe, Vendor};
use vgpu_plugin::args::{Cli, Command};
use vgpu_plugin::backends::{Choice, LookArgs};
use vgpu_plugin::{check_config, complain, run};

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::CheckConfig(args) => {
            check_config(|| Ok(with_ours(args.choices()?, &args.backends.look)), &args)
        }
        Command::Run(args) => {
            args.choices().and_then(|known| run(with_ours(known, &args.backends.look), *args))
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// The vendors of this repository that were asked for, and ours.
fn with_ours(known: Vec<Choice>, look: &LookArgs) -> Vec<Choice> {
    let mut choices = known;
    let host = Host { root: look.host_root.clone(), library: None };
    choices.push(Choice { factory: Arc::new(AcmeFactory), host });
    choices
}

/// Looks for Acme's cards.
#[derive(Debug)]
struct AcmeFactory;

impl BackendFactory for AcmeFactory {
    fn vendor(&self) -> Vendor {
        Vendor::new("acme")
    }

    fn probe(&self, host: &Host) -> Probe {
        // Load the library, and answer `Probe::Ready(Arc::new(backend))`, or why it does not work.
        Probe::Absent(format!("no Acme card below {}", host.root.display()))
    }
}
