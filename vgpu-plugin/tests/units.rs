//! Memory units on fragmented cards: what the advertised sum admits is served, and on one card.

#![expect(clippy::print_stdout, reason = "seeds and what is skipped are told")]

mod stage;

use std::collections::BTreeSet;

use stage::raw::Raw;
use stage::{MEM, Stage, at_once, eventually};
use tonic::Code;
use vgpu_backend_mock::{Calls, Op, Preset};
use vgpu_core::id::SlotId;
use vgpu_kubelet_plugin::fake::{FakeKubelet, Pod};
use vgpu_plugin::{Agent, AgentOptions};

const LARGEST: usize = 12;

fn offer(policy: &str) -> String {
    format!("- {{resource: {MEM}, kind: unit, unit: 1Gi, largest: {LARGEST}, policy: {policy}}}")
}

/// An agent that looks at cards only when it starts, so that other vendor calls can be counted.
fn options(stage: &Stage, policy: &str) -> AgentOptions {
    let mut options = AgentOptions { absence: at_once(), ..stage.options(&offer(policy)) };
    options.config.poll.hardware_seconds = 3_600;
    options
}

/// What a scheduler knows: the node's allocatable, less what its pods ask for.
fn free(kubelet: &FakeKubelet, pods: &[Pod]) -> usize {
    let held: usize = pods.iter().map(|p| p.device_ids("main", MEM).len()).sum();
    kubelet.allocatable(MEM) - held
}

/// Calls of the kubelet's questions are none; only the thread that waits for events goes on.
fn asked(calls: &Calls) -> u64 {
    calls.total() - calls.of(Op::Wait)
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

/// Some pods end, wherever their units lie.
async fn some_end(stage: &Stage, agent: &Agent, pods: &mut Vec<Pod>, random: &mut Random) {
    for _ in 0..pods.len() / 2 {
        let pod = pods.remove(random.below(pods.len()));
        assert!(stage.kubelet.delete_pod(&pod.uid));
    }
    let all = || agent.node().claims().len() == pods.len();
    eventually("their claims to be released", all).await;
    // The last release is over, its look at the card included, when the agent asks again.
    stage::asked(&stage.kubelet, 1).await;
    has_list(stage, agent).await;
}

/// Waits until the kubelet has the agent's last list, id by id.
async fn has_list(stage: &Stage, agent: &Agent) {
    let same = || {
        let listing = agent.node().listing();
        let slots = listing[&MEM.parse_name()].iter().filter(|s| s.healthy);
        slots.map(|s| s.id.to_string()).collect::<BTreeSet<_>>() == stage.kubelet_ids(MEM)
    };
    eventually("the list", same).await;
}

async fn sixty_four(policy: &str, seed: u64) {
    println!("{policy}, seed {seed:#x}");
    let mut random = Random(seed);
    let stage = Stage::new(Preset::Mlu370x8);
    let agent = stage.agent_with(options(&stage, policy)).await;
    let mut pods: Vec<Pod> = Vec::new();
    // Every card is nearly full of small and large ones, then holes are made all over.
    while free(&stage.kubelet, &pods) >= LARGEST {
        let count = if pods.len().is_multiple_of(2) { 1 } else { 5 + random.below(LARGEST - 4) };
        let count = count.min(free(&stage.kubelet, &pods));
        let name = format!("filler-{}", pods.len());
        pods.push(stage.run(&name, MEM, count).await.0);
        has_list(&stage, &agent).await;
    }
    some_end(&stage, &agent, &mut pods, &mut random).await;
    let (mut served, mut sum) = (0, 0);
    while served < 64 {
        // The scheduler's sum may be as old as a node status.
        if served % 3 == 0 {
            has_list(&stage, &agent).await;
            sum = free(&stage.kubelet, &pods);
        }
        // Whatever the sum admits; mostly the largest that it does.
        let most = sum.min(LARGEST);
        if most == 0 {
            some_end(&stage, &agent, &mut pods, &mut random).await;
            sum = free(&stage.kubelet, &pods);
            continue;
        }
        let count = if random.below(3) == 0 { 1 + random.below(most) } else { most };
        has_list(&stage, &agent).await;
        let before = asked(&stage.machine.calls());
        let pod = stage.admit(&format!("p{served}"), MEM, count).await;
        assert_eq!(asked(&stage.machine.calls()), before, "no vendor call at admission");
        sum -= count;
        let cards: BTreeSet<_> = pod
            .device_ids("main", MEM)
            .iter()
            .map(|id| id.parse::<SlotId>().expect("an id").device)
            .collect();
        assert_eq!(cards.len(), 1);
        let view = stage.start(&pod.uid, "main").await;
        stage.has_exactly(&pod, "main", &view);
        pods.push(pod);
        served += 1;
    }
    assert_eq!(agent.node().claims().len(), pods.len());
    assert_eq!(stage.parts().len(), pods.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_requests_are_served_where_cards_are_packed() {
    sixty_four("binpack", 0x9e37_79b9).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_requests_are_served_where_cards_are_spread() {
    sixty_four("spread", 0x5851_f42d).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_that_no_container_may_have_are_refused_with_a_reason() {
    let stage = Stage::new(Preset::Mlu370x8);
    let agent = stage.agent_with(options(&stage, "binpack")).await;
    let folder = &stage.kubelet.paths().device_plugins;
    let mut raw = Raw::to(folder, MEM).await;
    let listing = agent.node().listing();
    let slots = &listing[&MEM.parse_name()];
    let id = |card: usize, n: u32| {
        let device = stage.machine.devices().expect("cards")[card].clone();
        SlotId { device, shape: "1Gi".into(), n }.to_string()
    };
    assert!(slots.iter().any(|s| s.id.to_string() == id(0, 0)));
    let before = asked(&stage.machine.calls());

    // A kubelet that follows no preference takes units of several cards.
    let e = raw.allocate(&[id(0, 0), id(1, 0), id(1, 1)]).await.expect_err("two cards");
    assert_eq!(e.code(), Code::InvalidArgument, "{e}");
    assert!(e.message().contains("3 units of vgpu.dev/mem lie on 2 cards"), "{e}");
    assert_eq!(e.message().matches("free on").count(), 8, "what each card has free: {e}");
    let many: Vec<String> = (0..13).map(|n| id(0, n)).collect();
    let e = raw.allocate(&many).await.expect_err("too many");
    assert!(e.message().contains("it allows 1 to 12"), "{e}");
    for (ids, word) in [
        (vec![], "0 ids"),
        (vec![id(0, 0), id(0, 0)], "1 of them different"),
        (vec![id(0, 4_000_000)], "no id of vgpu.dev/mem"),
        (vec![id(0, 0).replace("1Gi", "2Gi")], "no id of vgpu.dev/mem"),
        (vec!["GPU-none::1Gi.0".to_owned()], "no id of vgpu.dev/mem"),
        (vec!["nonsense".to_owned()], "nonsense"),
        (vec!["x".repeat(100_000)], "is not <device>::<shape>.<n>"),
    ] {
        let e = raw.allocate(&ids).await.expect_err(word);
        assert_eq!(e.code(), Code::InvalidArgument, "{word}: {e}");
        assert!(e.message().contains(word), "{word}: {e}");
        assert!(e.message().len() < 2_000, "{word}: a message of {} bytes", e.message().len());
    }
    let e = raw.pre_start(&[id(0, 7)]).await.expect_err("never allocated");
    assert!(e.message().contains("no allocation of vgpu.dev/mem is known"), "{e}");
    assert_eq!(asked(&stage.machine.calls()), before, "no vendor was asked");

    // An impossible preference is none, and never an error: that would reject the pod.
    let all: Vec<String> = slots.iter().map(|s| s.id.to_string()).collect();
    for size in [0, -1, i32::MAX, i32::MIN] {
        let ids = raw.prefer(&all, size).await.expect("no error");
        assert!(ids.is_empty(), "{size}");
    }
    assert_eq!(raw.prefer(&all, 9).await.expect("no error").len(), 9);
    assert_eq!(raw.prefer(&["nonsense".into(), id(3, 1)], 1).await.expect("ok"), [id(3, 1)]);

    assert!(agent.node().claims().is_empty() && stage.parts().is_empty(), "nothing was made");
    stage.run("good", MEM, 12).await;
}

trait ParseName {
    fn parse_name(&self) -> vgpu_node::ResourceName;
}

impl ParseName for str {
    fn parse_name(&self) -> vgpu_node::ResourceName {
        vgpu_node::ResourceName::new(self).expect("a name")
    }
}
