//! `--child`: a backend in a process of its own, which is this program again.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use vgpu_backend_child::{ChildFactory, ChildOptions, Replaced, serve};
use vgpu_core::{BackendFactory, Host, Probe, Vendor};

use crate::backends::{Name, Sources};
use crate::failure::Failure;

/// Is one backend, over standard input and output: what this program calls itself as.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The backend.
    #[arg(value_enum)]
    name: Name,
    #[command(flatten)]
    sources: Sources,
}

/// Serves until whoever started it ends.
pub(crate) fn be(args: &Args) -> Result<ExitCode, Failure> {
    let (factory, _told_when_probed) = args.sources.factory(args.name)?;
    Ok(serve(factory, env!("CARGO_PKG_VERSION")))
}

/// A backend in a child, with a new child for each that is made.
#[derive(Debug)]
pub(crate) struct Fresh {
    vendor: Vendor,
    words: Vec<OsString>,
}

impl Fresh {
    /// The backend of this name; `words` say where the child finds it, beyond what a probe tells it.
    pub(crate) fn new(name: Name, words: impl IntoIterator<Item = OsString>) -> Self {
        let first = ["backend".into(), name.to_string().into()];
        let vendor = Vendor::new(name.to_string());
        Self { vendor, words: first.into_iter().chain(words).collect() }
    }

    /// What makes one child.
    pub(crate) fn factory(&self) -> ChildFactory {
        let options = ChildOptions {
            // Whoever looks at the answer has a limit of its own, and told it to the user.
            call: Duration::from_secs(86_400),
            replaced: Replaced::Tell,
            ..ChildOptions::own(self.words.iter().cloned())
        };
        ChildFactory::new(self.vendor.clone(), options)
    }
}

impl BackendFactory for Fresh {
    fn vendor(&self) -> Vendor {
        self.vendor.clone()
    }

    fn probe(&self, host: &Host) -> Probe {
        self.factory().probe(host)
    }
}
