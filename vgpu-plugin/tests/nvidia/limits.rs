//! Memory limits of containers (r615) as one chain: spec, `vgpu-hook confine`, the agent's socket, the
//! driver. Cgroups and `/proc` are prepared trees; the programs are the real ones.

use std::process::Output;

use serde_json::json;
use vgpu_kubelet_plugin::fake::{ContainerView, Pod};

use crate::node::{Machine, Node};
use crate::stage::{eventually, facts};

const TURN: &str = "vgpu.dev/turn";
const ROOT: &str = "/sys/fs/cgroup";

/// A node whose only card gives four turns, each with a quarter of the memory.
fn node() -> Option<Node> {
    let node = Node::new(&Machine {
        scenario: "preset: driver-615",
        driver: Some("615.32.01"),
        resources: &[TURN],
        offers: &format!(
            "
- {{resource: {TURN}, kind: slice, slots: 4, schemes: [time-slice], minimum: {{memory: driver}},
   select: {{models: [NVIDIA H200]}}}}
"
        ),
        args: &[],
    })?;
    node.cgroup(ROOT, &[]);
    node.with_hook()
}

/// A container that is being started: its first process is there, and its cgroup.
fn making(node: &Node, name: &str, pid: u32) -> String {
    let cgroup = format!("{ROOT}/kubepods.slice/{name}.slice/main.scope");
    node.process(pid, &cgroup);
    cgroup
}

fn bytes(view: &ContainerView) -> u64 {
    facts(view).grants[0].size.memory.expect("a share of memory").0
}

/// The one hook of a container that limits it.
#[track_caller]
fn hooked(node: &Node, view: &ContainerView, pid: u32) -> Output {
    let mut ran = node.create_runtime(view, pid);
    assert_eq!(ran.len(), 1, "{ran:?}");
    ran.remove(0)
}

#[track_caller]
fn starts(node: &Node, view: &ContainerView, pid: u32) {
    let output = hooked(node, view, pid);
    assert!(output.status.success(), "{output:?}");
}

/// What the runtime tells of a start that the hook ended.
#[track_caller]
#[expect(clippy::print_stdout, reason = "refusals are told")]
fn refused(node: &Node, view: &ContainerView, pid: u32, word: &str) {
    let output = hooked(node, view, pid);
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("the runtime tells: {why}");
    assert!(!output.status.success() && why.contains(word), "{word:?} is not in {why}");
}

/// The limits in force are exactly these.
#[track_caller]
fn limited(node: &Node, expected: &[(&str, u64)]) {
    let mut expected: Vec<(u64, String, u64)> =
        expected.iter().map(|(cgroup, bytes)| (0, (*cgroup).to_owned(), *bytes)).collect();
    let mut now = node.limits();
    expected.sort();
    now.sort();
    assert_eq!(now, expected);
}

async fn limited_soon(node: &Node, what: &str, expected: &[(&str, u64)]) {
    let same = || node.limits().len() == expected.len();
    eventually(what, same).await;
    limited(node, expected);
}

async fn run(node: &Node, name: &str, turns: usize) -> (Pod, ContainerView) {
    node.stage.run(name, TURN, turns).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_goes_from_the_spec_to_the_driver_and_ends_with_its_pod() {
    let Some(mut node) = node() else { return };
    node.start();
    node.gives(TURN, 4..).await;
    let (_, a) = run(&node, "a", 1).await;
    let (b, b_view) = run(&node, "b", 3).await;
    let (quarter, rest) = (bytes(&a), bytes(&b_view));
    let mib = (143_771 - 512) / 4;
    assert_eq!((quarter, rest), (mib << 20, (3 * mib) << 20));
    limited_soon(&node, "no limit before a container is there", &[]).await;
    let (a_cgroup, b_cgroup) = (making(&node, "a", 77), making(&node, "b", 78));
    starts(&node, &a, 77);
    limited(&node, &[(&a_cgroup, quarter)]);
    starts(&node, &b_view, 78);
    let both = [(&*a_cgroup, quarter), (&*b_cgroup, rest)];
    limited(&node, &both);

    // The agent dies, the driver goes on; while nobody answers no container starts.
    node.kill().await;
    limited(&node, &both);
    refused(&node, &a, 77, "agent");
    node.start();
    node.gives(TURN, 4..).await;
    limited(&node, &both);
    // Another tool changes the one and takes the other; both are set again from the journal.
    let root = node.at("root").display().to_string();
    node.control(|c| {
        c["cgroup_limits"] = json!([
            {"card": 0, "cgroup": format!("{root}{a_cgroup}"), "hard_mib": 100},
            {"card": 0, "cgroup": format!("{root}{b_cgroup}")},
        ]);
    });
    let repairs = || node.log().matches("limit was not in force; it is set again").count() == 2;
    eventually("both limits to be set again", repairs).await;
    limited(&node, &both);
    node.control(|c| c["cgroup_limits"] = json!([]));

    // A container's last process ends: its limit is taken back while its cgroup is there.
    node.cgroup(&a_cgroup, &[]);
    limited_soon(&node, "the limit of an ended container to go", &[(&b_cgroup, rest)]).await;
    // A pod goes, its cgroup being in nobody's hurry, and another has its turns.
    assert!(node.stage.kubelet.delete_pod(&b.uid));
    let (c, c_view) = run(&node, "c", 3).await;
    assert_eq!(c.device_ids("main", TURN), b.device_ids("main", TURN));
    limited(&node, &[]);
    refused(&node, &b_view, 78, "no claim");
    let c_cgroup = making(&node, "c", 79);
    starts(&node, &c_view, 79);
    limited(&node, &[(&c_cgroup, rest)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_dies_while_it_limits_knows_it_afterwards() {
    let Some(mut node) = node() else { return };
    node.start();
    node.gives(TURN, 4..).await;
    let (a, view) = run(&node, "a", 4).await;
    let (all, mut pid) = (bytes(&view), 100);
    for (n, when) in ["before", "after"].into_iter().enumerate() {
        pid += 1;
        let cgroup = making(&node, &format!("try-{n}"), pid);
        node.control(|c| {
            let function = "nvmlDeviceSetMemoryLimits_v1";
            c["die"] =
                json!([{"id": format!("d{n}"), "card": 0, "function": function, "when": when}]);
        });
        refused(&node, &view, pid, "agent");
        node.ended().await;
        node.start();
        node.gives(TURN, 4..).await;
        // It was written down, so that the next look sets what is not there yet.
        limited_soon(&node, "the limit", &[(&cgroup, all)]).await;
        // The runtime gives the container up, and its cgroup.
        std::fs::remove_dir_all(node.at(&format!("root{cgroup}"))).expect("removed");
    }
    let cgroup = making(&node, "at-last", 110);
    starts(&node, &view, 110);
    limited(&node, &[(&cgroup, all)]);
    assert!(node.stage.kubelet.delete_pod(&a.uid));
    run(&node, "b", 4).await;
    limited(&node, &[]);
}
