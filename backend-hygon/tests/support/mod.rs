//! A prepared host with the fakes, and what can be done to it from outside.

#![allow(dead_code, reason = "each test uses its own part of it")]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vgpu_backend_hygon::{
    Disk, HostDisk, HygonBackend, HygonFactory, HygonOptions, LibraryCalls, Parts,
};
use vgpu_core::plan::{Held, Inventory, Modes, Policy, Request, Selector, Step, Want, plan};
use vgpu_core::{
    Backend, BackendExt, BackendFactory, Bytes, ClaimId, ComputeShare, CreateOrder, DeviceId,
    Error, ErrorKind, Host, Minimum, Partition, Placement, Probe, Result, Scheme, Size,
    TrustDomain,
};

#[path = "../../examples/fake_hygon_host/host.rs"]
mod host;

#[allow(unused_imports, reason = "each test uses its own part of it")]
pub(crate) use host::{CardSpec, FakeHost, card, preset, put};

/// An example of this package, which `cargo test` builds beside the tests.
pub(crate) fn built(name: &str) -> PathBuf {
    vgpu_conformance::built_example(env!("CARGO_PKG_NAME"), name)
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

/// A backend over the host's files alone.
pub(crate) fn by_file(fake: &FakeHost) -> HygonBackend {
    HygonBackend::over(Parts::default(), &fake.host(None), HygonOptions::default())
}

/// A prepared host with these cards.
pub(crate) fn machine(cards: Vec<CardSpec>) -> (tempfile::TempDir, FakeHost) {
    let folder = folder();
    let fake = FakeHost::write(folder.path(), cards).expect("the host is written");
    (folder, fake)
}

/// Runs a test's body in a process of its own, where the fakes find the machine; the cards are made
/// once for the test, and again for its process.
pub(crate) fn inside(test: &str, cards: Vec<CardSpec>, body: impl FnOnce(&FakeHost)) {
    if std::env::var("VGPU_TEST_INSIDE").is_ok_and(|name| name == test) {
        let scenario = PathBuf::from(std::env::var_os("FAKE_HYDMI").expect("set beside it"));
        let root = scenario.parent().expect("a file is in a folder").to_owned();
        return body(&FakeHost { root, cards });
    }
    let (_folder, fake) = machine(cards);
    let own = std::env::current_exe().expect("a test knows its own path");
    let output = Command::new(own)
        .args([test, "--exact", "--nocapture"])
        .env("VGPU_TEST_INSIDE", test)
        .env("FAKE_HYDMI", fake.scenario_file())
        .output()
        .expect("it starts");
    let words = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && words.contains("1 passed"), "{words}\n{errors}");
}

/// A factory that loads the fakes, and the host on which it looks.
pub(crate) fn by_library(fake: &FakeHost) -> (HygonFactory, Host) {
    let options = HygonOptions {
        rocm_smi: Some(built("libfake_rocm_smi.so")),
        calls: LibraryCalls::Here,
        ..HygonOptions::default()
    };
    (HygonFactory::new(options), fake.host(Some(built("libfake_hydmi.so"))))
}

/// What a probe came to, if it is a backend.
pub(crate) fn ready(factory: &HygonFactory, host: &Host) -> Arc<dyn Backend> {
    match factory.probe(host) {
        Probe::Ready(backend) => backend,
        other => panic!("no backend: {other:?}"),
    }
}

/// Plans and makes one virtual DCU on a card.
pub(crate) fn make(
    backend: &dyn Backend,
    device: &DeviceId,
    units: Option<u32>,
    memory_mib: Option<u64>,
) -> Result<Partition> {
    backend.create(&order(backend, device, units, memory_mib)?)
}

/// The planner's order for one virtual DCU on a card.
pub(crate) fn order(
    backend: &dyn Backend,
    device: &DeviceId,
    units: Option<u32>,
    memory_mib: Option<u64>,
) -> Result<CreateOrder> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let card = backend.device(device)?;
    let size = Size {
        compute: units.map(|units| ComputeShare { units, of: card.compute_units }),
        memory: memory_mib.map(Bytes::mib),
    };
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let request = Request {
        claim: ClaimId::new(format!("claim-{}-{n}", std::process::id()))?,
        want: Want::AtLeast(size),
        count: 1,
        selector: Selector::default(),
        minimum: Minimum::default(),
        schemes: vec![Scheme::VDCU],
        domain: TrustDomain::new("tests")?,
        modes: Modes::Keep,
    };
    let domain = Some(request.domain.clone());
    let parts = backend.partitions(device)?;
    let held: Vec<Held> = parts.iter().map(|p| Held::of_part(p, domain.clone())).collect();
    let inventory = Inventory { devices: vec![card], links: Vec::new() };
    let full =
        |refusal: vgpu_core::plan::Refusal| Error::new(ErrorKind::Exhausted, refusal.to_string());
    let mut answer = plan(&inventory, &held, &request, Policy::Binpack).map_err(full)?;
    match answer.remove(0).step {
        Step::Carve(order) => Ok(order),
        Step::Share(_) => panic!("a virtual DCU is made"),
    }
}

/// The two words of a part's mask.
pub(crate) fn mask(part: &Partition) -> u128 {
    let Placement::Units(words) = &part.placement else { panic!("not placed: {part:?}") };
    words.iter().rev().fold(0, |mask, word| mask << 64 | u128::from(*word))
}
