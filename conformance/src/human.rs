//! A report for people.

use std::fmt;

use crate::report::{Entry, Report, Run, Verdict};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "vgpu conformance {} on {} {}", self.suite, self.host.os, self.host.arch)?;
        for run in &self.runs {
            write!(f, "{run}")?;
        }
        let c = &self.counts;
        writeln!(
            f,
            "\n{} passed, {} failed, {} skipped, {} unproven",
            c.passed, c.failed, c.skipped, c.unproven
        )
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}", self.fixture)?;
        if let Some(l) = &self.library {
            writeln!(f, "  {} library {}, driver {}", l.vendor, l.path, l.driver)?;
        }
        if let Some(why) = &self.broken {
            writeln!(f, "  FAIL  nothing could be tried: {why}")?;
        }
        for card in &self.cards {
            let alike = if card.tried { "" } else { "  (not tried)" };
            writeln!(f, "  card  {} {} [{}]{alike}", card.id, card.model, card.schemes.join(" "))?;
        }
        for entry in &self.entries {
            writeln!(f, "  {entry}")?;
        }
        for capability in &self.unproven {
            writeln!(f, "  unproven  {} {}", capability.device, capability.scheme)?;
        }
        Ok(())
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, why) = match &self.verdict {
            Verdict::Fail { message } => ("FAIL", message.as_str()),
            Verdict::Pass => ("pass", ""),
            Verdict::Skip { reason } => ("skip", reason.as_str()),
        };
        write!(f, "{word}  {:<7} {}", self.clause, self.title)?;
        if let Some(device) = &self.device {
            write!(f, "  {device}")?;
        }
        if let Some(scheme) = &self.scheme {
            write!(f, " {scheme}")?;
        }
        if why.is_empty() { Ok(()) } else { write!(f, "\n        {why}") }
    }
}
