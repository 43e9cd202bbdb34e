//! The node agent with a vendor from outside this repository: such a `main` is all that it takes.
//!
//! The vendor here, `acme`, finds no card; its backend would be a type that implements
//! [`vgpu_core::Backend`]. It is served beside the vendors of this repository and has the same
//! command line as `vgpu-plugin`.

use std::process::ExitCode;
use std::sync::Arc;

use vgpu_core::{BackendFactory, Host, Probe, Vendor};
use vgpu_plugin::backends::{BackendArgs, Choice, Settings};

fn main() -> ExitCode {
    vgpu_plugin::start(choices)
}

/// The vendors of this repository that were asked for, and ours.
fn choices(args: &BackendArgs, settings: &Settings) -> anyhow::Result<Vec<Choice>> {
    let mut choices = args.choices(settings)?;
    let host = Host { root: args.look.host_root.clone(), library: None };
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
