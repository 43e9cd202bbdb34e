//! The few steps on files that virtual DCUs are made of; a trait, so that each step can be made to fail.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Steps on files of the host; paths are this process's own.
///
/// # Errors
/// Each method's are the host's.
pub trait Disk: Debug + Send + Sync {
    /// Makes a folder that only root may change, and those above it.
    ///
    /// # Errors
    /// The host's.
    fn make_folder(&self, path: &Path) -> io::Result<()>;
    /// Writes a new file that only root may change, to the disk itself.
    ///
    /// # Errors
    /// The host's; `AlreadyExists` where there is one.
    fn write_new(&self, path: &Path, text: &str) -> io::Result<()>;
    /// Gives a file a second name, unless something has that name.
    ///
    /// # Errors
    /// The host's; `AlreadyExists`.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Puts a file in another's place.
    ///
    /// # Errors
    /// The host's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// The host's.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder last.
    ///
    /// # Errors
    /// The host's.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
}

/// The disk as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostDisk;

impl Disk for HostDisk {
    fn make_folder(&self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
    }

    fn write_new(&self, path: &Path, text: &str) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}
