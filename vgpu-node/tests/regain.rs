//! The ledger is lost while pods hold parts that were made ahead, and that carry no tag of their claims. On a mock
//! machine, for every scheme that has profiles.

mod world;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vgpu_backend_mock::{MockFactory, Op, Preset};
use vgpu_core::id::{ClaimId, PartitionId, ProfileId, SlotId};
use vgpu_core::{CreateOrder, Host, Placement, Scheme, Shape};
use vgpu_node::absence::AbsenceOptions;
use vgpu_node::inventory::Registry;
use vgpu_node::{Allocated, CardLayout, KubeletView, Node};
use world::{World, allocate, resource, start};

const SMALL: &str = "vgpu.dev/small";

/// A machine, a scheme and profile, and how many of them the first card shall have.
type Kind = (Preset, &'static str, &'static str, u32);

const MIG: Kind = (Preset::A100x4Mig, "mig", "1g.5gb", 7);
const MIM: Kind = (Preset::Mlu370x4Mim, "mim", "1m.8gb", 3);
const HCU: Kind = (Preset::Bw1000x4, "hcu-mig", "2g.15gb", 3);

/// A machine with a layout, of whose parts pods hold some.
struct Stage {
    kind: Kind,
    world: World,
    pods: Vec<Allocated>,
}

impl Stage {
    fn new(pods: usize) -> Self {
        Self::of(MIG, pods)
    }

    fn of(kind: Kind, pods: usize) -> Self {
        let (preset, scheme, profile, _) = kind;
        let offers = serde_json::json!([{
            "resource": SMALL, "kind": "slice", "profile": profile, "schemes": [scheme], "lifecycle": "pooled",
        }]);
        let zero = Duration::ZERO;
        let absence = AbsenceOptions { unbroken: zero, apart: zero, age: zero, stale: zero };
        let world = World { absence, ..World::new(preset, &offers.to_string()) };
        let mut stage = Self { kind, world, pods: Vec::new() };
        let node = stage.open();
        node.lay_out();
        stage.pods = (0..pods).map(|_| pod(&node)).collect();
        stage
    }

    fn open(&self) -> Arc<Node> {
        let host = || Host { root: self.world.dir.path().join("root"), library: None };
        let factories = MockFactory::all(&self.world.machine);
        let registry = factories.into_iter().fold(Registry::new(), |r, f| r.with(f, host()));
        let (node, _) = Node::open(self.world.options(), registry).expect("opens");
        node.refresh();
        let first = &self.world.machine.devices().expect("cards")[0];
        let (_, scheme, profile, count) = self.kind;
        let layouts: Vec<CardLayout> = serde_json::from_value(serde_json::json!([{
            "select": {"devices": [first]}, "scheme": scheme,
            "parts": [{"profile": profile, "count": count}],
        }]))
        .expect("a layout");
        node.configure(&self.world.offers, &layouts).expect("reachable");
        node
    }

    /// The next run of the agent, without the ledger of the last.
    fn open_without_ledger(&self) -> Arc<Node> {
        fs::remove_file(self.world.dir.path().join("state/journal")).expect("it was there");
        self.open()
    }

    /// The folder of a claim's files, and its spec.
    fn published(&self, claim: &ClaimId) -> [PathBuf; 2] {
        let folder = self.world.dir.path().join("state/claims").join(claim.as_str());
        [folder, self.world.cdi_dir().join(format!("vgpu.dev-claim_{claim}.json"))]
    }

    /// Has a claim's file name what that of another does.
    fn forge(&self, of: &ClaimId, from: &str, to: &str) {
        let [folder, _] = self.published(of);
        let file = fs::read_dir(folder).expect("a folder").next().expect("a file").expect("named");
        let text = fs::read_to_string(file.path()).expect("text");
        assert!(text.contains(from), "{from} in {text}");
        fs::remove_file(file.path()).expect("it was there");
        fs::write(file.path(), text.replace(from, to)).expect("written");
    }
}

fn pod(node: &Node) -> Allocated {
    let (allocation, ids) = allocate(node, SMALL, 1).expect("allocates");
    node.prepare(&start(SMALL, &ids)).expect("prepares");
    let claim = allocation.claim;
    Allocated { claim, resource: resource(SMALL), ids: ids.into_iter().collect() }
}

fn part(node: &Node, pod: &Allocated) -> Option<PartitionId> {
    let claims = node.claims();
    let status = claims.iter().find(|c| c.claim == pod.claim)?;
    let part = status.grants.first()?.part.clone()?;
    Some(PartitionId::new(part).expect("an id"))
}

fn parts(node: &Node, pods: &[Allocated]) -> Vec<Option<PartitionId>> {
    pods.iter().map(|pod| part(node, pod)).collect()
}

/// What each pod has, as long as the ledger is there.
fn held(stage: &Stage) -> Vec<PartitionId> {
    let node = stage.open();
    stage.pods.iter().map(|pod| part(&node, pod).expect("it is prepared")).collect()
}

fn restart(node: &Node, pod: &Allocated) -> vgpu_core::Result<ClaimId> {
    let ids: Vec<SlotId> = pod.ids.iter().cloned().collect();
    node.prepare(&start(SMALL, &ids))
}

fn copy(from: &Path, to: &Path) {
    if from.is_file() {
        fs::copy(from, to).expect("copied");
        return;
    }
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        copy(&entry.path(), &to.join(entry.file_name()));
    }
}

#[test]
fn parts_that_pods_hold_are_theirs_again_and_go_back_to_the_layout() {
    for kind in [MIG, MIM, HCU] {
        println!("{kind:?}");
        all_of_it(kind);
    }
}

fn all_of_it(kind: Kind) {
    let stage = Stage::of(kind, 2);
    let held = held(&stage);
    let all = stage.world.parts();
    let node = stage.open_without_ledger();
    assert!(node.pool().is_empty(), "nothing is known");
    assert_eq!(node.adopt(&stage.pods), 2);
    assert_eq!(parts(&node, &stage.pods), [Some(held[0].clone()), Some(held[1].clone())]);
    assert_eq!(node.pool(), held.iter().cloned().collect());

    // A container restarts, and gets the part that it had.
    let made = stage.world.machine.calls().of(Op::Create);
    assert_eq!(restart(&node, &stage.pods[0]).expect("as before"), stage.pods[0].claim);
    assert_eq!(part(&node, &stage.pods[0]).as_ref(), Some(&held[0]));
    assert_eq!(stage.world.machine.calls().of(Op::Create), made);

    // The next run knows it from the ledger, and when its pod ends the part is the layout's.
    drop(node);
    let node = stage.open();
    assert_eq!(node.adopt(&stage.pods), 0, "nothing is to be taken up");
    assert_eq!(parts(&node, &stage.pods), [Some(held[0].clone()), Some(held[1].clone())]);
    let nothing =
        KubeletView { checkpoint: Some(BTreeSet::new()), ..KubeletView::new(Instant::now()) };
    node.observe_kubelet(Some(&nothing));
    assert!(node.claims().is_empty());
    node.lay_out();
    assert!(held.iter().all(|part| node.pool().contains(part)), "{:?}", node.pool());
    assert!(stage.world.parts().is_superset(&all), "nothing of the rest was touched");
    let next: Vec<Allocated> = (0..node.pool().len()).map(|_| pod(&node)).collect();
    assert_eq!(parts(&node, &next).into_iter().flatten().collect::<BTreeSet<_>>(), node.pool());
}

#[test]
fn without_its_claim_in_the_checkpoint_a_file_proves_nothing() {
    let stage = Stage::new(2);
    let held = held(&stage);
    let node = stage.open_without_ledger();
    assert_eq!(node.adopt(&stage.pods[..1]), 1);
    assert_eq!(node.pool(), [held[0].clone()].into());
    assert_eq!(node.adopt(&stage.pods), 1, "later the files are no witness any more");
    assert_eq!(node.pool(), [held[0].clone()].into());
}

#[test]
fn a_file_that_names_the_part_of_another_claim_gives_it_to_neither() {
    let stage = Stage::new(3);
    let held = held(&stage);
    stage.forge(&stage.pods[0].claim, held[0].local(), held[1].local());
    let node = stage.open_without_ledger();
    assert_eq!(node.adopt(&stage.pods), 3);
    assert_eq!(parts(&node, &stage.pods), [None, None, Some(held[2].clone())]);
    assert_eq!(node.pool(), [held[2].clone()].into());
    restart(&node, &stage.pods[0])
        .expect_err("it has no part, and is given none that may be another's");
}

#[test]
fn a_file_of_another_claim_or_size_proves_nothing() {
    let stage = Stage::new(3);
    let held = held(&stage);
    let claims: Vec<&str> = stage.pods.iter().map(|pod| pod.claim.as_str()).collect();
    stage.forge(&stage.pods[0].claim, claims[0], "vgpu-00000000000000000000");
    stage.forge(&stage.pods[1].claim, "\"memory\": \"", "\"memory\": \"1");
    let node = stage.open_without_ledger();
    node.adopt(&stage.pods);
    assert_eq!(parts(&node, &stage.pods), [None, None, Some(held[2].clone())]);
}

#[test]
fn a_part_that_was_given_anew_is_its_new_claims() {
    for lost in [false, true] {
        let mut stage = Stage::new(1);
        let held = held(&stage);
        let old = stage.pods[0].clone();
        // A backup has the files of a claim that ended since; the kubelet's checkpoint still names it.
        let kept = stage.world.dir.path().join("kept");
        stage.published(&old.claim).iter().enumerate().for_each(|(n, path)| {
            copy(path, &kept.join(n.to_string()));
        });
        let node = stage.open();
        let ids: Vec<SlotId> = old.ids.iter().cloned().collect();
        let allocation = node.allocate(&old.resource, &ids).expect("allocated anew");
        node.prepare(&start(SMALL, &ids)).expect("prepares");
        let new = Allocated { claim: allocation.claim, ..old.clone() };
        assert_eq!(part(&node, &new).as_ref(), Some(&held[0]), "the same part");
        drop(node);
        stage.published(&old.claim).iter().enumerate().for_each(|(n, path)| {
            copy(&kept.join(n.to_string()), path);
        });
        if !lost {
            // Of the new one only the ledger knows.
            fs::remove_file(&stage.published(&new.claim)[1]).expect("it was there");
        }
        stage.pods.push(new.clone());
        let node = if lost { stage.open_without_ledger() } else { stage.open() };
        node.adopt(&stage.pods);
        assert_eq!(part(&node, &old), None);
        // Without the ledger nobody knows which of both files is the older one.
        assert_eq!(part(&node, &new), (!lost).then(|| held[0].clone()));
    }
}

#[test]
fn files_of_an_earlier_boot_and_files_without_a_spec_prove_nothing() {
    for case in ["boot", "spec", "mark"] {
        let stage = Stage::new(1);
        let dir = stage.world.dir.path();
        match case {
            // Another tool may have made the same parts at the same places since.
            "boot" => {
                let file = dir.join("root/proc/sys/kernel/random/boot_id");
                fs::write(file, "another\n").expect("written");
            }
            "spec" => fs::remove_dir_all(stage.world.cdi_dir()).expect("it was there"),
            _ => fs::remove_file(dir.join("state/claims.boot")).expect("it was there"),
        }
        let node = stage.open_without_ledger();
        assert_eq!(node.adopt(&stage.pods), 1, "{case}");
        assert_eq!(part(&node, &stage.pods[0]), None, "{case}");
        assert!(node.pool().is_empty(), "{case}");
    }
}

#[test]
fn a_part_that_is_gone_is_not_regained() {
    let stage = Stage::new(2);
    let held = held(&stage);
    stage.world.machine.faults().vanish(&held[0]).expect("gone");
    let node = stage.open_without_ledger();
    node.adopt(&stage.pods);
    assert_eq!(parts(&node, &stage.pods), [None, Some(held[1].clone())]);
}

#[test]
fn a_part_that_another_tool_named_is_never_regained() {
    let stage = Stage::of((MIM.0, MIM.1, MIM.2, 2), 2);
    let held = held(&stage);
    let device = stage.world.machine.describe(&held[0].device()).expect("a card");
    let profile = ProfileId::new(MIM.2).expect("a profile");
    let info = device.scheme(&Scheme::MIM).expect("its scheme");
    let places = info.profile(&profile).expect("in its table").placements.iter();
    let orders = places.map(|slots| {
        let shape = Shape::Profile(profile.clone());
        let claim = ClaimId::new("vgpu-of-a-tool").expect("a claim id");
        CreateOrder::admit(&device, &Scheme::MIM, shape, Placement::Slots(*slots), claim)
    });
    let faults = stage.world.machine.faults();
    let mut made = orders.filter_map(|order| faults.foreign(&order.expect("a place")).ok());
    let theirs = made.next().expect("there is room for one more");
    stage.forge(&stage.pods[0].claim, held[0].local(), theirs.id.local());
    let node = stage.open_without_ledger();
    node.adopt(&stage.pods);
    assert_eq!(parts(&node, &stage.pods), [None, Some(held[1].clone())]);
    assert_eq!(node.pool(), [held[1].clone()].into());
}

#[test]
fn where_the_boot_cannot_be_written_down_all_goes_on_and_nothing_is_proven() {
    let stage = Stage::new(1);
    let mark = stage.world.dir.path().join("state/claims.boot");
    fs::remove_file(&mark).expect("it was there");
    fs::create_dir(&mark).expect("a folder in its place");
    assert_eq!(held(&stage).len(), 1, "it opens, and the ledger has all");
    let node = stage.open_without_ledger();
    assert_eq!(node.adopt(&stage.pods), 1);
    assert_eq!(parts(&node, &stage.pods), [None]);
}
