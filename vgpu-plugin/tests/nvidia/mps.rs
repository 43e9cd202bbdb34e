//! MPS shares under an agent and daemons that are killed: a daemon has a life of its own, and ends with
//! its last pod, whatever became of the offer meanwhile.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::process::Signal;
use serde_json::{Value, json};
use vgpu_kubelet_plugin::fake::{ContainerSpec, ContainerView};

use crate::node::{MPS, Machine, Node};
use crate::stage::program::configure;
use crate::stage::standin::built;
use crate::stage::{GUARD, eventually, facts, pod};

const SHARE: &str = "vgpu.dev/share";
/// The first card of the preset `driver-615`, without the vendor's word.
const CARD: &str = "00002335-0000-4000-8000-000000000000";

/// A node with equal shares of one card, whose pods are gone soon after their end.
fn node() -> Option<Daemons> {
    let offers = format!(
        "
- {{resource: {SHARE}, kind: slice, slots: 4, schemes: [mps], domain: team-a, minimum: {{memory: driver}},
   select: {{devices: [GPU-{CARD}]}}}}
"
    );
    let node = Node::new(&Machine {
        scenario: "preset: driver-615",
        driver: None,
        resources: &[SHARE],
        offers: &offers,
        args: &["--absence-ms", "5000"],
    });
    node.map(Daemons)
}

/// A node whose daemons are ended with the test.
struct Daemons(Node);

impl Daemons {
    fn folder(&self) -> PathBuf {
        self.0.at(&format!("root{MPS}/{CARD}"))
    }

    /// What is written down of the daemon, if there is one.
    fn record(&self) -> Option<Value> {
        let text = std::fs::read(self.folder().join("daemon.json")).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn pid(&self) -> Option<u64> {
        self.record()?["process"]["pid"].as_u64()
    }

    /// What the daemon says to the control program.
    fn ask(&self, words: &[&str]) -> String {
        let program = built("examples/fake_mps_control").expect("the node has it");
        let output = Command::new(program)
            .args(words)
            .env("CUDA_MPS_PIPE_DIRECTORY", self.folder().join("pipe"))
            .stdin(Stdio::null())
            .output()
            .expect("it runs");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// What the daemon has in force for a container's share: memory, percent of the threads.
    fn in_force(&self, view: &ContainerView) -> (String, String) {
        let part = facts(view).grants[0].part.clone().expect("a share");
        let name = format!("n{}", part.local());
        let field = |field: &str| self.ask(&["namespace", "get", &name, "vgpu", field]);
        (field("pinned-memory-limit"), field("active-thread-percentage"))
    }

    /// Who may compute on the card, as the driver has it; 3 is one process.
    fn compute_mode(&self) -> u64 {
        self.0.state()["compute_modes"]["0"].as_u64().unwrap_or(0)
    }

    fn is_alive(pid: u64) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // What nobody waits for stays as a corpse.
        stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        // An agent that lives would bring the daemon back.
        self.0.end();
        self.ask(&["-q"]);
    }
}

fn kill(pid: u64) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
    rustix::process::kill_process(pid, Signal::KILL).expect("it runs");
}

/// The pod after the last: its controller makes it again until it is admitted, since ids are closed
/// while what was there is taken down.
async fn next(node: &Node) -> ContainerView {
    let until = Instant::now() + GUARD;
    loop {
        node.gives(SHARE, 4..).await;
        let next = pod("next", [ContainerSpec::app("main").request(SHARE, 1)]);
        match node.stage.kubelet.admit(next).await {
            Ok(pod) => return node.stage.start(&pod.uid, "main").await,
            Err(e) => assert!(Instant::now() < until, "{e}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shares_outlive_agent_and_daemon_and_the_daemon_ends_with_the_last_pod() {
    let Some(mut node) = node() else { return };
    node.0.start();
    node.0.gives(SHARE, 4..).await;
    assert_eq!(node.record(), None, "nobody needs it yet");
    let (a, a_view) = node.0.stage.run("a", SHARE, 1).await;
    let (b, b_view) = node.0.stage.run("b", SHARE, 2).await;
    let quarter = (143_771 - 512) / 4;
    let both = |node: &Daemons| (node.in_force(&a_view), node.in_force(&b_view));
    let limits = both(&node);
    assert_eq!(limits.0.0, format!("{quarter}M"));
    assert_eq!(limits.1.0, format!("{}M", 2 * quarter));
    assert_eq!(node.compute_mode(), 3, "nobody computes but through the daemon");
    let (record, pid) = (node.record(), node.pid().expect("it runs"));

    node.0.kill().await;
    assert!(Daemons::is_alive(pid), "it has a life of its own");
    assert_eq!(both(&node), limits);
    node.0.start();
    node.0.gives(SHARE, 4..).await;
    assert_eq!((node.record(), both(&node)), (record, limits.clone()), "it is taken over");
    for (pod, view) in [(&a, &a_view), (&b, &b_view)] {
        assert_eq!(node.0.stage.start(&pod.uid, "main").await, *view);
    }

    node.0.kill().await;
    kill(pid);
    node.0.start();
    eventually("another daemon", || node.pid().is_some_and(|now| now != pid)).await;
    node.0.gives(SHARE, 4..).await;
    assert_eq!(both(&node), limits, "every share is put in force again");
    for (pod, view) in [(&a, &a_view), (&b, &b_view)] {
        assert_eq!(node.0.stage.start(&pod.uid, "main").await, *view);
    }

    let pid = node.pid().expect("it runs");
    assert!(node.0.stage.kubelet.delete_pod(&a.uid));
    assert!(node.0.stage.kubelet.delete_pod(&b.uid));
    eventually("the daemon's end", || !Daemons::is_alive(pid)).await;
    eventually("its folder to go", || !node.folder().exists()).await;
    eventually("anybody to compute", || node.compute_mode() == 0).await;
    let view = next(&node.0).await;
    assert_eq!(node.in_force(&view), limits.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_could_not_be_stopped_is_stopped_though_its_offer_is_gone() {
    let Some(mut node) = node() else { return };
    node.0.start();
    node.0.gives(SHARE, 4..).await;
    let (pod, _) = node.0.stage.run("last", SHARE, 1).await;
    let pid = node.pid().expect("it runs");
    // Somebody computes beside the daemon, so that it cannot be stopped with its last claim.
    node.0.control(|c| c["cards"] = json!({"0": {"processes": [{"pid": 4242, "used_mib": 1}]}}));
    assert!(node.0.stage.kubelet.delete_pod(&pod.uid));
    let told = |node: &Daemons, what: &str| node.0.log().contains(what);
    eventually("the try to leave", || told(&node, "mode cannot be left yet")).await;
    eventually("its claim to go", || node.0.stage.specs().is_empty()).await;
    configure(&node.0.stage, " []");
    node.0.program().signal(Signal::HUP);
    eventually("the offer to go", || told(&node, "took the configuration")).await;
    // Another agent does not forget it either.
    node.0.kill().await;
    node.0.start();
    assert!(Daemons::is_alive(pid));
    node.0.control(|c| c["cards"] = json!({}));
    eventually("the daemon's end", || !Daemons::is_alive(pid)).await;
    eventually("anybody to compute", || node.compute_mode() == 0).await;
}
