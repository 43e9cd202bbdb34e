//! Layouts: parts made ahead, changed under pods that run, through kills and reboots. On a mock machine, for every
//! scheme that has profiles.

mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vgpu_backend_mock::{MockFactory, Op, Preset};
use vgpu_core::id::{ClaimId, DeviceId, PartitionId, SlotId};
use vgpu_core::{ErrorKind, Host, Subject};
use vgpu_node::absence::AbsenceOptions;
use vgpu_node::inventory::Registry;
use vgpu_node::points::FaultPoints;
use vgpu_node::pool::{Preview, preview};
use vgpu_node::{CardLayout, KubeletView, Node};
use world::{World, allocate, healthy, resource, start, start_of};

const OFFERS: &str = r#"[
    {"resource": "vgpu.dev/small", "kind": "slice", "profile": "1g.5gb", "lifecycle": "pooled"},
    {"resource": "vgpu.dev/half", "kind": "slice", "profile": "3g.20gb", "lifecycle": "pooled"}
]"#;

/// A step, and what was there before it.
type Step = (&'static str, BTreeMap<PartitionId, String>);

const SMALL: &str = "vgpu.dev/small";
const HALF: &str = "vgpu.dev/half";

/// A layout of the first card.
fn layouts(world: &World, parts: &[(&str, u32)]) -> Vec<CardLayout> {
    let first = &world.machine.devices().expect("cards")[0];
    on(std::slice::from_ref(first), "mig", parts)
}

fn on(devices: &[DeviceId], scheme: &str, parts: &[(&str, u32)]) -> Vec<CardLayout> {
    let one =
        |(profile, count): &(&str, u32)| format!(r#"{{"profile": "{profile}", "count": {count}}}"#);
    let parts: Vec<String> = parts.iter().map(one).collect();
    let devices = serde_json::to_string(devices).expect("ids");
    let text = format!(
        r#"[{{"select": {{"devices": {devices}}}, "scheme": "{scheme}", "parts": [{}]}}]"#,
        parts.join(", ")
    );
    serde_json::from_str(&text).expect("layouts")
}

/// Part and handle of everything on the first card.
fn handles(world: &World) -> BTreeMap<PartitionId, String> {
    let first = &world.machine.devices().expect("cards")[0];
    let truth = world.machine.truth(first).expect("listed");
    truth.into_iter().map(|p| (p.id, p.handle)).collect()
}

fn locals(world: &World) -> Vec<String> {
    handles(world).keys().map(|p| p.local().to_owned()).collect()
}

fn part_of(node: &Node, claim: &ClaimId) -> PartitionId {
    let claims = node.claims();
    let status = claims.iter().find(|c| c.claim == *claim).expect("the claim");
    PartitionId::new(status.grants[0].part.clone().expect("a part")).expect("an id")
}

/// How often a driver was asked to change something.
fn changes(world: &World) -> u64 {
    let calls = world.machine.calls();
    [Op::Create, Op::Destroy, Op::Resize, Op::SetMode].iter().map(|op| calls.of(*op)).sum()
}

fn registry(world: &World) -> Registry {
    let host = || Host { root: world.dir.path().join("root"), library: None };
    let factories = MockFactory::all(&world.machine);
    factories.into_iter().fold(Registry::new(), |r, f| r.with(f, host()))
}

#[test]
fn two_parts_in_use_survive_a_new_layout_step_by_step() {
    let mut world = World::new(Preset::A100x4Mig, OFFERS);
    // At each step what is there is written down, and what step it is.
    let steps: Arc<Mutex<Vec<Step>>> = Arc::default();
    let machine = world.machine.clone();
    world.points = FaultPoints::new({
        let steps = steps.clone();
        move |name| {
            if name.starts_with("pool.") {
                let first = &machine.devices().expect("cards")[0];
                let truth = machine.truth(first).expect("listed");
                let there = truth.into_iter().map(|p| (p.id, p.handle)).collect();
                steps.lock().expect("no panic").push((name, there));
            }
        }
    });
    let node = world.node();
    node.configure(&world.offers, &layouts(&world, &[("1g.5gb", 7)])).expect("reachable");
    node.lay_out();
    assert_eq!(world.parts().len(), 7);
    assert_eq!((healthy(&node, SMALL), healthy(&node, HALF)), (7, 0));
    let mut used = BTreeSet::new();
    for _ in 0..2 {
        let (allocation, ids) = allocate(&node, SMALL, 1).expect("allocates");
        let calls = changes(&world);
        node.prepare(&start(SMALL, &ids)).expect("prepares");
        assert_eq!(changes(&world), calls, "publishing is all that PreStart does");
        used.insert(part_of(&node, &allocation.claim));
    }
    assert_eq!((used.len(), healthy(&node, SMALL)), (2, 7));
    let before = handles(&world);
    steps.lock().expect("no panic").clear();

    node.configure(&world.offers, &layouts(&world, &[("3g.20gb", 1), ("1g.5gb", 3)]))
        .expect("it is reachable");
    node.lay_out();
    assert_eq!(locals(&world).iter().filter(|l| l.starts_with("1g.5gb")).count(), 3);
    assert_eq!(locals(&world).iter().filter(|l| l.starts_with("3g.20gb")).count(), 1);
    assert_eq!(healthy(&node, HALF), 1);
    assert_eq!(healthy(&node, SMALL), 3, "two that are held, one that is idle");
    let steps = std::mem::take(&mut *steps.lock().expect("no panic"));
    let names: Vec<&str> = steps.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, [["pool.unmake"; 4].as_slice(), &["pool.make"]].concat());
    for (name, there) in steps.iter().chain([&("the end", handles(&world))]) {
        for part in &used {
            assert_eq!(there.get(part), before.get(part), "{part} at {name}");
        }
    }
    assert_eq!(node.layout_troubles(), BTreeMap::new());
    // Nothing is left to do, so nothing is done.
    let calls = changes(&world);
    node.lay_out();
    assert_eq!(changes(&world), calls);
}

#[test]
fn a_layout_waits_for_parts_in_use_and_takes_their_room_when_they_end() {
    let world = World::new(Preset::A100x4Mig, OFFERS);
    let node = world.node();
    node.configure(&world.offers, &layouts(&world, &[("1g.5gb", 7)])).expect("reachable");
    node.lay_out();
    let (first, ids) = allocate(&node, SMALL, 1).expect("allocates");
    node.prepare(&start(SMALL, &ids)).expect("prepares");
    let used = part_of(&node, &first.claim);
    // One is allocated and not started on: it is promised, and one more part stays for it.
    let (_promised, next) = allocate(&node, SMALL, 1).expect("allocates");
    node.configure(&world.offers, &layouts(&world, &[("7g.40gb", 1)])).expect("reachable");
    node.lay_out();
    assert_eq!(world.parts().len(), 2, "{:?}", locals(&world));
    let troubles = node.layout_troubles();
    let told = troubles.values().next().expect("it waits");
    assert!(told.contains("7g.40gb") && told.contains(used.as_str()), "{told}");
    node.prepare(&start(SMALL, &next)).expect("the promise is kept");

    // The pods end: their parts are unmade as idle ones, and the layout is reached.
    let world = {
        let mut world = world;
        world.absence = AbsenceOptions {
            unbroken: Duration::ZERO,
            apart: Duration::ZERO,
            age: Duration::ZERO,
            stale: Duration::ZERO,
        };
        world
    };
    drop(node);
    let node = world.node();
    node.configure(&world.offers, &layouts(&world, &[("7g.40gb", 1)])).expect("reachable");
    let nothing =
        KubeletView { checkpoint: Some(BTreeSet::new()), ..KubeletView::new(Instant::now()) };
    node.observe_kubelet(Some(&nothing));
    node.observe_kubelet(Some(&nothing));
    assert_eq!(node.claims(), []);
    assert_eq!(world.parts().len(), 2, "given back, not unmade");
    node.lay_out();
    assert_eq!(locals(&world), ["7g.40gb-0"]);
    assert_eq!(node.layout_troubles(), BTreeMap::new());
    // No layout any more: what was made ahead goes.
    node.configure(&world.offers, &[]).expect("nothing to reach");
    node.lay_out();
    assert_eq!(world.parts(), BTreeSet::new());
}

#[test]
fn a_part_given_back_and_still_held_by_processes_is_neither_given_nor_unmade() {
    let world = World::new(Preset::A100x4Mig, OFFERS);
    let node = world.node();
    let wish = layouts(&world, &[("1g.5gb", 1)]);
    node.configure(&world.offers, &wish).expect("reachable");
    node.lay_out();
    let part = world.parts().into_iter().next().expect("a part");
    world.machine.faults().hold(&Subject::Part(part.clone()), 1).expect("held");
    node.refresh();
    assert_eq!(healthy(&node, SMALL), 0);
    node.configure(&world.offers, &[]).expect("nothing to reach");
    node.lay_out();
    assert_eq!(world.parts(), BTreeSet::from([part.clone()]));
    world.machine.faults().hold(&Subject::Part(part), 0).expect("let go");
    node.lay_out();
    assert_eq!(world.parts(), BTreeSet::new());
}

#[test]
fn what_no_placement_reaches_is_refused_before_anything_is_made() {
    let world = World::new(Preset::A100x4Mig, OFFERS);
    let node = world.node();
    let good = layouts(&world, &[("1g.5gb", 2)]);
    node.configure(&world.offers, &good).expect("reachable");
    node.lay_out();
    let (parts, calls) = (world.parts(), changes(&world));
    for (wish, kind, word) in [
        (
            layouts(&world, &[("7g.40gb", 1), ("1g.5gb", 1)]),
            ErrorKind::Invalid,
            "no placement together",
        ),
        (layouts(&world, &[("9g.90gb", 1)]), ErrorKind::Invalid, "no profile 9g.90gb"),
        (layouts(&world, &[("1g.5gb", u32::MAX)]), ErrorKind::Invalid, "more than its 7 places"),
        ([good.clone(), good.clone()].concat(), ErrorKind::Invalid, "two layouts select"),
    ] {
        let error = node.configure(&world.offers, &wish).expect_err(word);
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.to_string().contains(word), "{error}");
        node.lay_out();
    }
    assert_eq!(world.parts(), parts, "the last good one stays");
    assert_eq!(changes(&world), calls);
    // A card that lacks the scheme.
    let plain = World::new(Preset::K100x8, "[]");
    let node = plain.node();
    let error = node.configure(&[], &layouts(&plain, &[("1g.5gb", 1)])).expect_err("no MIG there");
    assert_eq!(error.kind, ErrorKind::Unsupported);
    assert!(error.to_string().contains("cannot be split by mig"), "{error}");
}

#[test]
fn after_a_reboot_all_is_made_anew_and_pods_find_their_parts() {
    let world = World::new(Preset::A100x4Mig, OFFERS);
    let node = world.node();
    let wish = layouts(&world, &[("3g.20gb", 1), ("1g.5gb", 3)]);
    node.configure(&world.offers, &wish).expect("reachable");
    node.lay_out();
    let before = locals(&world);
    let (allocation, ids) = allocate(&node, SMALL, 1).expect("allocates");
    node.prepare(&start(SMALL, &ids)).expect("prepares");
    drop(node);
    world.reboot();
    assert_eq!(locals(&world), Vec::<String>::new());
    let node = world.node();
    node.configure(&world.offers, &wish).expect("reachable");
    // The container comes first: PreStart goes on with the layout itself.
    let prepared = node.prepare(&start(SMALL, &ids)).expect("prepares");
    assert_eq!(prepared, allocation.claim);
    assert!(world.spec(&allocation.claim).is_some());
    node.lay_out();
    assert_eq!(locals(&world), before);
    assert_eq!((healthy(&node, SMALL), healthy(&node, HALF)), (3, 1));
    // And once more, with the layout first.
    drop(node);
    world.reboot();
    let node = world.node();
    node.configure(&world.offers, &wish).expect("reachable");
    node.lay_out();
    node.prepare(&start(SMALL, &ids)).expect("prepares");
    assert_eq!(locals(&world), before);
}

#[test]
fn every_scheme_with_profiles_is_laid_out() {
    for (preset, scheme, parts) in [
        (Preset::Mlu370x4Mim, "mim", &[("3m.24gb", 1), ("1m.8gb", 3)][..]),
        (Preset::Bw1000x4, "hcu-mig", &[("4g.31gb", 1), ("2g.15gb", 2)]),
        (Preset::H100x8, "mig", &[("3g.40gb", 1), ("1g.10gb", 3)]),
    ] {
        let world = World::new(preset, "[]");
        let node = world.node();
        let wish = on(&world.machine.devices().expect("cards")[..1], scheme, parts);
        node.configure(&[], &wish).expect("reachable");
        node.lay_out();
        let count: u32 = parts.iter().map(|(_, n)| n).sum();
        assert_eq!(locals(&world).len() as u32, count, "{scheme}: {:?}", node.layout_troubles());
        // Of another tool nothing is touched; it is in the way and is named.
        drop(node);
        let node = world.node();
        node.configure(&[], &wish).expect("reachable");
        node.lay_out();
        assert_eq!(world.parts(), node.pool(), "{scheme}: known again after a restart");
    }
}

#[test]
fn a_dry_run_tells_the_steps_and_takes_none() {
    let world = World::new(Preset::A100x4Mig, OFFERS);
    let node = world.node();
    node.configure(&world.offers, &layouts(&world, &[("1g.5gb", 7)])).expect("reachable");
    node.lay_out();
    let (allocation, ids) = allocate(&node, SMALL, 1).expect("allocates");
    node.prepare(&start(SMALL, &ids)).expect("prepares");
    let used = part_of(&node, &allocation.claim);
    let calls = changes(&world);
    let wish = layouts(&world, &[("3g.20gb", 1), ("1g.5gb", 1)]);
    // The agent runs and holds the ledger.
    let state = world.dir.path().join("state");
    let told = preview(&state, registry(&world), &world.offers, &wish).expect("planned");
    let [Preview { plan, .. }] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((plan.keep.as_slice(), plan.unmake.len(), plan.make.len()), (&[used][..], 6, 1));
    assert_eq!(changes(&world), calls);
    let error = preview(&state, registry(&world), &[], &layouts(&world, &[("7g.40gb", 2)]));
    assert_eq!(error.expect_err("unreachable").kind, ErrorKind::Invalid);
}

/// What stands for `kill -9`.
struct Killed;

#[test]
fn kills_leak_nothing_and_never_touch_a_part_in_use() {
    std::panic::set_hook(Box::new(|info| {
        if !info.payload().is::<Killed>() {
            eprintln!("{info}");
        }
    }));
    let mut random = 0x5eed_u64;
    let mut below = move |n: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % n
    };
    let left = Arc::new(AtomicU64::new(u64::MAX));
    let mut world = World::new(Preset::A100x4Mig, OFFERS);
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
    let choices = [
        layouts(&world, &[("1g.5gb", 7)]),
        layouts(&world, &[("3g.20gb", 1), ("1g.5gb", 3)]),
        layouts(&world, &[("3g.20gb", 2)]),
        Vec::new(),
    ];
    let mut wish = choices[0].clone();
    // Pods that run: their ids, claim, and the handle of their part.
    let mut pods: Vec<(&str, Vec<SlotId>, ClaimId)> = Vec::new();
    for run in 0..200 {
        let told = format!("run {run}");
        left.store(below(70), Ordering::Relaxed);
        let killed = catch_unwind(AssertUnwindSafe(|| {
            let node = world.open().expect("opens");
            node.configure(&world.offers, &wish).expect("reachable");
            for _ in 0..20 {
                match below(5) {
                    0 => {
                        wish = choices[below(4) as usize].clone();
                        node.configure(&world.offers, &wish).expect("reachable");
                    }
                    1 => {
                        let name = if below(2) == 0 { SMALL } else { HALF };
                        if pods.len() < 5 && healthy(&node, name) > 0 {
                            let held: BTreeSet<&SlotId> = pods.iter().flat_map(|p| &p.1).collect();
                            let listing = node.listing();
                            // Until the kubelet was heard, ids of pods that have just ended are
                            // listed as they were, though the layout has them no more (ADR 19).
                            let layout = node.layout();
                            let offered =
                                |id: &SlotId| layout.resources[&resource(name)].slots(id).is_some();
                            let free = listing[&resource(name)]
                                .iter()
                                .find(|s| s.healthy && !held.contains(&s.id) && offered(&s.id));
                            let Some(free) = free else { continue };
                            let ids = vec![free.id.clone()];
                            let claim = node.allocate(&resource(name), &ids).expect("free").claim;
                            pods.push((name, ids, claim));
                            let (name, ids, claim) = pods.last().expect("a pod");
                            let uid = format!("pod-{claim}");
                            let ask = start_of(name, ids, &uid, &[claim]);
                            if let Err(e) = node.prepare(&ask) {
                                assert!(e.is_retryable(), "{told}: {e}");
                            }
                        }
                    }
                    2 if !pods.is_empty() => {
                        pods.remove(below(pods.len() as u64) as usize);
                        let claims: BTreeSet<ClaimId> =
                            pods.iter().map(|(_, _, claim)| claim.clone()).collect();
                        let view = KubeletView {
                            checkpoint: Some(claims),
                            ..KubeletView::new(Instant::now())
                        };
                        node.observe_kubelet(Some(&view));
                        node.observe_kubelet(Some(&view));
                    }
                    3 => node.refresh(),
                    _ => node.lay_out(),
                }
            }
        }));
        match killed {
            Ok(()) => {}
            Err(payload) if payload.is::<Killed>() => {}
            Err(other) => std::panic::resume_unwind(other),
        }
        left.store(u64::MAX, Ordering::Relaxed);
        if below(4) == 0 {
            // The process dies between GPU and compute instance, or between their ends.
            let node = world.open().expect("opens");
            node.configure(&world.offers, &choices[below(3) as usize]).expect("reachable");
            let op = if below(2) == 0 { Op::Create } else { Op::Destroy };
            let device = &world.machine.devices().expect("cards")[0];
            world.machine.faults().crash(op, device, 1 + below(2) as u32).expect("a rule");
            node.lay_out();
            drop(node);
            world.machine.faults().take_all_back().expect("no rules");
        }
        let node = world.open().expect("opens after the kill");
        let claimed = |node: &Node| -> BTreeMap<String, String> {
            let there = handles(&world);
            let claims = node.claims();
            let prepared = claims.iter().filter(|c| c.state == "prepared");
            prepared
                .filter_map(|c| c.grants[0].part.clone())
                .filter_map(|part| {
                    let id = PartitionId::new(part.clone()).expect("an id");
                    Some((part, there.get(&id)?.clone()))
                })
                .collect()
        };
        let running = claimed(&node);
        node.configure(&world.offers, &wish).expect("reachable");
        node.lay_out();
        assert_eq!(world.parts(), node.pool(), "{told}: leaked or lost");
        for (part, handle) in claimed(&node) {
            if let Some(before) = running.get(&part) {
                assert_eq!(&handle, before, "{told}: {part} was made anew under a pod");
            }
        }
        for (name, ids, claim) in &pods {
            let uid = format!("pod-{claim}");
            let ask = start_of(name, ids, &uid, &[claim]);
            match node.prepare(&ask) {
                Ok(prepared) => assert_eq!(prepared, *claim, "{told}"),
                // Its profile went with the layout before it started: it waits, and says so.
                Err(e) => {
                    let waits = matches!(
                        e.kind,
                        ErrorKind::Exhausted | ErrorKind::Busy | ErrorKind::Invalid
                    );
                    assert!(waits, "{told}: {e}");
                }
            }
        }
        // No part is in two claims.
        let claims = node.claims();
        let parts: Vec<String> =
            claims.iter().flat_map(|c| &c.grants).filter_map(|g| g.part.clone()).collect();
        let unique: BTreeSet<&String> = parts.iter().collect();
        assert_eq!(unique.len(), parts.len(), "{told}: {parts:?}");
    }
}
