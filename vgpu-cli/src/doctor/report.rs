//! All findings, as data; published as `docs/schemas/doctor.json`.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::doctor::finding::{Finding, Severity};

/// What a node's check came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    /// Of this form: 1.
    version: u32,
    /// How many there are of each severity.
    summary: Summary,
    /// By topic, the worst first.
    pub(crate) findings: Vec<Finding>,
}

/// How many findings there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Summary {
    error: usize,
    warning: usize,
    note: usize,
    ok: usize,
}

impl Report {
    pub(crate) fn of(findings: Vec<Finding>) -> Self {
        let mut findings = once(findings);
        findings.sort_by(|a, b| (a.topic, b.severity, a).cmp(&(b.topic, a.severity, b)));
        Self { version: 1, summary: Summary::of(&findings), findings }
    }

    /// The worst severity.
    pub(crate) fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    /// `2 errors, 1 warning, 0 notes`.
    pub(crate) fn counted(&self) -> String {
        let several = |n: usize, word: &str| match n {
            1 => format!("1 {word}"),
            n => format!("{n} {word}s"),
        };
        let Summary { error, warning, note, ok: _ } = self.summary;
        [several(error, "error"), several(warning, "warning"), several(note, "note")].join(", ")
    }
}

impl Summary {
    fn of(findings: &[Finding]) -> Self {
        let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
        Self {
            error: count(Severity::Error),
            warning: count(Severity::Warning),
            note: count(Severity::Note),
            ok: count(Severity::Ok),
        }
    }
}

/// Each finding once, and no topic that is fine but for what could not be read.
fn once(findings: Vec<Finding>) -> Vec<Finding> {
    let wrong = |f: &&Finding| f.severity > Severity::Note;
    let troubled: BTreeSet<_> = findings.iter().filter(wrong).map(|f| f.topic).collect();
    let fine = |f: &Finding| f.severity == Severity::Ok && troubled.contains(&f.topic);
    let unique: BTreeSet<Finding> = findings.into_iter().filter(|f| !fine(f)).collect();
    unique.into_iter().collect()
}
