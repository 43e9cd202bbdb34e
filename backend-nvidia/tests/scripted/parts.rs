//! No parts, said truly; and one card's hanging call is no other card's.

use std::thread;

use vgpu_backend_nvidia::{ComputeProcess, MigMode};
use vgpu_core::{
    ErrorKind, Health, Isolation, Meaning, ModeChange, ModeOrder, PartitionId, Partitioner, Scheme,
    Size, Subject,
};

use crate::nvml::Scripted;
use crate::{backend, id};

fn order(scheme: Option<Scheme>, affected: &[u32]) -> ModeOrder {
    ModeOrder {
        device: id(0),
        scheme,
        affected: affected.iter().map(|n| id(*n)).collect(),
        domain: None,
    }
}

#[test]
fn there_are_no_parts_on_known_cards_and_no_answer_for_others() {
    let nvml = Scripted::with(2);
    let backend = backend(&nvml);
    assert_eq!(backend.partitions(&id(0)), Ok(Vec::new()));
    assert_eq!(backend.sweep(&id(0), &[]), Ok(Vec::new()));
    assert_eq!(backend.partitions(&id(7)).unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(backend.sweep(&id(7), &[]).unwrap_err().kind, ErrorKind::NotFound);
    let part = PartitionId::of(&id(0), &Scheme::MIG, "4+4").expect("an id");
    assert_eq!(backend.destroy(&part).unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(backend.resize(&part, &Size::ANY).unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(backend.usage(&Subject::Part(part)).unwrap_err().kind, ErrorKind::NotFound);
    nvml.lose(0);
    assert_eq!(backend.partitions(&id(0)).unwrap_err().kind, ErrorKind::Lost);
    assert_eq!(backend.partitions(&id(1)), Ok(Vec::new()));
}

#[test]
fn the_only_mode_is_the_one_that_the_card_is_in() {
    let nvml = Scripted::with(2);
    let backend = backend(&nvml);
    for scheme in [None, Some(Scheme::WHOLE), Some(Scheme::TIME_SLICE)] {
        assert_eq!(backend.set_mode(&order(scheme, &[0])), Ok(ModeChange::Done));
    }
    for wrong in [&[][..], &[1], &[0, 1], &[0, 0]] {
        let error = backend.set_mode(&order(None, wrong)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid, "{wrong:?}");
    }
    let error = backend.set_mode(&order(Some(Scheme::MIG), &[0])).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unsupported);
    nvml.state().cards[0].mig = Some(MigMode { current: true, pending: false });
    assert_eq!(backend.set_mode(&order(None, &[0])), Ok(ModeChange::AfterReset));
    nvml.state().cards[0].mig = Some(MigMode { current: true, pending: true });
    assert_eq!(backend.set_mode(&order(None, &[0])), Ok(ModeChange::AfterReset));
    let pending = Some(MigMode { current: true, pending: false });
    assert_eq!(nvml.state().cards[0].mig, pending, "it was asked for, and we reset nothing");
    nvml.state().cards[0].processes = Some(vec![ComputeProcess {
        pid: 7,
        used: None,
        gpu_instance: None,
        compute_instance: None,
    }]);
    assert_eq!(backend.set_mode(&order(None, &[0])).unwrap_err().kind, ErrorKind::Busy);
}

#[test]
fn a_card_that_got_another_number_is_still_itself() {
    let nvml = Scripted::with(2);
    let backend = backend(&nvml);
    backend.partitions(&id(0)).expect("known by its number now");
    nvml.state().cards.swap(0, 1);
    assert_eq!(backend.check(&id(0)).expect("checked")[0].meaning, Meaning::Good);
    nvml.lose(1);
    assert_eq!(backend.check(&id(0)).expect("checked")[0].meaning, Meaning::Lost);
    assert_eq!(backend.check(&id(1)).expect("checked")[0].meaning, Meaning::Good);
}

#[test]
fn a_call_that_hangs_holds_up_no_other_card() {
    let nvml = Scripted::with(2);
    let backend = backend(&nvml);
    let target = |card| vgpu_core::Target {
        claim: vgpu_core::ClaimId::new("c1").expect("an id"),
        grant: vgpu_core::Grant::Whole(id(card)),
    };
    backend.partitions(&id(0)).expect("known by its number now");
    nvml.state().hanging.insert(0);
    thread::scope(|scope| {
        let checked = scope.spawn(|| backend.check(&id(0)));
        let listed = scope.spawn(|| backend.partitions(&id(0)));
        let used = scope.spawn(|| backend.usage(&Subject::Device(id(0))));
        nvml.until_hung(3);
        assert_eq!(backend.check(&id(1)).expect("checked")[0].meaning, Meaning::Good);
        assert_eq!(backend.partitions(&id(1)), Ok(Vec::new()));
        backend.usage(&Subject::Device(id(1))).expect("used");
        let error = backend.edits(&[target(1)]).expect_err("no host to show");
        assert_eq!(error.kind, ErrorKind::Io);
        nvml.heal();
        checked.join().expect("no panic").expect("in the end");
        listed.join().expect("no panic").expect("in the end");
        used.join().expect("no panic").expect("in the end");
    });
}
