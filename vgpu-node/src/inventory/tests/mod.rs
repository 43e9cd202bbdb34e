mod hangs;
mod machine;

use std::sync::atomic::Ordering::SeqCst;
use std::thread;

use vgpu_core::device::Lost;
use vgpu_core::id::Vendor;

use super::*;
use machine::{Made, error, inventory, refresh_until};

#[test]
fn every_vendor_that_works_is_there_and_the_others_say_why_not() {
    let nvidia = Made::new(&Vendor::NVIDIA, &[0, 1, 2]);
    let hygon = Made::new(&Vendor::HYGON, &[0]);
    let cambricon = Made::new(&Vendor::CAMBRICON, &[0]);
    hygon.now(|says| says.absent = Some("no PCI function 1d94".into()));
    cambricon.now(|says| says.broken = Some(error(ErrorKind::Permission)));
    let inventory = inventory(&[&nvidia, &hygon, &cambricon]);
    assert_eq!(inventory.snapshot().generation, 0);
    inventory.refresh();
    let first = inventory.snapshot();
    assert_eq!(first.cards.len(), 3);
    assert!(first.cards.values().all(|c| c.presence == Presence::Here && c.partitions.is_ok()));
    assert_eq!(first.links.len(), 2);
    assert!(matches!(&first.backends[&Vendor::NVIDIA], BackendStatus::Ready(i) if i.driver == "1"));
    let absent = BackendStatus::Absent("no PCI function 1d94".into());
    assert_eq!(first.backends[&Vendor::HYGON], absent);
    let broken = BackendStatus::Broken(error(ErrorKind::Permission));
    assert_eq!(first.backends[&Vendor::CAMBRICON], broken);
    assert_eq!(inventory.all_lanes().len(), 1);

    hygon.now(|says| says.absent = None);
    cambricon.now(|says| says.broken = None);
    inventory.refresh();
    let second = inventory.snapshot();
    assert!(second.generation > first.generation);
    assert_eq!((first.cards.len(), second.cards.len()), (3, 5), "a snapshot never changes");
    assert_eq!(nvidia.probes.load(SeqCst), 1, "what works is not probed again");
    let lanes = inventory.lanes(&hygon.id(0)).expect("a card");
    assert_eq!(lanes.vendor(), &Vendor::HYGON);
}

#[test]
fn a_scan_that_fails_spoils_neither_the_cards_nor_other_vendors() {
    let nvidia = Made::new(&Vendor::NVIDIA, &[0, 1]);
    let hygon = Made::new(&Vendor::HYGON, &[0]);
    let inventory = inventory(&[&nvidia, &hygon]);
    inventory.refresh();
    nvidia.now(|says| says.fails = vec![("scan".into(), error(ErrorKind::Vendor))]);
    hygon.now(|says| says.cards = vec![0, 1]);
    inventory.refresh();
    let snapshot = inventory.snapshot();
    let BackendStatus::Broken(e) = &snapshot.backends[&Vendor::NVIDIA] else { panic!("broken") };
    assert_eq!((e.kind, e.operation.as_deref()), (ErrorKind::Vendor, Some("scan")));
    assert_eq!(snapshot.cards.len(), 4);
    assert!(snapshot.cards.values().all(|card| card.presence == Presence::Here));
    nvidia.now(|says| says.fails.clear());
    inventory.refresh();
    let status = &inventory.snapshot().backends[&Vendor::NVIDIA];
    assert!(matches!(status, BackendStatus::Ready(_)));
}

#[test]
fn a_lost_card_stays_as_lost_until_it_comes_back() {
    let nvidia = Made::new(&Vendor::NVIDIA, &[0, 1, 2, 3]);
    let inventory = inventory(&[&nvidia]);
    inventory.refresh();
    let lost = |name: &str| Lost { name: name.into(), reason: error(ErrorKind::Lost) };
    nvidia.now(|says| {
        says.cards = vec![0];
        // One by its id, one by its address, one that is listed no more, and one nobody knows.
        says.lost = vec![lost("nvidia-1"), lost("0000:02:00.0"), lost("0000:99:00.0")];
    });
    inventory.refresh();
    let first = inventory.snapshot();
    assert_eq!(first.cards.len(), 4);
    assert_eq!(first.cards[&nvidia.id(0)].presence, Presence::Here);
    let presence = |snapshot: &Snapshot, n| match &snapshot.cards[&nvidia.id(n)].presence {
        Presence::Here => panic!("{n} is lost"),
        Presence::Lost { reason, since } => (reason.clone(), *since),
    };
    assert_eq!(presence(&first, 1).0, error(ErrorKind::Lost));
    assert_eq!(presence(&first, 2).0, error(ErrorKind::Lost));
    assert!(presence(&first, 3).0.message.contains("does not list nvidia-3"));
    assert_eq!(first.cards[&nvidia.id(3)].device.model, "M", "last known");
    assert_eq!(first.unknown, [(Vendor::NVIDIA, lost("0000:99:00.0"))]);
    assert!(inventory.lanes(&nvidia.id(3)).is_some());

    inventory.refresh();
    let second = inventory.snapshot();
    assert_eq!(presence(&first, 1).1, presence(&second, 1).1, "since it was noticed first");
    assert_eq!(second.unknown.len(), 1);
    nvidia.now(|says| (says.cards, says.lost) = (vec![0, 1, 2, 3], Vec::new()));
    inventory.refresh();
    let third = inventory.snapshot();
    assert!(third.cards.values().all(|card| card.presence == Presence::Here));
    assert_eq!(third.unknown, []);
}

#[test]
fn a_vendor_that_goes_away_takes_its_cards_with_it() {
    let nvidia = Made::new(&Vendor::NVIDIA, &[0]);
    let inventory = machine::with_deadline(&[&nvidia], std::time::Duration::from_millis(200));
    refresh_until(&inventory, "the card", |s| s.cards.contains_key(&nvidia.id(0)));
    nvidia.now(|says| {
        says.hangs = vec!["scan".into()];
        says.absent = Some("unbound".into());
    });
    let absent = BackendStatus::Absent("unbound".into());
    refresh_until(&inventory, "absent", |s| s.backends[&Vendor::NVIDIA] == absent);
    let snapshot = inventory.snapshot();
    assert!(matches!(snapshot.cards[&nvidia.id(0)].presence, Presence::Lost { .. }));
    nvidia.now(|says| says.hangs.clear());
}

#[test]
fn topology_is_asked_when_cards_come_or_go_or_it_failed() {
    let nvidia = Made::new(&Vendor::NVIDIA, &[0, 1]);
    let hygon = Made::new(&Vendor::HYGON, &[0, 1]);
    let inventory = inventory(&[&nvidia, &hygon]);
    let asked = || nvidia.topologies.load(SeqCst);
    let refresh = || {
        inventory.refresh();
        let links = inventory.snapshot().links.clone();
        links.iter().filter(|l| l.a.as_str().starts_with("nvidia")).count()
    };
    assert_eq!((refresh(), asked()), (1, 1));
    assert_eq!((refresh(), asked()), (1, 1));
    nvidia.now(|says| {
        says.cards.push(2);
        says.fails = vec![("topology".into(), error(ErrorKind::Lost))];
    });
    assert_eq!((refresh(), asked()), (1, 1), "what is known stays");
    nvidia.now(|says| says.fails.clear());
    assert_eq!((refresh(), asked()), (2, 2));
    nvidia.now(|says| says.cards.truncate(2));
    assert_eq!((refresh(), asked()), (1, 3));
    inventory.refresh_links();
    assert_eq!(asked(), 4);
    assert_eq!(inventory.snapshot().links.len(), 2, "hygon's is still there");
}

#[test]
fn parts_that_cannot_be_listed_are_one_cards_trouble() {
    let nvidia = Made::new(&Vendor::NVIDIA, &[0, 1]);
    let inventory = inventory(&[&nvidia]);
    nvidia.now(|says| says.fails = vec![("nvidia-1".into(), error(ErrorKind::Vendor))]);
    inventory.refresh();
    let snapshot = inventory.snapshot();
    assert!(snapshot.cards[&nvidia.id(0)].partitions.is_ok());
    let e = snapshot.cards[&nvidia.id(1)].partitions.as_ref().expect_err("fails");
    assert!(e.to_string().contains("device=nvidia-1"), "{e}");
    nvidia.now(|says| says.fails.clear());
    inventory.refresh_device(&nvidia.id(1));
    assert!(inventory.snapshot().cards[&nvidia.id(1)].partitions.is_ok());
    inventory.refresh_device(&nvidia.id(9));
    assert_eq!(inventory.snapshot().cards.len(), 2);
}

#[test]
fn a_rescan_asks_the_cards_vendor_only() {
    let nvidia = Made::new(&Vendor::NVIDIA, &[0]);
    let hygon = Made::new(&Vendor::HYGON, &[0]);
    let inventory = inventory(&[&nvidia, &hygon]);
    inventory.refresh();
    nvidia.now(|says| says.cards.push(1));
    hygon.now(|says| says.cards.push(1));
    inventory.rescan(&nvidia.id(0));
    let snapshot = inventory.snapshot();
    assert!(snapshot.cards.contains_key(&nvidia.id(1)));
    assert!(!snapshot.cards.contains_key(&hygon.id(1)));
}

#[test]
fn a_listing_that_began_earlier_never_replaces_a_later_one() {
    let card = DeviceId::new("a").expect("an id");
    let mut listed = BTreeMap::new();
    assert!(is_newer(&mut listed, &card, 4));
    assert!(!is_newer(&mut listed, &card, 3));
    assert!(is_newer(&mut listed, &card, 5));
}

#[test]
fn a_replaced_driver_is_noticed_in_a_probe_and_in_any_call() {
    let replaced = || error(ErrorKind::DriverReplaced);
    let nvidia = Made::new(&Vendor::NVIDIA, &[0]);
    let inventory = inventory(&[&nvidia]);
    inventory.refresh();
    assert!(!inventory.driver_replaced());
    let lanes = inventory.lanes(&nvidia.id(0)).expect("a card");
    lanes.read("usage", move |_| Err::<(), _>(replaced())).expect_err("replaced");
    assert!(inventory.driver_replaced());

    let hygon = Made::new(&Vendor::HYGON, &[]);
    hygon.now(|says| says.broken = Some(replaced()));
    let inventory = machine::inventory(&[&hygon]);
    inventory.refresh();
    assert!(inventory.driver_replaced());
}

#[test]
fn readers_never_see_half_a_snapshot() {
    let nvidia = Made::new(&Vendor::NVIDIA, &[0, 1, 2, 3]);
    let inventory = inventory(&[&nvidia]);
    thread::scope(|scope| {
        let writers: Vec<_> =
            (0..3).map(|_| scope.spawn(|| (0..20).for_each(|_| inventory.refresh()))).collect();
        let mut last = 0;
        while writers.iter().any(|w| !w.is_finished()) {
            let snapshot = inventory.snapshot();
            assert!(snapshot.generation >= last);
            last = snapshot.generation;
            assert!(snapshot.cards.values().all(|card| card.presence == Presence::Here));
        }
    });
    assert_eq!(inventory.snapshot().cards.len(), 4);
    assert_eq!(nvidia.probes.load(SeqCst), 1, "refreshes at once open the library once");
}

#[test]
fn the_boot_id_is_the_hosts() {
    let root = tempfile::tempdir().expect("a folder");
    let e = boot_id(root.path()).expect_err("not there");
    assert_eq!(e.kind, ErrorKind::NotFound);
    let dir = root.path().join("proc/sys/kernel/random");
    fs::create_dir_all(&dir).expect("makes");
    fs::write(dir.join("boot_id"), "\n").expect("writes");
    assert_eq!(boot_id(root.path()).expect_err("empty").kind, ErrorKind::Invalid);
    fs::write(dir.join("boot_id"), "8a5e\n").expect("writes");
    assert_eq!(boot_id(root.path()).expect("there"), "8a5e");
}
