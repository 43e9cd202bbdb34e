//! What the driver keeps: in this process, or in a file that outlives it; and the host's files that tell of it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::limits::Limits;
use crate::mig::MigState;
use crate::scenario::Card;

/// All that outlives a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Kept {
    pub(crate) mig: MigState,
    pub(crate) limits: Limits,
    /// Who may compute, by card; what was never set is the default, 0.
    pub(crate) compute_modes: BTreeMap<u32, u32>,
}

/// Where it is kept.
#[derive(Debug, Default)]
pub(crate) struct Store {
    /// What all processes that play this machine share.
    file: Option<PathBuf>,
    /// Below it lie the host's files.
    host_root: Option<PathBuf>,
    here: Kept,
}

impl Store {
    pub(crate) fn new(file: Option<PathBuf>, host_root: Option<PathBuf>) -> Self {
        Self { file, host_root, here: Kept::default() }
    }

    /// Runs a call on the state; what it changed is kept before it returns, as a driver does.
    pub(crate) fn with<T>(
        &mut self,
        cards: &[Arc<Card>],
        call: impl FnOnce(&mut Kept) -> T,
    ) -> io::Result<T> {
        // Another process may be at it.
        let _lock = match &self.file {
            Some(file) => {
                let lock = File::create(file.with_extension("lock"))?;
                lock.lock()?;
                self.here = read(file)?;
                Some(lock)
            }
            None => None,
        };
        let before = self.here.clone();
        let result = call(&mut self.here);
        if self.here != before {
            if let Some(file) = &self.file {
                write(file, &self.here)?;
            }
            if let Some(root) = &self.host_root
                && self.here.mig != before.mig
            {
                tell(root, cards, &self.here.mig)?;
            }
        }
        Ok(result)
    }
}

fn read(file: &Path) -> io::Result<Kept> {
    match fs::read_to_string(file) {
        Ok(text) => serde_json::from_str(&text).map_err(io::Error::other),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Kept::default()),
        Err(e) => Err(e),
    }
}

fn write(file: &Path, state: &Kept) -> io::Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, serde_json::to_string(state).map_err(io::Error::other)?)?;
    fs::rename(&new, file)
}

/// Writes the files by which a driver tells the numbers of its instances' nodes, and removes those of instances that
/// are gone.
fn tell(root: &Path, cards: &[Arc<Card>], state: &MigState) -> io::Result<()> {
    let all = root.join("proc/driver/nvidia/capabilities");
    for (index, card) in (0_u32..).zip(cards) {
        let folder = all.join(format!("gpu{}/mig", card.minor));
        match fs::remove_dir_all(&folder) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        for instance in state.instances(index) {
            let own = folder.join(format!("gi{}", instance.id));
            access(&own, minor(card.minor, instance.id, None))?;
            for compute in &instance.computes {
                let number = minor(card.minor, instance.id, Some(compute.id));
                access(&own.join(format!("ci{}", compute.id)), number)?;
            }
        }
    }
    Ok(())
}

/// 3 for the first GPU instance, 9 for each, 15 to a card.
fn minor(card: u32, gpu: u32, compute: Option<u32>) -> u32 {
    3 + 9 * (15 * card + gpu) + compute.map_or(0, |id| id + 1)
}

fn access(folder: &Path, minor: u32) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let text = format!("DeviceFileMinor: {minor}\nDeviceFileMode: 292\nDeviceFileModify: 1\n");
    fs::write(folder.join("access"), text)
}
