//! What a run came to, as data. The JSON form is this module's types under [`Report`].

use serde::{Deserialize, Serialize};
use vgpu_core::{BackendInfo, Device, DeviceId, Scheme};

/// Version of the suite and of the report's form.
pub const SUITE: &str = env!("CARGO_PKG_VERSION");

/// Everything that was tried, on one fixture or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Report {
    /// Version of the suite.
    pub suite: String,
    /// Where it ran.
    pub host: HostFacts,
    /// One for each fixture.
    pub runs: Vec<Run>,
    /// Sums over all runs.
    pub counts: Counts,
}

impl Report {
    /// The report of these runs, on this host.
    pub fn of(runs: Vec<Run>) -> Self {
        let mut counts = Counts::default();
        for run in &runs {
            counts.add(&run.counts);
        }
        Self { suite: SUITE.into(), host: HostFacts::here(), runs, counts }
    }

    /// The JSON schema of a report.
    #[cfg(feature = "schema")]
    pub fn schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }

    /// Whether nothing failed. What is unproven is told, and is no failure.
    pub fn is_pass(&self) -> bool {
        self.counts.failed == 0 && self.runs.iter().all(|run| run.broken.is_none())
    }

    /// The process's exit code: 1 if anything failed.
    pub fn exit_code(&self) -> u8 {
        u8::from(!self.is_pass())
    }
}

/// Everything that was tried on one fixture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Run {
    /// The fixture.
    pub fixture: String,
    /// Why the backend could not be opened or scanned; then nothing was tried, which is a failure.
    pub broken: Option<String>,
    /// What was loaded.
    pub library: Option<Library>,
    /// The cards that answered.
    pub cards: Vec<Card>,
    /// What each case came to, in order.
    pub entries: Vec<Entry>,
    /// Declared ways to split a card whose cases were all skipped.
    pub unproven: Vec<Capability>,
    /// Sums.
    pub counts: Counts,
}

/// What was loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Library {
    /// Whose.
    pub vendor: String,
    /// Library file, or `built in`.
    pub path: String,
    /// Driver version.
    pub driver: String,
    /// Optional symbols that are not there.
    pub missing_symbols: Vec<String>,
}

/// A card, as far as a report needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Card {
    /// Its id.
    pub id: String,
    /// Its model.
    pub model: String,
    /// Memory in bytes.
    pub memory: u64,
    /// The ways to split it; those whose mode is on are marked `*`.
    pub schemes: Vec<String>,
    /// Whether the cases ran on it; one of several alike stands for all.
    pub tried: bool,
}

/// One case on one subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Entry {
    /// `PART-7`.
    pub clause: String,
    /// In a few words.
    pub title: String,
    /// The card, unless it is about the whole backend.
    pub device: Option<String>,
    /// The scheme, if it is about one.
    pub scheme: Option<String>,
    /// What it came to.
    pub verdict: Verdict,
    /// How long it took; never judged.
    pub millis: u64,
}

/// What a case came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Verdict {
    /// The promise was broken.
    Fail {
        /// How.
        message: String,
    },
    /// The promise was kept.
    Pass,
    /// It could not be tried.
    Skip {
        /// Why.
        reason: String,
    },
}

/// A declared way to split a card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Capability {
    /// The card.
    pub device: String,
    /// The scheme.
    pub scheme: String,
}

/// How many came to what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Counts {
    /// Cases that passed.
    pub passed: u32,
    /// Cases that failed.
    pub failed: u32,
    /// Cases that were skipped.
    pub skipped: u32,
    /// Declared ways to split a card of which nothing was shown.
    pub unproven: u32,
}

impl Counts {
    /// Counts a verdict.
    pub(crate) fn count(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Fail { .. } => self.failed += 1,
            Verdict::Pass => self.passed += 1,
            Verdict::Skip { .. } => self.skipped += 1,
        }
    }

    fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.unproven += other.unproven;
    }
}

/// The machine that the suite ran on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HostFacts {
    /// Operating system.
    pub os: String,
    /// Processor architecture.
    pub arch: String,
    /// Kernel release, where it can be read.
    pub kernel: Option<String>,
}

impl HostFacts {
    fn here() -> Self {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok();
        Self {
            os: std::env::consts::OS.into(),
            arch: std::env::consts::ARCH.into(),
            kernel: kernel.map(|text| text.trim().to_owned()),
        }
    }
}

impl From<BackendInfo> for Library {
    fn from(info: BackendInfo) -> Self {
        Self {
            vendor: info.vendor.to_string(),
            path: info.library.display().to_string(),
            driver: info.driver,
            missing_symbols: info.missing_symbols,
        }
    }
}

impl Card {
    /// A card for a report.
    pub(crate) fn of(device: &Device, tried: bool) -> Self {
        let mark = |active: bool| if active { "*" } else { "" };
        Self {
            id: device.id.to_string(),
            model: device.model.clone(),
            memory: device.memory.0,
            schemes: device
                .schemes
                .iter()
                .map(|s| format!("{}{}", s.scheme, mark(s.mode.active)))
                .collect(),
            tried,
        }
    }
}

impl Capability {
    /// A scheme of a card.
    pub(crate) fn of(device: &DeviceId, scheme: &Scheme) -> Self {
        Self { device: device.to_string(), scheme: scheme.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(verdicts: &[Verdict]) -> Run {
        let entry = |verdict: &Verdict| Entry {
            clause: "PART-7".into(),
            title: "a failed create leaves nothing".into(),
            device: Some("GPU-1".into()),
            scheme: Some("mig".into()),
            verdict: verdict.clone(),
            millis: 1,
        };
        let mut counts = Counts::default();
        verdicts.iter().for_each(|v| counts.count(v));
        Run {
            fixture: "some".into(),
            broken: None,
            library: None,
            cards: Vec::new(),
            entries: verdicts.iter().map(entry).collect(),
            unproven: Vec::new(),
            counts,
        }
    }

    #[test]
    fn only_a_failure_is_a_failure() {
        let skip = Verdict::Skip { reason: "no card".into() };
        let fail = Verdict::Fail { message: "a part is left".into() };
        assert_eq!(Report::of(vec![run(&[Verdict::Pass, skip.clone()])]).exit_code(), 0);
        let report = Report::of(vec![run(&[Verdict::Pass, skip]), run(&[fail])]);
        assert_eq!(report.exit_code(), 1);
        assert_eq!((report.counts.passed, report.counts.failed, report.counts.skipped), (1, 1, 1));
        let text = report.to_string();
        assert!(text.contains("FAIL  PART-7  a failed create leaves nothing  GPU-1 mig"), "{text}");
        assert!(text.contains("a part is left"), "{text}");
        let json = serde_json::to_string(&report).expect("serializes");
        assert_eq!(serde_json::from_str::<Report>(&json).expect("parses"), report);
    }

    #[test]
    fn a_backend_that_does_not_open_is_a_failure() {
        let broken = Run { broken: Some("no library".into()), ..run(&[]) };
        assert_eq!(Report::of(vec![broken]).exit_code(), 1);
    }
}
