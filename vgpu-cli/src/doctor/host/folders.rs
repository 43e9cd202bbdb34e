//! The agent's state folder and the folder of specs.

use std::path::{Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, statfs, statvfs};

use crate::doctor::catalogue::Check;
use crate::doctor::finding::Finding;
use crate::doctor::places::Places;
use crate::doctor::reader::Reader;

/// `TMPFS_MAGIC` and `RAMFS_MAGIC` of linux/magic.h.
const LOST_AT_REBOOT: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// Below this the agent refuses new claims sooner or later: journal, claim files and specs are some KiB a claim.
const LITTLE: u64 = 64 << 20;

/// Both folders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) state: Folder,
    pub(crate) cdi: Folder,
}

/// A folder, or the nearest one above where it is not made yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    /// Whether it is lost at a reboot.
    pub(crate) in_memory: bool,
    /// Whether its file system takes no writes.
    pub(crate) read_only: bool,
    /// Bytes that root can still write; nothing where it is not told.
    pub(crate) free: Option<u64>,
}

/// Looks at both.
pub(crate) fn read(reader: &mut Reader<'_>, places: &Places) -> Facts {
    Facts { state: folder(reader, &places.state_dir), cdi: folder(reader, &places.cdi_dir) }
}

fn folder(reader: &mut Reader<'_>, path: &Path) -> Folder {
    let mut found = Folder { path: path.to_owned(), ..Folder::default() };
    let Some(there) = path.ancestors().find(|above| reader.tree.has(above)) else { return found };
    let place = reader.tree.find(there);
    let told = statfs(&place).map_err(std::io::Error::from);
    if let Some(told) = reader.read(there, told) {
        found.in_memory = LOST_AT_REBOOT.contains(&told.f_type);
    }
    let told = statvfs(&place).map_err(std::io::Error::from);
    if let Some(told) = reader.read(there, told) {
        found.read_only = told.f_flag.contains(StatVfsMountFlags::RDONLY);
        found.free = Some(told.f_bfree.saturating_mul(told.f_frsize));
    }
    found
}

/// What would keep the agent from writing, or lose what it wrote.
pub(crate) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    if facts.state.in_memory {
        let what = "the state folder is in memory: after a reboot the agent knows no claim, and parts of running pods \
                    look like strangers'";
        let remedy = "put --state-dir on a disk, at the same path on the host";
        found.push(Finding::new(Check::StateLost, what).at(facts.state.path.display()).so(remedy));
    }
    for (name, folder) in [("state folder", &facts.state), ("folder of CDI specs", &facts.cdi)] {
        let at = folder.path.display();
        if folder.read_only {
            let what = format!("the {name} is on a file system that is mounted read-only");
            found.push(
                Finding::new(Check::ReadOnly, what)
                    .at(&at)
                    .so("mount it writable, or name another"),
            );
        } else if let Some(free) = folder.free.filter(|free| *free < LITTLE) {
            let what = format!(
                "the {name} has {} MiB left: soon no new claim is taken, releases still are",
                free >> 20
            );
            found.push(
                Finding::new(Check::LittleRoom, what).at(&at).so("make room on its file system"),
            );
        }
    }
    found
}
