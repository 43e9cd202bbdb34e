//! Keeping a machine in a file, so that it outlives the process: one lock per change, re-read each
//! time, replaced by rename.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use vgpu_core::{Error, ErrorKind};

use crate::Result;
use crate::state::State;

/// A machine's file.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
}

impl Store {
    /// The file at `path`.
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Keeps every other process out until the guard is dropped.
    pub(crate) fn lock(&self) -> Result<Locked<'_>> {
        let path = self.path.with_added_extension("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| Error::io("open", &path, &e))?;
        file.lock().map_err(|e| Error::io("lock", &path, &e))?;
        Ok(Locked { store: self, _file: file })
    }
}

/// A machine's file that no other process touches now.
#[derive(Debug)]
pub(crate) struct Locked<'s> {
    store: &'s Store,
    // Closing it frees the lock; the kernel does so too when the process is killed.
    _file: File,
}

impl Locked<'_> {
    /// What the file holds, or nothing if there is none yet.
    pub(crate) fn load(&self) -> Result<Option<State>> {
        let path = &self.store.path;
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("read", path, &e)),
        };
        serde_json::from_str(&text).map(Some).map_err(|e| {
            Error::new(
                ErrorKind::Invalid,
                format!("{} is not a mock machine's file ({e}); remove it", path.display()),
            )
        })
    }

    /// Replaces what the file holds.
    pub(crate) fn save(&self, state: &State) -> Result<()> {
        let path = &self.store.path;
        let text = serde_json::to_string(state).map_err(|e| {
            Error::new(ErrorKind::Io, format!("the machine's state does not serialize: {e}"))
        })?;
        let next = path.with_added_extension("next");
        fs::write(&next, text).map_err(|e| Error::io("write", &next, &e))?;
        fs::rename(&next, path).map_err(|e| Error::io("replace", path, &e))
    }
}
