//! `vgpu`: what a machine's accelerators are, how they can be split, and what a container would get.
//!
//! Every command answers with a text and an exit code: 0 for done, 1 for something that is broken or
//! refused, 2 for a mistake in the call. A mistake is one line on stderr that says what, where and what
//! to do.

mod answer;
mod backends;
mod child;
mod claims;
mod conformance;
mod demo;
mod devices;
mod doctor;
mod edits;
mod failure;
mod input;
mod partition;
mod plan;
mod table;

use std::process::ExitCode;

use clap::Parser;

use crate::answer::Done;

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(Cli { command: Command::Backend(args) }) => match child::be(&args) {
            Ok(code) => code,
            Err(failure) => answer::finish(Err(failure)),
        },
        Ok(cli) => answer::finish(cli.command.run()),
        Err(error) => answer::usage(&error),
    }
}

/// Finds accelerators of any vendor and shows how they can be split.
#[derive(Debug, Parser)]
#[command(name = "vgpu", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    #[command(hide = true)]
    Backend(Box<child::Args>),
    Claims(claims::Args),
    #[command(subcommand)]
    Conformance(conformance::Command),
    /// Plays a mixed-vendor node with the agent and a kubelet in this process; touches nothing.
    Demo,
    Devices(devices::Args),
    Doctor(Box<doctor::Args>),
    Edits(Box<edits::Args>),
    /// The parts that drivers hold, and changing the size of a living one.
    #[command(subcommand)]
    Partition(Box<partition::Command>),
    Plan(plan::Args),
}

impl Command {
    fn run(&self) -> Done {
        match self {
            Self::Backend(_) => unreachable!("it answers to no person, and is taken by `main`"),
            Self::Claims(args) => claims::run(args),
            Self::Conformance(command) => conformance::run(command),
            Self::Demo => demo::run(),
            Self::Devices(args) => devices::run(args),
            Self::Doctor(args) => doctor::run(args),
            Self::Edits(args) => edits::run(args),
            Self::Partition(command) => partition::run(command),
            Self::Plan(args) => plan::run(args),
        }
    }
}
