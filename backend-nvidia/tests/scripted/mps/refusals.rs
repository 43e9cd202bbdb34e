//! What cannot be is told in one sentence, and leaves nothing half done.

use std::fs;

use serde_json::json;
use vgpu_backend_nvidia::{ComputeMode, ComputeProcess};
use vgpu_core::{Backend, BackendExt, ErrorKind, Partitioner, Scheme};

use super::{Stage, enter, mode, refused, share};
use crate::id;

#[test]
fn no_program_and_a_program_of_another_machine() {
    let stage = Stage::new("namespaces");
    let mut foreign = b"\x7fELF\x02\x01\x01".to_vec();
    foreign.resize(18, 0);
    foreign.extend([243, 0]);
    stage.install(&foreign);
    let gone = stage.path("nvidia-cuda-mps-control");
    for (kind, word) in
        [(ErrorKind::Unsupported, "another machine"), (ErrorKind::NotFound, "cannot use")]
    {
        let backend = stage.backend();
        let device = backend.device(&id(0)).expect("the card is there all the same");
        assert!(
            device.scheme(&Scheme::MPS).is_err() && device.scheme(&Scheme::MPS_STATIC).is_err()
        );
        let e = backend.set_mode(&mode(Some(Scheme::MPS), "team-a")).expect_err(word);
        assert_eq!(e.kind, kind, "{e}");
        assert!(e.message.contains(word), "{e}");
        let missing = backend.info().missing_symbols;
        assert!(
            missing.iter().any(|m| m.contains("mps-control") && m.contains(word)),
            "{missing:?}"
        );
        assert!(!stage.daemon(0).exists());
        let _gone = fs::remove_file(&gone);
    }
}

#[test]
fn a_daemon_that_does_not_start_leaves_nothing() {
    let stage = Stage::new("refuses");
    let backend = stage.backend();
    let e = backend.set_mode(&mode(Some(Scheme::MPS), "team-a")).expect_err("it refuses");
    assert_eq!(e.kind, ErrorKind::Vendor);
    assert!(e.message.contains("out of luck"), "{e}");
    assert!(!stage.daemon(0).exists());
    assert_eq!(stage.nvml.state().compute_modes[&0], ComputeMode::Default);
    let whole = backend.device(&id(0)).expect("there");
    assert!(whole.scheme(&Scheme::WHOLE).expect("has").mode.active, "the card serves as before");
}

#[test]
fn a_server_that_is_refused_takes_its_daemon_along() {
    let stage = Stage::new("namespaces");
    let backend = stage.backend();
    stage.play(&refused("server create", "no more servers"));
    backend.set_mode(&mode(Some(Scheme::MPS), "team-a")).expect_err("it refuses");
    assert!(!stage.daemon(0).exists());
    stage.play(&json!({}));
    enter(&backend, Scheme::MPS);
}

#[test]
fn a_daemon_that_does_not_quit_when_asked_is_ended() {
    let stage = Stage::new("legacy");
    let backend = stage.backend();
    enter(&backend, Scheme::MPS);
    stage.play(&refused("quit", "no"));
    backend.set_mode(&mode(None, "team-a")).expect("it is ours, and idle");
    assert!(!stage.daemon(0).exists());
}

#[test]
fn more_than_the_card_is_refused_and_harms_nothing() {
    let stage = Stage::new("namespaces");
    let backend = stage.backend();
    enter(&backend, Scheme::MPS);
    let kept = share(&backend, 100 << 10, 60, "kept").expect("fits");
    for (mib, percent, word) in [(1, 41, "41 %"), (41 << 10, 1, "Mi are left")] {
        let e = share(&backend, mib, percent, "more").expect_err("beyond the card");
        assert_eq!(e.kind, ErrorKind::Exhausted);
        assert!(e.message.contains(word), "{e}");
    }
    let e = share(&backend, 1, 1, "kept").expect_err("a claim has one share of a card");
    assert_eq!(e.kind, ErrorKind::AlreadyExists);
    assert_eq!(backend.partitions(&id(0)), Ok(vec![kept]));
}

#[test]
fn a_card_in_use_is_not_put_into_the_mode() {
    let stage = Stage::new("namespaces");
    let backend = stage.backend();
    let process = ComputeProcess { pid: 77, ..process() };
    stage.nvml.state().cards[0].processes = Some(vec![process]);
    let e = backend.set_mode(&mode(Some(Scheme::MPS), "team-a")).expect_err("in use");
    assert_eq!(e.kind, ErrorKind::Busy);
    assert!(e.message.contains("77"), "{e}");
    let mut nobody = mode(Some(Scheme::MPS), "team-a");
    nobody.domain = None;
    assert_eq!(backend.set_mode(&nobody).unwrap_err().kind, ErrorKind::Invalid);
    assert!(!stage.daemon(0).exists());
}

fn process() -> ComputeProcess {
    ComputeProcess { pid: 0, used: None, gpu_instance: None, compute_instance: None }
}
