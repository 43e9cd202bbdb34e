//! The node agent with a vendor from outside this repository: such a `main` is all that it takes.
//!
//! The vendor here, `acme`, finds no card; its backend would be a type that implements
//! [`vgpu_core::Backend`]. It is served beside the vendors of this repository and has the same
//! command line as `vgpu-plugin`.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;
use vgpu_core::{BackendFactory, Host, Probe, Vendor};
use vgpu_plugin::args::{Cli, Command, RunArgs};
use vgpu_plugin::backends::Choice;
use vgpu_plugin::{check_config, complain, run};

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::CheckConfig { file } => check_config(&file),
        Command::Run(args) => choices(&args).and_then(|choices| run(choices, *args)),
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
fn choices(args: &RunArgs) -> anyhow::Result<Vec<Choice>> {
    let mut choices = args.choices()?;
    let host = Host { root: args.backends.look.host_root.clone(), library: None };
    choices.push(Choice { factory: Arc::new(AcmeFactory), host });
    Ok(choices)
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
