//! Distinct offers on a kubelet: a container's turns are of different cards, or its pod is refused.

mod stage;

use std::collections::BTreeSet;

use stage::raw::Raw;
use stage::{Stage, at_once, eventually, facts, pod};
use tonic::Code;
use vgpu_backend_mock::Preset;
use vgpu_core::Scheme;
use vgpu_core::id::SlotId;
use vgpu_kubelet_plugin::fake::{AdmissionError, ContainerSpec, ContainerView, Pod};
use vgpu_node::ResourceName;
use vgpu_plugin::AgentOptions;

const TURN: &str = "vgpu.dev/turn";
const OFFER: &str = "- {resource: vgpu.dev/turn, kind: slice, slots: 4, schemes: [time-slice], \
                     distinct: true}";

fn card(id: &str) -> String {
    id.parse::<SlotId>().expect("an id").device.to_string()
}

fn cards(pod: &Pod) -> BTreeSet<String> {
    pod.device_ids("main", TURN).iter().map(|id| card(id)).collect()
}

/// How many turns the container's own file tells.
fn shares(view: &ContainerView) -> usize {
    let grants = facts(view).grants;
    assert!(grants.iter().all(|g| g.scheme == Scheme::TIME_SLICE), "{grants:?}");
    grants.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_gets_turns_of_different_cards_or_its_pod_is_refused() {
    let stage = Stage::new(Preset::H100x8);
    let options = AgentOptions { absence: at_once(), ..stage.options(OFFER) };
    let agent = stage.agent_with(options).await;
    let listing = agent.node().listing();
    let slots = &listing[&ResourceName::new(TURN).expect("a name")];
    let ids: Vec<String> = slots.iter().filter(|s| s.healthy).map(|s| s.id.to_string()).collect();
    let there: BTreeSet<String> = ids.iter().map(|id| card(id)).collect();
    assert!(there.len() >= 6, "{there:?}");

    let (three, view) = stage.run("three", TURN, 3).await;
    assert_eq!(cards(&three).len(), 3);
    assert_eq!(shares(&view), 3, "one of each card");
    let (two, view) = stage.run("two", TURN, 2).await;
    assert!(cards(&two).len() == 2 && cards(&two).is_subset(&cards(&three)), "packed");
    assert_eq!(shares(&view), 2);

    // The scheduler counts ids, not cards: so many are free, and no card is left for the last one.
    let app = ContainerSpec::app("main").request(TURN, there.len() + 1);
    let e = stage.kubelet.admit(pod("many", [app])).await.expect_err("more than cards");
    assert!(matches!(e, AdmissionError::Rejected { .. }), "{e}");
    assert!(e.to_string().contains("each must be of another card"), "{e}");

    // A kubelet that follows no preference.
    let mut raw = Raw::to(&stage.kubelet.paths().device_plugins, TURN).await;
    let untouched = there.iter().find(|c| !cards(&three).contains(*c)).expect("one is left");
    let both: Vec<String> =
        ids.iter().filter(|id| card(id) == *untouched).take(2).cloned().collect();
    assert_eq!(both.len(), 2);
    let e = raw.allocate(&both).await.expect_err("two of one card");
    assert_eq!(e.code(), Code::InvalidArgument, "{e}");
    assert!(e.message().contains(untouched.as_str()) && e.message().contains("distinct"), "{e}");
    assert_eq!(agent.node().claims().len(), 2, "what was refused left nothing");

    // What was refused kept no id either.
    let every = stage.admit("every", TURN, there.len()).await;
    assert_eq!(cards(&every), there);
    stage.start(&every.uid, "main").await;
    for pod in stage.kubelet.pods() {
        assert!(stage.kubelet.delete_pod(&pod.uid));
    }
    eventually("the claims to be released", || agent.node().claims().is_empty()).await;
}
