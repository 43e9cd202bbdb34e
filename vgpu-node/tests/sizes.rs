//! A driver that keeps sixteen sizes, and another tool that takes the place of one that was promised.

mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use vgpu_backend_mock::Preset;
use vgpu_core::guarantee::{ComputeKind, Enforcement, Guarantees};
use vgpu_core::id::{ClaimId, DeviceId, SlotId};
use vgpu_core::order::CreateOrder;
use vgpu_core::plan::Held;
use vgpu_core::{Bytes, Device, ErrorKind, Partition, Placement, Scheme, Shape, Size, Vendor};
use vgpu_node::Node;
use vgpu_node::claim::{ClaimRecord, Claims, Stage, Wanted};
use vgpu_node::listing::{self, CardView, Drained};
use vgpu_node::slots::Layout;
use world::{World, resource, start};

const SLICE: &str = "vgpu.dev/slice";
const OFFER: &str = r#"[{"resource": "vgpu.dev/slice", "kind": "slice", "size": {"memory": "1Gi"},
    "schemes": ["smlu"], "select": {"vendors": ["cambricon"]}}]"#;

/// So many times 256 MiB; the offer's is 4.
fn size(n: u64) -> Size {
    Size { memory: Some(Bytes::mib(256 * n)), ..Size::ANY }
}

/// Another tool makes a part.
fn foreign(world: &World, card: &DeviceId, n: u64) -> Partition {
    let device = world.machine.describe(card).expect("a card");
    let claim = ClaimId::new(format!("other-{n}")).expect("a claim id");
    let shape = Shape::Size(size(n));
    let order = CreateOrder::admit(&device, &Scheme::SMLU, shape, Placement::Driver, claim);
    world.machine.faults().foreign(&order.expect("on the grid")).expect("made")
}

/// The free ids of a card that are told healthy.
fn told(node: &Node, card: &DeviceId) -> Vec<SlotId> {
    let held: Vec<SlotId> = node.claims().into_iter().flat_map(|c| c.ids).collect();
    let listing = node.listing();
    let slots = listing[&resource(SLICE)].iter().filter(|s| s.healthy && s.id.device == *card);
    slots.map(|s| s.id.clone()).filter(|id| !held.contains(id)).collect()
}

fn opened() -> (World, Arc<Node>, DeviceId, Vec<SlotId>) {
    let world = World::new(Preset::Mlu370x8, OFFER);
    let node = world.node();
    let card = node.listing()[&resource(SLICE)][0].id.device.clone();
    let ids = told(&node, &card)[..1].to_vec();
    node.allocate(&resource(SLICE), &ids).expect("allocates");
    assert!(!told(&node, &card).is_empty(), "a promised size can be joined");
    (world, node, card, ids)
}

#[test]
fn a_card_on_which_another_tool_makes_parts_is_told_full_and_serves_its_promise_once_they_are_gone()
{
    let (world, node, card, ids) = opened();
    let others: Vec<Partition> =
        (1..18).filter(|n| *n != 4).map(|n| foreign(&world, &card, n)).collect();
    node.refresh();
    assert_eq!(told(&node, &card), [], "sixteen sizes, and not ours among them");
    let error = node.prepare(&start(SLICE, &ids)).expect_err("the driver has sixteen others");
    assert_eq!(error.kind, ErrorKind::Exhausted, "{error}");
    assert!(error.is_retryable(), "{error}");

    for part in &others {
        world.machine.faults().vanish(&part.id).expect("gone");
    }
    node.refresh();
    let free = told(&node, &card);
    node.prepare(&start(SLICE, &ids)).expect("the promise is kept");
    node.allocate(&resource(SLICE), &free[..1]).expect("allocates");
    node.prepare(&start(SLICE, &free[..1])).expect("as told");
}

/// The driver has one more size than the list knows of: a part that the last look did not see.
#[test]
fn a_place_that_was_taken_since_the_last_look_is_found_before_anything_is_made() {
    let (world, node, card, ids) = opened();
    let last = foreign(&world, &card, 5);
    let error = node.prepare(&start(SLICE, &ids)).expect_err("a stranger is on the card");
    assert_eq!(error.kind, ErrorKind::Exhausted, "{error}");
    assert_eq!(world.machine.truth(&card).expect("listed"), [last], "nothing was made");
    node.refresh();
    assert_eq!(told(&node, &card), []);
}

/// What a list says of a card whose parts are kept apart by hardware, so that strangers may be neighbours.
struct Paper {
    device: Device,
    layout: Layout,
    claims: Claims,
}

impl Paper {
    /// The card with one id that is allocated.
    fn new() -> Self {
        let world = World::new(Preset::Mlu370x8, OFFER);
        let card = world.cards(&Vendor::CAMBRICON).remove(0);
        let mut device = world.machine.describe(&card).expect("a card");
        for info in &mut device.schemes {
            info.guarantees = Guarantees::uniform(Enforcement::Hardware, ComputeKind::Partition);
        }
        let layout = Layout::of(&world.offers, &[], &[&device]).expect("one offer");
        let offer = &world.offers[0];
        let slots = &layout.resources[&offer.resource].cards[&card];
        let mut claims = Claims::default();
        claims.open(ClaimRecord {
            claim: ClaimId::new("vgpu-0").expect("a claim id"),
            aliases: Vec::new(),
            resource: offer.resource.clone(),
            ids: [SlotId { device: card.clone(), shape: slots.shape.clone(), n: 0 }].into(),
            holder: None,
            domain: offer.domain.clone(),
            minimum: offer.minimum,
            wanted: vec![Wanted {
                device: card,
                scheme: slots.scheme.clone(),
                wants: vec![slots.want.clone()],
                modes: offer.modes(),
                lifecycle: offer.lifecycle,
            }],
            stage: Stage::Open,
            grants: Vec::new(),
            container: None,
            every_device: false,
            opened: SystemTime::UNIX_EPOCH,
        });
        Self { device, layout, claims }
    }

    /// How many free ids are told beside parts of other tools.
    fn told(&self, foreign: impl IntoIterator<Item = u64>) -> usize {
        let held = |n: u64| Held {
            device: self.device.id.clone(),
            scheme: Scheme::SMLU,
            size: size(n),
            placement: Placement::Driver,
            profile: None,
            domain: None,
        };
        let view = CardView {
            device: &self.device,
            open: true,
            foreign: foreign.into_iter().map(held).collect(),
            ailing: BTreeSet::new(),
            pooled: BTreeMap::new(),
        };
        let cards = BTreeMap::from([(self.device.id.clone(), view)]);
        let listing = listing::of(&self.layout, &cards, &self.claims, Drained::Closed);
        listing[&resource(SLICE)].iter().filter(|s| s.healthy).count() - 1
    }
}

#[test]
fn a_promised_size_whose_place_is_taken_is_joined_by_nobody_even_where_strangers_are_neighbours() {
    let paper = Paper::new();
    assert!(paper.told([]) > 1);
    assert!(paper.told((1..17).filter(|n| *n != 4).take(15)) > 0, "the sixteenth is the promised");
    assert_eq!(paper.told((1..18).filter(|n| *n != 4)), 0, "sixteen others are there");
    assert!(paper.told(1..17) > 0, "sixteen are there, and another tool has one of its size");
}
