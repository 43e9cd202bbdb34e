//! The few things that the ledger does to its folder; tests put a disk that fails in its place.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A folder of files. Nothing is durable before `sync` (a file's bytes and length) and `sync_dir`
/// (which files there are, under which names).
pub(super) trait Disk: Debug + Send {
    /// All of a file, or nothing if it is not there.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// The names of all files.
    fn names(&self) -> io::Result<Vec<String>>;
    /// An empty file; one of that name is emptied.
    fn create(&mut self, name: &str) -> io::Result<()>;
    /// Adds to a file's end. On an error any part of it may be there.
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Cuts a file to its first `length` bytes.
    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()>;
    /// Makes a file's bytes durable.
    fn sync(&mut self, name: &str) -> io::Result<()>;
    /// Gives a file another name; one that has it already is replaced.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file; it is no error if there is none.
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// Makes names durable.
    fn sync_dir(&mut self) -> io::Result<()>;
    /// A file that takes up so much room.
    fn reserve(&mut self, name: &str, length: u64) -> io::Result<()>;
    /// The path by which a person finds a file.
    fn path(&self, name: &str) -> PathBuf;
}

/// A folder on a file system.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    open: BTreeMap<String, File>,
}

impl Folder {
    /// A folder that is there.
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), open: BTreeMap::new() }
    }

    fn file(&mut self, name: &str) -> io::Result<&File> {
        if !self.open.contains_key(name) {
            let file = OpenOptions::new().append(true).open(self.path(name))?;
            self.open.insert(name.to_owned(), file);
        }
        Ok(&self.open[name])
    }
}

impl Disk for Folder {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.path)?.map(|e| Ok(e?.file_name()));
        let names: io::Result<Vec<_>> = names.collect();
        Ok(names?.into_iter().filter_map(|n| n.into_string().ok()).collect())
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        // What is in it is for root alone: claims tell who runs what.
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).mode(0o600).open(self.path(name))?;
        file.set_len(0)?;
        self.open.insert(name.to_owned(), file);
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.file(name)?;
        file.write_all(bytes)
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.file(name)?.set_len(length)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.file(name)?.sync_data()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))?;
        self.open.remove(to);
        if let Some(file) = self.open.remove(from) {
            self.open.insert(to.to_owned(), file);
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.open.remove(name);
        match fs::remove_file(self.path(name)) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn reserve(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.create(name)?;
        let file = self.file(name)?;
        let flags = rustix::fs::FallocateFlags::empty();
        match rustix::fs::fallocate(file, flags, 0, length) {
            Err(rustix::io::Errno::OPNOTSUPP) => {
                let zeros = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
                self.append(name, &zeros)
            }
            other => Ok(other?),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}
