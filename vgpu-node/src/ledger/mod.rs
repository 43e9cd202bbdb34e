//! The journal: what the agent means to do and has done, durable before it goes on.
//!
//! A [`Ledger`] is a map from a key to a record whose every change is on disk when it returns. A
//! crash at any point leaves what was acknowledged, and at most the one change that was not.

mod disk;
mod frame;
mod journal;
mod lock;
mod recovery;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use vgpu_core::error::{Error, ErrorKind, Result};

use crate::points::FaultPoints;
use disk::{Disk, Folder};
use frame::{Cut, Entry, Frame};
use journal::{About, JOURNAL, Journal};

pub use recovery::{Recovery, Tail};

/// Where a ledger lies, and in which format it is written.
#[derive(Debug, Clone)]
pub struct LedgerOptions {
    /// The state folder; made where it is absent.
    pub dir: PathBuf,
    /// The format that this agent writes, and the newest that it reads.
    pub format: u32,
    /// The oldest format whose agents can read what this one writes. Raise it with `format` where
    /// an older agent must not go on with the folder; leave it where new fields may be passed over.
    pub min_reader: u32,
    /// How long to wait for another agent to end.
    pub wait: Duration,
    /// Bytes that may lie idle in the journal before it is rewritten.
    pub compact_at: u64,
    /// Where tests end the agent.
    pub points: FaultPoints,
}

impl LedgerOptions {
    /// A ledger in `dir`, format 1; it waits for no other agent.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            format: 1,
            min_reader: 1,
            wait: Duration::ZERO,
            compact_at: 64 << 10,
            points: FaultPoints::default(),
        }
    }
}

/// Records by key, durable.
///
/// Dropping it writes nothing; the lock of the folder goes with it.
#[derive(Debug)]
pub struct Ledger<R> {
    journal: Journal,
    records: BTreeMap<String, R>,
    boot_id: Option<String>,
    format: u32,
    min_reader: u32,
    _lock: Option<File>,
}

impl<R: Serialize + DeserializeOwned + Clone> Ledger<R> {
    /// Opens the ledger of a state folder; says what it found.
    ///
    /// A damaged end is put aside and what stands before it is kept.
    ///
    /// # Errors
    /// `Busy` if another agent uses the folder, `Unsupported` if a newer one wrote it (nothing is
    /// changed then), `Io` and `Permission` from the disk.
    pub fn open(options: LedgerOptions) -> Result<(Self, Recovery)> {
        make(&options.dir)?;
        let lock = lock::lock(&options.dir, options.wait)?;
        let disk = Box::new(Folder::new(&options.dir));
        let (mut ledger, recovery) = Self::on(disk, &options)?;
        ledger._lock = Some(lock);
        Ok((ledger, recovery))
    }

    /// Reads what is written, whoever writes it now; a damaged end is passed over and nothing is changed.
    ///
    /// # Errors
    /// `Unsupported` for a newer agent's ledger, `Io` and `Permission` from the disk. No ledger has no records.
    pub fn peek(dir: &Path) -> Result<BTreeMap<String, R>> {
        let path = dir.join(JOURNAL);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(e) => return Err(Error::io("read", &path, &e)),
        };
        let cut = frame::cut(&bytes);
        recovery::refuse_newer(&cut, LedgerOptions::new(dir).format, &path)?;
        let mut records = BTreeMap::new();
        for frame in &cut.good {
            match frame::decode::<R>(&bytes[frame.payload.clone()]) {
                Ok(Entry::Put { key, record }) => drop(records.insert(key, record)),
                Ok(Entry::Forget { key }) => drop(records.remove(&key)),
                Ok(Entry::Boot { .. }) | Err(_) => {}
            }
        }
        Ok(records)
    }

    /// All records.
    pub fn records(&self) -> &BTreeMap<String, R> {
        &self.records
    }

    /// The record of a key.
    pub fn get(&self, key: &str) -> Option<&R> {
        self.records.get(key)
    }

    /// Sets the record of a key; durable when it returns.
    ///
    /// # Errors
    /// `Io`, and the key has the record that it had; a full disk refuses new records in time to
    /// leave room for [`Self::put_last`] and [`Self::forget`]. `Invalid` for a record that cannot be written as JSON.
    pub fn put(&mut self, key: impl Into<String>, record: &R) -> Result<()> {
        let key = key.into();
        self.set(About::Put(&key), &key, record)
    }

    /// Sets the record of a key that is on the way to its end: a full disk does not refuse it, since
    /// room was kept back for it.
    ///
    /// # Errors
    /// As [`Self::put`], but for the full disk.
    pub fn put_last(&mut self, key: &str, record: &R) -> Result<()> {
        self.set(About::Last(key), key, record)
    }

    /// Ends the record of a key; durable when it returns. A key without record needs nothing.
    ///
    /// # Errors
    /// `Io`, and the key has the record that it had.
    pub fn forget(&mut self, key: &str) -> Result<()> {
        if !self.journal.has(key) {
            // Perhaps its put failed just now.
            return self.journal.settle();
        }
        self.add(About::Forget(key), &Entry::Forget { key: key.to_owned() })?;
        self.records.remove(key);
        Ok(())
    }

    /// The boot of the machine that the records belong to.
    pub fn boot_id(&self) -> Option<&str> {
        self.boot_id.as_deref()
    }

    /// Sets the boot of the machine; durable when it returns.
    ///
    /// # Errors
    /// `Io`, and it is what it was.
    pub fn set_boot_id(&mut self, id: &str) -> Result<()> {
        if self.boot_id() == Some(id) {
            return self.journal.settle();
        }
        self.add(About::Boot, &Entry::Boot { id: id.to_owned() })?;
        self.boot_id = Some(id.to_owned());
        Ok(())
    }

    fn set(&mut self, about: About<'_>, key: &str, record: &R) -> Result<()> {
        let entry = Entry::Put { key: key.to_owned(), record: record.clone() };
        self.add(about, &entry)?;
        self.records.insert(key.to_owned(), record.clone());
        Ok(())
    }

    fn add(&mut self, about: About<'_>, entry: &Entry<R>) -> Result<()> {
        let line = frame::encode(entry, self.format, self.min_reader).map_err(|e| {
            Error::new(ErrorKind::Invalid, format!("a record that is no JSON: {e}"))
                .during("journal")
        })?;
        self.journal.add(about, &line)
    }

    fn on(disk: Box<dyn Disk>, options: &LedgerOptions) -> Result<(Self, Recovery)> {
        let path = disk.path(JOURNAL);
        let found = disk.read(JOURNAL).map_err(|e| Error::io("read", &path, &e))?;
        let bytes = found.as_deref().unwrap_or_default();
        let cut = frame::cut(bytes);
        recovery::refuse_newer(&cut, options.format, &path)?;
        let points = options.points.clone();
        let taken = found.as_deref().map(|bytes| (bytes, cut.end));
        let (journal, kept) = Journal::open(disk, points, options.compact_at, taken)?;
        let tail = tail(&path, bytes, &cut, kept);
        let mut ledger = Self {
            journal,
            records: BTreeMap::new(),
            boot_id: None,
            format: options.format,
            min_reader: options.min_reader,
            _lock: None,
        };
        let unreadable = cut.good.iter().fold(BTreeMap::new(), |mut unreadable, frame| {
            ledger.replay(bytes, frame, &mut unreadable);
            unreadable
        });
        for (key, error) in &unreadable {
            tracing::error!(key, "{} has a record that cannot be read: {error}", path.display());
        }
        let unreadable = unreadable.into_iter().collect();
        Ok((ledger, Recovery { fresh: found.is_none(), tail, unreadable }))
    }

    fn replay(&mut self, bytes: &[u8], frame: &Frame, unreadable: &mut BTreeMap<String, Error>) {
        let (line, payload) = (&bytes[frame.at.clone()], &bytes[frame.payload.clone()]);
        match frame::decode::<R>(payload) {
            Ok(Entry::Boot { id }) => {
                self.journal.note(About::Boot, line);
                self.boot_id = Some(id);
            }
            Ok(Entry::Forget { key }) => {
                self.journal.note(About::Forget(&key), line);
                unreadable.remove(&key);
                self.records.remove(&key);
            }
            Ok(Entry::Put { key, record }) => {
                self.journal.note(About::Put(&key), line);
                unreadable.remove(&key);
                self.records.insert(key, record);
            }
            Err(why) => {
                // An entry of an unknown kind does not matter to this format, or `min_reader` would
                // have said so.
                let Ok(Keyed { put: Some(Put { key }) }) = serde_json::from_slice(payload) else {
                    return;
                };
                self.journal.note(About::Put(&key), line);
                self.records.remove(&key);
                let error = Error::new(ErrorKind::Invalid, format!("{why}"));
                unreadable.insert(key, error.with("format", frame.format));
            }
        }
    }
}

/// As much of an entry as is needed to keep it.
#[derive(Deserialize)]
struct Keyed {
    put: Option<Put>,
}

#[derive(Deserialize)]
struct Put {
    key: String,
}

fn make(dir: &Path) -> Result<()> {
    let failed = |what: &str, path: &Path, e| Error::io(what, path, &e);
    if dir.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(dir).map_err(|e| failed("make", dir, e))?;
    for parent in dir.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()) {
        let synced = File::open(parent).and_then(|f| f.sync_all());
        synced.map_err(|e| failed("sync", parent, e))?;
    }
    Ok(())
}

fn tail(path: &Path, bytes: &[u8], cut: &Cut, kept: Option<String>) -> Tail {
    let rest = (bytes.len() - cut.end) as u64;
    let Some(kept) = kept else {
        return if rest == 0 { Tail::Clean } else { Tail::HalfWritten { bytes: rest } };
    };
    let (kept, lost) = (path.with_file_name(kept), cut.beyond.len());
    tracing::error!(
        lost,
        "{} was damaged from byte {} on; the {rest} bytes from there are now in {}, look for a bad \
         disk",
        path.display(),
        cut.end,
        kept.display()
    );
    Tail::Damaged { kept, bytes: rest, lost }
}
