//! Whose ids are whose: a fresh claim for each allocation, no admission refused, and each name
//! resolves to what its ids say.

mod stage;

use std::collections::BTreeSet;
use std::sync::Arc;

use stage::{
    DCU, GPU, MEM, Stage, at_once, cdi_name, claim_of, eventually, facts, mixed, nodes, pod,
    waiting,
};
use tokio::task::JoinSet;
use vgpu_backend_mock::Preset;
use vgpu_core::Subject;
use vgpu_core::id::PartitionId;
use vgpu_kubelet_plugin::fake::{ContainerSpec, ContainerView, Pod, Role};
use vgpu_plugin::AgentOptions;

const UNITS: &str = "
- {resource: vgpu.dev/mem, kind: unit, unit: 1Gi, largest: 8, schemes: [smlu]}
";

fn app(name: &str, resource: &str, count: usize) -> ContainerSpec {
    ContainerSpec::app(name).request(resource, count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn init_and_app_container_share_ids_and_one_part() {
    let stage = Stage::new(Preset::Mixed);
    let before = stage.parts().len();
    let options = || AgentOptions { absence: at_once(), ..stage.options(&mixed(&stage.machine)) };
    let mut agent = stage.agent_with(options()).await;
    for kill_between in [false, true] {
        let init = ContainerSpec::init("init").request(MEM, 4);
        let pod = stage.kubelet.admit(pod("both", [init, app("main", MEM, 4)])).await;
        let pod = pod.expect("admitted");
        assert_eq!(pod.device_ids("init", MEM), pod.device_ids("main", MEM), "the kubelet's way");
        assert_ne!(cdi_name(&pod, "init", MEM), cdi_name(&pod, "main", MEM), "a claim each");
        let init = stage.start(&pod.uid, "init").await;
        stage.has_exactly(&pod, "init", &init);
        if kill_between {
            drop(agent);
            agent = stage.agent_with(options()).await;
        }
        let main = stage.start(&pod.uid, "main").await;
        stage.has_exactly(&pod, "main", &main);
        assert_eq!(facts(&init).grants, facts(&main).grants, "the same part");
        assert_eq!(stage.parts().len(), before + 1);
        // The init container runs again, as after a restart of the pod's sandbox.
        assert_eq!(stage.start(&pod.uid, "init").await, init);
        assert!(stage.kubelet.delete_pod(&pod.uid));
        eventually("the claims to be released", || agent.node().claims().is_empty()).await;
        assert_eq!(stage.parts().len(), before);
        assert!(stage.specs().is_empty(), "both names are gone");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_of_one_pod_get_what_each_asked_for() {
    let stage = Stage::new(Preset::Mixed);
    let before = stage.parts().len();
    let options = AgentOptions { absence: at_once(), ..stage.options(&mixed(&stage.machine)) };
    let agent = stage.agent_with(options).await;
    let containers = [
        ContainerSpec::init("init").request(MEM, 6),
        ContainerSpec::new("sidecar", Role::Sidecar).request(MEM, 2),
        app("one", MEM, 3),
        app("two", DCU, 1),
    ];
    let pod = stage.kubelet.admit(pod("many", containers)).await.expect("admitted");
    let mut views = Vec::new();
    for container in ["init", "sidecar", "one", "two"] {
        views.push((container, stage.start(&pod.uid, container).await));
    }
    for (container, view) in &views[1..] {
        let again = stage.start(&pod.uid, container).await;
        assert_eq!(again, *view, "{container}");
        if *container != "two" {
            stage.has_exactly(&pod, container, view);
        }
    }
    // Those that run now share nothing; different resources in two containers are well.
    let named: BTreeSet<&str> = views[1..].iter().flat_map(|(_, v)| names(v)).collect();
    assert_eq!(named.len(), 3);
    assert_eq!(stage.parts().len(), before + 3);
    assert!(stage.kubelet.delete_pod(&pod.uid));
    eventually("the claims to be released", || agent.node().claims().is_empty()).await;
    assert_eq!(stage.parts().len(), before);
}

/// Each is admitted, since the kubelet asks for one resource at a time; the start is refused with words
/// for the pod's author, nothing is made for either, and all is free again when the pod goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_resources_in_one_container_are_refused() {
    let stage = Stage::new(Preset::Mixed);
    let before = stage.parts().len();
    let options = || AgentOptions { absence: at_once(), ..stage.options(&mixed(&stage.machine)) };
    let mut agent = stage.agent_with(options()).await;
    let free = stage.allocatable(&[DCU, MEM]);
    for (container, role) in
        [("main", Role::App), ("init", Role::Init), ("side", Role::Sidecar), ("late", Role::App)]
    {
        let both = ContainerSpec::new(container, role).request(MEM, 2).request(DCU, 1);
        let pod = stage.kubelet.admit(pod("both", [both, app("well", MEM, 1)])).await;
        let pod = pod.expect("admitted");
        if container == "late" {
            // An agent that knows the pod from the kubelet alone says the same.
            drop(agent);
            agent = stage.agent_with(options()).await;
        }
        for _ in 0..3 {
            let e = stage.kubelet.start_container(&pod.uid, container).await.expect_err("refused");
            let told = waiting(&e);
            for word in [container, MEM, DCU, "a container of its own"] {
                assert!(told.contains(word), "{told} lacks {word}");
            }
        }
        assert_eq!(stage.parts().len(), before, "nothing is made by halves");
        assert!(stage.specs().is_empty());
        assert!(stage.kubelet.delete_pod(&pod.uid));
        eventually("the claims to be freed", || agent.node().claims().is_empty()).await;
        stage.served(&agent).await;
        assert_eq!(stage.allocatable(&[DCU, MEM]), free);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_of_a_pod_that_ended_just_now_wait_for_its_processes() {
    let stage = Stage::new(Preset::Mixed);
    let agent = stage.agent(&mixed(&stage.machine)).await;
    // Everything is taken, so the next pod can only get what the last one had.
    for (resource, each) in [(DCU, 1), (MEM, 8)] {
        let mut pods = Vec::new();
        while stage.kubelet.allocatable(resource) >= (pods.len() + 1) * each {
            let name = format!("{}-{}", &resource[9..], pods.len());
            pods.push(stage.run(&name, resource, each).await);
            stage.served(&agent).await;
        }
        let parts = stage.parts().len();
        let (last, view) = pods.pop().expect("some fit");
        let part = facts(&view).grants[0].part.clone().expect("a part");
        stage.machine.faults().hold(&Subject::Part(part.clone()), 2).expect("held");
        assert!(stage.kubelet.delete_pod(&last.uid));
        let next = stage.admit("next", resource, each).await;
        assert_eq!(next.device_ids("main", resource), last.device_ids("main", resource));
        assert_ne!(cdi_name(&next, "main", resource), cdi_name(&last, "main", resource));
        for _ in 0..3 {
            let e = stage.kubelet.start_container(&next.uid, "main").await.expect_err("held");
            assert!(waiting(&e).contains("still being taken down"), "{e}");
            assert!(stage.parts().contains(&part), "what is held is not touched");
        }
        stage.machine.faults().hold(&Subject::Part(part), 0).expect("let go");
        let view = stage.start(&next.uid, "main").await;
        assert_eq!(view.cdi_devices[0].name, cdi_name(&next, "main", resource));
        assert!(claim_of(&agent, &last, "main", resource).is_none(), "the old claim is gone");
        assert_eq!(stage.parts().len(), parts);
        if resource == MEM {
            stage.has_exactly(&next, "main", &view);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_comes_back_under_its_name_has_a_fresh_claim() {
    let stage = Stage::new(Preset::Mixed);
    let before = stage.parts().len();
    let options = AgentOptions { absence: at_once(), ..stage.options(&mixed(&stage.machine)) };
    let agent = stage.agent_with(options).await;
    let mut claims = BTreeSet::new();
    let mut last = None::<Pod>;
    for _ in 0..20 {
        if let Some(last) = &last {
            assert!(stage.kubelet.delete_pod(&last.uid));
        }
        // Nobody waits for the agent to notice that the last one is gone.
        let (pod, view) = stage.run("db-0", MEM, 8).await;
        stage.has_exactly(&pod, "main", &view);
        assert!(claims.insert(cdi_name(&pod, "main", MEM)), "a claim is never given twice");
        last = Some(pod);
    }
    let last = last.expect("one");
    eventually("one claim to be left", || agent.node().claims().len() == 1).await;
    assert!(claim_of(&agent, &last, "main", MEM).is_some());
    assert_eq!(stage.parts().len(), before + 1);
    assert_eq!(stage.specs().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_pods_at_once_each_get_exactly_their_own() {
    let stage = Arc::new(Stage::new(Preset::Mlu370x8));
    let options = AgentOptions { absence: at_once(), ..stage.options(UNITS) };
    let agent = stage.agent_with(options).await;
    for round in 0..3 {
        let mut starting = JoinSet::new();
        for n in 0..50_usize {
            let stage = stage.clone();
            starting.spawn(async move {
                let (pod, view) = stage.run(&format!("p{round}-{n}"), MEM, 1 + n % 6).await;
                stage.has_exactly(&pod, "main", &view);
                (pod, view)
            });
        }
        let running = starting.join_all().await;
        // The last round's parts go as soon as the agent learns that nobody has them.
        eventually("fifty parts", || stage.parts().len() == 50).await;
        let parts: BTreeSet<PartitionId> = stage.parts().into_iter().collect();
        let owned: BTreeSet<PartitionId> =
            running.iter().filter_map(|(_, v)| facts(v).grants[0].part.clone()).collect();
        assert_eq!(owned, parts, "each part is in one container");
        // All of them are there at once, and none has another's.
        for (pod, view) in &running {
            stage.has_exactly(pod, "main", view);
        }
        for (pod, _) in &running {
            assert!(stage.kubelet.delete_pod(&pod.uid));
        }
        // The next round takes the ids whether the old claims were released or not; at the end all are.
    }
    eventually("the claims to be released", || agent.node().claims().is_empty()).await;
    assert!(stage.parts().is_empty() && stage.specs().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_cards_are_what_their_ids_name() {
    let stage = Stage::new(Preset::H200x8);
    let agent = stage.agent("- {resource: vgpu.dev/gpu, kind: whole}").await;
    let mut seen = BTreeSet::new();
    for n in 0..4 {
        let (pod, view) = stage.run(&format!("p{n}"), GPU, 2).await;
        let claim = claim_of(&agent, &pod, "main", GPU).expect("it lives");
        let ids = pod.device_ids("main", GPU);
        for (grant, id) in claim.grants.iter().zip(ids) {
            assert_eq!(*id, format!("{}::whole.0", grant.device));
        }
        let cards: Vec<String> = nodes(&view)
            .into_iter()
            .filter(|n| n.trim_start_matches("/dev/nvidia").parse::<u32>().is_ok())
            .collect();
        assert_eq!(cards.len(), 2, "{cards:?}");
        for card in cards {
            assert!(seen.insert(card.clone()), "{card} is in two containers");
        }
    }
    assert_eq!(seen.len(), 8);
}

fn names(view: &ContainerView) -> Vec<&str> {
    view.cdi_devices.iter().map(|d| d.name.as_str()).collect()
}
