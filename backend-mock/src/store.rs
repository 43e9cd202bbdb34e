//! Keeping a machine in a file, so that it outlives the process: one lock per change, looked at each
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

/// A machine as it was last read or written, and the file's text then; no text without a file.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) state: State,
    text: String,
}

impl Kept {
    /// Of a machine that has no file.
    pub(crate) fn in_memory(state: State) -> Self {
        Self { state, text: String::new() }
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
    pub(crate) fn load(&self) -> Result<Option<Kept>> {
        self.text()?.map(|text| self.parse(text)).transpose()
    }

    /// Brings what was last read up to date. Most looks find the same text again, and reading a machine out of
    /// it costs many times what comparing it does.
    ///
    /// # Errors
    /// `Io` where the file is gone or cannot be read, `Invalid` for one that is something else.
    pub(crate) fn refresh(&self, kept: &mut Kept) -> Result<()> {
        let gone =
            || Error::new(ErrorKind::Io, "the machine's file is gone; open the machine anew");
        let text = self.text()?.ok_or_else(gone)?;
        if text != kept.text {
            *kept = self.parse(text)?;
        }
        Ok(())
    }

    /// Replaces what the file holds.
    pub(crate) fn save(&self, state: State) -> Result<Kept> {
        let path = &self.store.path;
        let text = serde_json::to_string(&state).map_err(|e| {
            Error::new(ErrorKind::Io, format!("the machine's state does not serialize: {e}"))
        })?;
        let next = path.with_added_extension("next");
        fs::write(&next, &text).map_err(|e| Error::io("write", &next, &e))?;
        fs::rename(&next, path).map_err(|e| Error::io("replace", path, &e))?;
        Ok(Kept { state, text })
    }

    fn text(&self) -> Result<Option<String>> {
        let path = &self.store.path;
        match fs::read_to_string(path) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("read", path, &e)),
        }
    }

    fn parse(&self, text: String) -> Result<Kept> {
        let state = serde_json::from_str(&text).map_err(|e| {
            let path = self.store.path.display();
            let why = format!("{path} is not a mock machine's file ({e}); remove it");
            Error::new(ErrorKind::Invalid, why)
        })?;
        Ok(Kept { state, text })
    }
}
