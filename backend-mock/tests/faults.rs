//! Faults strike where the script says, modes have each vendor's rules, and a reboot keeps what
//! each driver keeps.

use std::sync::Arc;
use std::time::Duration;

use vgpu_backend_mock::{
    Action, At, CardSpec, Machine, MachineSpec, MockFactory, Model, Op, Preset, Rule,
};
use vgpu_core::{
    Backend, BackendExt, BackendFactory, Bytes, Change, ClaimId, ComputeShare, CreateOrder,
    DeviceId, ErrorKind, Host, ModeChange, ModeOrder, Partition, PartitionState, Placement, Probe,
    ProfileId, Result, Scheme, Shape, Size, Slots, Subject, TrustDomain, Vendor,
};

fn open(machine: &Arc<Machine>) -> Arc<dyn Backend> {
    match MockFactory::combined(machine).probe(&Host::default()) {
        Probe::Ready(backend) => backend,
        other => panic!("the machine has cards: {other:?}"),
    }
}

fn order(backend: &dyn Backend, device: &DeviceId, profile: &str, at: Slots) -> CreateOrder {
    let device = backend.device(device).expect("a card");
    let shape = Shape::Profile(ProfileId::new(profile).expect("a profile"));
    let claim = ClaimId::new(format!("claim-{}", at.start)).expect("a claim");
    CreateOrder::admit(&device, &Scheme::MIG, shape, Placement::Slots(at), claim).expect("an order")
}

fn smlu(backend: &dyn Backend, device: &DeviceId, claim: &str) -> CreateOrder {
    let device = backend.device(device).expect("a card");
    let of = std::num::NonZeroU32::new(100).expect("not 0");
    let compute = Some(ComputeShare { units: 10, of });
    let shape = Shape::Size(Size { compute, memory: Some(Bytes::gib(1)) });
    let claim = ClaimId::new(claim).expect("a claim");
    CreateOrder::admit(&device, &Scheme::SMLU, shape, Placement::Driver, claim).expect("an order")
}

fn enter(backend: &dyn Backend, device: &DeviceId, scheme: Option<Scheme>) -> Result<ModeChange> {
    let card = backend.device(device).expect("a card");
    let named = |s: &&vgpu_core::SchemeInfo| match &scheme {
        Some(scheme) => s.scheme == *scheme,
        None => s.mode.active && s.mode.leave != Change::Live,
    };
    let affected = match card.schemes.iter().find(named) {
        Some(info) => info.mode.affects.clone(),
        None => vec![device.clone()],
    };
    let domain = Some(TrustDomain::new("team-a").expect("a domain"));
    backend.set_mode(&ModeOrder { device: device.clone(), scheme, affected, domain })
}

#[test]
fn the_nth_call_fails_and_others_do_not() {
    let machine = Machine::new(Preset::A100x4Mig).expect("a machine");
    let backend = open(&machine);
    let card = machine.devices().expect("cards").remove(0);
    let call = "nvmlGpuInstanceCreateComputeInstance";
    let rule = Rule::new(At::Call(call.into()), Action::Fail(ErrorKind::Busy)).nth(2);
    machine.faults().add(rule).expect("a rule");
    backend.create(&order(&*backend, &card, "1g.5gb", Slots::new(0, 1))).expect("the first");
    let e = backend.create(&order(&*backend, &card, "1g.5gb", Slots::new(1, 1))).unwrap_err();
    assert_eq!((e.kind, e.operation.as_deref()), (ErrorKind::Busy, Some("create")));
    assert_eq!(e.vendor.expect("a code").code, 19);
    assert_eq!(machine.truth(&card).expect("parts").len(), 1, "the instance was undone");
    backend.create(&order(&*backend, &card, "1g.5gb", Slots::new(1, 1))).expect("the third");
    assert_eq!(machine.calls().vendor(call), 3);
    assert_eq!(machine.calls().of(Op::Create), 3);
}

#[test]
fn a_crash_between_two_calls_leaves_what_each_vendor_leaves() {
    let machine = Machine::new(Preset::Mixed).expect("a machine");
    let backend = open(&machine);
    let cards = machine.devices().expect("cards");
    let (mig, mlu) = (&cards[1], &cards[4]);
    machine.faults().crash(Op::Create, mig, 1).expect("a rule");
    let wanted = order(&*backend, mig, "3g.71gb", Slots::new(4, 4));
    assert_eq!(backend.create(&wanted).unwrap_err().kind, ErrorKind::InDoubt);
    let left = backend.partitions(mig).expect("parts");
    assert_eq!(left.iter().map(|p| p.state).collect::<Vec<_>>(), [PartitionState::Half]);
    assert_eq!(backend.sweep(mig, &[]).expect("a sweep").len(), 1);

    machine.faults().crash(Op::Create, mlu, 1).expect("a rule");
    let wanted = smlu(&*backend, mlu, "claim-1");
    assert_eq!(backend.create(&wanted).unwrap_err().kind, ErrorKind::InDoubt);
    assert_eq!(backend.partitions(mlu).expect("parts"), [], "a profile is no part");
    let swept = backend.sweep(mlu, &[]).expect("a sweep");
    assert_eq!(swept[0].what, "smlu profile 0");
    // After the last call the part is there, with its tag, and nobody was told.
    machine.faults().crash(Op::Create, mlu, 2).expect("a rule");
    assert_eq!(backend.create(&wanted).unwrap_err().kind, ErrorKind::InDoubt);
    let parts = backend.partitions(mlu).expect("parts");
    assert_eq!(parts[0].tag.as_ref(), Some(wanted.claim()));
}

#[test]
fn a_call_that_hangs_goes_on_when_the_rule_is_taken_back() {
    let machine = Machine::new(Preset::H200x8).expect("a machine");
    let backend = open(&machine);
    let cards = machine.devices().expect("cards");
    let rule = machine.faults().hang(Op::Usage, &cards[0]).expect("a rule");
    let subject = Subject::Device(cards[0].clone());
    let stuck = std::thread::spawn({
        let backend = Arc::clone(&backend);
        move || backend.usage(&subject)
    });
    while !machine.faults().has_hit(rule).expect("a machine") {
        std::thread::yield_now();
    }
    backend.usage(&Subject::Device(cards[1].clone())).expect("a neighbour answers");
    backend.partitions(&cards[0]).expect("another call on the card answers");
    assert!(!stuck.is_finished());
    machine.faults().take_back(rule).expect("a machine");
    stuck.join().expect("no panic").expect("it goes on");
}

#[test]
fn no_call_is_counted_where_none_is_made() {
    let machine = Machine::new(Preset::Mixed).expect("a machine");
    let before = machine.calls();
    machine.boot_id().expect("a boot id");
    machine.truth(&machine.devices().expect("cards")[0]).expect("parts");
    assert_eq!(machine.calls(), before);
    assert_eq!(before.vendor_total(), 0);
    open(&machine).scan().expect("a scan");
    assert_eq!(machine.calls().of(Op::Scan), 1);
    assert!(machine.calls().vendor_total() > 0);
}

#[test]
fn an_ampere_card_changes_its_mode_with_a_reset_and_keeps_it_over_a_reboot() {
    let spec = MachineSpec::new().with(1, &CardSpec::new(Model::A100Sxm40gb));
    let machine = Machine::new(spec).expect("a machine");
    let backend = open(&machine);
    let card = machine.devices().expect("cards").remove(0);
    let in_mig = || {
        let device = backend.device(&card).expect("a card");
        device.scheme(&Scheme::MIG).expect("MIG").mode.active
    };
    assert_eq!(
        enter(&*backend, &card, Some(Scheme::MIG)).expect("pending"),
        ModeChange::AfterReset
    );
    assert!(!in_mig());
    machine.faults().reset(&card).expect("a reset");
    assert!(in_mig());
    backend.create(&order(&*backend, &card, "7g.40gb", Slots::new(0, 8))).expect("free");
    let boot = machine.boot_id().expect("a boot id");
    machine.faults().reboot().expect("a reboot");
    assert_ne!(machine.boot_id().expect("a boot id"), boot);
    assert!(in_mig());
    assert_eq!(backend.partitions(&card).expect("parts"), []);
}

#[test]
fn a_hopper_card_changes_its_mode_idle_and_loses_it_over_a_reboot() {
    let machine = Machine::new(Preset::H200x8).expect("a machine");
    let backend = open(&machine);
    let card = machine.devices().expect("cards").remove(0);
    machine.faults().hold(&Subject::Device(card.clone()), 1).expect("a process");
    assert_eq!(enter(&*backend, &card, Some(Scheme::MIG)).unwrap_err().kind, ErrorKind::Busy);
    machine.faults().hold(&Subject::Device(card.clone()), 0).expect("no process");
    assert_eq!(enter(&*backend, &card, Some(Scheme::MIG)).expect("idle"), ModeChange::Done);
    machine.faults().reboot().expect("a reboot");
    assert!(!backend.device(&card).expect("a card").scheme(&Scheme::MIG).expect("MIG").mode.active);
}

#[test]
fn hcu_mig_is_a_mode_of_the_node() {
    let spec = MachineSpec::new().with(3, &CardSpec::new(Model::Bw1000));
    let machine = Machine::new(spec).expect("a machine");
    let backend = open(&machine);
    let cards = machine.devices().expect("cards");
    machine.faults().hold(&Subject::Device(cards[2].clone()), 1).expect("a process");
    let e = enter(&*backend, &cards[0], Some(Scheme::HCU_MIG)).unwrap_err();
    assert_eq!(e.kind, ErrorKind::Busy, "a process on another card is in the way");
    machine.faults().hold(&Subject::Device(cards[2].clone()), 0).expect("no process");
    enter(&*backend, &cards[0], Some(Scheme::HCU_MIG)).expect("all are idle");
    for card in &cards {
        let device = backend.device(card).expect("a card");
        assert!(device.scheme(&Scheme::HCU_MIG).expect("HCU-MIG").mode.active);
        assert!(!device.scheme(&Scheme::WHOLE).expect("whole").mode.active);
    }
}

#[test]
fn only_vdcu_files_outlive_a_reboot() {
    let machine = Machine::new(Preset::Mixed).expect("a machine");
    let backend = open(&machine);
    let cards = machine.devices().expect("cards");
    let device = backend.device(&cards[2]).expect("a card");
    let compute = Some(ComputeShare { units: 8, of: device.compute_units });
    let shape = Shape::Size(Size { compute, memory: Some(Bytes::gib(8)) });
    let claim = ClaimId::new("claim-1").expect("a claim");
    let mask = Placement::Units(vec![0xff, 0]);
    let file = CreateOrder::admit(&device, &Scheme::VDCU, shape, mask, claim).expect("an order");
    let file: Partition = backend.create(&file).expect("free");
    backend.create(&smlu(&*backend, &cards[4], "claim-2")).expect("free");
    machine.faults().reboot().expect("a reboot");
    assert_eq!(machine.all_parts().expect("parts"), [file.id]);
}

#[test]
fn a_replaced_driver_asks_for_a_new_process() {
    let machine = Machine::new(Preset::Mixed).expect("a machine");
    let factory = MockFactory::new(&machine, Vendor::HYGON);
    let Probe::Ready(backend) = factory.probe(&Host::default()) else { panic!("cards are there") };
    machine.faults().replace_driver().expect("a new driver");
    assert_eq!(backend.scan().unwrap_err().kind, ErrorKind::DriverReplaced);
    assert!(matches!(factory.probe(&Host::default()), Probe::Broken(_)), "the same process");
    let next = MockFactory::new(&machine, Vendor::HYGON);
    assert!(matches!(next.probe(&Host::default()), Probe::Ready(_)), "a new process");
}

#[test]
fn a_vendor_sees_its_own_cards_and_events() {
    let machine = Machine::new(Preset::Mixed).expect("a machine");
    let of = |vendor| match MockFactory::new(&machine, vendor).probe(&Host::default()) {
        Probe::Ready(backend) => backend,
        other => panic!("cards are there: {other:?}"),
    };
    let (nvidia, hygon) = (of(Vendor::NVIDIA), of(Vendor::HYGON));
    let cards = machine.devices_of(&Vendor::HYGON).expect("cards");
    assert_eq!(nvidia.partitions(&cards[0]).unwrap_err().kind, ErrorKind::NotFound);
    machine.faults().lose(&cards[0]).expect("it falls off");
    assert_eq!(nvidia.wait(Duration::ZERO).expect("no event"), []);
    assert_eq!(hygon.wait(Duration::ZERO).expect("an event").len(), 1);
    assert_eq!(hygon.scan().expect("a scan").lost[0].name, cards[0].as_str());
}
