//! The driver's events, and what becomes of waiting when it has none or fails.

use std::time::{Duration, Instant};

use vgpu_backend_nvidia::{FailureCause, NvidiaOptions, RawEvent, XIDS};
use vgpu_core::{ErrorKind, Event, Health, Meaning, Subject};

use crate::nvml::Scripted;
use crate::{backend, id, options};

const SOON: Duration = Duration::from_millis(5);

fn raw(index: u32, event_type: u64, data: u64) -> RawEvent {
    RawEvent { index: Some(index), event_type, data, gpu_instance: None, compute_instance: None }
}

fn told(events: &[Event]) -> Vec<(Subject, Meaning)> {
    events.iter().map(|e| (e.subject.clone(), e.meaning)).collect()
}

#[test]
fn each_event_comes_once_with_its_card_and_cause() {
    let nvml = Scripted::with(2);
    let backend = backend(&nvml);
    assert_eq!(backend.wait(SOON), Ok(Vec::new()));
    let instance = RawEvent { gpu_instance: Some(3), compute_instance: Some(0), ..raw(1, 0x8, 94) };
    nvml.state().events.extend([
        Ok(raw(0, 0x8, 79)),
        Ok(instance),
        Ok(raw(1, 0x100, 0)),
        Ok(raw(0, 0x2, 0)),
        Ok(RawEvent { index: None, ..raw(0, 0x8, 31) }),
    ]);
    let events = backend.wait(SOON).expect("events");
    let card = |n| Subject::Device(id(n));
    assert_eq!(
        told(&events),
        [
            (card(0), Meaning::Lost),
            (card(1), Meaning::Suspect),
            (card(1), Meaning::Changed),
            (card(0), Meaning::NeedsReset),
            (Subject::Vendor, Meaning::Suspect),
        ]
    );
    assert!(events[0].cause.starts_with("xid 79"), "{}", events[0].cause);
    assert!(events[1].cause.ends_with("GPU instance 3, compute instance 0"), "{}", events[1].cause);
    assert_eq!(backend.wait(SOON), Ok(Vec::new()));
    let registered = nvml.state().registered.clone();
    // Everything the card has, less the single bit errors.
    assert_eq!(registered, [(0, 0xc10a), (1, 0xc10a)]);
}

#[test]
fn every_xid_of_the_table_is_told_with_its_number() {
    let nvml = Scripted::with(1);
    let backend = backend(&nvml);
    for row in XIDS {
        nvml.state().events.push_back(Ok(raw(0, 0x8, row.number)));
        let events = backend.wait(SOON).expect("an event");
        assert_eq!(told(&events), [(Subject::Device(id(0)), row.meaning)], "{row:?}");
        assert!(events[0].cause.contains(&format!("xid {}", row.number)), "{events:?}");
    }
    nvml.state().events.push_back(Ok(raw(0, 0x8, 999)));
    assert_eq!(backend.wait(SOON).expect("an event")[0].meaning, Meaning::Suspect);
}

#[test]
fn a_changed_recovery_action_is_read() {
    let nvml = Scripted::with(1);
    let backend = backend(&nvml);
    for (event, action, expected) in [
        (raw(0, 0x8, 154), Some(2), Meaning::NeedsReboot),
        (raw(0, 0x8000, 0), Some(1), Meaning::NeedsReset),
        (raw(0, 0x4000, 0), Some(4), Meaning::NeedsReset),
        (raw(0, 0x4000, 0), Some(0), Meaning::Lost),
        (raw(0, 0x8000, 0), None, Meaning::Suspect),
        // Not of this kind: the action is not looked at.
        (raw(0, 0x8, 13), Some(2), Meaning::TenantFault),
    ] {
        nvml.state().cards[0].recovery_action = action;
        nvml.state().events.push_back(Ok(event));
        let events = backend.wait(SOON).expect("an event");
        assert_eq!(events[0].meaning, expected, "{event:?} {action:?}: {events:?}");
    }
}

#[test]
fn without_events_the_time_passes_and_nothing_fails() {
    let nvml = Scripted::with(2);
    nvml.state().cards[0].event_types = None;
    nvml.state().cards[1].event_types = Some(0x1);
    let started = Instant::now();
    assert_eq!(backend(&nvml).wait(Duration::from_millis(30)), Ok(Vec::new()));
    assert!(started.elapsed() >= Duration::from_millis(30), "it did not wait at all");
    assert_eq!(nvml.state().waits, 0);
    nvml.state().fail.insert(("nvmlEventSetCreate", None), FailureCause::SymbolMissing);
    let started = Instant::now();
    assert_eq!(backend(&nvml).wait(Duration::from_millis(30)), Ok(Vec::new()));
    assert!(started.elapsed() >= Duration::from_millis(30), "it did not wait at all");
    // A card that has events is heard beside one that has none.
    let nvml = Scripted::with(2);
    nvml.fail("nvmlDeviceRegisterEvents", Some(0), 3);
    nvml.state().events.push_back(Ok(raw(1, 0x8, 48)));
    let events = backend(&nvml).wait(SOON).expect("events");
    assert_eq!(told(&events), [(Subject::Device(id(1)), Meaning::NeedsReset)]);
}

#[test]
fn a_card_that_falls_off_while_watched_is_told_once_and_watched_again_when_back() {
    let nvml = Scripted::with(2);
    let backend = backend(&nvml);
    backend.wait(SOON).expect("both are watched");
    nvml.lose(1);
    nvml.state().events.push_back(Err(15));
    let events = backend.wait(SOON).expect("NVML says that some card is lost; it is found");
    assert_eq!(told(&events), [(Subject::Device(id(1)), Meaning::Lost)]);
    assert_eq!(backend.wait(SOON), Ok(Vec::new()), "once");
    nvml.state().events.push_back(Ok(raw(0, 0x8, 43)));
    assert_eq!(backend.wait(SOON).expect("the other goes on").len(), 1);
    nvml.heal();
    nvml.state().registered.clear();
    backend.wait(SOON).expect("it is back");
    assert_eq!(nvml.state().registered.len(), 1);
    nvml.state().events.push_back(Ok(raw(1, 0x8, 48)));
    assert_eq!(told(&backend.wait(SOON).expect("an event"))[0].0, Subject::Device(id(1)));
}

#[test]
fn a_storm_of_errors_is_paused_and_survived() {
    let nvml = Scripted::with(1);
    let backend = backend_with_pause(&nvml, Duration::from_millis(20));
    nvml.state().events.extend([Err(999), Err(999), Ok(raw(0, 0x8, 79)), Err(999)]);
    for _ in 0..2 {
        let started = Instant::now();
        let error = backend.wait(Duration::from_secs(60)).unwrap_err();
        assert_eq!((error.kind, error.operation.as_deref()), (ErrorKind::Vendor, Some("wait")));
        assert!(started.elapsed() >= Duration::from_millis(20), "no pause: a busy loop");
    }
    // An error behind an event does not swallow it.
    assert_eq!(backend.wait(SOON).expect("the event")[0].meaning, Meaning::Lost);
    assert_eq!(backend.wait(SOON), Ok(Vec::new()));
    assert_eq!(nvml.state().sets_opened, 4, "a set that failed is not used again");
    // A short wait stays short.
    nvml.state().events.push_back(Err(999));
    assert!(backend.wait(Duration::ZERO).is_err());
    nvml.fail("*", None, 18);
    assert_eq!(backend.wait(SOON).unwrap_err().kind, ErrorKind::DriverReplaced);
}

#[test]
fn a_flood_comes_in_pieces() {
    let nvml = Scripted::with(1);
    let backend = backend(&nvml);
    nvml.state().events.extend((0..1000).map(|_| Ok(raw(0, 0x8, 31))));
    let mut seen = 0;
    while seen < 1000 {
        let events = backend.wait(SOON).expect("events");
        assert!(!events.is_empty() && events.len() <= 256, "{}", events.len());
        seen += events.len();
    }
    assert_eq!((seen, backend.wait(SOON)), (1000, Ok(Vec::new())));
}

fn backend_with_pause(
    nvml: &std::sync::Arc<Scripted>,
    pause: Duration,
) -> vgpu_backend_nvidia::NvidiaBackend {
    let api: std::sync::Arc<dyn vgpu_backend_nvidia::NvmlApi> = std::sync::Arc::clone(nvml) as _;
    let options = NvidiaOptions { pause, ..options() };
    vgpu_backend_nvidia::NvidiaBackend::over(api, &vgpu_core::Host::default(), options)
        .expect("a driver with a version")
}
