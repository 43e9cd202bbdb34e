//! Cards that are lost and drivers that are replaced while pods run.

use serde_json::json;
use vgpu_kubelet_plugin::fake::{ContainerView, FakeKubelet};

use crate::node::{Machine, Node};
use crate::stage::program::claims;
use crate::stage::{eventually, nodes};

const TURN: &str = "vgpu.dev/turn";
const WHOLE: &str = "vgpu.dev/gpu";

/// A node with turns on one card, and another card as a whole.
fn node() -> Option<Node> {
    let card = |n: u32| format!("GPU-00002335-0000-4000-8000-{n:012x}");
    let offers = format!(
        "
- {{resource: {TURN}, kind: slice, slots: 4, schemes: [time-slice], select: {{devices: [{}]}}}}
- {{resource: {WHOLE}, kind: whole, select: {{devices: [{}]}}}}
",
        card(0),
        card(1)
    );
    Node::new(&Machine {
        scenario: "preset: h200x2",
        driver: Some("570.124.06"),
        resources: &[TURN, WHOLE],
        offers: &offers,
        args: &[],
    })
}

async fn serves(node: &Node) {
    node.gives(TURN, 4..).await;
    node.gives(WHOLE, 1..).await;
}

/// The driver's libraries that a container has, by the names of their files.
fn libraries(view: &ContainerView) -> Vec<String> {
    let mounts = view.cdi_devices.iter().flat_map(|d| d.device_edits["mounts"].as_array());
    let files = mounts.flatten().filter_map(|m| m["hostPath"].as_str()?.rsplit('/').next());
    files.filter(|name| name.starts_with("libcuda.so.")).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_card_is_closed_under_its_pods_and_comes_back() {
    let Some(mut node) = node() else { return };
    node.start();
    serves(&node).await;
    let (turn, turn_view) = node.stage.run("turn", TURN, 1).await;
    let (whole, whole_view) = node.stage.run("whole", WHOLE, 1).await;
    node.control(|c| {
        c["cards"] = json!({"0": {"state": "lost"}});
        c["events"] = json!([{"id": "e1", "card": 0, "type": 8, "data": 79}]);
    });
    node.gives(TURN, ..=0).await;
    let kubelet = &node.stage.kubelet;
    assert_eq!((kubelet.capacity(TURN), kubelet.allocatable(WHOLE)), (4, 1), "{}", node.log());
    let why = kubelet.start_container(&turn.uid, "main").await.expect_err("its card is lost");
    println!("the pod's author reads: {why}");
    assert_eq!(node.stage.start(&whole.uid, "main").await, whole_view);

    // An agent that never saw the card knows its claim still.
    node.kill().await;
    node.start();
    node.gives(WHOLE, 1..).await;
    assert_eq!(node.stage.kubelet.allocatable(TURN), 0);
    let known = claims(&node.stage).await.expect("it answers").claims.len();
    assert_eq!((known, node.stage.specs().len()), (2, 2));
    assert_eq!(node.stage.start(&whole.uid, "main").await, whole_view);
    node.control(|c| {
        c["cards"] = json!({});
        c["events"] = json!([]);
    });
    serves(&node).await;
    assert_eq!(node.stage.start(&turn.uid, "main").await, turn_view);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_driver_is_taken_up_under_its_pods() {
    let Some(mut node) = node() else { return };
    node.start();
    serves(&node).await;
    let (turn, turn_view) = node.stage.run("turn", TURN, 2).await;
    let (whole, whole_view) = node.stage.run("whole", WHOLE, 1).await;
    assert_eq!(libraries(&turn_view), ["libcuda.so.570.124.06"]);
    // The new driver's files are there, and the library that is loaded is of the old one.
    node.install("580.95.05");
    node.is("preset: h200x2\ndriver_version: \"580.95.05\"");
    let calls = [
        "nvmlDeviceGetCount_v2",
        "nvmlDeviceGetHandleByIndex_v2",
        "nvmlDeviceGetHandleByUUID",
        "nvmlDeviceGetUUID",
        "nvmlEventSetWait_v2",
        "nvmlSystemGetDriverVersion",
    ];
    let fail = calls.map(|call| json!({"function": call, "code": 18}));
    node.control(|c| c["fail"] = json!(fail));
    let anew = || node.log().contains("the driver was replaced; starting anew");
    eventually("it to start anew", anew).await;
    node.control(|c| c["fail"] = json!([]));
    // Until the old process has ended it answers, and the kubelet has its lists: two of each are awaited.
    let again = || node.log().matches("registered, the kubelet reads the list").count() >= 4;
    eventually("it to serve again", again).await;
    serves(&node).await;
    // The same claims, on the same cards, with the new driver's files.
    for (pod, before) in [(&turn, &turn_view), (&whole, &whole_view)] {
        let now = node.stage.start(&pod.uid, "main").await;
        assert_eq!(libraries(&now), ["libcuda.so.580.95.05"]);
        assert_eq!(now.cdi_devices[0].name, before.cdi_devices[0].name);
        assert_eq!(nodes(&now), nodes(before));
    }
    assert_eq!(node.stage.specs().len(), 2);
    let more = |k: &FakeKubelet| k.allocatable(TURN) == 4;
    node.stage.kubelet.wait_until("all turns", more).await.expect("they are there");
    node.stage.run("more", TURN, 2).await;
}
