//! The program on a stand-in for a vendor's library: what such nodes share, whatever the vendor.

use std::ops::RangeBounds;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use vgpu_backend_mock::Preset;
use vgpu_core::{PartitionId, Size};
use vgpu_kubelet_plugin::fake::FakeKubelet;
use vgpu_plugin::sockets::{HOOK_VERSION, HookReply, ResizeRequest, SocketPaths};

use super::program::{Program, configure};
use super::{GUARD, Stage};

/// What cargo puts beside the tests, where it was asked to build it: with the workspace, or with
/// `cargo build --examples` (or `--bins`) of the package.
pub fn built(name: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().expect("a test knows its own path");
    let profile = own.parent().and_then(Path::parent);
    let file = profile.expect("tests lie in target/<profile>/deps").join(name);
    if file.exists() {
        return Some(file);
    }
    eprintln!("skipped: {} is not built", file.display());
    None
}

/// What tells the program which library it has; it is given the folder of all.
type Backend = dyn Fn(&Path, &mut Command) + Send + Sync;

/// A node with an in-process kubelet and the program; it is killed where a test fails.
pub struct Standin {
    /// Dropped before the stage, whose folder has its log.
    program: Option<Program>,
    pub stage: Stage,
    /// What is offered, by name.
    resources: Vec<&'static str>,
    backend: Box<Backend>,
}

impl Standin {
    /// A node that offers these resources; `backend` tells the program which library it has.
    pub fn new(
        resources: &[&'static str],
        offers: &str,
        backend: impl Fn(&Path, &mut Command) + Send + Sync + 'static,
    ) -> Self {
        // Only the kubelet, the folders and the boot id are of this stage.
        let stage = Stage::new(Preset::Mixed);
        configure(&stage, offers);
        Self { program: None, stage, resources: resources.to_vec(), backend: Box::new(backend) }
    }

    pub fn start(&mut self) {
        self.program = Some(Program::with(&self.stage, |command| {
            (self.backend)(self.stage.dir.path(), command);
        }));
    }

    pub fn program(&self) -> &Program {
        self.program.as_ref().expect("it was started")
    }

    /// Waits until so many ids of the resource may be had, held ones among them.
    pub async fn gives(&self, resource: &str, many: impl RangeBounds<usize>) {
        let enough = |k: &FakeKubelet| many.contains(&k.allocatable(resource));
        let waited = self.stage.kubelet.wait_until(resource, enough).await;
        waited.unwrap_or_else(|e| panic!("{resource}: {e}\n{}", self.log()));
    }

    /// Ends it for good, where nobody shall wait for anything.
    pub fn end(&mut self) {
        if let Some(program) = &mut self.program {
            // It may have ended by itself.
            let _ = program.child.kill();
            let _ = program.child.wait();
        }
    }

    /// Waits until it has ended by itself, or was ended, and the kubelet knows.
    pub async fn ended(&mut self) {
        let mut program = self.program.take().expect("it was started");
        program.ended().await;
        for resource in &self.resources {
            let gone = self.stage.kubelet.wait_until("its end", |k| k.allocatable(resource) == 0);
            gone.await.unwrap_or_else(|e| panic!("{resource}: {e}\n{}", program.log()));
        }
    }

    pub async fn kill(&mut self) {
        self.program.as_mut().expect("it was started").child.kill().expect("it runs");
        self.ended().await;
    }

    /// What the root-only socket answers to a line.
    pub async fn told(&self, request: &Value) -> HookReply {
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
    pub async fn resize(&self, part: &PartitionId, size: Size) -> HookReply {
        self.told(&serde_json::to_value(ResizeRequest::new(part.clone(), size)).expect("JSON"))
            .await
    }

    /// What the hook says of a container of the claim, whose first process is that one.
    pub async fn confine(&self, claim: &str, pid: u32, namespace: u64) -> HookReply {
        self.told(&json!({
            "version": HOOK_VERSION, "op": "confine", "claim": claim, "cgroup": format!("/pods/{pid}"),
            "pid": pid, "pid_namespace": namespace,
        }))
        .await
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.stage.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Standin {
    fn drop(&mut self) {
        // One that runs tells its log itself.
        if self.program.is_none() && std::thread::panicking() {
            println!("the program's log:\n{}", self.log());
        }
    }
}
