//! The planner: what it grants covers what was asked, never exceeds a card, never overlaps.

mod common;

use common::{card, id, memory, mig, n, request, smlu, time_slice, vdcu, whole};
use proptest::prelude::*;
use vgpu_core::guarantee::{Enforcement, Minimum};
use vgpu_core::id::{ProfileId, TrustDomain};
use vgpu_core::order::{CreateOrder, Placement, Shape};
use vgpu_core::plan::{
    Assignment, Held, Inventory, Modes, Policy, Request, Step, Want, Why, plan, plan_all,
};
use vgpu_core::scheme::{Change, ModeInfo, Scheme, Slots};
use vgpu_core::size::{Bytes, ComputeShare, Size};
use vgpu_core::{Device, Link, LinkKind};

fn one(device: Device) -> Inventory {
    Inventory { devices: vec![device], links: vec![] }
}

fn profile(name: &str) -> Want {
    Want::Profile(ProfileId::new(name).expect("a profile"))
}

fn why(inventory: &Inventory, held: &[Held], request: &Request) -> Why {
    let refusal = plan(inventory, held, request, Policy::Binpack).expect_err("refused");
    refusal.reasons.into_iter().next().expect("one card, one reason").why
}

/// Carries out a plan on paper.
fn take(inventory: &Inventory, held: &mut Vec<Held>, answer: &[Assignment], domain: &TrustDomain) {
    for a in answer {
        let device = inventory.devices.iter().find(|d| d.id == a.device).expect("its card");
        held.push(Held::of(device, &a.step, domain).expect("belongs to the card"));
    }
}

#[test]
fn a_whole_card_is_given_once_and_only_when_empty() {
    let inventory =
        one(card("GPU-1", Bytes::gib(80), 132, vec![whole("GPU-1"), time_slice("GPU-1")]));
    let mut held = vec![];
    let ask = request("c1", Want::Whole);
    let answer = plan(&inventory, &held, &ask, Policy::Binpack).expect("fits");
    take(&inventory, &mut held, &answer, &ask.domain);
    assert!(matches!(why(&inventory, &held, &request("c2", Want::Whole)), Why::NoSlot { .. }));
    let turn = request("c3", Want::AtLeast(Size::ANY));
    assert_eq!(why(&inventory, &held, &turn), Why::InUse { by: Scheme::WHOLE });
}

#[test]
fn a_fraction_never_becomes_a_whole_card() {
    let inventory = one(card("GPU-1", Bytes::gib(80), 132, vec![whole("GPU-1")]));
    assert_eq!(
        why(&inventory, &[], &request("c", Want::AtLeast(memory(Bytes::gib(80))))),
        Why::NoScheme
    );
    let turns = one(card("GPU-1", Bytes::gib(80), 132, vec![time_slice("GPU-1")]));
    let ask = request("c", Want::AtLeast(memory(Bytes::gib(1))));
    assert!(matches!(why(&turns, &[], &ask), Why::Cannot { .. }));
}

#[test]
fn it_refuses_rather_than_weakens() {
    let inventory = one(card("GPU-1", Bytes::gib(80), 132, vec![time_slice("GPU-1")]));
    let mut ask = request("c", Want::AtLeast(Size::ANY));
    assert!(plan(&inventory, &[], &ask, Policy::Binpack).is_ok());
    ask.minimum = Minimum { memory: Enforcement::Driver, ..Minimum::default() };
    let Why::EnforcesLess { axis, has, asked, .. } = why(&inventory, &[], &ask) else {
        panic!("too weak")
    };
    assert_eq!((axis.as_str(), has, asked), ("memory", Enforcement::None, Enforcement::Driver));
}

#[test]
fn strangers_meet_only_on_hardware_partitions() {
    let name = "GPU-1";
    let other = |held: &mut Held| held.domain = Some(TrustDomain::new("b").expect("a domain"));
    let shared = one(card(name, Bytes::gib(48), 60, vec![smlu(name, Bytes::mib(256))]));
    let ask = request("c", Want::AtLeast(memory(Bytes::gib(1))));
    let mut held = vec![];
    let answer = plan(&shared, &held, &ask, Policy::Binpack).expect("fits");
    take(&shared, &mut held, &answer, &ask.domain);
    other(&mut held[0]);
    assert!(matches!(why(&shared, &held, &ask), Why::OtherDomain { .. }));

    let hardware =
        one(card(name, Bytes::gib(40), 98, vec![mig(name, ModeInfo::always(&id(name)))]));
    let ask = request("c", profile("1g.5gb"));
    let mut held = vec![];
    let answer = plan(&hardware, &held, &ask, Policy::Binpack).expect("fits");
    take(&hardware, &mut held, &answer, &ask.domain);
    other(&mut held[0]);
    assert!(plan(&hardware, &held, &ask, Policy::Binpack).is_ok());
}

#[test]
fn seven_small_instances_then_no_room() {
    let name = "GPU-1";
    let inventory =
        one(card(name, Bytes::gib(40), 98, vec![mig(name, ModeInfo::always(&id(name)))]));
    let asks = vec![request("c", profile("1g.5gb")); 7];
    assert!(plan_all(&inventory, &[], &asks, Policy::Binpack).is_ok());
    let (at, refusal) =
        plan_all(&inventory, &[], &vec![request("c", profile("1g.5gb")); 8], Policy::Binpack)
            .expect_err("the eighth");
    assert_eq!(at, 7);
    assert!(matches!(refusal.reasons[0].why, Why::NoSlot { max: 7, .. }));
}

#[test]
fn small_instances_leave_the_large_placement_open() {
    // First fit would put 1g at slot 0 and close the only place of 4g.
    let name = "GPU-1";
    let inventory =
        one(card(name, Bytes::gib(40), 98, vec![mig(name, ModeInfo::always(&id(name)))]));
    let asks: Vec<Request> =
        ["1g.5gb", "2g.10gb", "4g.20gb"].iter().map(|p| request("c", profile(p))).collect();
    plan_all(&inventory, &[], &asks, Policy::Binpack).expect("all three fit");
}

#[test]
fn a_size_takes_the_smallest_profile_that_covers_it() {
    let name = "GPU-1";
    let inventory =
        one(card(name, Bytes::gib(40), 98, vec![mig(name, ModeInfo::always(&id(name)))]));
    let ask = request("c", Want::AtLeast(memory(Bytes::gib(8))));
    let answer = plan(&inventory, &[], &ask, Policy::Binpack).expect("fits");
    let Step::Carve(order) = &answer[0].step else { panic!("an order") };
    assert_eq!(order.shape(), &Shape::Profile(ProfileId::new("1g.10gb").expect("a profile")));
}

#[test]
fn a_mode_is_entered_only_on_an_idle_card_that_stands_alone() {
    let name = "GPU-1";
    let mode =
        |enter, affects| ModeInfo { active: false, enter, leave: enter, affects, domain: None };
    let with = |mode| one(card(name, Bytes::gib(40), 98, vec![mig(name, mode)]));
    let mut ask = request("c", profile("1g.5gb"));
    let easy = with(mode(Change::IdleDevice, vec![id(name)]));
    assert!(matches!(why(&easy, &[], &ask), Why::WrongMode { .. }));
    ask.modes = Modes::Enter;
    let answer = plan(&easy, &[], &ask, Policy::Binpack).expect("fits");
    assert_eq!(answer[0].mode.as_ref().expect("a mode order").affected, vec![id(name)]);
    let reset = with(mode(Change::DeviceReset, vec![id(name)]));
    assert!(matches!(why(&reset, &[], &ask), Why::WrongMode { .. }));
    let node = with(mode(Change::IdleDevice, vec![id(name), id("GPU-2")]));
    assert!(matches!(why(&node, &[], &ask), Why::WrongMode { .. }));
}

#[test]
fn a_mode_that_serves_another_domain_is_entered_anew_or_refused() {
    let name = "GPU-1";
    let domain = |text: &str| Some(TrustDomain::new(text).expect("a domain"));
    let change = Change::IdleDevice;
    let mode = |domain| ModeInfo {
        active: true,
        enter: change,
        leave: change,
        affects: vec![id(name)],
        domain,
    };
    let with = |mode| one(card(name, Bytes::gib(40), 98, vec![mig(name, mode)]));
    let mut ask = request("c", profile("1g.5gb"));
    let own = with(mode(Some(ask.domain.clone())));
    assert!(plan(&own, &[], &ask, Policy::Binpack).expect("fits")[0].mode.is_none());
    let theirs = with(mode(domain("theirs")));
    let refused = why(&theirs, &[], &ask);
    assert_eq!(refused, Why::OtherDomain { with: "theirs".into() });
    ask.modes = Modes::Enter;
    let answer = plan(&theirs, &[], &ask, Policy::Binpack).expect("an idle daemon is no neighbour");
    assert_eq!(answer[0].mode.as_ref().expect("entered anew").domain, Some(ask.domain.clone()));
    let mut held = vec![];
    take(&theirs, &mut held, &answer, &domain("theirs").expect("a domain"));
    assert_eq!(why(&theirs, &held, &ask), Why::OtherDomain { with: "theirs".into() });
}

#[test]
fn a_mode_that_one_request_enters_is_there_for_the_next() {
    let name = "GPU-1";
    let easy = Change::IdleDevice;
    let mode = |domain: Option<&str>| ModeInfo {
        active: domain.is_some(),
        enter: easy,
        leave: easy,
        affects: vec![id(name)],
        domain: domain.map(|text| TrustDomain::new(text).expect("a domain")),
    };
    let ask = Request { modes: Modes::Enter, ..request("c", profile("1g.5gb")) };
    for domain in [None, Some("theirs")] {
        let inventory = one(card(name, Bytes::gib(40), 98, vec![mig(name, mode(domain))]));
        let asks = vec![ask.clone(); 8];
        let answers = plan_all(&inventory, &[], &asks[..7], Policy::Binpack).expect("all seven");
        let entering = answers.iter().filter(|answer| answer[0].mode.is_some()).count();
        assert_eq!((entering, answers[0][0].mode.is_some()), (1, true), "the first enters it");
        let (at, refusal) = plan_all(&inventory, &[], &asks, Policy::Binpack).expect_err("eight");
        assert_eq!(at, 7);
        assert!(matches!(refusal.reasons[0].why, Why::NoSlot { max: 7, .. }), "{refusal:?}");
    }
}

#[test]
fn the_seventeenth_size_is_told_by_name() {
    let name = "MLU-1";
    let inventory = one(card(name, Bytes::gib(48), 60, vec![smlu(name, Bytes::mib(256))]));
    let ask = |mib| request("c", Want::AtLeast(memory(Bytes::mib(mib))));
    let asks: Vec<Request> = (1..=16).map(|i| ask(256 * i)).collect();
    let answers = plan_all(&inventory, &[], &asks, Policy::Binpack).expect("sixteen sizes");
    let mut held = vec![];
    answers.iter().for_each(|a| take(&inventory, &mut held, a, &asks[0].domain));
    assert!(matches!(why(&inventory, &held, &ask(256 * 17)), Why::TooManySizes { max: 16, .. }));
    assert!(plan(&inventory, &held, &ask(256), Policy::Binpack).is_ok(), "a living size is fine");
}

#[test]
fn several_cards_are_chosen_near_to_one_another() {
    let names = ["GPU-1", "GPU-2", "GPU-3", "GPU-4"];
    let devices = names.iter().map(|d| card(d, Bytes::gib(80), 132, vec![whole(d)])).collect();
    let link = |a, b, lanes| Link { a: id(a), b: id(b), kind: LinkKind::System, lanes };
    let links = vec![link("GPU-1", "GPU-3", 0), link("GPU-4", "GPU-1", 18)];
    let inventory = Inventory { devices, links };
    let ask = Request { count: 2, ..request("c", Want::Whole) };
    let answer = plan(&inventory, &[], &ask, Policy::Binpack).expect("fits");
    let chosen: Vec<&str> = answer.iter().map(|a| a.device.as_str()).collect();
    assert_eq!(chosen, ["GPU-1", "GPU-4"]);
    let refusal = plan(&inventory, &[], &Request { count: 5, ..ask }, Policy::Binpack).unwrap_err();
    assert_eq!((refusal.asked, refusal.found), (5, 4));
    let none = Request { count: 0, ..request("c", Want::Whole) };
    assert!(plan(&inventory, &[], &none, Policy::Binpack).is_err());
}

#[test]
fn one_vdcu_per_container() {
    let devices = ["d1", "d2"].map(|d| card(d, Bytes::gib(32), 60, vec![vdcu(d, 60, Some(4))]));
    let inventory = Inventory { devices: devices.to_vec(), links: vec![] };
    let ask = Request { count: 2, ..request("c", Want::AtLeast(memory(Bytes::gib(1)))) };
    assert!(matches!(why(&inventory, &[], &ask), Why::Cannot { .. }));
}

#[test]
fn a_part_that_shares_all_units_is_not_beside_one_with_units_of_its_own() {
    let mut info = vdcu("d1", 60, Some(4));
    info.guarantees.compute_kind = vgpu_core::ComputeKind::Partition;
    let device = card("d1", Bytes::gib(32), 60, vec![info]);
    let inventory = Inventory { devices: vec![device.clone()], links: vec![] };
    let share = Some(ComputeShare { units: 15, of: n(60) });
    let quota = Some(Bytes::gib(8));
    let sizes = [Size { compute: share, memory: quota }, Size { compute: None, memory: quota }];
    for (first, second) in [(0, 1), (1, 0), (0, 0), (1, 1)] {
        let ask = |claim: &str, size| request(claim, Want::AtLeast(size));
        let one = ask("c1", sizes[first]);
        let answer = plan(&inventory, &[], &one, Policy::Binpack).expect("an empty card");
        let held = Held::of(&device, &answer[0].step, &one.domain).expect("a carving step");
        let next = plan(&inventory, &[held], &ask("c2", sizes[second]), Policy::Binpack);
        assert_eq!(next.is_ok(), first == second, "{next:?}");
    }
}

#[test]
fn an_order_cannot_be_had_for_what_the_card_lacks() {
    let name = "d1";
    let device = card(name, Bytes::gib(32), 60, vec![vdcu(name, 60, None), whole(name)]);
    let share = |units, of| Some(ComputeShare { units, of: n(of) });
    let size = |compute, mem| Shape::Size(Size { compute, memory: Some(Bytes(mem)) });
    let claim = || request("c", Want::Whole).claim;
    let admit = |scheme: &Scheme, shape, placement| {
        CreateOrder::admit(&device, scheme, shape, placement, claim())
    };
    let units = |mask: u64| Placement::Units(vec![mask]);
    assert!(admit(&Scheme::VDCU, size(share(15, 60), 1 << 30), units(0x7fff)).is_ok());
    for (shape, placement) in [
        (size(share(15, 60), 1 << 30), Placement::Driver),
        (size(share(15, 60), 1 << 30), units(0x3fff)),
        (size(share(15, 100), 1 << 30), units(0x7fff)),
        (size(share(15, 60), (1 << 30) + 1), units(0x7fff)),
        (size(share(1, 60), 1 << 30), units(1 << 60)),
        (size(share(15, 60), 33 << 30), units(0x7fff)),
        (size(share(15, 60), 1 << 30), Placement::Slots(Slots::new(0, 1))),
        (Shape::Profile(ProfileId::new("1g").expect("a profile")), units(1)),
    ] {
        assert!(admit(&Scheme::VDCU, shape.clone(), placement).is_err(), "{shape:?}");
    }
    assert!(admit(&Scheme::WHOLE, size(None, 1 << 30), Placement::Driver).is_err());
    assert!(admit(&Scheme::MIG, size(None, 1 << 30), Placement::Driver).is_err());
}

/// One request on one of the cards below.
#[derive(Debug, Clone)]
struct Ask {
    kind: usize,
    mib: u64,
    cores: Option<u32>,
    policy: Policy,
    drop: usize,
}

fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let one = (0usize..10, 1u64..20_000, proptest::option::of(1u32..60), any::<bool>(), 0usize..40)
        .prop_map(|(kind, mib, cores, pack, drop)| Ask {
            kind,
            mib,
            cores,
            policy: if pack { Policy::Binpack } else { Policy::Spread },
            drop,
        });
    proptest::collection::vec(one, 1..120)
}

fn machine() -> Inventory {
    let always = |name| ModeInfo::always(&id(name));
    Inventory {
        devices: vec![
            card("m1", Bytes::gib(40), 98, vec![mig("m1", always("m1")), whole("m1")]),
            card("s1", Bytes::gib(48), 60, vec![smlu("s1", Bytes::mib(256)), whole("s1")]),
            card("v1", Bytes::gib(32), 60, vec![vdcu("v1", 60, Some(4))]),
            card("v2", Bytes::gib(64), 120, vec![vdcu("v2", 120, None)]),
            card("t1", Bytes::gib(24), 72, vec![time_slice("t1"), whole("t1")]),
        ],
        links: vec![],
    }
}

fn wish(ask: &Ask) -> Request {
    let profiles = ["1g.5gb", "1g.10gb", "2g.10gb", "3g.20gb", "4g.20gb", "7g.40gb"];
    let size = Size {
        memory: Some(Bytes::mib(ask.mib)),
        compute: ask.cores.map(|units| ComputeShare { units, of: n(60) }),
    };
    let want = match ask.kind {
        k if k < 6 => profile(profiles[k]),
        6 => Want::Whole,
        7 => Want::AtLeast(Size::ANY),
        _ => Want::AtLeast(size),
    };
    request("c", want)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn grants_cover_wants_and_no_card_is_exceeded(asks in asks()) {
        let machine = machine();
        let mut held: Vec<Held> = vec![];
        for ask in &asks {
            let wish = wish(ask);
            let answer = plan(&machine, &held, &wish, ask.policy);
            prop_assert_eq!(&answer, &plan(&machine, &held, &wish, ask.policy), "deterministic");
            let Ok(answer) = answer else {
                if !held.is_empty() {
                    held.remove(ask.drop % held.len());
                }
                continue;
            };
            let before = held.len();
            take(&machine, &mut held, &answer, &wish.domain);
            if let Want::AtLeast(size) = &wish.want {
                prop_assert!(held[before].size.covers(size), "{:?} for {size}", held[before]);
                prop_assert!(held[before].scheme != Scheme::WHOLE);
            }
            check(&machine, &held)?;
        }
    }

    #[test]
    fn masks_are_disjoint_until_the_card_is_full(cus in 1u32..=128, per in 1u32..40) {
        let inventory = one(card("v", Bytes::gib(64), cus, vec![vdcu("v", cus, None)]));
        let size = Size {
            compute: Some(ComputeShare { units: per, of: n(cus) }),
            memory: Some(Bytes::mib(1)),
        };
        let ask = request("c", Want::AtLeast(size));
        let mut held = vec![];
        while let Ok(answer) = plan(&inventory, &held, &ask, Policy::Spread) {
            take(&inventory, &mut held, &answer, &ask.domain);
            check(&inventory, &held)?;
        }
        prop_assert_eq!(held.len() as u32, cus / per);
    }
}

fn check(machine: &Inventory, held: &[Held]) -> Result<(), TestCaseError> {
    for device in &machine.devices {
        let mine: Vec<&Held> = held.iter().filter(|h| h.device == device.id).collect();
        let memory: u64 = mine.iter().filter_map(|h| h.size.memory).map(|m| m.0).sum();
        prop_assert!(memory <= device.memory.0, "{}: {memory}", device.id);
        for (i, a) in mine.iter().enumerate() {
            prop_assert!(mine[i + 1..].iter().all(|b| !a.placement.overlaps(&b.placement)));
            prop_assert_eq!(&a.scheme, &mine[0].scheme, "one scheme on a card at a time");
        }
        let compute: u32 = mine.iter().filter_map(|h| h.size.compute).map(|c| c.units).sum();
        let of = mine.iter().filter_map(|h| h.size.compute).map(|c| c.of.get()).next();
        prop_assert!(of.is_none_or(|of| compute <= of), "{}: {compute}", device.id);
        if let Some(first) = mine.first() {
            let info = device.scheme(&first.scheme).expect("declared");
            prop_assert!(info.max.is_none_or(|max| mine.len() <= max.get() as usize));
        }
    }
    Ok(())
}
