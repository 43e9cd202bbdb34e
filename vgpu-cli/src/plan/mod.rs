//! `vgpu plan`: where requests would go, without touching any machine.

mod across;
mod form;
mod nodes;
mod outcome;
mod text;

use crate::answer::{Answer, Done};
use crate::input;

pub(crate) use crate::plan::text::carved;

/// Decides offline, from JSON, which node and cards would serve each request, and what would be made.
///
/// A node is described by its cards, by what `vgpu devices --json` said of it, or by a scripted machine
/// such as `mixed`. Requests are decided in order; each sees what the earlier ones took. For one that
/// nobody can serve, the reason of every node and card is told. The exit code is 1 if a request is
/// refused, else 0.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The question in JSON, in the form of docs/schemas/plan-input.json; - reads stdin.
    #[arg(value_name = "FILE", default_value = "-")]
    file: String,
    /// Answer in JSON, in the form of docs/schemas/plan-output.json.
    #[arg(long)]
    json: bool,
}

/// Reads, decides, tells.
pub(crate) fn run(args: &Args) -> Done {
    let text = input::read(&args.file)?;
    let question = input::decode(&text, &args.file)?;
    let question = nodes::resolve(question, &args.file)?;
    let outcome = across::decide(&question);
    let answer = if args.json { Answer::json(&outcome) } else { Answer::text(text::of(&outcome)) };
    Ok(answer.exits(u8::from(outcome.refused > 0)))
}
