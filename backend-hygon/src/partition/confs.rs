//! The files `/etc/vdev/vdevN.conf`: listed afresh each time, made and changed in one step.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vgpu_backend_kit::HostTree;
use vgpu_core::{Error, ErrorKind, Result};

use crate::api::MAX_VDCUS;
use crate::convert::file_error;
use crate::disk::Disk;
use crate::partition::conf::{VdevConf, address_of};

/// Where the host keeps them.
pub(crate) const FOLDER: &str = "/etc/vdev";

/// The folder of virtual DCUs.
#[derive(Debug, Clone)]
pub(crate) struct Confs {
    folder: PathBuf,
    disk: Arc<dyn Disk>,
}

/// A file that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// The number in its name.
    pub(crate) number: u32,
    /// What it says, or why that cannot be told.
    pub(crate) conf: std::result::Result<VdevConf, String>,
    /// The card that it names, where it names one.
    pub(crate) address: Option<String>,
}

impl Confs {
    pub(crate) fn new(tree: &HostTree, disk: Arc<dyn Disk>) -> Self {
        Self { folder: tree.read_at(FOLDER), disk }
    }

    /// Every file, by number.
    ///
    /// # Errors
    /// `Io`, `Permission` for the folder itself; one bad file is a [`Found`] that says so.
    pub(crate) fn list(&self) -> Result<Vec<Found>> {
        let mut found: Vec<Found> = self
            .names()?
            .iter()
            .filter_map(|name| {
                let number = number_in(name)?;
                self.read(number, &self.folder.join(name))
            })
            .collect();
        found.sort_by_key(|found| found.number);
        Ok(found)
    }

    /// One file.
    pub(crate) fn get(&self, number: u32) -> Option<Found> {
        self.read(number, &self.path(number))
    }

    /// Makes a file under the lowest number that is free on the node; nothing is ever overwritten,
    /// whoever else makes one now.
    ///
    /// # Errors
    /// `Exhausted`, and what the host refused. What is left then, `sweep` finds.
    pub(crate) fn make(&self, taken: &[Found], conf: impl Fn(u32) -> VdevConf) -> Result<u32> {
        let is_free = |number: &u32| taken.iter().all(|found| found.number != *number);
        self.step("make the folder", &self.folder, |disk, path| disk.make_folder(path))?;
        for number in (0..MAX_VDCUS).filter(is_free) {
            let conf = conf(number);
            let draft = self.draft(&conf.address);
            let text = conf.to_string();
            let made = self
                .step("write", &draft, |disk, path| disk.write_new(path, &text))
                .and_then(|()| self.publish(&draft, number));
            // A draft that cannot be removed is swept later.
            let _left = self.disk.remove(&draft);
            match made {
                Err(e) if e.kind == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
                Ok(()) => return Ok(number),
            }
        }
        let why = format!("the node has {MAX_VDCUS} virtual DCUs, which is all there can be");
        Err(Error::new(ErrorKind::Exhausted, why))
    }

    /// Changes a file in one step.
    ///
    /// # Errors
    /// What the host refused; the file is then as it was.
    pub(crate) fn replace(&self, number: u32, conf: &VdevConf) -> Result<()> {
        let draft = self.draft(&conf.address);
        let text = conf.to_string();
        let done = self
            .step("write", &draft, |disk, path| disk.write_new(path, &text))
            .and_then(|()| {
                let to = self.path(number);
                self.step("replace", &to, |disk, to| disk.rename(&draft, to))
            })
            .and_then(|()| self.last());
        if done.is_err() {
            let _left = self.disk.remove(&draft);
        }
        done
    }

    /// Removes a file.
    ///
    /// # Errors
    /// `NotFound`, and what the host refused.
    pub(crate) fn remove(&self, number: u32) -> Result<()> {
        self.step("remove", &self.path(number), |disk, path| disk.remove(path))?;
        self.last()
    }

    /// Removes what interrupted changes of a card's files left; answers with their names.
    ///
    /// # Errors
    /// What the host refused.
    pub(crate) fn sweep(&self, address: &str) -> Result<Vec<String>> {
        let prefix = draft_prefix(address);
        let mut swept = Vec::new();
        for name in self.names()?.into_iter().filter(|name| name.starts_with(&prefix)) {
            let path = self.folder.join(&name);
            match self.step("remove", &path, |disk, path| disk.remove(path)) {
                Err(e) if e.kind != ErrorKind::NotFound => return Err(e),
                _ => swept.push(name),
            }
        }
        Ok(swept)
    }

    fn publish(&self, draft: &Path, number: u32) -> Result<()> {
        let to = self.path(number);
        match self.disk.link(draft, &to) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                let why = format!("somebody else just made {}", to.display());
                return Err(Error::new(ErrorKind::AlreadyExists, why));
            }
            Err(e) => return Err(file_error("publish", &to, &e)),
        }
        // One that is there and would not last is taken back.
        self.last().inspect_err(|_| drop(self.disk.remove(&to)))
    }

    fn last(&self) -> Result<()> {
        self.step("write the names of", &self.folder, |disk, path| disk.sync_folder(path))
    }

    fn step(
        &self,
        what: &str,
        path: &Path,
        step: impl FnOnce(&dyn Disk, &Path) -> io::Result<()>,
    ) -> Result<()> {
        step(&*self.disk, path).map_err(|e| file_error(what, path, &e))
    }

    fn names(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(file_error("list", &self.folder, &e)),
        };
        let name = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
        Ok(entries.filter_map(name).collect())
    }

    /// `None` where it went meanwhile.
    fn read(&self, number: u32, path: &Path) -> Option<Found> {
        // Longer than any such file; a hand or a link may have put anything there.
        const LONGEST: u64 = 16 << 10;
        let text = match fs::metadata(path) {
            Ok(m) if !m.is_file() => Err("it is no file".to_owned()),
            Ok(m) if m.len() > LONGEST => Err(format!("it has {} bytes", m.len())),
            Ok(_) => match fs::read(path) {
                Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
                Err(e) => Err(e.to_string()),
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
            Err(e) => Err(e.to_string()),
        };
        let address = text.as_deref().ok().and_then(address_of);
        let conf = text.and_then(|text| text.parse());
        Some(Found { number, conf, address })
    }

    fn path(&self, number: u32) -> PathBuf {
        self.folder.join(format!("vdev{number}.conf"))
    }

    fn draft(&self, address: &str) -> PathBuf {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        self.folder.join(format!("{}{}-{n}", draft_prefix(address), std::process::id()))
    }
}

/// Drafts are named by card: another card's may be in the making while this one is swept.
fn draft_prefix(address: &str) -> String {
    format!(".vgpu-{address}-")
}

fn number_in(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("vdev")?.strip_suffix(".conf")?;
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok())?
}
