//! Keeping a machine in a file, so that it outlives the process: one lock per change, replaced by rename, read only
//! where it is another file than before.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{ErrorKind as IoError, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use vgpu_core::{Error, ErrorKind};

use crate::Result;
use crate::state::State;

/// A machine's file.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
}

/// Which file lay there: each that is put into place is younger than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    device: u64,
    inode: u64,
    modified: SystemTime,
}

/// A machine as it was last read or written; no version without a file.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) state: State,
    version: Option<Version>,
}

impl Kept {
    /// Of a machine that has no file.
    pub(crate) fn in_memory(state: State) -> Self {
        Self { state, version: None }
    }
}

impl Store {
    /// The file at `path`.
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Keeps the changes of every other process out until the guard is dropped.
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

    /// What the file holds, or nothing if there is none yet.
    pub(crate) fn load(&self) -> Result<Option<Kept>> {
        let path = &self.path;
        let read = || -> std::io::Result<_> {
            let mut file = File::open(path)?;
            let version = Version::of(&file.metadata()?)?;
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            Ok((version, text))
        };
        let (version, text) = match read() {
            Ok(read) => read,
            Err(e) if e.kind() == IoError::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("read", path, &e)),
        };
        let state = serde_json::from_str(&text).map_err(|e| {
            let path = path.display();
            let why = format!("{path} is not a mock machine's file ({e}); remove it");
            Error::new(ErrorKind::Invalid, why)
        })?;
        Ok(Some(Kept { state, version: Some(version) }))
    }

    /// Brings what was last read up to date. Most looks find the same file again, and ask for no more than that.
    ///
    /// # Errors
    /// `Io` where the file is gone or cannot be read, `Invalid` for one that is something else.
    pub(crate) fn refresh(&self, kept: &mut Kept) -> Result<()> {
        let now = self.version()?;
        if now.is_some() && now == kept.version {
            return Ok(());
        }
        let gone =
            || Error::new(ErrorKind::Io, "the machine's file is gone; open the machine anew");
        *kept = self.load()?.ok_or_else(gone)?;
        Ok(())
    }

    fn version(&self) -> Result<Option<Version>> {
        match fs::metadata(&self.path).and_then(|metadata| Version::of(&metadata)) {
            Ok(version) => Ok(Some(version)),
            Err(e) if e.kind() == IoError::NotFound => Ok(None),
            Err(e) => Err(Error::io("look at", &self.path, &e)),
        }
    }
}

impl Version {
    fn of(metadata: &Metadata) -> std::io::Result<Self> {
        let modified = metadata.modified()?;
        Ok(Self { device: metadata.dev(), inode: metadata.ino(), modified })
    }
}

/// A machine's file that no other process changes now.
#[derive(Debug)]
pub(crate) struct Locked<'s> {
    store: &'s Store,
    // Closing it frees the lock; the kernel does so too when the process is killed.
    _file: File,
}

impl Locked<'_> {
    /// Replaces what the file holds.
    pub(crate) fn save(&self, state: State) -> Result<Kept> {
        let path = &self.store.path;
        let text = serde_json::to_string(&state).map_err(|e| {
            Error::new(ErrorKind::Io, format!("the machine's state does not serialize: {e}"))
        })?;
        let next = path.with_added_extension("next");
        fs::write(&next, &text).map_err(|e| Error::io("write", &next, &e))?;
        let before = self.store.version()?.map(|version| version.modified);
        let version = younger(&next, before).map_err(|e| Error::io("date", &next, &e))?;
        fs::rename(&next, path).map_err(|e| Error::io("replace", path, &e))?;
        Ok(Kept { state, version: Some(version) })
    }
}

/// Gives a file a later time than that of the one before it: the clock's own steps are longer than a change takes, and
/// the number of a file that is gone is given to the next.
fn younger(path: &Path, before: Option<SystemTime>) -> std::io::Result<Version> {
    let file = File::options().write(true).open(path)?;
    let mut version = Version::of(&file.metadata()?)?;
    let Some(before) = before else { return Ok(version) };
    // Some file systems keep whole seconds only, or every other.
    for step in [Duration::from_nanos(1), Duration::from_secs(2)] {
        if version.modified > before {
            break;
        }
        file.set_modified(before + step)?;
        version = Version::of(&file.metadata()?)?;
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preset::Preset;

    fn store(dir: &tempfile::TempDir) -> Store {
        Store::new(&dir.path().join("machine.json"))
    }

    fn state() -> State {
        State::new(Preset::H200x8.into()).expect("a machine")
    }

    fn saved(store: &Store, change: impl FnOnce(&mut State)) -> Kept {
        let locked = store.lock().expect("a lock");
        let mut kept = store.load().expect("it is read").map_or_else(state, |kept| kept.state);
        change(&mut kept);
        locked.save(kept).expect("it is written")
    }

    #[test]
    fn no_change_is_missed_however_fast_they_come() {
        let dir = tempfile::tempdir().expect("a folder");
        let (here, there) = (store(&dir), store(&dir));
        let mut seen = saved(&here, |_| {});
        for serial in 1..300 {
            // Numbers of one digit and of three: the length of the file tells little.
            let wrote = saved(&there, |state| state.serial = serial);
            assert_ne!(wrote.version, seen.version);
            here.refresh(&mut seen).expect("it is read");
            assert_eq!(seen.state.serial, serial);
            assert_eq!(seen.version, wrote.version);
        }
    }

    #[test]
    fn a_clock_that_was_set_back_hides_no_change() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = store(&dir);
        let mut seen = saved(&store, |_| {});
        let ahead = SystemTime::now() + Duration::from_secs(3600);
        let file = File::options().write(true).open(&store.path).expect("a file");
        file.set_modified(ahead).expect("it is dated");
        saved(&store, |state| state.serial = 7);
        let version = store.version().expect("it is there").expect("a file");
        assert!(version.modified > ahead);
        store.refresh(&mut seen).expect("it is read");
        assert_eq!(seen.state.serial, 7);
    }

    #[test]
    fn a_file_that_is_gone_is_told() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = store(&dir);
        let mut seen = saved(&store, |_| {});
        fs::remove_file(&store.path).expect("it is removed");
        let error = store.refresh(&mut seen).expect_err("nothing to read");
        assert_eq!(error.kind, ErrorKind::Io);
        assert!(error.to_string().contains("open the machine anew"), "{error}");
    }
}
