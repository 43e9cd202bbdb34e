//! The kubelet, the agent or both end and come back: nothing is lost, leaked or given twice.

mod stage;

use std::collections::BTreeSet;
use std::time::Duration;

use stage::{
    DCU, GPU, MEM, MIG, Stage, asked, at_once, cdi_name, claim_of, eventually, look, mixed, waiting,
};
use vgpu_backend_mock::Preset;
use vgpu_core::PartitionId;
use vgpu_kubelet_plugin::fake::{ContainerView, FakeClock, Forget, OldStreamEnd, Pod};
use vgpu_node::absence::AbsenceOptions;
use vgpu_plugin::{Agent, AgentOptions};

const ALL: [(&str, usize); 4] = [(GPU, 1), (MIG, 1), (DCU, 1), (MEM, 10)];

/// One container of each kind, running.
struct Running {
    pods: Vec<(Pod, ContainerView, &'static str)>,
    parts: BTreeSet<PartitionId>,
    specs: Vec<String>,
    claims: Vec<vgpu_node::ClaimStatus>,
    listing: std::sync::Arc<vgpu_node::listing::Listing>,
}

impl Running {
    async fn on(stage: &Stage, agent: &Agent) -> Self {
        let mut pods = Vec::new();
        for (resource, count) in ALL {
            let name = resource.rsplit('/').next().expect("a word");
            let (pod, view) = stage.run(name, resource, count).await;
            pods.push((pod, view, resource));
        }
        stage.served(agent).await;
        Self {
            pods,
            parts: stage.parts().into_iter().collect(),
            specs: stage.specs(),
            claims: agent.node().claims(),
            listing: agent.node().listing(),
        }
    }

    /// Everything is as it was: ids, health, claims, parts, specs, and what containers get.
    async fn is_untouched(&self, stage: &Stage, agent: &Agent, told: &str) {
        stage.served(agent).await;
        assert_eq!(*agent.node().listing(), *self.listing, "{told}: ids or their health changed");
        assert_eq!(agent.node().claims(), self.claims, "{told}");
        assert_eq!(stage.parts().into_iter().collect::<BTreeSet<_>>(), self.parts, "{told}");
        assert_eq!(stage.specs(), self.specs, "{told}");
        for (pod, view, resource) in &self.pods {
            let again = stage.kubelet.restart_container(&pod.uid, "main").await;
            let again =
                again.unwrap_or_else(|e| panic!("{told}: {} does not restart: {e}", pod.name));
            assert_eq!(again.pre_started, [*resource], "{told}");
            assert_eq!(again, *view, "{told}: {} gets other edits than before", pod.name);
        }
        assert_eq!(stage.parts().into_iter().collect::<BTreeSet<_>>(), self.parts, "{told}");
    }

    /// The pods end, and so do all claims: nothing was leaked.
    async fn ends(self, stage: &Stage, agent: &Agent, before: &[PartitionId]) {
        for (pod, _, _) in &self.pods {
            assert!(stage.kubelet.delete_pod(&pod.uid));
        }
        eventually("the claims to be released", || agent.node().claims().is_empty()).await;
        assert_eq!(stage.parts(), before);
        assert!(stage.specs().is_empty(), "{:?}", stage.specs());
        stage.served(agent).await;
    }
}

fn options(stage: &Stage) -> AgentOptions {
    AgentOptions { absence: at_once(), ..stage.options(&mixed(&stage.machine)) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kubelet_restarts() {
    let stage = Stage::new(Preset::Mixed);
    let before = stage.parts();
    let agent = stage.agent_with(options(&stage)).await;
    let running = Running::on(&stage, &agent).await;
    for _ in 0..3 {
        stage.kubelet.restart().await.expect("restarts");
        running.is_untouched(&stage, &agent, "after a kubelet restart").await;
    }
    running.ends(&stage, &agent, &before).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_is_killed() {
    let stage = Stage::new(Preset::Mixed);
    let before = stage.parts();
    let mut agent = stage.agent_with(options(&stage)).await;
    let running = Running::on(&stage, &agent).await;
    for _ in 0..3 {
        drop(agent);
        agent = stage.agent_with(options(&stage)).await;
        running.is_untouched(&stage, &agent, "after a kill of the agent").await;
    }
    running.ends(&stage, &agent, &before).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_stops_in_order_and_starts_again() {
    let stage = Stage::new(Preset::Mixed);
    let agent = stage.agent_with(options(&stage)).await;
    let running = Running::on(&stage, &agent).await;
    agent.stop().await;
    stage.kubelet.wait_allocatable(DCU, 0).await.expect("the stream ends");
    assert!(stage.kubelet.capacity(DCU) > 0, "the capacity stays for the next instance");
    let folder = &stage.kubelet.paths().device_plugins;
    let left = std::fs::read_dir(folder)
        .expect("a folder")
        .filter(|f| f.as_ref().expect("a file").file_name().to_string_lossy().starts_with("vgpu"));
    assert_eq!(left.count(), 0, "its sockets are gone");
    assert_eq!(stage.specs(), running.specs, "containers may restart meanwhile");
    let agent = stage.agent_with(options(&stage)).await;
    running.is_untouched(&stage, &agent, "after an orderly restart").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_end_at_once() {
    let stage = Stage::new(Preset::Mixed);
    let before = stage.parts();
    let mut agent = stage.agent_with(options(&stage)).await;
    let running = Running::on(&stage, &agent).await;
    for kubelet_first in [true, false] {
        stage.kubelet.stop().await;
        drop(agent);
        if kubelet_first {
            stage.kubelet.start().await.expect("starts");
            agent = stage.agent_with(options(&stage)).await;
        } else {
            agent = Agent::start(stage.choices(), options(&stage)).await.expect("starts");
            stage.kubelet.start().await.expect("starts");
        }
        running.is_untouched(&stage, &agent, "after both ended").await;
    }
    running.ends(&stage, &agent, &before).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_and_new_instance_overlap() {
    let mut all = tokio::task::JoinSet::new();
    for old_stream_end in [OldStreamEnd::DisconnectsNew, OldStreamEnd::IsIgnored] {
        for orderly in [true, false] {
            all.spawn(overlap(old_stream_end, orderly));
        }
    }
    all.join_all().await;
}

async fn overlap(old_stream_end: OldStreamEnd, orderly: bool) {
    let told = format!("{old_stream_end:?}, orderly: {orderly}");
    let stage = Stage::with(Preset::Mixed, |k| k.old_stream_end = old_stream_end);
    let before = stage.parts();
    let old = stage.agent_with(options(&stage)).await;
    let running = Running::on(&stage, &old).await;
    let new = tokio::spawn(Agent::start(stage.choices(), options(&stage)));
    // The old one serves on while the new one waits for the ledger.
    let (pod, _) = stage.run("meanwhile", DCU, 1).await;
    assert!(!new.is_finished(), "{told}: two agents have one ledger");
    stage.kubelet.delete_pod(&pod.uid);
    let gone = || claim_of(&old, &pod, "main", DCU).is_none();
    eventually("the claim to be released", gone).await;
    if orderly {
        old.stop().await;
    } else {
        drop(old);
    }
    let new = new.await.expect("no panic").expect("the new one takes over");
    running.is_untouched(&stage, &new, &told).await;
    // However the streams ended, it stays so.
    asked(&stage.kubelet, 2).await;
    running.is_untouched(&stage, &new, &told).await;
    running.ends(&stage, &new, &before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_list_after_a_restart_releases_nothing() {
    let clock = FakeClock::manual();
    let stage = Stage::with(Preset::Mixed, |k| {
        k.pods_hidden = Duration::from_secs(30);
        k.clock = clock.clone();
    });
    let before = stage.parts();
    // Times are no hindrance here: only the kubelet's checkpoint speaks for the pods.
    let agent = stage.agent_with(options(&stage)).await;
    let running = Running::on(&stage, &agent).await;
    asked(&stage.kubelet, 1).await;
    stage.kubelet.restart().await.expect("restarts");
    asked(&stage.kubelet, 3).await;
    running.is_untouched(&stage, &agent, "while the list is empty").await;
    clock.advance(Duration::from_secs(31));
    asked(&stage.kubelet, 1).await;
    running.is_untouched(&stage, &agent, "when pods are shown again").await;
    // The rule is alive: what is really gone is released.
    running.ends(&stage, &agent, &before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_list_and_an_empty_checkpoint_are_proof_only_after_a_while() {
    let clock = FakeClock::manual();
    let stage = Stage::with(Preset::Mixed, |k| {
        k.pods_hidden = Duration::from_secs(30);
        k.clock = clock.clone();
    });
    let before = stage.parts();
    let patient = AbsenceOptions { unbroken: Duration::from_secs(86_400), ..at_once() };
    let agent = stage.agent_with(AgentOptions { absence: patient, ..options(&stage) }).await;
    let running = Running::on(&stage, &agent).await;
    asked(&stage.kubelet, 1).await;
    stage.kubelet.restart().await.expect("restarts");
    // The kubelet writes it whenever it gets a list.
    let no_checkpoint = || match std::fs::remove_file(stage.kubelet.paths().checkpoint()) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => panic!("{e}"),
        _ => {}
    };
    let until = stage.kubelet.counters().pod_resources_calls + 3;
    let asked = || {
        no_checkpoint();
        stage.kubelet.counters().pod_resources_calls >= until
    };
    eventually("the agent to ask for pods", asked).await;
    assert_eq!(agent.node().claims(), running.claims);
    assert_eq!(stage.parts().into_iter().collect::<BTreeSet<_>>(), running.parts);
    drop(agent);
    // The same silence, when it is proof: else the test above could not fail.
    let agent = stage.agent_with(options(&stage)).await;
    let released = || {
        no_checkpoint();
        agent.node().claims().is_empty()
    };
    eventually("the claims to be released", released).await;
    assert_eq!(stage.parts(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_reboot_without_the_agent_no_container_gets_anothers_node() {
    let stage = Stage::new(Preset::Mixed);
    let agent = stage.agent_with(options(&stage)).await;
    let running = Running::on(&stage, &agent).await;
    drop(agent);
    eventually("the agent to be gone", || stage.kubelet.allocatable(DCU) == 0).await;
    stage.kubelet.stop().await;
    stage.reboot();
    stage.kubelet.start().await.expect("starts");
    let skipped = stage.kubelet.counters().pre_start_skipped;
    for (pod, _, _) in &running.pods {
        let e =
            stage.kubelet.start_container(&pod.uid, "main").await.expect_err("no part, no start");
        assert!(waiting(&e).contains("unresolvable CDI devices"), "{e}");
    }
    assert!(stage.kubelet.counters().pre_start_skipped > skipped, "the kubelet asked nobody");
    let agent = stage.agent_with(options(&stage)).await;
    for (pod, _, resource) in &running.pods {
        let view = stage.start(&pod.uid, "main").await;
        assert_eq!(view.cdi_devices[0].name, cdi_name(pod, "main", resource), "the old name");
        let claim = claim_of(&agent, pod, "main", resource).expect("it lives");
        assert_eq!(claim.state, "prepared");
        for part in claim.grants.iter().filter_map(|g| g.part.clone()) {
            assert!(stage.parts().iter().any(|p| p.as_str() == part), "{part} is not there");
        }
    }
    let of_parts =
        |c: &vgpu_node::ClaimStatus| c.grants.iter().filter(|g| g.part.is_some()).count();
    let owned: usize = agent.node().claims().iter().map(of_parts).sum();
    assert_eq!(stage.parts().len(), owned, "each part has its claim");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_part_in_the_old_ones_place_is_never_shown() {
    let stage = Stage::new(Preset::Mixed);
    let agent = stage.agent_with(options(&stage)).await;
    let (first, view) = stage.run("first", MEM, 4).await;
    let nodes = view.cdi_devices[0].device_edits["deviceNodes"].clone();
    let part = claim_of(&agent, &first, "main", MEM).expect("it lives").grants[0].part.clone();
    let part: PartitionId = part.expect("a part").parse().expect("an id");
    let card = part.device();
    // The part goes, and another pod's part takes the same numbers on the same card.
    stage.machine.faults().vanish(&part).expect("vanishes");
    let (second, other) = stage.run("second", MEM, 4).await;
    let theirs = claim_of(&agent, &second, "main", MEM).expect("it lives");
    if theirs.grants[0].device == card {
        assert_eq!(other.cdi_devices[0].device_edits["deviceNodes"], nodes, "the same numbers");
    }
    let e =
        stage.kubelet.restart_container(&first.uid, "main").await.expect_err("its part is gone");
    assert!(waiting(&e).contains("delete the pod"), "{e}");
    drop(agent);
    eventually("the agent to be gone", || stage.kubelet.allocatable(DCU) == 0).await;
    // Without the agent too: its name resolves to nothing, and the other's to its own.
    stage.kubelet.restart().await.expect("restarts");
    let e = stage.kubelet.restart_container(&first.uid, "main").await.expect_err("no spec");
    assert!(waiting(&e).contains("unresolvable CDI devices"), "{e}");
    let again =
        stage.kubelet.restart_container(&second.uid, "main").await.expect("its part is there");
    assert_eq!(again.cdi_devices, other.cdi_devices);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_ended_are_released_though_the_kubelet_forgets_lazily() {
    let stage = Stage::with(Preset::Mixed, |k| k.forget = Forget::Lazily);
    let before = stage.parts();
    // No claim is old enough to go without the checkpoint's word.
    let agent = stage.agent_with(options(&stage)).await;
    let running = Running::on(&stage, &agent).await;
    asked(&stage.kubelet, 2).await;
    running.ends(&stage, &agent, &before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_ended_while_the_agent_was_away_is_released() {
    let stage = Stage::new(Preset::Mixed);
    let before = stage.parts();
    let agent = stage.agent_with(options(&stage)).await;
    let (pod, _) = stage.run("ends", MEM, 3).await;
    let (held, _) = stage.run("stays", MEM, 3).await;
    drop(agent);
    stage.kubelet.delete_pod(&pod.uid);
    let agent = stage.agent_with(options(&stage)).await;
    eventually("the claim to be released", || agent.node().claims().len() == 1).await;
    assert!(claim_of(&agent, &held, "main", MEM).is_some());
    assert_eq!(stage.parts().len(), before.len() + 1);
    // A look at the hardware finds nothing more to do.
    look(&agent).await;
    assert_eq!(agent.node().claims().len(), 1);
}
