//! `vgpu devices`: what is there, and why the rest is not.

pub(crate) mod look;
mod matrix;
mod report;
mod schemes;
mod text;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::answer::{Answer, Done};
use crate::backends::{Name, Sources};
use crate::failure::Failure;

#[cfg(test)]
pub(crate) use crate::devices::report::Unread;
pub(crate) use crate::devices::report::{Found, Report, State};
pub(crate) use crate::devices::schemes::axis;

/// Shows the cards of this machine, how each can be split and what each way enforces.
///
/// For every vendor that is absent, broken, or has lost a card, it says why. The exit code is 1 if a
/// vendor is broken, else 0.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this backend; may be given again [default: nvidia, hygon, cambricon].
    #[arg(long = "backend", value_name = "NAME", value_enum)]
    backends: Vec<Name>,
    #[command(flatten)]
    sources: Sources,
    /// Answer in JSON, in the form of docs/schemas/devices.json.
    #[arg(long)]
    json: bool,
    /// Show how near the cards are to one another too.
    #[arg(long)]
    topology: bool,
    /// How many seconds a vendor may take to answer before it counts as broken.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

/// Looks and tells.
pub(crate) fn run(args: &Args) -> Done {
    let names = if args.backends.is_empty() { &Name::REAL[..] } else { &args.backends };
    if names.iter().collect::<BTreeSet<_>>().len() < names.len() {
        return Err(Failure::input("a backend is named twice")
            .at("--backend")
            .so("name each one once"));
    }
    args.sources.check(names)?;
    let backends = look::at(names, &args.sources, Duration::from_secs(args.timeout))?;
    let report = Report::of(backends);
    let answer = if args.json {
        Answer::json(&report)
    } else {
        Answer::text(text::of(&report, args.topology))
    };
    Ok(answer.exits(u8::from(report.is_broken())))
}
