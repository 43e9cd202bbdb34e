//! Drivers that do not answer.

use std::time::Duration;

use super::machine::{eventually, refresh_until, with_deadline};
use super::*;

const HASTE: Duration = Duration::from_millis(200);

#[test]
fn a_vendor_that_hangs_holds_up_nobody_else() {
    for what in ["probe", "scan", "topology"] {
        let nvidia = Made::new(&Vendor::NVIDIA, &[0]);
        let hygon = Made::new(&Vendor::HYGON, &[0]);
        nvidia.now(|says| says.hangs = vec![what.into()]);
        let inventory = inventory(&[&nvidia, &hygon]);
        thread::scope(|scope| {
            scope.spawn(|| inventory.refresh());
            eventually(&inventory, what, |s| s.cards.contains_key(&hygon.id(0)));
            nvidia.now(|says| says.hangs.clear());
        });
        assert_eq!(inventory.snapshot().cards.len(), 2, "it came back in time");
    }
}

#[test]
fn a_card_that_hangs_holds_up_no_other_card() {
    let nvidia = Made::new(&Vendor::NVIDIA, &[0, 1, 2]);
    nvidia.now(|says| says.hangs = vec!["nvidia-1".into()]);
    let inventory = inventory(&[&nvidia]);
    thread::scope(|scope| {
        scope.spawn(|| inventory.refresh());
        eventually(&inventory, "its neighbours", |s| s.cards.len() == 2);
        nvidia.now(|says| says.hangs.clear());
    });
    assert_eq!(inventory.snapshot().cards.len(), 3);
}

#[test]
fn a_probe_that_hangs_is_told_and_not_started_twice() {
    let nvidia = Made::new(&Vendor::NVIDIA, &[0]);
    nvidia.now(|says| says.hangs = vec!["probe".into()]);
    let inventory = with_deadline(&[&nvidia], HASTE);
    let kind = || match &inventory.snapshot().backends[&Vendor::NVIDIA] {
        BackendStatus::Broken(error) => Some(error.kind),
        _ => None,
    };
    inventory.refresh();
    assert_eq!(kind(), Some(ErrorKind::InDoubt));
    inventory.refresh();
    assert_eq!(kind(), Some(ErrorKind::Busy));
    assert_eq!(nvidia.probes.load(SeqCst), 1);
    nvidia.now(|says| says.hangs.clear());
    refresh_until(&inventory, "it is probed again", |s| s.cards.len() == 1);
}

#[test]
fn a_library_with_too_many_stuck_calls_is_run_anew_but_not_for_ever() {
    let nvidia = Made::new(&Vendor::NVIDIA, &[0]);
    let inventory = with_deadline(&[&nvidia], HASTE);
    refresh_until(&inventory, "the card", |s| s.cards.len() == 1);
    nvidia.now(|says| says.hangs = vec!["scan".into()]);
    let given_up = |s: &Snapshot| match &s.backends[&Vendor::NVIDIA] {
        BackendStatus::Broken(error) => error.message.contains("restart the agent"),
        _ => false,
    };
    refresh_until(&inventory, "given up", given_up);
    let probes = nvidia.probes.load(SeqCst);
    assert!(probes >= 3, "two more runs are tried, not {}", probes - 1);
    for _ in 0..10 {
        inventory.refresh();
    }
    assert_eq!(nvidia.probes.load(SeqCst), probes, "and no fourth");
    nvidia.now(|says| says.hangs.clear());
    refresh_until(&inventory, "the card again", |s| {
        s.cards[&nvidia.id(0)].presence == Presence::Here
    });
}

#[test]
fn late_changes_are_told_also_of_backends_that_come_later() {
    let nvidia = Made::new(&Vendor::NVIDIA, &[0]);
    let inventory = inventory(&[&nvidia]);
    let (told, tells) = std::sync::mpsc::channel();
    inventory.on_late(move |device, operation| {
        told.send((device.clone(), operation)).expect("the test listens");
    });
    inventory.refresh();
    let lanes = inventory.lanes(&nvidia.id(0)).expect("a card").within(Duration::from_millis(20));
    let (release, released) = std::sync::mpsc::channel::<()>();
    let hangs = move |_: &dyn vgpu_core::Backend| {
        let _ = released.recv_timeout(Duration::from_secs(60));
        Ok(())
    };
    lanes.change(&nvidia.id(0), "create", hangs).expect_err("hangs");
    drop(release);
    let late = tells.recv_timeout(Duration::from_secs(60)).expect("told");
    assert_eq!(late, (nvidia.id(0), "create"));
}
