//! The program itself, on a machine in a file.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;
use vgpu_backend_mock::{Machine, Preset};
use vgpu_kubelet_plugin::fake::FakeKubelet;
use vgpu_plugin::sockets::{ClaimsReply, SocketPaths};

use super::{DCU, GPU, GUARD, MEM, MIG, Stage, config_text};

/// A stage whose machine is in a file, so that the program uses it too.
pub fn stage() -> (Stage, PathBuf) {
    let mut stage = Stage::new(Preset::Mixed);
    let file = stage.dir.path().join("machine.json");
    stage.machine = Machine::open(&file, Preset::Mixed).expect("a machine");
    stage.write_boot_id();
    (stage, file)
}

/// The program. It is killed where a test fails.
pub struct Program {
    pub child: Child,
    log: PathBuf,
}

impl Program {
    pub fn start(stage: &Stage, machine: &Path) -> Self {
        Self::with(stage, |command| {
            command
                .args(["--backend", "mock", "--machine", "mixed", "--machine-state"])
                .arg(machine);
        })
    }

    /// The program with other backends.
    pub fn with(stage: &Stage, backends: impl FnOnce(&mut Command)) -> Self {
        let dir = stage.dir.path();
        let log = dir.join("log");
        let file = std::fs::File::options().create(true).append(true).open(&log).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_vgpu-plugin"));
        command.arg("run");
        backends(&mut command);
        let child = command
            .arg("--config")
            .arg(dir.join("node.yaml"))
            .arg("--kubelet-dir")
            .arg(dir.join("k"))
            .arg("--cdi-dir")
            .arg(stage.cdi_dir())
            .arg("--state-dir")
            .arg(stage.state_dir())
            .arg("--host-root")
            .arg(dir.join("root"))
            .arg("--hook-dir")
            .arg(dir)
            .env("VGPU_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("the program starts");
        Self { child, log }
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        let pid = rustix::process::Pid::from_raw(pid).expect("not 0");
        rustix::process::kill_process(pid, signal).expect("it runs");
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        let until = Instant::now() + GUARD;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                return status;
            }
            assert!(Instant::now() < until, "it does not end:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("the program's log:\n{}", self.log());
        }
    }
}

/// Writes a configuration with these offers, and whatever stands after them.
pub fn configure(stage: &Stage, offers: &str) {
    std::fs::write(stage.dir.path().join("node.yaml"), config_text(offers)).expect("written");
    stand_in(stage.dir.path(), env!("CARGO_PKG_VERSION"));
}

/// Writes a hook program that can do nothing but say its version.
pub fn stand_in(dir: &Path, version: &str) {
    let file = dir.join("vgpu-hook");
    // A link to the real one is not written through.
    let _ = std::fs::remove_file(&file);
    std::fs::write(&file, format!("#!/bin/sh\necho vgpu-hook {version}\n")).expect("written");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("set");
}

/// Waits until so many ids are there to be had.
pub async fn allocatable(stage: &Stage, resource: &str, count: usize, program: &Program) {
    let waited = stage.kubelet.wait_allocatable(resource, count).await;
    waited.unwrap_or_else(|e| panic!("{e}\n{}", program.log()));
}

/// Waits until each resource of the mixed machine is there to be had.
pub async fn up(stage: &Stage, program: &Program) {
    allocatable(stage, DCU, 8, program).await;
    for resource in [GPU, MIG, MEM] {
        let some = |k: &FakeKubelet| k.allocatable(resource) > 0;
        let waited = stage.kubelet.wait_until(resource, some).await;
        waited.unwrap_or_else(|e| panic!("{e}\n{}", program.log()));
    }
}

/// What the program says of its claims.
pub async fn claims(stage: &Stage) -> Option<ClaimsReply> {
    let socket = SocketPaths::under(&stage.state_dir()).claims;
    let mut stream = tokio::net::UnixStream::connect(socket).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    serde_json::from_str(&text).ok()
}
