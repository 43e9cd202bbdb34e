//! What was found of a journal at start.

use std::io;
use std::path::{Path, PathBuf};

use vgpu_core::error::{Error, ErrorKind, Result};

use super::disk::Disk;
use super::frame::Cut;

/// What opening a ledger came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// There was no journal: a new node, or a state folder that was lost.
    pub fresh: bool,
    /// How the journal ended.
    pub tail: Tail,
    /// Records that are whole and that this agent cannot read, with their keys. They stay in the
    /// journal until their key is put or forgotten.
    pub unreadable: Vec<(String, Error)>,
}

/// How a journal ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tail {
    /// With a whole record.
    Clean,
    /// With bytes that are no record; what stood before them was kept, they were put aside.
    Damaged {
        /// Where they lie now.
        kept: PathBuf,
        /// How many bytes.
        bytes: u64,
        /// Whole records among them, which are lost: 0 is as after a crash, more is a bad disk or
        /// somebody's editor.
        lost: usize,
    },
    /// With a half record, as a crash leaves it; it was never acknowledged.
    HalfWritten {
        /// How many bytes.
        bytes: u64,
    },
}

/// Refuses a journal of a newer agent, before anything in the folder is changed.
pub(super) fn refuse_newer(cut: &Cut, format: u32, journal: &Path) -> Result<()> {
    let all = cut.good.iter().chain(&cut.beyond);
    let Some(newer) = all.filter(|f| f.min_reader > format).max_by_key(|f| f.min_reader) else {
        return Ok(());
    };
    Err(Error::new(
        ErrorKind::Unsupported,
        format!(
            "{} was written by a newer agent (format {}, readable from format {}); this one reads \
             format {format}: run the newer agent, or drain the node and move the folder away",
            journal.display(),
            newer.format,
            newer.min_reader
        ),
    ))
}

/// Puts bytes aside under a name that is free; the same bytes are kept once.
pub(super) fn quarantine(disk: &mut dyn Disk, bytes: &[u8]) -> io::Result<String> {
    let names = disk.names()?;
    for n in 1.. {
        let name = format!("journal.damaged-{n}");
        if !names.contains(&name) {
            disk.create(&name)?;
            disk.append(&name, bytes)?;
            disk.sync(&name)?;
            disk.sync_dir()?;
            return Ok(name);
        }
        // A start that died after this step finds the same tail again.
        if disk.read(&name)?.as_deref() == Some(bytes) {
            return Ok(name);
        }
    }
    Err(io::Error::other("every name for damaged journals is taken; move some away"))
}
