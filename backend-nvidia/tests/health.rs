//! How cards are, on the fake library: what is read of them, what the driver tells by itself, and that each goes away
//! again. What becomes of it (how long a card stays out, and when it is back) is the node's policy.

#[path = "support/built.rs"]
mod built;
#[path = "support/inside.rs"]
mod inside;

use std::sync::Arc;
use std::time::{Duration, Instant};

use vgpu_backend_nvidia::{Action, NvidiaFactory, xid};
use vgpu_core::{
    Backend, BackendFactory, DeviceId, ErrorKind, Event, Host, Meaning, Probe, Subject,
};

use crate::built::built;
use crate::inside::{INSIDE, control, folder, inside};

const H200: &str = "preset: h200x2\n";

#[test]
fn what_is_read_of_a_card_goes_and_comes_back() {
    inside("readings", H200, |_| ());
}

#[test]
fn a_card_lost_without_an_event_is_found_by_asking() {
    inside("lost_in_silence", H200, |_| ());
}

#[test]
fn events_carry_what_the_table_says() {
    inside("events", H200, |_| ());
}

#[test]
fn the_driver_s_own_word_decides_where_it_has_one() {
    inside("recovery_action", H200, |_| ());
}

#[test]
fn a_driver_that_was_replaced_is_told_by_every_way() {
    inside("replaced", H200, |_| ());
}

#[test]
fn numbers_out_of_range_are_errors_and_nothing_is_taken_for_good() {
    inside("out_of_range", H200, |_| ());
}

/// What runs in a process whose environment names the machine; does nothing otherwise.
#[test]
#[ignore = "is started by the other tests, with a machine"]
fn child() {
    let Ok(what) = std::env::var(INSIDE) else { return };
    match what.as_str() {
        "events" => events(),
        "lost_in_silence" => lost_in_silence(),
        "out_of_range" => out_of_range(),
        "readings" => readings(),
        "recovery_action" => recovery_action(),
        "replaced" => replaced(),
        other => panic!("nothing is called {other}"),
    }
}

fn readings() {
    let (backend, cards) = backend();
    for (ill, meaning, word) in [
        (
            "remapped_rows: {corrected: 0, uncorrected: 1, pending: true, failed: false}",
            Meaning::NeedsReset,
            "next reset",
        ),
        (
            "remapped_rows: {corrected: 9, uncorrected: 9, pending: false, failed: true}",
            Meaning::NeedsReset,
            "worn out",
        ),
        ("retired_pending: true", Meaning::NeedsReset, "pages"),
        ("ecc_uncorrected: 7", Meaning::Suspect, "7 uncorrected"),
        ("temperature: 91", Meaning::Suspect, "91 °C"),
        ("recovery_action: 1", Meaning::NeedsReset, "reset needed"),
        ("recovery_action: 2", Meaning::NeedsReboot, "reboot"),
        ("recovery_action: 4", Meaning::NeedsReset, "drained"),
        ("recovery_action: 99", Meaning::Suspect, "does not know"),
    ] {
        control(&format!("cards: {{0: {{{ill}}}}}"));
        let event = check(&*backend, &cards[0]);
        assert_eq!(event.meaning, meaning, "{ill}: {}", event.cause);
        assert!(event.cause.contains(word), "{word} in {}", event.cause);
        assert_eq!(check(&*backend, &cards[1]).meaning, Meaning::Good, "its neighbour, with {ill}");
        control("");
        assert_eq!(check(&*backend, &cards[0]).meaning, Meaning::Good, "after {ill}");
    }
}

fn lost_in_silence() {
    let (backend, cards) = backend();
    assert_eq!(backend.wait(Duration::ZERO), Ok(Vec::new()));
    control("cards: {1: {state: lost}}");
    assert_eq!(backend.wait(Duration::from_millis(50)), Ok(Vec::new()), "no event tells it");
    let lost = check(&*backend, &cards[1]);
    assert_eq!(lost.meaning, Meaning::Lost, "{}", lost.cause);
    let scan = backend.scan().expect("a scan");
    assert_eq!((scan.devices.len(), &*scan.lost[0].name), (1, cards[1].as_str()));
    assert_eq!(scan.lost[0].reason.kind, ErrorKind::Lost);
    control("");
    assert_eq!(check(&*backend, &cards[1]).meaning, Meaning::Good);
    assert_eq!(backend.scan().expect("a scan").devices.len(), 2);
}

fn events() {
    let (backend, cards) = backend();
    backend.wait(Duration::ZERO).expect("watched");
    for number in [13, 48, 79, 94, 95, 109, 119, 140, 999, 4711] {
        control(&format!("events: [{{id: x{number}, card: 1, type: 8, data: {number}}}]"));
        let event = next(&*backend);
        let row = xid(number);
        assert_eq!(event.subject, Subject::Device(cards[1].clone()));
        assert_eq!(event.meaning, row.meaning, "{}", event.cause);
        for word in [format!("xid {number}"), row.name.into(), row.action.words().into()] {
            assert!(event.cause.contains(&word), "{word} in {}", event.cause);
        }
    }
    assert_eq!((xid(79).action, xid(94).action), (Action::RestartHost, Action::RestartApp));
    for (bits, meaning) in [(0x2, Meaning::NeedsReset), (0x4000, Meaning::Lost)] {
        control(&format!("events: [{{id: e{bits}, card: 0, type: {bits}, data: 0}}]"));
        let event = next(&*backend);
        assert_eq!(event.meaning, meaning, "{}", event.cause);
    }
}

fn recovery_action() {
    let (backend, cards) = backend();
    backend.wait(Duration::ZERO).expect("watched");
    for (n, (event, action, meaning)) in [
        ("type: 8, data: 154", 2, Meaning::NeedsReboot),
        ("type: 8, data: 154", 1, Meaning::NeedsReset),
        ("type: 32768, data: 0", 4, Meaning::NeedsReset),
        // Nothing to do any more, or nothing that this driver tells: watched, not good.
        ("type: 8, data: 154", 0, Meaning::Suspect),
    ]
    .into_iter()
    .enumerate()
    {
        control(&format!(
            "cards: {{0: {{recovery_action: {action}}}}}\nevents: [{{id: r{n}, card: 0, {event}}}]"
        ));
        let told = next(&*backend);
        assert_eq!(told.meaning, meaning, "{event}, action {action}: {}", told.cause);
        let checked = check(&*backend, &cards[0]).meaning;
        assert_eq!(checked == Meaning::Good, action == 0);
    }
}

fn replaced() {
    let (backend, cards) = backend();
    control(
        "fail: [{function: nvmlDeviceGetUUID, code: 18}, {function: nvmlSystemGetDriverVersion, code: 18}, \
         {function: nvmlDeviceGetCount_v2, code: 18}, {function: nvmlEventSetWait_v2, code: 18}]",
    );
    assert_eq!(backend.check(&cards[0]).expect_err("replaced").kind, ErrorKind::DriverReplaced);
    assert_eq!(backend.scan().expect_err("replaced").kind, ErrorKind::DriverReplaced);
    let waited = backend.wait(Duration::from_millis(20)).expect_err("replaced");
    assert_eq!(waited.kind, ErrorKind::DriverReplaced);
    assert!(waited.message.contains("start this program anew"), "{waited}");
}

fn out_of_range() {
    let (backend, cards) = backend();
    control("cards: {0: {remapped_rows: null, temperature: 4294967295}}");
    assert_eq!(check(&*backend, &cards[0]).meaning, Meaning::Suspect);
    control("cards: {0: {claimed_processes: 4294967295}}");
    let error = backend.usage(&Subject::Device(cards[0].clone())).expect_err("so many cannot be");
    assert_eq!(error.kind, ErrorKind::Vendor, "{error}");
    assert!(error.message.contains("processes"), "{error}");
    control("cards: {0: {memory: {total_mib: 0}}}");
    let scan = backend.scan().expect("the other card");
    assert_eq!((scan.devices.len(), scan.lost.len()), (1, 1));
    assert!(scan.lost[0].reason.message.contains("no memory"), "{}", scan.lost[0].reason);
    control("cards: {0: {unterminated: [uuid]}}");
    let scan = backend.scan().expect("the other card");
    assert_eq!((scan.devices.len(), scan.lost.len()), (1, 1));
    control("fail: [{function: nvmlDeviceGetCount_v2, code: 999}]");
    assert_eq!(backend.scan().expect_err("no count").kind, ErrorKind::Vendor);
    control("");
    assert_eq!(backend.scan().expect("both").devices.len(), 2);
}

fn backend() -> (Arc<dyn Backend>, Vec<DeviceId>) {
    let host = Host { root: folder(), library: Some(built("libfake_nvml.so")) };
    let backend = match NvidiaFactory::default().probe(&host) {
        Probe::Ready(backend) => backend,
        other => panic!("{other:?}"),
    };
    let cards = backend.scan().expect("a scan").devices.into_iter().map(|d| d.id).collect();
    (backend, cards)
}

fn check(backend: &dyn Backend, card: &DeviceId) -> Event {
    backend.check(card).expect("a reading").remove(0)
}

/// The next event; the limit is for a machine that never gives one.
fn next(backend: &dyn Backend) -> Event {
    let start = Instant::now();
    loop {
        let mut events = backend.wait(Duration::from_millis(100)).expect("waited");
        match events.len() {
            0 => assert!(start.elapsed() < Duration::from_secs(60), "no event came"),
            1 => return events.remove(0),
            _ => panic!("one was sent: {events:?}"),
        }
    }
}
