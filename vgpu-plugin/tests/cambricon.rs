//! The program on the stand-in for libcndev, whose instances outlive it: exact parts, limits, restarts, kills.

mod stage;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use stage::{Stage, config_text, eventually, facts, nodes, pod};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use vgpu_backend_mock::Preset;
use vgpu_core::Bytes;
use vgpu_kubelet_plugin::fake::{ContainerSpec, ContainerView};
use vgpu_plugin::sockets::{HookReply, ResizeRequest, SocketPaths};

const MEM: &str = "vgpu.dev/mem";
const WHOLE: &str = "vgpu.dev/mlu";
const SLOT: &str = "vgpu.dev/slot";

/// The card of that number of the preset `mlu370x8`.
fn card(n: u32) -> String {
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
struct Node {
    stage: Stage,
    library: PathBuf,
    child: Option<Child>,
}

impl Node {
    fn new() -> Option<Self> {
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

    fn start(&mut self) {
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
    async fn serves(&self, mem: usize) {
        for (resource, least) in [(MEM, mem), (SLOT, 64), (WHOLE, 3)] {
            let waited =
                self.stage.kubelet.wait_until(resource, |k| k.allocatable(resource) >= least).await;
            waited.unwrap_or_else(|e| panic!("{resource}: {e}\n{}", self.log()));
        }
    }

    async fn ended(&mut self) {
        let child = self.child.as_mut().expect("it was started");
        eventually("its end", || child.try_wait().expect("it is ours").is_some()).await;
        self.child = None;
        let gone = self.stage.kubelet.wait_until("its end", |k| k.allocatable(MEM) == 0).await;
        gone.expect("the kubelet notices");
    }

    async fn kill(&mut self) {
        self.child.as_mut().expect("it was started").kill().expect("it runs");
        self.ended().await;
    }

    /// Changes the machine under the library.
    fn change(&self, change: impl FnOnce(&mut Value)) {
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

    fn state(&self) -> Value {
        let mut now = Value::Null;
        self.change(|state| now = state.clone());
        now
    }

    fn instances(&self, card: usize) -> Vec<Value> {
        self.state()["cards"][card]["instances"].as_array().cloned().unwrap_or_default()
    }

    fn log(&self) -> String {
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

fn caps(view: &ContainerView) -> Vec<String> {
    nodes(view).into_iter().filter(|n| n.contains("cambricon-caps")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_get_exactly_theirs_and_keep_it_through_restarts() {
    let Some(mut node) = Node::new() else { return };
    node.start();
    node.serves(16).await;
    // Two containers on one card, each with a part of its own size.
    let containers =
        [ContainerSpec::app("a").request(MEM, 4), ContainerSpec::app("b").request(MEM, 6)];
    let two = node.stage.kubelet.admit(pod("two", containers)).await.expect("admitted");
    let a = node.stage.start(&two.uid, "a").await;
    let b = node.stage.start(&two.uid, "b").await;
    assert_eq!(facts(&a).grants[0].size.memory, Some(Bytes::gib(4)));
    assert_eq!(facts(&b).grants[0].size.memory, Some(Bytes::gib(6)));
    assert_eq!((caps(&a).len(), caps(&b).len()), (1, 1));
    assert_ne!(caps(&a), caps(&b), "each its own");
    assert_eq!(node.instances(0).len(), 2);
    // Three cards in one container, with no other card's nodes.
    let (_, three) = node.stage.run("three", WHOLE, 3).await;
    let cards: Vec<String> =
        nodes(&three).into_iter().filter(|n| n.starts_with("/dev/cambricon_dev")).collect();
    assert_eq!(cards.len(), 3, "{cards:?}");
    assert!(caps(&three).is_empty());

    // The agent is killed, and the driver started anew, with the instances alive.
    let before = node.instances(0);
    node.kill().await;
    node.start();
    node.serves(10).await;
    assert_eq!(node.stage.start(&two.uid, "a").await, a);
    node.change(|s| s["starts"] = json!(s["starts"].as_u64().unwrap_or(1) + 1));
    assert_eq!(node.stage.start(&two.uid, "b").await, b);
    assert_eq!(node.instances(0), before);

    // An admin gives the first more, over the root-only socket.
    let part = facts(&a).grants[0].part.clone().expect("a part");
    let size = vgpu_core::Size { memory: Some(Bytes::gib(8)), ..vgpu_core::Size::ANY };
    let request = serde_json::to_string(&ResizeRequest::new(part, size)).expect("JSON") + "\n";
    let socket = SocketPaths::under(&node.stage.state_dir()).hook;
    let mut stream = tokio::net::UnixStream::connect(socket).await.expect("it listens");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await.expect("it answers");
    let reply: HookReply = serde_json::from_str(&line).expect("an answer");
    assert!(reply.ok, "{line}");
    assert_eq!(node.instances(0).len(), 2);
    let profile = &node.instances(0)[0]["profile"];
    let state = node.state();
    let profiles = state["cards"][0]["profiles"].as_array().expect("a list");
    let its = profiles.iter().find(|p| p["id"] == *profile).expect("its profile");
    assert_eq!(its["memory"], json!(8_u64 << 30), "{state}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_between_profile_and_instance_loses_nothing() {
    let Some(mut node) = Node::new() else { return };
    node.start();
    node.serves(16).await;
    let (first, _) = node.stage.run("first", MEM, 1).await;
    let pod = node.stage.admit("second", MEM, 3).await;
    node.change(|s| s["cards"][0]["die_after"] = json!(1));
    // The call that prepares it never comes back.
    let failed = node.stage.kubelet.start_container(&pod.uid, "main").await;
    assert!(failed.is_err(), "{failed:?}");
    node.ended().await;
    assert_eq!(node.instances(0).len(), 1, "only the first has its instance");
    let sizes = |node: &Node| node.state()["cards"][0]["profiles"].as_array().map(Vec::len);
    let left = sizes(&node);
    node.start();
    node.serves(12).await;
    let view = node.stage.start(&pod.uid, "main").await;
    assert_eq!(facts(&view).grants[0].size.memory, Some(Bytes::gib(3)));
    assert_eq!(node.instances(0).len(), 2);
    assert_eq!(sizes(&node), left, "the profile that was left is the one that is used");
    assert!(node.stage.kubelet.delete_pod(&first.uid));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_instances_fit_and_a_sixty_fifth_is_refused() {
    let Some(mut node) = Node::new() else { return };
    node.start();
    node.serves(16).await;
    let containers: [ContainerSpec; 64] =
        std::array::from_fn(|n| ContainerSpec::app(format!("c{n}")).request(SLOT, 1));
    let full = node.stage.kubelet.admit(pod("full", containers)).await.expect("admitted");
    for n in 0..64 {
        let view = node.stage.start(&full.uid, &format!("c{n}")).await;
        assert_eq!(caps(&view).len(), 1);
    }
    assert_eq!(node.instances(1).len(), 64);
    let one_more = pod("more", [ContainerSpec::app("main").request(SLOT, 1)]);
    let refused = node.stage.kubelet.admit(one_more).await;
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(node.instances(1).len(), 64);
}
