//! The file of the ledger: what is acknowledged is on disk, whatever fails.

use std::collections::BTreeMap;
use std::io;

use vgpu_core::error::{Error, ErrorKind, Result};

use super::disk::Disk;
use super::recovery::quarantine;
use crate::points::FaultPoints;

pub(super) const JOURNAL: &str = "journal";
pub(super) const REWRITTEN: &str = "journal.new";
const RESERVE: &str = "reserve";
/// Room for many releases, and for a journal rewritten without them.
const RESERVE_BYTES: u64 = 64 << 10;

/// The journal and the lines in it that still count.
#[derive(Debug)]
pub(super) struct Journal {
    disk: Box<dyn Disk>,
    points: FaultPoints,
    /// The line of each key; copied as it is when the journal is rewritten, so that what a newer
    /// agent wrote into it and this one does not know stays.
    lines: BTreeMap<String, Vec<u8>>,
    boot: Vec<u8>,
    length: u64,
    /// Whether a step failed or was left in the middle, so that the file may not be as it should.
    /// The next writer writes it anew: after a failed fsync nothing in it can be relied on.
    doubt: bool,
    reserved: bool,
    compact_at: u64,
    /// Not rewritten below this length, after a rewrite that failed.
    patience: u64,
}

/// What a line is about.
#[derive(Debug, Clone, Copy)]
pub(super) enum About<'k> {
    Boot,
    /// The key's record ends.
    Forget(&'k str),
    /// The key's record, on the way to its end.
    Last(&'k str),
    Put(&'k str),
}

impl Journal {
    /// Makes an empty journal, or takes over `bytes` up to `end`, without what was read of it yet.
    ///
    /// Bytes that an agent wrote before it died may not be durable, though they can be read.
    pub(super) fn open(
        disk: Box<dyn Disk>,
        points: FaultPoints,
        compact_at: u64,
        found: Option<(&[u8], usize)>,
    ) -> Result<(Self, Option<String>)> {
        let mut journal = Self {
            disk,
            points,
            lines: BTreeMap::new(),
            boot: Vec::new(),
            length: 0,
            doubt: false,
            reserved: false,
            compact_at,
            patience: 0,
        };
        let kept =
            journal.take_over(found).or_else(|e| journal.with_reserve(e, |j| j.take_over(found)));
        let kept = kept.map_err(|e| journal.error("take over", &e))?;
        journal.reserved = journal.reserve().is_ok();
        Ok((journal, kept))
    }

    fn take_over(&mut self, found: Option<(&[u8], usize)>) -> io::Result<Option<String>> {
        let Self { disk, points, .. } = self;
        disk.remove(REWRITTEN)?;
        let mut kept = None;
        match found {
            None => points.around("ledger.create", || disk.create(JOURNAL))?,
            Some((bytes, end)) if end < bytes.len() => {
                let rest = &bytes[end..];
                // Without an end of line it is what every crash leaves; nothing to keep.
                if rest.contains(&b'\n') {
                    kept =
                        Some(points.around("ledger.quarantine", || quarantine(&mut **disk, rest))?);
                }
                points.around("ledger.truncate", || disk.truncate(JOURNAL, end as u64))?;
            }
            Some(_) => {}
        }
        self.length = found.map_or(0, |(_, end)| end as u64);
        points.around("ledger.fsync", || disk.sync(JOURNAL))?;
        points.around("ledger.dir-fsync", || disk.sync_dir())?;
        Ok(kept)
    }

    /// Whether a key has a line that counts, also one that cannot be read.
    pub(super) fn has(&self, key: &str) -> bool {
        self.lines.contains_key(key)
    }

    /// Notes a line that is in the journal already.
    pub(super) fn note(&mut self, about: About<'_>, line: &[u8]) {
        match about {
            About::Boot => self.boot = line.to_vec(),
            About::Forget(key) => drop(self.lines.remove(key)),
            About::Last(key) | About::Put(key) => {
                drop(self.lines.insert(key.to_owned(), line.to_vec()));
            }
        }
    }

    /// Adds a line; it is durable when this returns.
    ///
    /// With a full disk it refuses whatever takes on new work, and does what ends some with room
    /// that was kept back for it.
    pub(super) fn add(&mut self, about: About<'_>, line: &[u8]) -> Result<()> {
        let added = match about {
            About::Forget(_) | About::Last(_) => {
                self.append(line).or_else(|e| self.with_reserve(e, |journal| journal.append(line)))
            }
            About::Boot | About::Put(_) => self.keep_reserve().and_then(|()| self.append(line)),
        };
        added.map_err(|e| self.error("write", &e))?;
        self.note(about, line);
        self.compact();
        Ok(())
    }

    /// Makes sure that no change that failed can come back.
    pub(super) fn settle(&mut self) -> Result<()> {
        if !self.doubt {
            return Ok(());
        }
        let settled = self.rewrite().or_else(|e| self.with_reserve(e, Self::rewrite));
        settled.map_err(|e| self.error("write", &e))
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.doubt {
            self.rewrite()?;
        }
        self.doubt = true;
        let Self { disk, points, .. } = self;
        let appended = points.around("ledger.append", || disk.append(JOURNAL, line));
        let synced = appended.is_ok().then(|| points.around("ledger.fsync", || disk.sync(JOURNAL)));
        match (appended, synced) {
            (Ok(()), Some(Ok(()))) => {
                self.length += line.len() as u64;
                self.doubt = false;
                Ok(())
            }
            (Err(e), _) => {
                // What is refused must not come back after a crash, so the cut is made durable too.
                let cut = points.around("ledger.truncate", || disk.truncate(JOURNAL, self.length));
                let cut = cut.and_then(|()| points.around("ledger.fsync", || disk.sync(JOURNAL)));
                self.doubt = cut.is_err();
                Err(e)
            }
            (_, Some(Err(e))) => {
                // Only so that an agent that starts now does not read what was refused.
                drop(points.around("ledger.truncate", || disk.truncate(JOURNAL, self.length)));
                Err(e)
            }
            (Ok(()), None) => unreachable!("an appended line is synced"),
        }
    }

    /// Rewrites the journal where more than half of it counts no more.
    fn compact(&mut self) {
        let live = self.live();
        let garbage = self.length.saturating_sub(live);
        if garbage <= live.max(self.compact_at) || self.length < self.patience {
            return;
        }
        if let Err(e) = self.rewrite() {
            let path = self.disk.path(JOURNAL);
            tracing::warn!("cannot rewrite {} shorter, going on with it: {e}", path.display());
            self.patience = self.length + self.compact_at;
        }
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let all: Vec<u8> = self.boot.iter().chain(self.lines.values().flatten()).copied().collect();
        let Self { disk, points, .. } = self;
        let written = points.around("ledger.rewrite", || {
            // A file whose sync failed once is not used again: later syncs of it may lie.
            disk.remove(REWRITTEN)?;
            disk.create(REWRITTEN)?;
            disk.append(REWRITTEN, &all)
        });
        let synced = written.and_then(|()| points.around("ledger.fsync", || disk.sync(REWRITTEN)));
        if let Err(e) = synced {
            // Its room is needed; what cannot be removed now is removed by the next start.
            drop(disk.remove(REWRITTEN));
            return Err(e);
        }
        // Until the folder is synced, a crash may bring back either file.
        self.doubt = true;
        points.around("ledger.rename", || disk.rename(REWRITTEN, JOURNAL))?;
        self.length = all.len() as u64;
        points.around("ledger.dir-fsync", || disk.sync_dir())?;
        self.doubt = false;
        Ok(())
    }

    /// Makes sure that there is room to release in, before any room is taken for new work.
    fn keep_reserve(&mut self) -> io::Result<()> {
        if self.reserved {
            return Ok(());
        }
        let reserved = self.reserve().or_else(|e| {
            if self.length == self.live() {
                return Err(e);
            }
            self.rewrite()?;
            self.reserve()
        });
        self.reserved = reserved.is_ok();
        reserved
    }

    fn reserve(&mut self) -> io::Result<()> {
        let Self { disk, points, .. } = self;
        if disk.read(RESERVE)?.is_some_and(|kept| kept.len() as u64 == RESERVE_BYTES) {
            return Ok(());
        }
        let reserved = points.around("ledger.reserve", || disk.reserve(RESERVE, RESERVE_BYTES));
        if reserved.is_err() {
            drop(disk.remove(RESERVE));
        }
        reserved
    }

    /// Tries again what failed on a full disk, with the room that was kept back.
    fn with_reserve<T>(
        &mut self,
        error: io::Error,
        again: impl FnOnce(&mut Self) -> io::Result<T>,
    ) -> io::Result<T> {
        if !is_full(&error) {
            return Err(error);
        }
        self.reserved = false;
        let Self { disk, points, .. } = self;
        points.around("ledger.reserve", || disk.remove(RESERVE))?;
        again(self)
    }

    fn live(&self) -> u64 {
        (self.boot.len() + self.lines.values().map(Vec::len).sum::<usize>()) as u64
    }

    fn error(&self, what: &str, error: &io::Error) -> Error {
        let hint = if is_full(error) {
            "; the disk is full: make room, until then only releases are taken"
        } else {
            "; nothing was recorded, try again"
        };
        let path = self.disk.path(JOURNAL);
        // Always retryable: whatever the disk says, the request was not at fault.
        Error::new(ErrorKind::Io, format!("cannot {what} {}: {error}{hint}", path.display()))
            .during("journal")
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
