//! Memory limits of cgroups (r615), on cgroup trees that a test prepares as plain folders and files.
//!
//! A cgroup is a folder with `cgroup.procs`; of version 2 if it has `cgroup.controllers`. What is set is remembered by
//! the folder itself, as the kernel does it: another cgroup of the same path starts without. Two ways of
//! working, as the field notes tell them: `misc`, flat, and `dmem`, where only a cgroup with a `dmem.max` can have a
//! limit and every ancestor with a `dmem.min` carries the sum of the soft limits below it until each is taken back
//! through this library.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::abi::{FUNCTION_NOT_FOUND, INVALID_ARGUMENT, NO_PERMISSION, NOT_FOUND, NOT_SUPPORTED};
use crate::scenario::{Card, Scenario};
use crate::world::Answer;

/// No limit.
pub(crate) const MAX: u64 = u64::MAX;

/// How this machine limits.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Way {
    pub(crate) backend: Backend,
    /// What is answered for a cgroup without a limit: 6, or 3.
    pub(crate) unset: u32,
    /// Whether the caller may set limits.
    pub(crate) privileged: bool,
    /// Set to something else than asked: what is added to each hard limit, in bytes.
    pub(crate) error: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Backend {
    Dmem,
    #[default]
    Misc,
    /// Switched off by a module parameter.
    Off,
}

impl Default for Way {
    fn default() -> Self {
        Self { backend: Backend::default(), unset: NOT_FOUND, privileged: true, error: 0 }
    }
}

/// A change from outside: another tool, or a driver that was loaded anew.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Outside {
    pub(crate) card: u32,
    pub(crate) cgroup: PathBuf,
    /// Absent: the limit is gone.
    #[serde(default)]
    pub(crate) hard_mib: Option<u64>,
}

/// Soft and hard limits in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pair {
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

/// A cgroup's folder: its inode, and when it was made, since inodes are given anew.
type Folder = (u64, Option<SystemTime>);

/// What is set, by card and cgroup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limits(Vec<Limit>);

/// What is set on a cgroup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Limit {
    card: u32,
    /// As the caller named it; what counts is the folder.
    cgroup: PathBuf,
    folder: Folder,
    #[serde(flatten)]
    pair: Pair,
}

impl Limits {
    pub(crate) fn set(&mut self, way: Way, card: u32, cgroup: &Path, pair: Pair) -> Answer<()> {
        if !way.privileged {
            return Err(NO_PERMISSION);
        }
        if pair.hard != MAX && pair.soft > pair.hard {
            return Err(INVALID_ARGUMENT);
        }
        let folder = made(cgroup)?;
        if way.backend == Backend::Dmem && !cgroup.join("dmem.max").exists() {
            return Err(NOT_FOUND);
        }
        let before = self.of(card, folder).map_or(0, |pair| pair.soft);
        if way.backend == Backend::Dmem {
            reserve(cgroup, before, pair.soft);
        }
        let hard = if pair.hard == MAX { MAX } else { pair.hard + way.error };
        self.put(card, cgroup, folder, Pair { hard, ..pair });
        Ok(())
    }

    /// The limits in force and what is used below: of the cgroup, or of the nearest above it that has some.
    pub(crate) fn read(
        &self,
        way: Way,
        (index, card): (u32, &Card),
        cgroup: &Path,
    ) -> Answer<(Pair, u64)> {
        made(cgroup)?;
        // A cgroup with files of its own has a value of its own, "max".
        let stops =
            |folder: &&Path| way.backend == Backend::Dmem && folder.join("dmem.max").exists();
        let up = cgroup.ancestors().take_while(|folder| folder.join("cgroup.procs").exists());
        let mut found = None;
        for folder in up {
            found = made(folder).ok().and_then(|made| self.of(index, made));
            if found.is_some() || stops(&folder) {
                break;
            }
        }
        let pair = found.ok_or(way.unset)?;
        let inside = processes(cgroup);
        let mib = card.processes.iter().filter(|p| inside.contains(&p.pid));
        let used: u64 = mib.filter_map(|p| p.used_mib).sum();
        Ok((pair, used << 20))
    }

    /// Takes a change from outside; a cgroup that is not there changes nothing.
    pub(crate) fn change(&mut self, change: &Outside) {
        let Ok(folder) = made(&change.cgroup) else { return };
        let hard = change.hard_mib.map_or(MAX, |mib| mib << 20);
        self.put(change.card, &change.cgroup, folder, Pair { soft: 0, hard });
    }

    fn of(&self, card: u32, folder: Folder) -> Option<Pair> {
        let own = |limit: &&Limit| limit.card == card && limit.folder == folder;
        self.0.iter().find(own).map(|limit| limit.pair)
    }

    /// Sets what is in force; what was set on a cgroup that is gone went with it.
    fn put(&mut self, card: u32, cgroup: &Path, folder: Folder, pair: Pair) {
        self.0.retain(|limit| {
            (limit.card, limit.folder) != (card, folder) && made(&limit.cgroup) == Ok(limit.folder)
        });
        if pair != (Pair { soft: 0, hard: MAX }) {
            self.0.push(Limit { card, cgroup: cgroup.to_owned(), folder, pair });
        }
    }
}

/// Whether this driver, with this card, has limits at all.
pub(crate) fn admit(scenario: &Scenario, card: &Card) -> Answer<Way> {
    let major = scenario.driver_version.split('.').next().and_then(|text| text.parse().ok());
    if major.is_none_or(|major: u32| major < 615) {
        return Err(FUNCTION_NOT_FOUND);
    }
    let way = scenario.cgroup_limits;
    if way.backend == Backend::Off || card.mig.is_some_and(|mig| mig.current != 0) {
        return Err(NOT_SUPPORTED);
    }
    Ok(way)
}

fn made(cgroup: &Path) -> Answer<Folder> {
    if !cgroup.is_absolute() {
        return Err(INVALID_ARGUMENT);
    }
    if !cgroup.join("cgroup.procs").exists() {
        return Err(NOT_FOUND);
    }
    if !cgroup.join("cgroup.controllers").exists() {
        return Err(NOT_SUPPORTED);
    }
    let metadata = fs::metadata(cgroup).map_err(|_gone| NOT_FOUND)?;
    Ok((metadata.ino(), metadata.created().ok()))
}

/// Carries the change of a soft limit up, as far as the chain of `dmem.min` goes.
fn reserve(leaf: &Path, before: u64, after: u64) {
    for folder in leaf.ancestors() {
        let file = folder.join("dmem.min");
        let Ok(text) = fs::read_to_string(&file) else { return };
        let now: u64 = text.trim().parse().unwrap_or(0);
        // What cannot be written is a test's own doing.
        let _ = fs::write(&file, format!("{}\n", now.saturating_sub(before) + after));
    }
}

/// The processes of a cgroup and of those below it.
fn processes(cgroup: &Path) -> Vec<u32> {
    let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let mut all: Vec<u32> = text.lines().filter_map(|line| line.trim().parse().ok()).collect();
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.path().join("cgroup.procs").exists() {
            all.extend(processes(&entry.path()));
        }
    }
    all
}
