//! The state file of the fake library: what a test does to the machine.

#![allow(dead_code, reason = "each test uses its own part of this module")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// A machine's state file, shared with the library.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    pub(crate) file: PathBuf,
}

impl Control {
    /// A scenario in a folder, and its state file beside it.
    pub(crate) fn prepare(folder: &Path, scenario: &str) -> (PathBuf, Self) {
        let (path, file) = (folder.join("scenario.yaml"), folder.join("state.json"));
        let text = format!("{scenario}\nstate: {}\n", file.display());
        fs::write(&path, text).expect("the scenario is written");
        (path, Self { file })
    }

    /// Of a scenario that was prepared in this folder.
    pub(crate) fn of(folder: &Path) -> Self {
        Self { file: folder.join("state.json") }
    }

    /// Changes the machine while no call of the library looks at it.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Value) -> T) -> std::io::Result<T> {
        let lock = File::create(self.file.with_extension("lock"))?;
        lock.lock()?;
        let mut state: Value = serde_json::from_slice(&fs::read(&self.file)?)?;
        let answer = change(&mut state);
        let new = self.file.with_extension("renamed");
        fs::write(&new, state.to_string())?;
        fs::rename(&new, &self.file)?;
        Ok(answer)
    }

    /// Sets a key of a card.
    pub(crate) fn set(&self, card: usize, key: &str, value: Value) -> std::io::Result<()> {
        self.change(|state| state["cards"][card][key] = value)
    }

    /// The driver is started anew: nobody knows who was there before.
    pub(crate) fn restart_driver(&self, version: Option<[u32; 3]>) -> std::io::Result<()> {
        self.change(|state| {
            let starts = state["starts"].as_u64().unwrap_or(1);
            state["starts"] = json!(starts + 1);
            if let Some(version) = version {
                state["driver"] = json!(version);
            }
        })
    }
}
