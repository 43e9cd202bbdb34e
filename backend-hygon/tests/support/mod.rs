//! A prepared host with the fakes, and what can be done to it from outside.

#![allow(dead_code, reason = "each test uses its own part of it")]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vgpu_backend_hygon::{Disk, HostDisk};
use vgpu_core::{DeviceId, Error, ErrorKind, Host, Result};

#[path = "../../examples/fake_hygon_host/host.rs"]
mod host;

#[allow(unused_imports, reason = "each test uses its own part of it")]
pub(crate) use host::{CardSpec, FakeHost, card, preset, put};

/// An example of this package, which `cargo test` builds beside the tests.
pub(crate) fn built(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a test knows its own path");
    let profile = own.parent().and_then(Path::parent).expect("tests lie in target/<profile>/deps");
    let path = profile.join("examples").join(name);
    let release = if profile.ends_with("release") { " --release" } else { "" };
    assert!(
        path.exists(),
        "{} is not built; run: cargo build --examples -p vgpu-backend-hygon{release}",
        path.display()
    );
    path
}

/// A folder for a host: in memory where that can be had, since a machine is written anew for each case
/// and what is made is synced each time.
pub(crate) fn folder() -> tempfile::TempDir {
    let memory = tempfile::tempdir_in("/dev/shm");
    memory.or_else(|_| tempfile::tempdir()).expect("a folder for a host")
}

impl FakeHost {
    /// Where a backend looks for these cards.
    pub(crate) fn host(&self, library: Option<PathBuf>) -> Host {
        Host { root: self.root.clone(), library }
    }

    /// The place of a card in the description.
    pub(crate) fn place(&self, device: &DeviceId) -> Result<usize> {
        let at = self.cards.iter().position(|card| card.address == device.as_str());
        at.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("the machine has no {device}")))
    }

    pub(crate) fn id(&self, n: usize) -> DeviceId {
        DeviceId::new(self.cards[n].address.as_str()).expect("an address is an id")
    }

    /// The compute driver does not have the card any more.
    pub(crate) fn lose(&self, n: usize) -> io::Result<()> {
        let parked = self.at("parked");
        fs::create_dir_all(&parked)?;
        fs::rename(self.node_folder(n), parked.join(n.to_string()))
    }

    /// It has it again.
    pub(crate) fn restore(&self, n: usize) -> io::Result<()> {
        fs::rename(self.at("parked").join(n.to_string()), self.node_folder(n))
    }

    /// The card is pulled out.
    pub(crate) fn unplug(&self, n: usize) -> io::Result<()> {
        let bus = self.at("sys/bus/pci/devices").join(&self.cards[n].address);
        fs::remove_file(bus)?;
        fs::remove_file(self.at("sys/module/hycu/drivers/pci:hycu").join(&self.cards[n].address))
    }

    pub(crate) fn set(&self, n: usize, file: &str, text: &str) -> io::Result<()> {
        put(&self.card_folder(n).join(file), text)
    }

    /// A process has the compute driver open and memory of a card; `sees` are files of its own root.
    pub(crate) fn run(&self, pid: u32, n: usize, sees: &[(&str, &str)]) -> io::Result<()> {
        let root = self.at("proc").join(pid.to_string()).join("root");
        fs::create_dir_all(&root)?;
        for (path, text) in sees {
            put(&root.join(path), text)?;
        }
        let gpu = Self::gpu_id(n);
        let kfd = self.at("sys/class/kfd/kfd/proc").join(pid.to_string());
        put(&kfd.join(format!("vram_{gpu}")), "1048576\n")
    }

    pub(crate) fn end(&self, pid: u32) {
        let pid = pid.to_string();
        let _ended = fs::remove_dir_all(self.at("sys/class/kfd/kfd/proc").join(&pid));
        let _gone = fs::remove_dir_all(self.at("proc").join(&pid));
    }

    /// Everything as it was when it was written.
    pub(crate) fn rewrite(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.root)? {
            let path = entry?.path();
            if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
        }
        Self::write(&self.root, self.cards.clone()).map(drop)
    }

    /// Replaces the memory reading of a card by one that does not return.
    pub(crate) fn hang(&self, n: usize) -> io::Result<Hanging> {
        let file = self.card_folder(n).join("mem_info_vram_used");
        let pipe = file.with_extension("pipe");
        let made = Command::new("mkfifo").arg(&pipe).status()?;
        if !made.success() {
            return Err(io::Error::other("mkfifo failed"));
        }
        fs::rename(&pipe, &file)?;
        Ok(Hanging { file, writer: None })
    }

    /// Virtual DCUs' files, by number.
    pub(crate) fn confs(&self) -> Vec<(u32, String)> {
        let Ok(entries) = fs::read_dir(self.at("etc/vdev")) else { return Vec::new() };
        let mut confs: Vec<(u32, String)> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let name = entry.file_name().into_string().ok()?;
                let number = name.strip_prefix("vdev")?.strip_suffix(".conf")?.parse().ok()?;
                Some((number, fs::read_to_string(entry.path()).ok()?))
            })
            .collect();
        confs.sort();
        confs
    }
}

/// A reading that hangs.
#[derive(Debug)]
pub(crate) struct Hanging {
    file: PathBuf,
    writer: Option<fs::File>,
}

impl Hanging {
    /// Whether somebody waits for it.
    pub(crate) fn is_read(&mut self) -> bool {
        use std::os::unix::fs::OpenOptionsExt;
        const O_NONBLOCK: i32 = 0o4000;
        if self.writer.is_none() {
            // Kept open, since closing it would let the reader go.
            let options =
                fs::OpenOptions::new().write(true).custom_flags(O_NONBLOCK).open(&self.file);
            self.writer = options.ok();
        }
        self.writer.is_some()
    }

    pub(crate) fn release(mut self) -> io::Result<()> {
        use std::io::Write;
        let read = self.is_read();
        put(&self.file, "67108864\n")?;
        if let (Some(mut writer), true) = (self.writer, read) {
            writer.write_all(b"67108864\n")?;
        }
        Ok(())
    }
}

/// A disk whose steps can be made to fail.
#[derive(Debug, Default)]
pub(crate) struct FaultyDisk {
    faults: Mutex<DiskFaults>,
}

#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct DiskFaults {
    /// Steps since the faults were set.
    pub(crate) count: u32,
    /// That step fails with that number.
    pub(crate) fail: Option<(u32, i32)>,
    /// After so many steps every step fails, as if the process had died.
    pub(crate) die_after: Option<u32>,
}

impl FaultyDisk {
    pub(crate) fn set(&self, faults: DiskFaults) {
        *self.faults() = faults;
    }

    fn step(&self) -> io::Result<()> {
        let mut faults = self.faults();
        faults.count += 1;
        match (faults.fail, faults.die_after) {
            (Some((nth, errno)), _) if nth == faults.count => {
                Err(io::Error::from_raw_os_error(errno))
            }
            (_, Some(after)) if faults.count > after => Err(io::Error::other("dead")),
            _ => Ok(()),
        }
    }

    fn faults(&self) -> MutexGuard<'_, DiskFaults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for FaultyDisk {
    fn make_folder(&self, path: &Path) -> io::Result<()> {
        HostDisk.make_folder(path)
    }

    fn write_new(&self, path: &Path, text: &str) -> io::Result<()> {
        self.step().and_then(|()| HostDisk.write_new(path, text))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step().and_then(|()| HostDisk.link(from, to))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step().and_then(|()| HostDisk.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step().and_then(|()| HostDisk.remove(path))
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.step().and_then(|()| HostDisk.sync_folder(path))
    }
}
