//! `vgpu conformance`: whether a backend keeps the promises of the core's traits.

mod fixtures;
mod in_child;
mod real;

use std::path::PathBuf;
use std::time::Duration;

use vgpu_backend_mock::Defect;
use vgpu_conformance::cli::{self, Format, Listing, RunOptions};
use vgpu_conformance::{Cards, Permission, Select};
use vgpu_core::clause::CLAUSES;
use vgpu_core::{DeviceId, Error, ErrorKind};

use crate::answer::{Answer, Done};
use crate::backends::{Name, Sources};
use crate::conformance::fixtures::Manner;
use crate::failure::Failure;

/// Tries a backend against the contract, clause by clause.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Lists the cases.
    List(ListArgs),
    /// Shows library, driver, missing symbols, cards and schemes of a backend.
    Probe(Subject),
    /// Runs every case on every kind of card; exits 1 if a promise is broken.
    Run(RunArgs),
}

/// Which backends, where.
#[derive(Debug, clap::Args)]
pub(crate) struct Subject {
    /// This backend; may be given again. `mock` alone means every preset.
    #[arg(long = "backend", value_name = "NAME", value_enum, required = true)]
    backends: Vec<Name>,
    #[command(flatten)]
    sources: Sources,
}

/// What is listed.
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// The clauses' ids alone, one a line.
    #[arg(long)]
    clauses: bool,
}

/// How the cases are run.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    subject: Subject,
    /// Write the JSON report to this file too.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// How the answer is written; json is in the form of docs/schemas/conformance-report.json.
    #[arg(long, value_name = "FORMAT", default_value = "human", value_parser = format)]
    format: Format,
    /// Only cases whose name, `fixture::card::scheme::CLAUSE title`, has this text.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Only on this card; may be given again [default: the first of each kind].
    #[arg(long = "device", value_name = "ID")]
    devices: Vec<DeviceId>,
    /// On every card, not only the first of each kind.
    #[arg(long, conflicts_with = "devices")]
    every_card: bool,
    /// On real cards that nobody uses, make, change and unmake parts too. A scripted machine is always
    /// changed.
    #[arg(long)]
    allow_destructive: bool,
    /// How many seconds a call may take before it counts as hanging [default: 60; 2 with --defect, where
    /// the hanging is meant].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    patience: Option<u64>,
    /// Break this clause on purpose, to see that its case notices; mock only.
    #[arg(long, value_name = "CLAUSE", value_parser = defect)]
    defect: Option<Defect>,
}

/// Runs one of them.
pub(crate) fn run(command: &Command) -> Done {
    match command {
        Command::List(args) => {
            let what = if args.clauses { Listing::Clauses } else { Listing::Cases };
            Ok(answer(cli::list(what)))
        }
        Command::Probe(subject) => {
            let fixtures = fixtures::of(subject, Manner::READING)?;
            Ok(answer(cli::probe(&fixtures)))
        }
        Command::Run(args) => cases(args),
    }
}

fn cases(args: &RunArgs) -> Done {
    let parent = args.report.as_deref().and_then(|file| file.parent());
    if let Some(folder) = parent.filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir())
    {
        // Told before the run: a report that cannot be written is a run for nothing.
        return Err(Failure::input("the report's folder is not there")
            .at(format!("--report, {}", folder.display()))
            .so("make it, or name another file"));
    }
    let permission = match args.allow_destructive {
        true => Permission::Destructive,
        false => Permission::ReadOnly,
    };
    let patience = args.patience.unwrap_or(if args.defect.is_some() { 2 } else { 60 });
    let manner =
        Manner { permission, patience: Duration::from_secs(patience), defect: args.defect };
    let fixtures = fixtures::of(&args.subject, manner)?;
    let cards = match (args.devices.as_slice(), args.every_card) {
        (_, true) => Cards::Every,
        ([], false) => Cards::OfEachKind,
        (these, false) => Cards::These(these.to_vec()),
    };
    let options = RunOptions {
        report: args.report.clone(),
        format: args.format,
        select: Select { filter: args.filter.clone(), cards },
    };
    cli::run(&fixtures, &options).map(answer).map_err(|error| match error.kind {
        ErrorKind::Invalid => Failure::input(error.message),
        _ => error.into(),
    })
}

fn answer(answer: cli::Answer) -> Answer {
    let mut text = answer.text;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Answer::text(text).exits(answer.exit_code)
}

fn format(text: &str) -> Result<Format, String> {
    text.parse().map_err(|_unknown| "it is neither human nor json".to_owned())
}

fn defect(text: &str) -> Result<Defect, String> {
    text.parse().map_err(|_unknown| {
        let near = text.to_uppercase();
        let there = CLAUSES.iter().any(|clause| clause.id == near);
        match there {
            true => format!("clauses are in capitals; write {near}"),
            false => "there is no such clause; `vgpu conformance list --clauses` lists them".into(),
        }
    })
}

/// What keeps a fixture from being made.
fn unusable(error: &Error) -> Failure {
    Failure::input(error.to_string()).so("correct the machine")
}
