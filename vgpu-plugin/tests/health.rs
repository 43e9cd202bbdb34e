//! Cards and drivers that fail: who is told, who is not, and how it heals with no restart.

mod stage;

use std::collections::BTreeSet;
use std::time::Duration;

use stage::{DCU, GPU, MEM, MIG, Stage, claim_of, eventually, facts, mixed, pod, waiting};
use vgpu_backend_mock::{Op, Preset};
use vgpu_core::health::{Event, Meaning};
use vgpu_core::id::{DeviceId, SlotId};
use vgpu_core::{Subject, Vendor};
use vgpu_kubelet_plugin::fake::ContainerSpec;
use vgpu_node::ResourceName;
use vgpu_node::lanes::LaneOptions;
use vgpu_plugin::{Agent, AgentOptions};

const SIXTEENTH: &str = "vgpu.dev/sixteenth";
const TURNS: &str =
    "- {resource: vgpu.dev/sixteenth, kind: slice, slots: 16, schemes: [time-slice]}";

/// The ids that are unhealthy, as the agent lists them.
fn ill(agent: &Agent, resource: &str) -> BTreeSet<SlotId> {
    let name = ResourceName::new(resource).expect("a name");
    let listing = agent.node().listing();
    listing[&name].iter().filter(|s| !s.healthy).map(|s| s.id.clone()).collect()
}

fn ill_cards(agent: &Agent, resource: &str) -> BTreeSet<DeviceId> {
    ill(agent, resource).into_iter().map(|id| id.device).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_event_takes_all_slots_of_its_card_and_gives_them_back() {
    let stage = Stage::new(Preset::H200x8);
    let agent = stage.agent(TURNS).await;
    assert_eq!(stage.kubelet.allocatable(SIXTEENTH), 128);
    let (holder, view) = stage.run("holder", SIXTEENTH, 1).await;
    let faults = stage.machine.faults();
    let cards = stage.cards(&Vendor::NVIDIA);
    for card in [&cards[3], &cards[0]] {
        let subject = Subject::Device(card.clone());
        faults.condition(&subject, Meaning::NeedsReset, "xid 95").expect("ill");
        let event = Event::now(subject.clone(), Meaning::NeedsReset, "xid 95");
        faults.event(&event).expect("an event");
        stage.kubelet.wait_allocatable(SIXTEENTH, 112).await.expect("16 fewer");
        assert_eq!(stage.kubelet.capacity(SIXTEENTH), 128);
        let told = ill(&agent, SIXTEENTH);
        assert_eq!(told.len(), 16);
        assert!(told.iter().all(|id| id.device == *card), "{told:?}");
        assert_eq!(agent.node().claims().len(), 1, "who runs is not touched");
        faults.condition(&subject, Meaning::Good, "").expect("well");
        stage.kubelet.wait_allocatable(SIXTEENTH, 128).await.expect("all are back");
        assert!(ill(&agent, SIXTEENTH).is_empty());
    }
    let again = stage.kubelet.restart_container(&holder.uid, "main").await.expect("restarts");
    assert_eq!(again, view);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenants_own_fault_takes_nothing() {
    let stage = Stage::new(Preset::H200x8);
    let agent = stage.agent(TURNS).await;
    let cards = stage.cards(&Vendor::NVIDIA);
    let faults = stage.machine.faults();
    let subject = Subject::Device(cards[0].clone());
    let fault = Event::now(subject, Meaning::TenantFault, "xid 31");
    faults.event(&fault).expect("an event");
    // The second event comes behind the first, so the first was taken when it shows.
    let subject = Subject::Device(cards[1].clone());
    faults.condition(&subject, Meaning::Lost, "xid 79").expect("ill");
    faults.event(&Event::now(subject, Meaning::Lost, "xid 79")).expect("an event");
    stage.kubelet.wait_allocatable(SIXTEENTH, 112).await.expect("16 fewer");
    assert_eq!(ill_cards(&agent, SIXTEENTH), BTreeSet::from([cards[1].clone()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_about_a_part_takes_that_part_only() {
    let stage = Stage::new(Preset::Mixed);
    let agent = stage.agent(&mixed(&stage.machine)).await;
    let all = stage.kubelet.allocatable(MIG);
    let (sick, view) = stage.run("sick", MIG, 1).await;
    stage.run("well", MIG, 1).await;
    stage.kubelet.wait_allocatable(MIG, all).await.expect("held ids are healthy");
    let part = facts(&view).grants[0].part.clone().expect("a part");
    let subject = Subject::Part(part);
    let faults = stage.machine.faults();
    faults.condition(&subject, Meaning::NeedsReset, "xid 95").expect("ill");
    let event = Event::now(subject.clone(), Meaning::NeedsReset, "xid 95");
    faults.event(&event).expect("an event");
    stage.kubelet.wait_allocatable(MIG, all - 1).await.expect("one fewer");
    let told: BTreeSet<String> = ill(&agent, MIG).iter().map(ToString::to_string).collect();
    assert_eq!(told, sick.device_ids("main", MIG).iter().cloned().collect());
    faults.condition(&subject, Meaning::Good, "").expect("well");
    stage.kubelet.wait_allocatable(MIG, all).await.expect("it is back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_card_falls_off_under_running_pods_and_comes_back() {
    let stage = Stage::new(Preset::Mixed);
    let agent = stage.agent(&mixed(&stage.machine)).await;
    let mut pods = Vec::new();
    for (resource, count) in [(GPU, 1), (MIG, 1), (DCU, 1), (MEM, 10)] {
        pods.push((stage.run(&resource[9..], resource, count).await, resource));
    }
    stage.served(&agent).await;
    let full = stage.allocatable(&[GPU, MIG, DCU, MEM]);
    let (claims, parts, specs) = (agent.node().claims(), stage.parts(), stage.specs());
    for ((pod, view), resource) in &pods {
        let id: SlotId = pod.device_ids("main", resource)[0].parse().expect("an id");
        stage.machine.faults().lose(&id.device).expect("lost");
        let gone = || ill(&agent, resource).contains(&id);
        eventually("the card's ids to be unhealthy", gone).await;
        stage.served(&agent).await;
        for other in [GPU, MIG, DCU, MEM].iter().filter(|r| *r != resource) {
            assert_eq!(stage.kubelet.allocatable(other), full[*other], "{other} suffers");
        }
        assert_eq!(stage.kubelet.capacity(resource), capacity(&agent, resource));
        assert_eq!((agent.node().claims(), stage.specs()), (claims.clone(), specs.clone()));
        let e = stage.kubelet.restart_container(&pod.uid, "main").await;
        let e = e.expect_err("its card is away");
        assert!(!waiting(&e).is_empty());
        stage.machine.faults().restore(&id.device).expect("back");
        let back =
            |k: &vgpu_kubelet_plugin::fake::FakeKubelet| k.allocatable(resource) == full[*resource];
        stage.kubelet.wait_until("the card's ids", back).await.expect("they come back");
        assert_eq!(stage.start(&pod.uid, "main").await, *view, "as before");
    }
    assert_eq!((stage.parts(), stage.specs()), (parts, specs));
    assert!(agent.node().claims().iter().all(|c| c.state == "prepared"));
}

fn capacity(agent: &Agent, resource: &str) -> usize {
    agent.node().listing()[&ResourceName::new(resource).expect("a name")].len()
}

/// A driver that hangs is given up soon; patient enough for a busy machine all the same.
fn impatient(stage: &Stage) -> AgentOptions {
    let lanes = LaneOptions { deadline: Duration::from_secs(1), ..LaneOptions::default() };
    AgentOptions { lanes, ..stage.options(&mixed(&stage.machine)) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_that_never_returns_holds_up_its_card_only() {
    let stage = Stage::new(Preset::Mixed);
    let before = stage.parts().len();
    let agent = stage.agent_with(impatient(&stage)).await;
    let stuck = stage.admit("stuck", MEM, 4).await;
    let id: SlotId = stuck.device_ids("main", MEM)[0].parse().expect("an id");
    let faults = stage.machine.faults();
    let rule = faults.hang(Op::Create, &id.device).expect("a rule");
    let e = stage.kubelet.start_container(&stuck.uid, "main").await.expect_err("it hangs");
    assert!(waiting(&e).contains("has not answered in time"), "{e}");
    // Every other card and vendor is served, while the call hangs.
    let held = |id: &SlotId| ill(&agent, MEM).contains(id);
    eventually("the card's ids to be unhealthy", || held(&id)).await;
    stage.served(&agent).await;
    for (name, resource, count) in
        [("gpu", GPU, 1), ("mig", MIG, 1), ("dcu", DCU, 1), ("mem", MEM, 4)]
    {
        let (pod, _) = stage.run(name, resource, count).await;
        let other: SlotId = pod.device_ids("main", resource)[0].parse().expect("an id");
        assert_ne!(other.device, id.device);
    }
    assert!(faults.is_hanging().expect("known"), "all that was while it hung");
    let e = stage.kubelet.start_container(&stuck.uid, "main").await.expect_err("still");
    assert!(!waiting(&e).is_empty());
    faults.take_back(rule).expect("taken back");
    // What it made is ours: adopted, and not made twice.
    let view = stage.start(&stuck.uid, "main").await;
    stage.has_exactly(&stuck, "main", &view);
    assert_eq!(stage.parts().len(), before + 4);
    eventually("the card to be trusted again", || !held(&id)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vendor_that_answers_no_question_holds_up_itself_only() {
    let stage = Stage::new(Preset::Mixed);
    let agent = stage.agent_with(impatient(&stage)).await;
    let faults = stage.machine.faults();
    // Every reading of every DCU hangs for good.
    for card in stage.cards(&Vendor::HYGON) {
        for op in [Op::Partitions, Op::Check] {
            faults.hang(op, &card).expect("a rule");
        }
    }
    eventually("a call to hang", || faults.is_hanging().expect("known")).await;
    for (name, resource, count) in [("gpu", GPU, 1), ("mig", MIG, 1), ("mem", MEM, 4)] {
        stage.run(name, resource, count).await;
    }
    eventually("the cards to be distrusted", || ill_cards(&agent, DCU).len() == 2).await;
    stage.kubelet.wait_allocatable(DCU, 0).await.expect("nothing is promised there");
    assert!(faults.is_hanging().expect("known"));
    assert!(ill_cards(&agent, GPU).is_empty() && ill_cards(&agent, MIG).is_empty());
    faults.take_all_back().expect("taken back");
    stage.kubelet.wait_allocatable(DCU, 8).await.expect("they come back by themselves");
    stage.run("dcu", DCU, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_driver_is_noticed_and_a_new_process_goes_on() {
    let stage = Stage::new(Preset::Mixed);
    let agent = stage.agent(&mixed(&stage.machine)).await;
    let (holder, view) = stage.run("holder", MEM, 4).await;
    assert!(!agent.node().driver_replaced());
    stage.machine.faults().replace_driver().expect("replaced");
    eventually("it to be noticed", || agent.node().driver_replaced()).await;
    let claims = agent.node().claims();
    agent.stop().await;
    let agent = stage.agent(&mixed(&stage.machine)).await;
    assert!(!agent.node().driver_replaced());
    assert_eq!(agent.node().claims(), claims);
    assert_eq!(stage.start(&holder.uid, "main").await, view);
    stage.run("next", DCU, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_vanished_breaks_its_claim_and_nothing_else() {
    let stage = Stage::new(Preset::Mixed);
    let agent = stage.agent(&mixed(&stage.machine)).await;
    let (lost, view) = stage.run("lost", MEM, 4).await;
    let (other, other_view) = stage.run("other", MEM, 4).await;
    let part = facts(&view).grants[0].part.clone().expect("a part");
    stage.machine.faults().vanish(&part).expect("vanishes");
    let broken = || claim_of(&agent, &lost, "main", MEM).is_some_and(|c| c.state == "broken");
    eventually("the claim to be broken", broken).await;
    let held: BTreeSet<String> = lost.device_ids("main", MEM).iter().cloned().collect();
    let told: BTreeSet<String> = ill(&agent, MEM).iter().map(ToString::to_string).collect();
    assert!(held.is_subset(&told), "its ids are unhealthy until they are freed");
    let e = stage.kubelet.restart_container(&lost.uid, "main").await.expect_err("broken");
    assert!(waiting(&e).contains("delete the pod"), "{e}");
    assert_eq!(stage.start(&other.uid, "main").await, other_view);
    // A pod of another resource and of this one is served all the same.
    let main = ContainerSpec::app("main").request(MEM, 2);
    let side = ContainerSpec::app("side").request(DCU, 1);
    let both = stage.kubelet.admit(pod("both", [main, side])).await.expect("admitted");
    stage.start(&both.uid, "main").await;
    stage.start(&both.uid, "side").await;
}
