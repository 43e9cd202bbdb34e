//! How a card is, read afresh.

use vgpu_backend_nvidia::{ComputeProcess, MemoryInfo, RemappedRows};
use vgpu_core::{Bytes, ErrorKind, Health, Meaning, Subject, Usage};

use crate::nvml::{Card, Scripted, card};
use crate::{backend, id};

/// What one changed reading makes of a sound card.
fn verdict(change: impl FnOnce(&mut Card)) -> (Meaning, String) {
    let nvml = Scripted::with(1);
    change(&mut nvml.state().cards[0]);
    let mut events = backend(&nvml).check(&id(0)).expect("a reading");
    assert_eq!(events.len(), 1);
    let event = events.remove(0);
    assert_eq!(event.subject, Subject::Device(id(0)));
    (event.meaning, event.cause)
}

#[test]
fn a_sound_card_is_good_and_any_other_says_why() {
    let rows = |pending, failed| {
        move |card: &mut Card| {
            card.rows = Some(RemappedRows { corrected: 1, uncorrected: 1, pending, failed });
        }
    };
    let action = |action| move |card: &mut Card| card.recovery_action = Some(action);
    assert_eq!(verdict(|_| ()), (Meaning::Good, "answers, 34 °C".to_owned()));
    assert_eq!(verdict(rows(false, false)).0, Meaning::Good);
    for ((meaning, cause), expected, word) in [
        (verdict(rows(true, false)), Meaning::NeedsReset, "next reset"),
        (verdict(rows(false, true)), Meaning::NeedsReset, "worn out"),
        (verdict(action(1)), Meaning::NeedsReset, "action 1"),
        (verdict(action(2)), Meaning::NeedsReboot, "reboot"),
        (verdict(action(3)), Meaning::Suspect, "drained"),
        (verdict(action(4)), Meaning::NeedsReset, "reset"),
        (verdict(action(5)), Meaning::Suspect, "IMEX"),
        (verdict(action(77)), Meaning::Suspect, "77"),
        (verdict(|c| c.pages_pending = Some(true)), Meaning::NeedsReset, "pages"),
        (verdict(|c| c.ecc_errors = Some(3)), Meaning::Suspect, "3 uncorrected"),
        (verdict(|c| c.temperature = Some(89)), Meaning::Suspect, "89 °C"),
        (verdict(|c| c.temperature = Some(u32::MAX)), Meaning::Suspect, "°C"),
    ] {
        assert_eq!(meaning, expected, "{cause}");
        assert!(cause.contains(word), "{word} in {cause}");
    }
    assert_eq!(verdict(|c| c.temperature = Some(88)).0, Meaning::Good);
    assert_eq!(verdict(|c| c.shutdown = Some(0)).0, Meaning::Good, "0 is no limit");
}

#[test]
fn the_gravest_comes_first_and_nothing_is_dropped() {
    let (meaning, cause) = verdict(|card| {
        card.ecc_errors = Some(1);
        card.recovery_action = Some(2);
        card.temperature = Some(91);
    });
    assert_eq!(meaning, Meaning::NeedsReboot);
    let places: Vec<Option<usize>> =
        ["reboot", "91 °C", "uncorrected"].iter().map(|word| cause.find(word)).collect();
    assert!(places[0] < places[1] && places[1] < places[2] && places[0].is_some(), "{cause}");
}

#[test]
fn a_card_that_can_tell_nothing_is_good_if_it_answers() {
    let nothing = |c: &mut Card| {
        (c.temperature, c.shutdown, c.recovery_action) = (None, None, None);
        (c.rows, c.pages_pending, c.ecc_errors) = (None, None, None);
    };
    assert_eq!(verdict(nothing), (Meaning::Good, "answers".to_owned()));
}

#[test]
fn a_lost_card_is_lost_alone_and_good_when_it_is_back() {
    let nvml = Scripted::with(2);
    let backend = backend(&nvml);
    let meaning = |card| backend.check(&id(card)).expect("a reading")[0].meaning;
    nvml.lose(0);
    // Also by one that never saw it answer.
    assert_eq!((meaning(0), meaning(1)), (Meaning::Lost, Meaning::Good));
    nvml.heal();
    assert_eq!(meaning(0), Meaning::Good);
    // No XID came, and its UUID is still answered from memory.
    nvml.fail("nvmlDeviceGetTemperature", Some(0), 15);
    assert_eq!((meaning(0), meaning(1)), (Meaning::Lost, Meaning::Good));
    nvml.heal();
    nvml.fail("*", Some(0), 16);
    assert_eq!(meaning(0), Meaning::NeedsReset);
    nvml.heal();
    nvml.fail("*", Some(0), 999);
    assert_eq!(meaning(0), Meaning::Unknown, "never good without a reading");
    nvml.heal();
    nvml.fail("nvmlDeviceGetRemappedRows", Some(0), 999);
    assert_eq!(meaning(0), Meaning::Unknown);
    nvml.heal();
    nvml.fail("nvmlDeviceGetTotalEccErrors", Some(0), 4);
    assert_eq!(meaning(0), Meaning::Good, "what we may not read is no fault of the card");
}

#[test]
fn unknown_cards_and_replaced_drivers_are_errors() {
    let nvml = Scripted::with(1);
    let backend = backend(&nvml);
    let error = backend.check(&id(9)).unwrap_err();
    assert_eq!((error.kind, error.operation.as_deref()), (ErrorKind::NotFound, Some("check")));
    nvml.fail("nvmlDeviceGetTemperature", Some(0), 18);
    assert_eq!(backend.check(&id(0)).unwrap_err().kind, ErrorKind::DriverReplaced);
    nvml.heal();
    nvml.fail("nvmlDeviceGetUUID", Some(0), 18);
    assert_eq!(backend.check(&id(0)).unwrap_err().kind, ErrorKind::DriverReplaced);
}

#[test]
fn use_is_what_the_driver_tells_and_nothing_more() {
    let nvml = Scripted::with(1);
    let process = ComputeProcess { pid: 7, used: None, gpu_instance: None, compute_instance: None };
    nvml.state().cards[0].processes = Some(vec![process]);
    let backend = backend(&nvml);
    let usage = || backend.usage(&Subject::Device(id(0)));
    let full = Usage {
        memory: Some(Bytes::gib(1)),
        limit: Some(Bytes::gib(140)),
        busy_ppm: None,
        processes: Some(1),
    };
    assert_eq!(usage(), Ok(full));
    nvml.state().cards[0].processes = None;
    assert_eq!(usage().expect("read").processes, None);
    let beyond = MemoryInfo { total: 10, reserved: None, free: 0, used: u64::MAX };
    nvml.state().cards[0].memory = Some(beyond);
    assert_eq!(usage().expect("read").memory, None, "more than there is");
    nvml.state().cards[0] = Card { memory: None, ..card(0) };
    assert_eq!(usage().expect("read"), Usage { processes: Some(0), ..Usage::default() });
    nvml.lose(0);
    assert_eq!(usage().unwrap_err().kind, ErrorKind::Lost);
    assert_eq!(backend.usage(&Subject::Device(id(3))).unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(backend.usage(&Subject::Vendor), Ok(Usage::default()));
    let cgroup = Subject::Cgroup(id(0), "/sys/fs/cgroup/x".into());
    nvml.heal();
    assert_eq!(backend.usage(&cgroup).unwrap_err().kind, ErrorKind::NotFound);
}
