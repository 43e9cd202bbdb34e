//! Scans and topology: who answers, who does not, and how near they are.

use std::fs;

use vgpu_backend_nvidia::{FailureCause, LinkEnd, MigMode};
use vgpu_core::{
    Backend, BackendExt, Bytes, Change, Discovery, ErrorKind, LinkKind, Scheme, Sizing,
};

use crate::nvml::{Scripted, address, card, uuid};
use crate::{backend, backend_at, id};

#[test]
fn a_sound_card_is_described() {
    let nvml = Scripted::with(1);
    let backend = backend(&nvml);
    let scan = backend.scan().expect("a scan");
    assert_eq!(scan.lost, []);
    let device = &scan.devices[0];
    assert_eq!(device.id.as_str(), uuid(0));
    assert_eq!(device.model, "NVIDIA H200");
    assert_eq!(device.pci.as_deref(), Some("0000:10:00.0"));
    assert_eq!(device.numa, Some(0));
    assert_eq!(device.memory, Bytes::gib(140));
    assert_eq!(device.compute_units.get(), 132);
    let schemes: Vec<&Scheme> = device.schemes.iter().map(|s| &s.scheme).collect();
    assert_eq!(schemes, [&Scheme::WHOLE, &Scheme::TIME_SLICE]);
    assert!(device.schemes.iter().all(|s| s.mode.active && s.mode.affects == [id(0)]));
    assert_eq!(device.schemes[0].sizing, Sizing::Whole);
    assert_eq!(device.schemes[1].sizing, Sizing::Turns);
    assert_eq!(backend.device(&id(0)).expect("the same"), *device);
    let info = backend.info();
    assert_eq!(
        (info.driver.as_str(), info.missing_symbols),
        ("570.124.06", vec!["nvmlA".to_owned(), "nvmlZ".to_owned()])
    );
}

#[test]
fn a_card_that_tells_nothing_but_itself_and_its_memory_is_still_a_card() {
    let nvml = Scripted::with(1);
    {
        let mut state = nvml.state();
        let card = &mut state.cards[0];
        (card.name, card.pci, card.cores, card.capability) = (None, None, None, None);
        (card.numa, card.mig) = (None, None);
    }
    let device = backend(&nvml).scan().expect("a scan").devices.remove(0);
    assert_eq!((device.model.as_str(), device.compute_units.get()), ("NVIDIA", 1));
    assert_eq!((device.pci, device.numa), (None, None));
    assert!(device.schemes.iter().all(|s| s.mode.active));
}

#[test]
fn a_lost_card_keeps_its_name_and_comes_back() {
    let nvml = Scripted::with(3);
    let backend = backend(&nvml);
    let before = backend.scan().expect("a scan");
    nvml.lose(1);
    let scan = backend.scan().expect("the others still answer");
    assert_eq!(scan.devices.iter().map(|d| &d.id).collect::<Vec<_>>(), [&id(0), &id(2)]);
    assert_eq!(scan.lost.len(), 1);
    assert_eq!(scan.lost[0].name, uuid(1));
    assert_eq!(scan.lost[0].reason.kind, ErrorKind::Lost);
    assert_eq!(scan.lost[0].reason.vendor.as_ref().map(|v| v.code), Some(15));
    assert_eq!(backend.device(&id(1)).unwrap_err().kind, ErrorKind::Lost);
    nvml.heal();
    assert_eq!(backend.scan().expect("a scan"), before);
}

#[test]
fn a_card_that_never_answered_is_named_by_what_is_left_on_the_bus() {
    let nvml = Scripted::with(2);
    nvml.lose(1);
    assert_eq!(backend(&nvml).scan().expect("a scan").lost[0].name, "nvidia-card-1");
    let root = tempfile::tempdir().expect("a folder");
    for (index, class) in [(0, "0x030200"), (1, "0x030000"), (7, "0x040300")] {
        let function = root.path().join("sys/bus/pci/devices").join(address(index));
        fs::create_dir_all(&function).expect("made");
        fs::write(function.join("vendor"), "0x10de\n").expect("written");
        fs::write(function.join("class"), class).expect("written");
    }
    let scan = backend_at(&nvml, root.path()).scan().expect("a scan");
    assert_eq!(scan.lost[0].name, address(1), "function 7 is the sound of a card");
}

#[test]
fn a_card_that_vanished_from_the_list_is_lost_and_not_forgotten() {
    let nvml = Scripted::with(2);
    let backend = backend(&nvml);
    backend.scan().expect("a scan");
    nvml.state().cards.pop();
    let scan = backend.scan().expect("a scan");
    assert_eq!((scan.devices.len(), scan.lost.len()), (1, 1));
    assert_eq!(
        (scan.lost[0].name.as_str(), scan.lost[0].reason.kind),
        (&*uuid(1), ErrorKind::Lost)
    );
}

#[test]
fn what_cannot_be_an_answer_loses_one_card_only() {
    let nvml = Scripted::with(4);
    {
        let mut state = nvml.state();
        state.cards[1].uuid = uuid(0);
        state.cards[2].uuid = "not an id!".into();
        if let Some(memory) = &mut state.cards[3].memory {
            memory.reserved = Some(u64::MAX);
        }
    }
    let scan = backend(&nvml).scan().expect("a scan");
    assert_eq!(scan.devices.iter().map(|d| &d.id).collect::<Vec<_>>(), [&id(0)]);
    let mut names: Vec<&str> = scan.lost.iter().map(|l| l.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 3, "{:?}", scan.lost);
}

#[test]
fn a_card_in_mig_mode_is_not_offered_whole() {
    let nvml = Scripted::with(2);
    nvml.state().cards[1].mig = Some(MigMode { current: true, pending: true });
    let scan = backend(&nvml).scan().expect("a scan");
    assert!(scan.devices[0].schemes.iter().all(|s| s.mode.active));
    for scheme in &scan.devices[1].schemes {
        assert!(!scheme.mode.active, "{}", scheme.scheme);
        assert_eq!((scheme.mode.enter, &*scheme.mode.affects), (Change::IdleDevice, &[id(1)][..]));
    }
    // One that cannot say whether it is must not be offered either.
    nvml.fail("nvmlDeviceGetMigMode", Some(0), 999);
    assert_eq!(backend(&nvml).scan().expect("a scan").lost.len(), 1);
}

#[test]
fn a_replaced_driver_is_told_by_every_question() {
    let nvml = Scripted::with(2);
    let backend = backend(&nvml);
    backend.scan().expect("a scan");
    nvml.fail("*", None, 18);
    assert_eq!(backend.scan().unwrap_err().kind, ErrorKind::DriverReplaced);
    assert_eq!(backend.topology().unwrap_err().kind, ErrorKind::DriverReplaced);
    nvml.heal();
    nvml.fail("nvmlDeviceGetTopologyCommonAncestor", None, 18);
    assert_eq!(backend.topology().unwrap_err().kind, ErrorKind::DriverReplaced);
    nvml.heal();
    // Of one card only, and still no card's fault.
    nvml.fail("nvmlDeviceGetName", Some(1), 18);
    let error = backend.scan().unwrap_err();
    assert_eq!((error.kind, error.operation.as_deref()), (ErrorKind::DriverReplaced, Some("scan")));
}

#[test]
fn pairs_are_listed_once_and_unreadable_ones_left_out() {
    let nvml = Scripted::with(4);
    let backend = backend(&nvml);
    let links = backend.topology().expect("links");
    assert_eq!(links.len(), 6);
    let near = links.iter().find(|l| l.a == id(0) && l.b == id(1)).expect("a pair");
    assert_eq!((near.kind, near.lanes), (LinkKind::OneSwitch, 0));
    let far = links.iter().find(|l| l.a == id(1) && l.b == id(2)).expect("a pair");
    assert_eq!(far.kind, LinkKind::System);

    nvml.fail("nvmlDeviceGetTopologyCommonAncestor", Some(3), 999);
    assert_eq!(backend.topology().expect("links").len(), 3);
    nvml.lose(3);
    let links = backend.topology().expect("links");
    assert!(links.len() == 3 && links.iter().all(|l| l.a != id(3) && l.b != id(3)));
}

#[test]
fn nvlinks_are_counted_card_to_card_and_over_switches() {
    let nvml = Scripted::with(3);
    {
        let mut state = nvml.state();
        let direct = |to, kind| (address(to), kind);
        let switch = |n: u32| (format!("0000:0{n}:00.0"), Some(LinkEnd::Switch));
        // Four direct links, of which an old driver does not tell what is at two of them.
        state.cards[0].nvlinks = vec![
            direct(1, Some(LinkEnd::Gpu)),
            direct(1, Some(LinkEnd::Gpu)),
            direct(1, None),
            direct(1, Some(LinkEnd::Unknown)),
            switch(1),
            switch(1),
            switch(2),
        ];
        state.cards[1].nvlinks = vec![direct(0, Some(LinkEnd::Npu))];
        state.cards[2].nvlinks = vec![switch(1), switch(2), switch(2), switch(3)];
    }
    let links = backend(&nvml).topology().expect("links");
    let lanes = |a, b| links.iter().find(|l| l.a == id(a) && l.b == id(b)).map(|l| l.lanes);
    assert_eq!(lanes(0, 1), Some(4), "card 1 cannot read its own ends");
    assert_eq!(lanes(0, 2), Some(2), "one over each switch that both are on");
    assert_eq!(lanes(1, 2), Some(0));
    // Without any NVLink function the path is still known.
    nvml.state().fail.insert(("nvmlDeviceGetNvLinkState", None), FailureCause::SymbolMissing);
    assert!(backend(&nvml).topology().expect("links").iter().all(|l| l.lanes == 0));
}

#[test]
fn numa_comes_from_the_host_where_the_driver_does_not_tell() {
    let root = tempfile::tempdir().expect("a folder");
    let nvml = Scripted::with(2);
    for (index, node) in [(0, "1\n"), (1, "-1\n")] {
        nvml.state().cards[index as usize] = crate::nvml::Card { numa: None, ..card(index) };
        let function = root.path().join("sys/bus/pci/devices").join(address(index));
        fs::create_dir_all(&function).expect("made");
        fs::write(function.join("numa_node"), node).expect("written");
    }
    let scan = backend_at(&nvml, root.path()).scan().expect("a scan");
    assert_eq!(scan.devices.iter().map(|d| d.numa).collect::<Vec<_>>(), [Some(1), None]);
}
