//! The agent ends at every step of prepare and release, and is started anew: nothing is lost, leaked
//! or doubled. Ends are placed by counting fault points, never by time.

mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use vgpu_backend_mock::{Op, Preset};
use vgpu_core::id::{ClaimId, SlotId};
use vgpu_node::absence::AbsenceOptions;
use vgpu_node::points::FaultPoints;
use vgpu_node::{KubeletView, Node};
use world::{World, resource, start_of};

const OFFERS: &str = r#"[
    {"resource": "vgpu.dev/whole", "kind": "whole",
     "select": {"vendors": ["nvidia"]}},
    {"resource": "vgpu.dev/dcu", "kind": "slice", "slots": 4, "select": {"vendors": ["hygon"]}},
    {"resource": "vgpu.dev/mem", "kind": "unit", "unit": "1Gi", "largest": 8,
     "select": {"vendors": ["cambricon"]}}
]"#;

const MIG: &str = r#"[
    {"resource": "vgpu.dev/mig", "kind": "slice", "profile": "1g.5gb"}
]"#;

const LIBRARY: &str = r#"[
    {"resource": "vgpu.dev/dcu", "kind": "slice", "slots": 4}
]"#;

/// What stands for `kill -9`.
struct Killed;

/// A kubelet on paper: which ids its pods hold, and which claim it got for them.
#[derive(Default)]
struct Paper {
    pods: BTreeMap<String, (String, Vec<SlotId>, ClaimId)>,
    serial: u64,
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n.max(1)
    }
}

/// One machine's life: `runs` kills, each at a random one of the next fault points.
fn lives(preset: Preset, offers: &str, resources: &[&str], runs: u32, seed: u64) {
    let mut random = Random(seed);
    let left = Arc::new(AtomicU64::new(u64::MAX));
    let mut world = World::new(preset, offers);
    world.points = FaultPoints::new({
        let left = left.clone();
        move |_| {
            if left.fetch_sub(1, Ordering::Relaxed) == 0 {
                std::panic::panic_any(Killed);
            }
        }
    });
    let at_once = Duration::ZERO;
    world.absence =
        AbsenceOptions { unbroken: at_once, apart: at_once, age: at_once, stale: at_once };
    let others: BTreeSet<_> = world.parts();
    let mut paper = Paper::default();
    for run in 0..runs {
        left.store(random.below(60), Ordering::Relaxed);
        let killed = catch_unwind(AssertUnwindSafe(|| {
            let node = world.open().expect("opens");
            // Until the kill comes; with few pods a round may need several turns for 60 points.
            for _ in 0..40 {
                turn(&node, &world, &mut paper, resources, &mut random);
            }
        }));
        match killed {
            Ok(()) => {}
            Err(payload) if payload.is::<Killed>() => {}
            Err(other) => std::panic::resume_unwind(other),
        }
        left.store(u64::MAX, Ordering::Relaxed);
        if random.below(4) == 0 {
            crash_in_the_driver(&world, &mut paper, resources, &mut random);
        }
        let node = world.open().expect("opens after the kill");
        judge(&node, &world, &paper, &others, &format!("seed {seed:#x}, run {run}"));
        if run % 50 == 49 {
            all_pods_end(&node, &world, &mut paper, &others, &format!("seed {seed:#x}, run {run}"));
        }
    }
}

/// The kubelet lists nothing any more: everything is taken down, and nothing of ours is left.
fn all_pods_end(
    node: &Node,
    world: &World,
    paper: &mut Paper,
    others: &BTreeSet<vgpu_core::PartitionId>,
    told: &str,
) {
    paper.pods.clear();
    let nothing =
        KubeletView { checkpoint: Some(BTreeSet::new()), ..KubeletView::new(Instant::now()) };
    node.observe_kubelet(Some(&nothing));
    node.observe_kubelet(Some(&nothing));
    assert_eq!(node.claims(), [], "{told}");
    assert_eq!(world.parts(), *others, "{told}");
    assert!(world.specs().is_empty(), "{told}");
}

/// Something that a kubelet does.
fn turn(
    node: &Arc<Node>,
    world: &World,
    paper: &mut Paper,
    resources: &[&str],
    random: &mut Random,
) {
    match random.below(5) {
        0 | 1 => {
            let name = resources[random.below(resources.len() as u64) as usize];
            admit(node, paper, name, random);
        }
        2 => {
            // A pod ends. The kubelet tells nobody.
            let gone =
                paper.pods.keys().nth(random.below(paper.pods.len() as u64) as usize).cloned();
            gone.map(|pod| paper.pods.remove(&pod));
        }
        3 => {
            let pods: Vec<_> = paper.pods.keys().cloned().collect();
            if !pods.is_empty() {
                let pod = &pods[random.below(pods.len() as u64) as usize];
                begin(node, paper, pod);
            }
        }
        _ => node.refresh(),
    }
    let _ = world;
}

/// Admits a pod with ids that are free in the kubelet's eyes, whatever the agent thinks.
fn admit(node: &Node, paper: &mut Paper, name: &str, random: &mut Random) {
    let held: BTreeSet<&SlotId> = paper.pods.values().flat_map(|(_, ids, _)| ids).collect();
    let listing = node.listing();
    let Some(slots) = listing.get(&resource(name)) else { return };
    let available: Vec<SlotId> =
        slots.iter().filter(|s| s.healthy && !held.contains(&s.id)).map(|s| s.id.clone()).collect();
    let count = if name == "vgpu.dev/mem" { 1 + random.below(8) as usize } else { 1 };
    let ids = node.prefer(&resource(name), &available, &[], count);
    if ids.len() != count {
        return;
    }
    let allocation = node.allocate(&resource(name), &ids).expect("preferred ids are not refused");
    paper.serial += 1;
    let pod = format!("pod-{}", paper.serial);
    paper.pods.insert(pod.clone(), (name.to_owned(), ids, allocation.claim));
    begin(node, paper, &pod);
}

/// Starts a pod's container, as often as the kubelet does.
fn begin(node: &Node, paper: &Paper, pod: &str) {
    let (name, ids, claim) = &paper.pods[pod];
    match node.prepare(&start_of(name, ids, pod, &[claim])) {
        Ok(prepared) => assert_eq!(prepared, *claim),
        Err(e) => assert!(e.is_retryable(), "{pod}: {e}"),
    }
}

/// The process dies between two calls of the vendor's library.
fn crash_in_the_driver(world: &World, paper: &mut Paper, resources: &[&str], random: &mut Random) {
    let node = world.open().expect("opens");
    let devices = world.machine.devices().expect("cards");
    let device = &devices[random.below(devices.len() as u64) as usize];
    let op = if random.below(2) == 0 { Op::Create } else { Op::Destroy };
    world.machine.faults().crash(op, device, 1 + random.below(3) as u32).expect("a rule");
    for _ in 0..12 {
        turn(&node, world, paper, resources, random);
    }
    drop(node);
    world.machine.faults().take_all_back().expect("no rules");
}

fn judge(
    node: &Arc<Node>,
    world: &World,
    paper: &Paper,
    others: &BTreeSet<vgpu_core::PartitionId>,
    told: &str,
) {
    // Every spec has its part.
    let specs = world.specs();
    for status in node.claims() {
        if specs.contains(status.claim.as_str()) {
            for part in status.grants.iter().filter_map(|g| g.part.clone()) {
                let there = world.parts().iter().any(|p| p.as_str() == part);
                assert!(there, "{told}: the spec of {} has no part {part}", status.claim);
            }
        }
    }
    // Every pod's container can be started, under the name that the kubelet has.
    for (pod, (name, ids, claim)) in &paper.pods {
        let ask = start_of(name, ids, pod, &[claim]);
        let prepared = (0..3).find_map(|_| node.prepare(&ask).ok());
        assert_eq!(prepared.as_ref(), Some(claim), "{told}: {pod}: {:?}", node.prepare(&ask));
        let spec = world.spec(claim).unwrap_or_else(|| panic!("{told}: no spec for {pod}"));
        assert_eq!(spec.devices[0].name, claim.as_str());
    }
    // No part is in two claims, none belongs to nobody, and what others made is still there.
    let claims = node.claims();
    let mut owned: BTreeMap<String, ClaimId> = BTreeMap::new();
    for claim in &claims {
        for part in claim.grants.iter().filter_map(|g| g.part.clone()) {
            let other = owned.insert(part.clone(), claim.claim.clone());
            assert!(other.is_none(), "{told}: {part} is in {other:?} and {}", claim.claim);
        }
    }
    for part in world.parts() {
        let ours = owned.contains_key(part.as_str());
        let unsettled = claims
            .iter()
            .any(|c| c.state != "prepared" && c.grants.iter().any(|g| part.device() == g.device));
        assert!(ours || unsettled || others.contains(&part), "{told}: {part} leaked");
    }
    assert!(others.iter().all(|p| world.parts().contains(p)), "{told}: a foreign part is gone");
    let specs: Vec<String> = world.specs().into_iter().collect();
    for spec in &specs {
        assert!(claims.iter().any(|c| c.claim.as_str() == spec), "{told}: stray spec {spec}");
    }
}

fn quiet_about_kills() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !info.payload().is::<Killed>() {
                before(info);
            }
        }));
    });
}

// A thousand kills in all; in four tests, so that they run side by side.

const MIXED: [&str; 3] = ["vgpu.dev/whole", "vgpu.dev/dcu", "vgpu.dev/mem"];

#[test]
fn kills_lose_leak_and_double_nothing_on_a_mixed_node() {
    quiet_about_kills();
    lives(Preset::Mixed, OFFERS, &MIXED, 250, 0x1001);
}

#[test]
fn kills_lose_leak_and_double_nothing_on_another_mixed_node() {
    quiet_about_kills();
    lives(Preset::Mixed, OFFERS, &MIXED, 250, 0x2002);
}

#[test]
fn kills_lose_leak_and_double_nothing_where_placement_tells_ours() {
    quiet_about_kills();
    lives(Preset::A100x4Mig, MIG, &["vgpu.dev/mig"], 250, 0x3003);
}

#[test]
fn kills_lose_leak_and_double_nothing_where_difference_tells_ours() {
    quiet_about_kills();
    lives(Preset::K100x4Library, LIBRARY, &["vgpu.dev/dcu"], 250, 0x4004);
}
