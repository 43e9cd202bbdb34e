//! What fits on each kind of card, and what a driver refuses.

use std::sync::Arc;

use vgpu_backend_mock::{Machine, MockFactory, Preset};
use vgpu_core::scheme::{ComputeGrid, MemoryGrid};
use vgpu_core::{
    Backend, BackendExt, BackendFactory, Bytes, ClaimId, ComputeShare, CreateOrder, Device,
    ErrorKind, Host, Partition, Placement, Probe, ProfileId, Result, Scheme, Shape, Size, Slots,
};

struct Bench {
    machine: Arc<Machine>,
    backend: Arc<dyn Backend>,
    device: Device,
    claims: u32,
}

impl Bench {
    fn new(preset: Preset) -> Self {
        let machine = Machine::new(preset).expect("a machine");
        let Probe::Ready(backend) = MockFactory::combined(&machine).probe(&Host::default()) else {
            panic!("the machine has cards");
        };
        let device = backend.scan().expect("a scan").devices.remove(0);
        Self { machine, backend, device, claims: 0 }
    }

    fn create(&mut self, scheme: Scheme, shape: Shape, at: Placement) -> Result<Partition> {
        self.claims += 1;
        let claim = ClaimId::new(format!("claim-{}", self.claims)).expect("a claim");
        let device = self.backend.device(&self.device.id).expect("a card");
        let order = CreateOrder::admit(&device, &scheme, shape, at, claim).expect("an order");
        self.backend.create(&order)
    }

    fn profile(&mut self, name: &str, start: u32, len: u32) -> Result<Partition> {
        let id = ProfileId::new(name).expect("a profile");
        self.create(Scheme::MIG, Shape::Profile(id), Placement::Slots(Slots::new(start, len)))
    }

    fn smlu(&mut self, percent: u32, memory: Bytes) -> Result<Partition> {
        let of = std::num::NonZeroU32::new(100).expect("not 0");
        let compute = Some(ComputeShare { units: percent, of });
        let shape = Shape::Size(Size { compute, memory: Some(memory) });
        self.create(Scheme::SMLU, shape, Placement::Driver)
    }

    fn vdcu(&mut self, mask: [u64; 2], memory: Bytes, at: Option<Placement>) -> Result<Partition> {
        let units = mask[0].count_ones() + mask[1].count_ones();
        let compute = Some(ComputeShare { units, of: self.device.compute_units });
        let shape = Shape::Size(Size { compute, memory: Some(memory) });
        self.create(Scheme::VDCU, shape, at.unwrap_or(Placement::Units(mask.to_vec())))
    }
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.expect_err("it is refused").kind
}

#[test]
fn mig_packs_by_placement_and_by_engine() {
    let mut bench = Bench::new(Preset::A100x4Mig);
    bench.profile("4g.20gb", 0, 4).expect("the left half is free");
    assert_eq!(kind(bench.profile("1g.5gb", 3, 1)), ErrorKind::Exhausted);
    bench.profile("1g.5gb+me", 4, 1).expect("slot 4 is free");
    // The media engine is one, whichever slots are free.
    assert_eq!(kind(bench.profile("1g.5gb+me", 5, 1)), ErrorKind::Exhausted);
    bench.profile("1g.5gb", 5, 1).expect("slot 5 is free");
    bench.profile("1g.5gb", 6, 1).expect("slot 6 is free");
    // 4 + 3 slices are all seven: the eighth memory slice helps nobody.
    assert_eq!(kind(bench.profile("1g.10gb", 6, 2)), ErrorKind::Exhausted);
}

#[test]
fn mig_handles_change_and_ids_stay_when_a_part_is_made_anew() {
    let mut bench = Bench::new(Preset::A100x4Mig);
    let first = bench.profile("3g.20gb", 4, 4).expect("free");
    bench.backend.destroy(&first.id).expect("nobody holds it");
    let again = bench.profile("3g.20gb", 4, 4).expect("free");
    assert_eq!(first.id, again.id);
    assert_ne!(first.handle, again.handle);
}

#[test]
fn the_65th_smlu_instance_is_one_too_many() {
    let mut bench = Bench::new(Preset::Mlu370x8);
    for _ in 0..64 {
        bench.smlu(1, Bytes::mib(256)).expect("up to 64 fit");
    }
    assert_eq!(kind(bench.smlu(1, Bytes::mib(256))), ErrorKind::Exhausted);
}

#[test]
fn the_17th_smlu_size_is_one_too_many_until_one_is_given_up() {
    let mut bench = Bench::new(Preset::Mlu370x8);
    let parts: Vec<Partition> =
        (1..=16).map(|n| bench.smlu(1, Bytes::mib(256 * n)).expect("up to 16 sizes")).collect();
    assert_eq!(kind(bench.smlu(1, Bytes::mib(256 * 17))), ErrorKind::Exhausted);
    bench.smlu(1, Bytes::mib(256)).expect("a size that is there costs no profile");
    bench.backend.destroy(&parts[5].id).expect("nobody holds it");
    bench.smlu(1, Bytes::mib(256 * 17)).expect("its profile went with it");
}

#[test]
fn smlu_quotas_never_exceed_the_card() {
    let mut bench = Bench::new(Preset::Mlu370x8);
    bench.smlu(60, Bytes::gib(40)).expect("free");
    assert_eq!(kind(bench.smlu(41, Bytes::mib(256))), ErrorKind::Exhausted);
    assert_eq!(kind(bench.smlu(1, Bytes::gib(9))), ErrorKind::Exhausted);
    let small = bench.smlu(40, Bytes::gib(8)).expect("exactly the rest");
    let more = Size { memory: Some(Bytes(Bytes::gib(8).0 + Bytes::mib(256).0)), ..small.size };
    assert_eq!(kind(bench.backend.resize(&small.id, &more)), ErrorKind::Exhausted);
}

#[test]
fn vdcu_masks_by_file_are_disjoint_and_four_are_the_most() {
    let mut bench = Bench::new(Preset::K100x8);
    bench.vdcu([0xff, 0], Bytes::gib(1), None).expect("free units");
    assert_eq!(kind(bench.vdcu([0x180, 0], Bytes::gib(1), None)), ErrorKind::Exhausted);
    bench.vdcu([0xff00, 0], Bytes::gib(1), None).expect("free units");
    bench.vdcu([0, 0xff], Bytes::gib(1), None).expect("units of the second word");
    bench.vdcu([1 << 63, 1 << 55], Bytes::gib(1), None).expect("the 120th unit");
    assert_eq!(kind(bench.vdcu([0xff_0000, 0], Bytes::gib(1), None)), ErrorKind::Exhausted);
}

#[test]
fn the_library_places_vdcus_side_by_side() {
    let mut bench = Bench::new(Preset::K100x4Library);
    let parts: Vec<Partition> = (0..4)
        .map(|_| {
            let part = bench.vdcu([0x3fff_ffff, 0], Bytes::gib(1), Some(Placement::Driver));
            part.expect("four times 30 of 120 units")
        })
        .collect();
    for (i, a) in parts.iter().enumerate() {
        assert!(parts[i + 1..].iter().all(|b| !a.placement.overlaps(&b.placement)));
    }
    // Numbers of virtual DCUs are the node's.
    let second = bench.machine.devices().expect("cards").remove(1);
    bench.device = bench.machine.describe(&second).expect("a card");
    let other = bench.vdcu([1, 0], Bytes::gib(1), Some(Placement::Driver)).expect("an empty card");
    assert_eq!(other.handle, "vdev4");
}

#[test]
fn grids_are_those_of_the_vendors() {
    let bench = Bench::new(Preset::Mlu370x8);
    let range = bench.device.scheme(&Scheme::SMLU).expect("sMLU").range().expect("a range").clone();
    let quarter = Bytes::mib(256);
    assert_eq!(range.memory, Some(MemoryGrid { min: quarter, step: quarter }));
    let one = std::num::NonZeroU32::MIN;
    let of = std::num::NonZeroU32::new(100).expect("not 0");
    assert_eq!(range.compute, Some(ComputeGrid { min: 1, step: one, of }));
    assert_eq!(range.distinct.map(u32::from), Some(16));
}
