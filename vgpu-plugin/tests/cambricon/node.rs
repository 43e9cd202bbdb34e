//! A node of the stand-in for libcndev: its machine as a file, the in-process kubelet, and the program.

use std::ops::RangeBounds;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use vgpu_backend_mock::Preset;
use vgpu_core::PartitionId;
use vgpu_kubelet_plugin::fake::FakeKubelet;
use vgpu_plugin::sockets::{HOOK_VERSION, HookReply, ResizeRequest, SocketPaths};

use crate::stage::{GUARD, Stage, config_text, eventually};

pub(crate) const MEM: &str = "vgpu.dev/mem";
pub(crate) const WHOLE: &str = "vgpu.dev/mlu";
pub(crate) const SLOT: &str = "vgpu.dev/slot";

/// The card of that number of the preset `mlu370x8`.
pub(crate) fn card(n: u32) -> String {
    format!("MLU-3708{n:04x}-6d6c-7500-a000-00000000{n:04x}")
}

/// The library, where cargo was asked to build it: with the workspace, or
/// `cargo build --examples -p vgpu-backend-cambricon`.
fn library() -> Option<PathBuf> {
    let own = std::env::current_exe().expect("a test knows its own path");
    let profile = own.parent().and_then(Path::parent).expect("tests lie in target/<profile>/deps");
    let library = profile.join("examples/libfake_cndev.so");
    if library.exists() {
        return Some(library);
    }
    eprintln!("skipped: {} is not built", library.display());
    None
}

/// A node with an in-process kubelet, and the program; it is killed where a test fails.
pub(crate) struct Node {
    pub(crate) stage: Stage,
    library: PathBuf,
    child: Option<Child>,
}

impl Node {
    pub(crate) fn new() -> Option<Self> {
        let library = library()?;
        // Only the kubelet, the folders and the boot id are of this stage.
        let stage = Stage::new(Preset::Mlu370x8);
        let dir = stage.dir.path();
        let state = dir.join("cndev.json");
        let scenario = format!("preset: mlu370x8\nstate: {}\n", state.display());
        std::fs::write(dir.join("cndev.yaml"), scenario).expect("written");
        std::fs::write(dir.join("vgpu-hook"), "").expect("written");
        let offers = format!(
            "
- {{resource: {MEM}, kind: unit, unit: 1Gi, largest: 16, schemes: [smlu], select: {{devices: [{}]}}}}
- {{resource: {SLOT}, kind: slice, slots: 64, schemes: [smlu], select: {{devices: [{}]}}}}
- {{resource: {WHOLE}, kind: whole, select: {{devices: [{}, {}, {}]}}}}
",
            card(0),
            card(1),
            card(2),
            card(3),
            card(4),
        );
        std::fs::write(dir.join("node.yaml"), config_text(&offers)).expect("written");
        Some(Self { stage, library, child: None })
    }

    pub(crate) fn start(&mut self) {
        let dir = self.stage.dir.path();
        let log = std::fs::File::options().create(true).append(true).open(dir.join("log"));
        let child = Command::new(env!("CARGO_BIN_EXE_vgpu-plugin"))
            .args(["run", "--backend", "cambricon", "--cndev-library"])
            .arg(&self.library)
            .arg("--config")
            .arg(dir.join("node.yaml"))
            .arg("--kubelet-dir")
            .arg(dir.join("k"))
            .arg("--cdi-dir")
            .arg(self.stage.cdi_dir())
            .arg("--state-dir")
            .arg(self.stage.state_dir())
            .arg("--host-root")
            .arg(dir.join("root"))
            .arg("--hook-dir")
            .arg(dir)
            .env("FAKE_CNDEV", dir.join("cndev.yaml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("a log"))
            .spawn();
        self.child = Some(child.expect("the program starts"));
    }

    /// Waits until all that is offered can be had, or as much of it as pods leave.
    pub(crate) async fn serves(&self, mem: usize) {
        for (resource, least) in [(MEM, mem), (SLOT, 64), (WHOLE, 3)] {
            self.gives(resource, least..).await;
        }
    }

    /// Waits until so many ids of the resource may be had, held ones among them.
    pub(crate) async fn gives(&self, resource: &str, many: impl RangeBounds<usize>) {
        let enough = |k: &FakeKubelet| many.contains(&k.allocatable(resource));
        let waited = self.stage.kubelet.wait_until(resource, enough).await;
        waited.unwrap_or_else(|e| panic!("{resource}: {e}\n{}", self.log()));
    }

    /// What the root-only socket answers to a line.
    pub(crate) async fn told(&self, request: &Value) -> HookReply {
        let socket = SocketPaths::under(&self.stage.state_dir()).hook;
        let mut stream = tokio::net::UnixStream::connect(socket).await.expect("it listens");
        stream.write_all(format!("{request}\n").as_bytes()).await.expect("it reads");
        let mut line = String::new();
        let mut stream = BufReader::new(stream);
        let read = stream.read_line(&mut line);
        tokio::time::timeout(GUARD, read).await.expect("in time").expect("it answers");
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line:?}: {e}"))
    }

    /// What an admin does over that socket.
    pub(crate) async fn resize(&self, part: &PartitionId, size: vgpu_core::Size) -> HookReply {
        self.told(&serde_json::to_value(ResizeRequest::new(part.clone(), size)).expect("JSON"))
            .await
    }

    /// What the hook says of a container of the claim, whose first process is that one.
    pub(crate) async fn confine(&self, claim: &str, pid: u32, namespace: u64) -> HookReply {
        self.told(&json!({
            "version": HOOK_VERSION, "op": "confine", "claim": claim, "cgroup": format!("/pods/{pid}"),
            "pid": pid, "pid_namespace": namespace,
        }))
        .await
    }

    /// A process of the host in a PID namespace of its own, or in that of another; the namespace's inode.
    pub(crate) fn process(&self, pid: u32, beside: Option<u32>) -> u64 {
        let of = |pid: u32| self.stage.dir.path().join(format!("root/proc/{pid}/ns/pid"));
        let file = of(pid);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        match beside {
            Some(other) => std::fs::hard_link(of(other), &file).expect("linked"),
            None => std::fs::write(&file, "").expect("written"),
        }
        std::fs::metadata(file).expect("there").ino()
    }

    pub(crate) async fn ended(&mut self) {
        let child = self.child.as_mut().expect("it was started");
        eventually("its end", || child.try_wait().expect("it is ours").is_some()).await;
        self.child = None;
        let gone = self.stage.kubelet.wait_until("its end", |k| k.allocatable(MEM) == 0).await;
        gone.expect("the kubelet notices");
    }

    pub(crate) async fn kill(&mut self) {
        self.child.as_mut().expect("it was started").kill().expect("it runs");
        self.ended().await;
    }

    /// Changes the machine under the library.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Value)) {
        let file = self.stage.dir.path().join("cndev.json");
        let lock = std::fs::File::create(file.with_extension("lock")).expect("a lock");
        lock.lock().expect("locked");
        let text = std::fs::read(&file).expect("the library wrote it");
        let mut state: Value = serde_json::from_slice(&text).expect("JSON");
        change(&mut state);
        let new = file.with_extension("renamed");
        std::fs::write(&new, state.to_string()).expect("written");
        std::fs::rename(new, file).expect("put in place");
    }

    pub(crate) fn state(&self) -> Value {
        let mut now = Value::Null;
        self.change(|state| now = state.clone());
        now
    }

    pub(crate) fn instances(&self, card: usize) -> Vec<Value> {
        self.state()["cards"][card]["instances"].as_array().cloned().unwrap_or_default()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.stage.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
