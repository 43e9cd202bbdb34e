//! `vgpu partition`: the parts that drivers hold, and changing the size of a living one.

mod list;
mod resize;

use crate::answer::Done;

/// The parts of this machine's cards.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    List(list::Args),
    Resize(resize::Args),
}

/// Does what was asked.
pub(crate) fn run(command: &Command) -> Done {
    match command {
        Command::List(args) => list::run(args),
        Command::Resize(args) => resize::run(args),
    }
}
