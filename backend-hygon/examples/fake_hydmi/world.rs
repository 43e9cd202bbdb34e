//! What the three fakes share: the machine, and the faults of the control file.
//!
//! Each call reads both afresh. Nothing else is kept in memory: what is made lies in files below the
//! machine's root, as the vendor's daemon keeps it, so that it outlives a process that is killed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde::Deserialize;

/// A machine.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Scenario {
    pub(crate) root: PathBuf,
    control: PathBuf,
    cards: Vec<Card>,
}

#[derive(Debug, Clone, Deserialize)]
#[allow(dead_code, reason = "each of the three fakes reads its own part of it")]
pub(crate) struct Card {
    pub(crate) address: String,
    pub(crate) vendor: u32,
    pub(crate) units: u32,
    pub(crate) memory_mib: u64,
    pub(crate) serial: Option<String>,
    pub(crate) mig: bool,
}

/// Faults; README.md tells each in words.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(dead_code, reason = "each of the three fakes reads its own part of it")]
pub(crate) struct Control {
    pub(crate) fail: Vec<Fail>,
    pub(crate) latency_ms: std::collections::BTreeMap<String, u64>,
    /// After so many changes every call fails, as if this process had died.
    pub(crate) die_after: Option<u32>,
    /// After so many changes this process is killed.
    pub(crate) kill_after: Option<u32>,
    pub(crate) crash_in: Option<String>,
    pub(crate) defects: Vec<String>,
    pub(crate) events: Vec<Event>,
    /// Virtual DCUs in use.
    pub(crate) busy: Vec<u32>,
    /// Memory in use of each virtual DCU.
    pub(crate) used_mib: u64,
    /// What a library says instead of the number of cards.
    pub(crate) count: Option<i32>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Fail {
    pub(crate) function: String,
    pub(crate) code: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[allow(dead_code, reason = "only one of the three fakes has events")]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) address: String,
    pub(crate) kind: u32,
}

/// One call: the machine and the faults as they are now.
pub(crate) struct Call {
    pub(crate) scenario: Scenario,
    pub(crate) control: Control,
    /// Held by one process at a time, as the daemon does one thing at a time.
    _lock: Option<File>,
}

/// Changes since the control file last changed.
struct Changes {
    control: String,
    count: u32,
}

static CHANGES: Mutex<Changes> = Mutex::new(Changes { control: String::new(), count: 0 });

/// Lets a call through, or answers with the code of its fault.
pub(crate) fn enter(function: &str, unready: u32) -> Result<Call, u32> {
    let scenario = scenario().map_err(|why| {
        eprintln!("fake of Hygon's libraries: {why}");
        unready
    })?;
    let (mut control, mut text) = control(&scenario.control);
    if let Some(latency) = control.latency_ms.get(function).copied() {
        fs::write(scenario.control.with_extension("slow"), function).unwrap_or_default();
        let mut left = latency;
        // Looks whether it was let go.
        while left > 0 && control.latency_ms.contains_key(function) {
            thread::sleep(Duration::from_millis(5));
            left = left.saturating_sub(5);
            (control, text) = self::control(&scenario.control);
        }
    }
    if control.crash_in.as_deref() == Some(function) {
        std::process::abort();
    }
    if let Some(fail) = control.fail.iter().find(|fail| fail.function == function) {
        return Err(fail.code);
    }
    let mut changes = changes();
    if changes.control != text {
        *changes = Changes { control: text, count: 0 };
    }
    if control.die_after.is_some_and(|n| changes.count >= n) {
        return Err(unready);
    }
    drop(changes);
    let lock = File::create(scenario.root.join("daemon.lock")).ok();
    let lock = lock.filter(|file| file.lock().is_ok());
    Ok(Call { scenario, control, _lock: lock })
}

impl Call {
    /// Notes a change that was made; a process that is to be killed then is.
    #[allow(dead_code, reason = "one of the three fakes changes nothing")]
    pub(crate) fn changed(&self) {
        let mut changes = changes();
        changes.count += 1;
        if self.control.kill_after.is_some_and(|n| changes.count >= n) {
            std::process::abort();
        }
    }

    /// Hygon's cards, in an order that is neither that of addresses nor of numbers.
    #[allow(dead_code, reason = "one of the three fakes counts all vendors' cards")]
    pub(crate) fn cards(&self) -> Vec<&Card> {
        self.all().into_iter().filter(|card| card.vendor == 0x1d94).collect()
    }

    /// Cards of every vendor.
    pub(crate) fn all(&self) -> Vec<&Card> {
        let shift = usize::from(self.scenario.cards.len() > 1);
        let cards = self.scenario.cards.iter();
        cards.clone().skip(shift).chain(cards.take(shift)).collect()
    }

    #[allow(dead_code, reason = "only some of the three fakes have defects")]
    pub(crate) fn has(&self, defect: &str) -> bool {
        self.control.defects.iter().any(|name| name == defect)
    }

    #[allow(dead_code, reason = "one of the three fakes has no files")]
    pub(crate) fn at(&self, below: impl AsRef<Path>) -> PathBuf {
        self.scenario.root.join(below)
    }
}

fn scenario() -> Result<Scenario, String> {
    let file = std::env::var_os("FAKE_HYDMI")
        .ok_or("FAKE_HYDMI is not set; name the scenario.json that fake_hygon_host wrote")?;
    let text = fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    serde_json::from_str(&text).map_err(|e| format!("{}: {e}", file.display()))
}

fn control(file: &Path) -> (Control, String) {
    let text = fs::read_to_string(file).unwrap_or_default();
    if text.is_empty() {
        return (Control::default(), text);
    }
    match serde_json::from_str(&text) {
        Ok(control) => (control, text),
        Err(e) => {
            eprintln!("fake of Hygon's libraries: {}: {e}", file.display());
            std::process::abort();
        }
    }
}

fn changes() -> MutexGuard<'static, Changes> {
    CHANGES.lock().unwrap_or_else(PoisonError::into_inner)
}
