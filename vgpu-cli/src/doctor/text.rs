//! All findings, for people.

use std::fmt::Write as _;

use strum::IntoEnumIterator;

use crate::doctor::finding::{Finding, Topic};
use crate::doctor::report::Report;

/// A block for each topic, the worst first, and what it comes to.
pub(crate) fn of(report: &Report) -> String {
    let mut text = String::new();
    for topic in Topic::iter() {
        let findings: Vec<&Finding> = report.findings.iter().filter(|f| f.topic == topic).collect();
        if findings.is_empty() {
            continue;
        }
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", title(topic));
        findings.into_iter().for_each(|finding| tell(&mut text, finding));
        text.push('\n');
    }
    let _ = writeln!(text, "{}", report.counted());
    text
}

fn title(topic: Topic) -> &'static str {
    match topic {
        Topic::Plugins => "OTHER PLUGINS",
        Topic::Runtime => "CONTAINER RUNTIME",
        Topic::Cdi => "CDI SPECS",
        Topic::Cards => "CARDS AND PARTS",
        Topic::Hami => "HAMI",
        Topic::Host => "HOST",
        Topic::Agent => "AGENT",
    }
}

fn tell(text: &mut String, finding: &Finding) {
    let Finding { id, severity, what, place, remedy, .. } = finding;
    let severity = severity.to_string();
    let _ = writeln!(text, "  {severity:<7}  {id:<11}  {what}");
    for (word, line) in [("at", place), ("do", remedy)] {
        if let Some(line) = line {
            let _ = writeln!(text, "{:24}{word}: {line}", "");
        }
    }
}
