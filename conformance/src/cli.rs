//! The commands of a conformance tool, without its parser: `run`, `list` and `probe`.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use vgpu_core::clause::CLAUSES;
use vgpu_core::{Error, ErrorKind, Result};

use crate::case::cases;
use crate::fixture::Fixture;
use crate::report::{Card, Library, Report};
use crate::run::{Select, run as run_suite};

/// How a report is written.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    strum::Display,
    strum::EnumString,
    strum::VariantNames,
)]
#[strum(serialize_all = "kebab-case")]
pub enum Format {
    /// Lines for people.
    #[default]
    Human,
    /// One JSON document, a [`Report`].
    Json,
}

/// Options of `run`. What `--allow-destructive` and `--defect` ask for is the fixtures' business:
/// whoever makes them passes it on.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// Where the JSON report is written besides.
    pub report: Option<PathBuf>,
    /// How the answer is written.
    pub format: Format,
    /// Which cases, on which cards.
    pub select: Select,
}

/// What a command answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// For standard output.
    pub text: String,
    /// The process's exit code: 1 if anything failed. What is unproven is told, and is no failure.
    pub exit_code: u8,
}

/// `run`: tries every case on these fixtures.
///
/// # Errors
/// `Invalid` for a filter that no case has, or no fixture at all; `Io` if the report cannot be
/// written.
pub fn run(fixtures: &[Box<dyn Fixture>], options: &RunOptions) -> Result<Answer> {
    if fixtures.is_empty() {
        let why = "there is no backend to try; name one that is present";
        return Err(Error::new(ErrorKind::Invalid, why));
    }
    let report = run_suite(fixtures, &options.select);
    let tried = report.runs.iter().any(|run| !run.entries.is_empty() || run.broken.is_some());
    if let (false, Some(filter)) = (tried, &options.select.filter) {
        let why = format!("no case has {filter:?} in its name; list them to see the names");
        return Err(Error::new(ErrorKind::Invalid, why));
    }
    let json = to_json(&report)?;
    if let Some(path) = &options.report {
        fs::write(path, &json).map_err(|e| Error::io("write", path, &e))?;
    }
    let text = match options.format {
        Format::Human => report.to_string(),
        Format::Json => json,
    };
    Ok(Answer { text, exit_code: report.exit_code() })
}

/// What `list` lists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Listing {
    /// Cases with their scope and title.
    #[default]
    Cases,
    /// The ids of the clauses alone, one a line, for scripts.
    Clauses,
}

/// `list`: the cases, or the clauses' ids.
pub fn list(what: Listing) -> Answer {
    let mut text = String::new();
    match what {
        Listing::Clauses => {
            for clause in CLAUSES {
                text.push_str(clause.id);
                text.push('\n');
            }
        }
        Listing::Cases => {
            for case in cases() {
                let scope = format!("{:?}", case.scope).to_lowercase();
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{:<8} {scope:<8} {}", case.clause.id, case.clause.title);
            }
        }
    }
    Answer { text, exit_code: 0 }
}

/// `probe`: library, driver, missing symbols, cards and schemes of these fixtures.
pub fn probe(fixtures: &[Box<dyn Fixture>]) -> Answer {
    let mut text = String::new();
    let mut exit_code = 0;
    for fixture in fixtures {
        text.push_str(fixture.name());
        text.push('\n');
        match probed(&**fixture) {
            Ok(lines) => text.push_str(&lines),
            Err(e) => {
                exit_code = 1;
                let _ = writeln!(text, "  broken: {e}");
            }
        }
    }
    Answer { text, exit_code }
}

fn probed(fixture: &dyn Fixture) -> Result<String> {
    let backend = fixture.open()?;
    let scan = backend.scan()?;
    let library = Library::from(backend.info());
    let mut text = String::new();
    let _ = writeln!(text, "  library  {} ({})", library.path, library.vendor);
    let _ = writeln!(text, "  driver   {}", library.driver);
    let missing = library.missing_symbols;
    let symbols = if missing.is_empty() { "none".to_owned() } else { missing.join(" ") };
    let _ = writeln!(text, "  missing  {symbols}");
    for device in &scan.devices {
        let card = Card::of(device, true);
        let schemes = card.schemes.join(" ");
        let _ =
            writeln!(text, "  card     {} {} {} [{schemes}]", card.id, card.model, device.memory);
    }
    for lost in &scan.lost {
        let _ = writeln!(text, "  lost     {}: {}", lost.name, lost.reason);
    }
    Ok(text)
}

fn to_json(report: &Report) -> Result<String> {
    serde_json::to_string_pretty(report)
        .map_err(|e| Error::new(ErrorKind::Io, format!("the report does not serialize: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clauses_are_listed_one_a_line() {
        let text = list(Listing::Clauses).text;
        assert_eq!(text.lines().count(), CLAUSES.len());
        assert!(text.lines().any(|line| line == "PART-7"));
        assert_eq!(list(Listing::Cases).text.lines().count(), CLAUSES.len());
    }

    #[test]
    fn without_a_backend_nothing_is_proven() {
        let e = run(&[], &RunOptions::default()).unwrap_err();
        assert_eq!(e.kind, ErrorKind::Invalid);
    }
}
