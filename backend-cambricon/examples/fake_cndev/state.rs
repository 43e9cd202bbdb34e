//! What the driver keeps: modes, profiles, instances; and what a test makes of the machine. In a file, where the scenario
//! names one, so that it outlives the process.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::scenario::Scenario;

/// The whole machine as it is now.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct State {
    pub(crate) driver: [u32; 3],
    /// How often the driver was started; a library of before must be started anew.
    pub(crate) starts: u64,
    /// The driver is not loaded.
    pub(crate) down: bool,
    /// Whether the caller is in the host's PID namespace, as root.
    pub(crate) permitted: bool,
    pub(crate) cards: Vec<Card>,
    pub(crate) fail: Vec<Fail>,
    /// Milliseconds by function, or by `function@index`.
    pub(crate) latency_ms: BTreeMap<String, u64>,
    pub(crate) events: Vec<Event>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            driver: [0; 3],
            starts: 1,
            down: false,
            permitted: true,
            cards: Vec::new(),
            fail: Vec::new(),
            latency_ms: BTreeMap::new(),
            events: Vec::new(),
        }
    }
}

/// A card as it is now.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Card {
    pub(crate) mode: Mode,
    pub(crate) profiles: Vec<Profile>,
    pub(crate) instances: Vec<Instance>,
    /// Processes on the card that have no instance.
    pub(crate) holders: Vec<u32>,
    /// It answers everything with "in problem".
    pub(crate) lost: bool,
    pub(crate) used_mib: u64,
    pub(crate) busy: i32,
    pub(crate) good: bool,
    pub(crate) driver_state: i32,
    pub(crate) overall: i32,
    pub(crate) incidents: Vec<Incident>,
    pub(crate) prohibited: bool,
    pub(crate) repair_pending: bool,
    pub(crate) repair_failed: bool,
    pub(crate) uncorrected: u32,
    pub(crate) ecc_exceeded: bool,
    pub(crate) heartbeat: u32,
    /// The heartbeat does not count up with each look at it.
    pub(crate) heart_stopped: bool,
    /// After so many changes the process that makes them seems to have died: every further call fails.
    pub(crate) crash_after: Option<u32>,
    /// After so many changes the process that makes them really dies.
    pub(crate) die_after: Option<u32>,
    /// Claimed instead of the true number of instances.
    pub(crate) claimed_instances: Option<u32>,
    /// Names of instances fill their arrays without an end.
    pub(crate) unterminated: bool,
}

impl Default for Card {
    fn default() -> Self {
        Self {
            mode: Mode::Default,
            profiles: Vec::new(),
            instances: Vec::new(),
            holders: Vec::new(),
            lost: false,
            used_mib: 0,
            busy: 7,
            good: true,
            driver_state: 4,
            overall: 0,
            incidents: Vec::new(),
            prohibited: false,
            repair_pending: false,
            repair_failed: false,
            uncorrected: 0,
            ecc_exceeded: false,
            heartbeat: 100,
            heart_stopped: false,
            crash_after: None,
            die_after: None,
            claimed_instances: None,
            unterminated: false,
        }
    }
}

impl Card {
    pub(crate) fn profile(&self, id: i32) -> Option<&Profile> {
        self.profiles.iter().find(|profile| profile.id == id)
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    #[default]
    Default,
    Mim,
    Smlu,
}

/// A profile of sMLU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    pub(crate) id: i32,
    pub(crate) percent: u32,
    pub(crate) memory: u64,
}

/// An instance of either kind; `start` is of MIM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Instance {
    pub(crate) id: i32,
    pub(crate) name: String,
    pub(crate) profile: i32,
    #[serde(default)]
    pub(crate) start: i32,
    /// Processes that have its node open.
    #[serde(default)]
    pub(crate) holders: Vec<u32>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Incident {
    pub(crate) system: i32,
    pub(crate) result: i32,
    pub(crate) code: i32,
    pub(crate) text: String,
}

/// A function fails; on all cards, or on the card of that index.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fail {
    pub(crate) function: String,
    #[serde(default)]
    pub(crate) card: Option<usize>,
    pub(crate) code: i32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Event {
    /// Told once.
    pub(crate) id: String,
    /// The card's index.
    pub(crate) card: usize,
    pub(crate) data: u64,
}

/// Where the state is kept.
#[derive(Debug)]
pub(crate) struct Store {
    file: Option<PathBuf>,
    last: State,
    /// The file as it was when `last` was read of it.
    read: Option<(u64, i64, i64)>,
}

impl Store {
    pub(crate) fn open(scenario: &Scenario) -> Result<Self, String> {
        let cards = vec![Card::default(); scenario.cards.len()];
        let last = State { driver: scenario.driver, cards, ..State::default() };
        let mut store = Self { file: scenario.state.clone(), last, read: None };
        store.change(|_| ())?;
        Ok(store)
    }

    /// Looks at the state.
    pub(crate) fn look<T>(&mut self, look: impl FnOnce(&State) -> T) -> Result<T, String> {
        if let Some(file) = self.file.clone() {
            let _lock = locked(&file)?;
            self.reread(&file)?;
        }
        Ok(look(&self.last))
    }

    /// Looks at the state and changes it; no other process does so meanwhile.
    pub(crate) fn change<T>(&mut self, change: impl FnOnce(&mut State) -> T) -> Result<T, String> {
        let Some(file) = self.file.clone() else {
            return Ok(change(&mut self.last));
        };
        let _lock = locked(&file)?;
        self.reread(&file)?;
        let answer = change(&mut self.last);
        let said = |e: std::io::Error| format!("{}: {e}", file.display());
        let text = serde_json::to_string(&self.last).map_err(|e| e.to_string())?;
        let new = file.with_extension("new");
        fs::write(&new, text).map_err(said)?;
        fs::rename(&new, &file).map_err(said)?;
        self.read = stamp(&file);
        Ok(answer)
    }

    fn reread(&mut self, file: &Path) -> Result<(), String> {
        let now = stamp(file);
        if now == self.read || now.is_none() {
            self.read = now;
            return Ok(());
        }
        let text = fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
        let mut read: State =
            serde_json::from_str(&text).map_err(|e| format!("{}: {e}", file.display()))?;
        read.cards.resize(self.last.cards.len(), Card::default());
        if read.driver == [0; 3] {
            read.driver = self.last.driver;
        }
        self.last = read;
        self.read = now;
        Ok(())
    }

    /// Beside the state: a file of what is slow now.
    pub(crate) fn tell_slow(&self, slow: &[String]) {
        if let Some(file) = &self.file {
            let lines: String = slow.iter().map(|name| format!("{name}\n")).collect();
            // Nobody waits for it where it cannot be written.
            let _told = fs::write(file.with_extension("slow"), lines);
        }
    }
}

/// A lock that ends with the value.
fn locked(file: &Path) -> Result<File, String> {
    let said = |e: std::io::Error| format!("{}: {e}", file.display());
    let lock = File::create(file.with_extension("lock")).map_err(said)?;
    lock.lock().map_err(said)?;
    Ok(lock)
}

/// A file that was renamed into place is another, and one that was written over is newer.
fn stamp(file: &Path) -> Option<(u64, i64, i64)> {
    let metadata = fs::metadata(file).ok()?;
    Some((metadata.ino(), metadata.mtime(), metadata.mtime_nsec()))
}
