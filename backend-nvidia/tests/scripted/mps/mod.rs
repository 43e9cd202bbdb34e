//! MPS through the fake control program: daemons that live and die, limits in force, refusals.

mod life;
mod limits;
mod refusals;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use vgpu_backend_nvidia::{Launch, MpsOptions, NvidiaBackend, NvidiaOptions, NvmlApi};
use vgpu_core::id::{ClaimId, TrustDomain};
use vgpu_core::{
    BackendExt, Bytes, ComputeShare, CreateOrder, Health, Host, ModeChange, ModeOrder, Partition,
    Partitioner, Placement, Result, Scheme, Shape, Size, Subject,
};

use crate::built::built;
use crate::id;
use crate::nvml::Scripted;

/// A machine of two cards with a control program of its own.
pub(super) struct Stage {
    pub(super) nvml: Arc<Scripted>,
    folder: TempDir,
}

impl Stage {
    pub(super) fn new(preset: &str) -> Self {
        let stage =
            Self { nvml: Scripted::with(2), folder: tempfile::tempdir().expect("a folder") };
        let file = stage.path("mps.yaml");
        let control = stage.path("control.yaml");
        let text = format!("preset: {preset}\ncontrol: {}\n", control.display());
        fs::write(&file, text).expect("written");
        let text = format!(
            "#!/bin/sh\nFAKE_MPS={} exec {} \"$@\"\n",
            file.display(),
            built("fake_mps_control").display()
        );
        stage.install(text.as_bytes());
        stage
    }

    /// Puts another program in the place of the control program.
    pub(super) fn install(&self, bytes: &[u8]) {
        let program = self.path("nvidia-cuda-mps-control");
        fs::write(&program, bytes).expect("written");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a program");
    }

    /// A backend as a new agent would open it.
    pub(super) fn backend(&self) -> NvidiaBackend {
        Self::open(Arc::clone(&self.nvml) as _, self.folder.path())
    }

    /// The same in another process, on the stage of this one.
    pub(super) fn backend_at(folder: &Path) -> NvidiaBackend {
        Self::open(Scripted::with(2), folder)
    }

    fn open(api: Arc<dyn NvmlApi>, folder: &Path) -> NvidiaBackend {
        let host = Host { root: folder.to_owned(), library: None };
        let mps = MpsOptions {
            program: Some(folder.join("nvidia-cuda-mps-control")),
            folder: "/m".into(),
            launch: Launch::Bare,
            ..MpsOptions::default()
        };
        let options = NvidiaOptions { mps, ..crate::options() };
        NvidiaBackend::over(api, &host, options).expect("a driver with a version")
    }

    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    /// The folder of a card's daemon.
    pub(super) fn daemon(&self, card: u32) -> PathBuf {
        let name = id(card).to_string().trim_start_matches("GPU-").to_owned();
        self.path("m").join(name)
    }

    pub(super) fn pid(&self, card: u32) -> u32 {
        let text = fs::read(self.daemon(card).join("daemon.json")).expect("a daemon's record");
        let record: Value = serde_json::from_slice(&text).expect("JSON");
        record["process"]["pid"].as_u64().and_then(|n| n.try_into().ok()).expect("it runs")
    }

    /// Ends a card's daemon as the kernel would, and waits until it is gone.
    pub(super) fn kill_daemon(&self, card: u32) {
        kill(self.pid(card));
    }

    /// Says something to a card's daemon, as its users would.
    pub(super) fn ask(&self, card: u32, command: &str) {
        let program = self.path("nvidia-cuda-mps-control");
        let status = Command::new("/bin/sh")
            .args(["-c", "echo \"$1\" | \"$0\""])
            .arg(program)
            .arg(command)
            .env("CUDA_MPS_PIPE_DIRECTORY", self.daemon(card).join("pipe"))
            .stdout(Stdio::null())
            .status();
        assert!(status.expect("it runs").success(), "{command}");
    }

    /// Files of the host without which nothing is shown to a container.
    pub(super) fn play_stand_in_driver(&self) {
        let version = self.nvml.driver_version().expect("a version");
        let library = self.path("usr/lib64");
        fs::create_dir_all(&library).expect("made");
        fs::write(library.join(format!("libcuda.so.{version}")), "").expect("written");
        fs::create_dir_all(self.path("proc")).expect("made");
        let devices = "Character devices:\n195 nvidia\n511 nvidia-uvm\n";
        fs::write(self.path("proc/devices"), devices).expect("written");
    }

    /// What the fake plays.
    pub(super) fn play(&self, control: &Value) {
        let new = self.path("control.new");
        fs::write(&new, control.to_string()).expect("written");
        fs::rename(&new, self.path("control.yaml")).expect("in place");
    }

    /// A process in the container of a part, started long ago.
    pub(super) fn tenant(&self, pid: u32, part: &Partition) {
        let proc = self.path(&format!("proc/{pid}"));
        fs::create_dir_all(proc.join("root/etc/vgpu/mps")).expect("made");
        fs::write(proc.join("root/etc/vgpu/mps/share"), format!("{}\n", part.id)).expect("written");
        let fields = ["0"; 18].join(" ");
        fs::write(proc.join("stat"), format!("{pid} (a b) S {fields} 1 0")).expect("written");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for card in 0..2 {
            // No daemon outlives its test; most are gone.
            let pid =
                fs::read_to_string(self.daemon(card).join("pipe/nvidia-cuda-mps-control.pid"));
            if let Some(pid) = pid.ok().and_then(|pid| pid.trim().parse().ok()) {
                kill(pid);
            }
        }
    }
}

pub(super) fn kill(pid: u32) {
    let mut kill = Command::new("kill");
    kill.args(["-9", &pid.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
    kill.status().expect("kill runs");
    until("the process is gone", || !is_alive(pid));
}

pub(super) fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    stat.is_ok_and(|text| !text.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z')))
}

pub(super) fn until(what: &str, done: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < limit, "it never comes to it that {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(super) fn mode(scheme: Option<Scheme>, domain: &str) -> ModeOrder {
    let domain = Some(TrustDomain::new(domain).expect("a word"));
    ModeOrder { device: id(0), scheme, affected: vec![id(0)], domain }
}

pub(super) fn enter(backend: &NvidiaBackend, scheme: Scheme) {
    let change = backend.set_mode(&mode(Some(scheme), "team-a")).expect("it is entered");
    assert_eq!(change, ModeChange::Done);
}

pub(super) fn size(mib: u64, percent: u32) -> Size {
    let of = std::num::NonZeroU32::new(100).expect("not 0");
    Size { memory: Some(Bytes::mib(mib)), compute: Some(ComputeShare { units: percent, of }) }
}

pub(super) fn order(
    backend: &NvidiaBackend,
    scheme: &Scheme,
    size: Size,
    claim: &str,
) -> CreateOrder {
    let device = backend.device(&id(0)).expect("it is there");
    let claim = ClaimId::new(claim).expect("a claim id");
    CreateOrder::admit(&device, scheme, Shape::Size(size), Placement::Driver, claim)
        .expect("it is on the grid")
}

pub(super) fn share(
    backend: &NvidiaBackend,
    mib: u64,
    percent: u32,
    claim: &str,
) -> Result<Partition> {
    backend.create(&order(backend, &Scheme::MPS, size(mib, percent), claim))
}

/// The memory limit in force for a part, in MiB, as the daemon has it.
pub(super) fn in_force(backend: &NvidiaBackend, part: &Partition) -> Option<u64> {
    let usage = backend.usage(&Subject::Part(part.id.clone())).expect("its daemon answers");
    usage.limit.map(|bytes| bytes.0 >> 20)
}

/// A fault that every command of these words meets.
pub(super) fn refused(command: &str, text: &str) -> Value {
    json!({ "fail": [{ "command": command, "text": text, "exit": 3 }] })
}
