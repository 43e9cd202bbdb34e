//! The node whose cards are those of `libfake_cndev.so`, on whichever kubelet: what is offered of which card, and the file
//! in which the library keeps its machine.
//!
//! `vgpu-plugin/tests/cambricon` has it on the in-process kubelet, `cargo xtask cluster test` on the real one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

/// Memory of card 0, by the GiB.
pub const MEM: &str = "vgpu.dev/mem";
/// Card 1 in as many equal parts as the driver has instances for.
pub const SLOT: &str = "vgpu.dev/slot";
/// Cards 2, 3 and 4, undivided.
pub const WHOLE: &str = "vgpu.dev/mlu";

/// How many cards the preset `mlu370x8` has.
pub const CARDS: usize = 8;

/// The id of the card with that index of the preset.
#[must_use]
pub fn card(n: usize) -> String {
    format!("MLU-3708{n:04x}-6d6c-7500-a000-00000000{n:04x}")
}

/// The offers of the agent's configuration.
#[must_use]
pub fn offers() -> String {
    format!(
        "
- {{resource: {MEM}, kind: unit, unit: 1Gi, largest: 16, schemes: [smlu], select: {{devices: [{}]}}}}
- {{resource: {SLOT}, kind: slice, slots: 64, schemes: [smlu], select: {{devices: [{}]}}}}
- {{resource: {WHOLE}, kind: whole, select: {{devices: [{}, {}, {}]}}}}
",
        card(0),
        card(1),
        card(2),
        card(3),
        card(4),
    )
}

/// The machine as the library keeps it, which outlives agents as a driver's state does.
#[derive(Debug, Clone)]
pub struct Machine {
    scenario: PathBuf,
    state: PathBuf,
}

impl Machine {
    /// Describes one in a folder; the library makes its state there when it is first asked.
    ///
    /// # Errors
    /// The description cannot be written.
    pub fn new(folder: &Path) -> Result<Self> {
        let (scenario, state) = (folder.join("cndev.yaml"), folder.join("cndev.json"));
        fs::write(&scenario, format!("preset: mlu370x8\nstate: {}\n", state.display()))
            .with_context(|| format!("cannot write {}", scenario.display()))?;
        Ok(Self { scenario, state })
    }

    /// What `FAKE_CNDEV` is set to.
    #[must_use]
    pub fn scenario(&self) -> &Path {
        &self.scenario
    }

    /// Changes the machine under the library.
    ///
    /// # Errors
    /// The library wrote no state yet, or it cannot be read or replaced.
    pub fn change(&self, change: impl FnOnce(&mut Value)) -> Result<()> {
        let _lock = self.locked()?;
        let mut state = self.read()?;
        change(&mut state);
        let new = self.state.with_extension("renamed");
        fs::write(&new, state.to_string())
            .and_then(|()| fs::rename(&new, &self.state))
            .with_context(|| format!("cannot replace {}", self.state.display()))
    }

    /// The machine as it is now.
    ///
    /// # Errors
    /// The library wrote no state yet, or it cannot be read.
    pub fn state(&self) -> Result<Value> {
        let _lock = self.locked()?;
        self.read()
    }

    /// The instances of a card, as the driver has them.
    ///
    /// # Errors
    /// As [`Self::state`].
    pub fn instances(&self, card: usize) -> Result<Vec<Value>> {
        let state = self.state()?;
        Ok(state["cards"][card]["instances"].as_array().cloned().unwrap_or_default())
    }

    /// The library takes the same lock for each call.
    fn locked(&self) -> Result<File> {
        let path = self.state.with_extension("lock");
        let lock = File::create(&path).with_context(|| format!("no {}", path.display()))?;
        lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(lock)
    }

    fn read(&self) -> Result<Value> {
        let path = self.state.display();
        let text = fs::read(&self.state).with_context(|| format!("the library wrote no {path}"))?;
        serde_json::from_slice(&text).with_context(|| format!("{path} is no JSON"))
    }
}
