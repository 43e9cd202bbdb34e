//! What the agent takes, from time to time, and whether that grows.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::cluster::test::world::World;

/// The columns after the first, with how much each may grow: a part of what it was, and an amount on top.
const COLUMNS: [Column; 8] = [
    Column::new("pods", None),
    Column::new("resident_kib", Some(Bound { percent: 5, more: 512 })),
    Column::new("open_files", Some(Bound { percent: 0, more: 8 })),
    Column::new("threads", Some(Bound { percent: 0, more: 8 })),
    // It is rewritten when 64 KiB of it are idle.
    Column::new("journal_bytes", Some(Bound { percent: 0, more: 64 << 10 })),
    Column::new("claims", Some(Bound { percent: 0, more: 16 })),
    Column::new("specs", Some(Bound { percent: 0, more: 16 })),
    Column::new("claim_folders", Some(Bound { percent: 0, more: 16 })),
];

/// One figure of a sample.
#[derive(Debug, Clone, Copy)]
struct Column {
    name: &'static str,
    /// None for what only counts.
    bound: Option<Bound>,
}

impl Column {
    const fn new(name: &'static str, bound: Option<Bound>) -> Self {
        Self { name, bound }
    }
}

/// How much more is no growth.
#[derive(Debug, Clone, Copy)]
struct Bound {
    percent: u64,
    more: u64,
}

/// The figures at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    seconds: u64,
    /// In the order of the columns.
    figures: [u64; COLUMNS.len()],
}

impl Sample {
    /// Looks at the agent's process, its state folder and the CDI folder.
    pub(crate) fn take(world: &World, at: Duration, pods: u64) -> Result<Self> {
        let node = &world.cluster.node;
        let process = node.inside(&format!("/proc/{}", node.number("agent")?));
        let status = std::fs::read_to_string(process.join("status"))
            .context("the agent's process is gone")?;
        let field = |name: &str| -> Result<u64> {
            let value = status.lines().find_map(|line| line.strip_prefix(name));
            let number = value.and_then(|v| v.split_whitespace().next());
            number.and_then(|n| n.parse().ok()).with_context(|| format!("no {name} in {status}"))
        };
        let state = node.layout.dir.join("vgpu");
        Ok(Self {
            seconds: at.as_secs(),
            figures: [
                pods,
                field("VmRSS:")?,
                entries(&process.join("fd"))?,
                field("Threads:")?,
                std::fs::metadata(state.join("journal")).context("no journal")?.len(),
                world.claims()?.len() as u64,
                entries(&node.inside("/run/cdi"))?,
                entries(&state.join("claims"))?,
            ],
        })
    }
}

/// How many entries a folder has; one that is made when it is needed has none before.
fn entries(dir: &Path) -> Result<u64> {
    match std::fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(0),
        all => Ok(all.with_context(|| format!("cannot list {}", dir.display()))?.count() as u64),
    }
}

/// All samples of a run.
#[derive(Debug, Default)]
pub(crate) struct Table {
    samples: Vec<Sample>,
}

impl Table {
    pub(crate) fn push(&mut self, sample: Sample) {
        self.samples.push(sample);
    }

    pub(crate) fn len(&self) -> usize {
        self.samples.len()
    }

    /// As a file: what was run, the samples, and the summary; lines with `#` are no samples.
    pub(crate) fn csv(&self, about: &str) -> String {
        let names: Vec<&str> = COLUMNS.iter().map(|c| c.name).collect();
        let mut text = format!("# {about}\nseconds,{}\n", names.join(","));
        for sample in &self.samples {
            let figures: Vec<String> = sample.figures.iter().map(u64::to_string).collect();
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{},{}", sample.seconds, figures.join(","));
        }
        for line in self.summary() {
            let _ = writeln!(text, "# {line}");
        }
        text
    }

    /// First, last and most of each column.
    pub(crate) fn summary(&self) -> Vec<String> {
        let line = |(at, column): (usize, &Column)| {
            let all = || self.samples.iter().map(|s| s.figures[at]);
            let (first, last, max) = (all().next()?, all().next_back()?, all().max()?);
            Some(format!("{}: first {first}, last {last}, max {max}", column.name))
        };
        COLUMNS.iter().enumerate().filter_map(line).collect()
    }

    /// The columns that grow. The first sixth of the time warms up: claims of pods that ended are kept for up to
    /// five minutes. Of the rest, the median of the last third may lie above that of the first third by the column's bound.
    pub(crate) fn grown(&self) -> Vec<String> {
        let steady = &self.samples[self.samples.len() / 6..];
        let third = steady.len() / 3;
        if third == 0 {
            return vec![format!("{} samples are too few to tell", self.samples.len())];
        }
        let (early, late) = (&steady[..third], &steady[steady.len() - third..]);
        let judge = |(at, column): (usize, &Column)| {
            let bound = column.bound?;
            let (before, after) = (median(early, at), median(late, at));
            let most = before + before * bound.percent / 100 + bound.more;
            let name = column.name;
            (after > most).then(|| {
                format!("{name} was {before} and is {after}, more than the {most} allowed")
            })
        };
        COLUMNS.iter().enumerate().filter_map(judge).collect()
    }
}

fn median(samples: &[Sample], column: usize) -> u64 {
    let mut all: Vec<u64> = samples.iter().map(|s| s.figures[column]).collect();
    all.sort_unstable();
    all[all.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples whose resident memory is as given, all else constant but for the pods.
    fn table(resident: impl Fn(u64) -> u64) -> Table {
        let sample =
            |n| Sample { seconds: n * 15, figures: [n, resident(n), 20, 7, 4_000, 9, 9, 9] };
        Table { samples: (0..120).map(sample).collect() }
    }

    #[test]
    fn what_is_level_does_not_grow() {
        assert!(table(|_| 12_000).grown().is_empty());
        // It warms up, and then goes up and down.
        assert!(
            table(|n| if n < 20 { 8_000 + n } else { 12_000 + n % 7 * 300 }).grown().is_empty()
        );
    }

    #[test]
    fn what_grows_is_named_with_its_figures() {
        let grown = table(|n| 12_000 + n * 30).grown();
        assert_eq!(grown.len(), 1);
        assert!(grown[0].starts_with("resident_kib was "), "{grown:?}");
    }

    #[test]
    fn too_few_samples_tell_nothing() {
        let mut few = table(|_| 1);
        few.samples.truncate(2);
        assert_eq!(few.grown().len(), 1);
    }

    #[test]
    fn the_file_has_samples_and_a_summary() {
        let text = table(|n| 100 + n).csv("a test");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "# a test");
        assert!(lines[1].starts_with("seconds,pods,resident_kib,"));
        assert_eq!(lines[2], "0,0,100,20,7,4000,9,9,9");
        assert!(text.contains("# resident_kib: first 100, last 219, max 219"), "{text}");
    }
}
