//! Daemons that are found, adopted, killed, started again and stopped.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::json;
use vgpu_backend_nvidia::ComputeMode;
use vgpu_core::id::ClaimId;
use vgpu_core::{
    BackendExt, ErrorKind, Event, Grant, Health, Isolation, Meaning, ModeChange, PartitionState,
    Partitioner, Scheme, Subject, Target,
};

use super::{Stage, enter, in_force, is_alive, kill, mode, order, share, size, until};
use crate::id;

fn told(events: &[Event]) -> (Meaning, Vec<(Subject, String)>) {
    let parts = events[1..].iter().map(|e| (e.subject.clone(), e.cause.clone())).collect();
    (events[0].meaning, parts)
}

#[test]
fn a_daemon_outlives_the_agent_and_is_adopted_with_its_limits() {
    for preset in ["namespaces", "legacy"] {
        let stage = Stage::new(preset);
        let parts = {
            let backend = stage.backend();
            enter(&backend, Scheme::MPS);
            assert_eq!(stage.nvml.state().compute_modes[&0], ComputeMode::ExclusiveProcess);
            vec![
                share(&backend, 4096, 25, "a").expect("fits"),
                share(&backend, 4096, 25, "b").expect("fits"),
            ]
        };
        let pid = stage.pid(0);
        let backend = stage.backend();
        assert_eq!(backend.partitions(&id(0)), Ok(parts.clone()), "{preset}");
        enter(&backend, Scheme::MPS);
        assert_eq!(stage.pid(0), pid, "the same daemon");
        for part in &parts {
            assert_eq!(in_force(&backend, part), Some(4096), "{preset}");
            backend.destroy(&part.id).expect("free");
        }
        assert_eq!(backend.set_mode(&mode(None, "team-a")), Ok(ModeChange::Done));
        assert!(!is_alive(pid) && !stage.daemon(0).exists(), "{preset}: nothing of it is left");
        assert_eq!(stage.nvml.state().compute_modes[&0], ComputeMode::Default);
    }
}

#[test]
fn a_killed_daemon_is_told_and_comes_back_with_the_limits_of_the_claims() {
    for preset in ["namespaces", "legacy"] {
        let stage = Stage::new(preset);
        let backend = stage.backend();
        enter(&backend, Scheme::MPS);
        let parts = [
            share(&backend, 4096, 25, "a").expect("fits"),
            share(&backend, 2048, 25, "b").expect("fits"),
        ];
        stage.tenant(4711, &parts[0]);
        stage.play_stand_in_driver();
        assert_eq!(told(&backend.check(&id(0)).expect("read")).0, Meaning::Good);
        let more = order(&backend, &Scheme::MPS, size(1, 1), "c");
        stage.kill_daemon(0);
        // Dead: the card is given to nobody, each share is told with whom it lost, nothing vanishes.
        let (card, shares) = told(&backend.check(&id(0)).expect("read"));
        assert_eq!(card, Meaning::Resetting);
        assert_eq!(shares.len(), 2);
        assert!(shares[0].0 == Subject::Part(parts[0].id.clone()) && shares[0].1.contains("4711"));
        let device = backend.device(&id(0)).expect("there");
        let info = device.scheme(&Scheme::MPS).expect("declared").mode.clone();
        assert!(!info.active && info.domain.is_some(), "{info:?}");
        assert!(!device.scheme(&Scheme::WHOLE).expect("declared").mode.active);
        let listed = backend.partitions(&id(0)).expect("listed");
        assert!(listed.iter().all(|p| p.state == PartitionState::Complete) && listed.len() == 2);
        let grant = Grant::Part(parts[1].id.clone());
        let target = Target { claim: ClaimId::new("b").expect("an id"), grant };
        assert_eq!(backend.edits(std::slice::from_ref(&target)).unwrap_err().kind, ErrorKind::Busy);
        assert_eq!(backend.create(&more).unwrap_err().kind, ErrorKind::Busy);
        // Another agent looks, and enters the mode of the claims again.
        let backend = stage.backend();
        enter(&backend, Scheme::MPS);
        for (part, mib) in parts.iter().zip([4096, 2048]) {
            assert_eq!(in_force(&backend, part), Some(mib), "{preset}");
        }
        let (card, shares) = told(&backend.check(&id(0)).expect("read"));
        assert_eq!(card, Meaning::Good);
        assert_eq!(shares.len(), 1, "whose processes are older than the daemon: {shares:?}");
        fs::remove_dir_all(stage.path("proc/4711")).expect("its container ended");
        assert_eq!(told(&backend.check(&id(0)).expect("read")).1, []);
    }
}

#[test]
fn an_agent_killed_in_the_middle_of_a_share_leaves_a_half_that_is_swept() {
    let stage = Stage::new("namespaces");
    let backend = stage.backend();
    enter(&backend, Scheme::MPS);
    let kept = share(&backend, 512, 10, "kept").expect("fits");
    // Another process makes a share, and hangs between the namespace and its limits.
    stage.play(&json!({ "latency_ms": { "namespace set": 3_600_000 } }));
    let mut agent = Command::new(std::env::current_exe().expect("a test knows its own path"))
        .args(["mps::life::makes_a_share_for_ever", "--exact", "--ignored"])
        .env("VGPU_TEST_STAGE", stage.path(""))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    until("the namespace is there", || stage.daemon(0).join("pipe/vgpu/n1/control").exists());
    kill_child(&mut agent);
    stage.play(&json!({}));
    let backend = stage.backend();
    let listed = backend.partitions(&id(0)).expect("listed");
    assert_eq!(listed.len(), 2);
    assert_eq!(listed[1].state, PartitionState::Half);
    let swept = backend.sweep(&id(0), std::slice::from_ref(&kept.id)).expect("swept");
    assert_eq!(swept.len(), 1);
    assert_eq!(backend.partitions(&id(0)), Ok(vec![kept]));
    assert!(!stage.daemon(0).join("pipe/vgpu/n1").exists(), "its namespace is gone");
    share(&backend, 512, 10, "again").expect("the same share fits again");
}

/// Run by the test above, in a process of its own.
#[test]
#[ignore = "it is killed in the middle"]
fn makes_a_share_for_ever() {
    let Some(folder) = std::env::var_os("VGPU_TEST_STAGE") else { return };
    let backend = Stage::backend_at(folder.as_ref());
    let _never = backend.create(&order(&backend, &Scheme::MPS, size(512, 10), "half"));
}

fn kill_child(child: &mut std::process::Child) {
    child.kill().expect("it runs");
    child.wait().expect("it ended");
}

#[test]
fn an_agent_killed_while_the_daemon_starts_finds_it_again() {
    let stage = Stage::new("namespaces");
    let backend = stage.backend();
    enter(&backend, Scheme::MPS);
    let pid = stage.pid(0);
    // What is written down before the start is all that is left.
    let record = stage.daemon(0).join("daemon.json");
    let mut text: serde_json::Value =
        serde_json::from_slice(&fs::read(&record).expect("read")).expect("JSON");
    text["process"] = serde_json::Value::Null;
    fs::write(&record, text.to_string()).expect("written");
    let backend = stage.backend();
    assert!(backend.device(&id(0)).expect("there").scheme(&Scheme::MPS).expect("has").mode.active);
    enter(&backend, Scheme::MPS);
    share(&backend, 512, 10, "a").expect("it serves");
    assert!(is_alive(pid), "the same daemon");
}

#[test]
fn a_stranger_with_the_daemon_s_pid_is_not_taken_for_it() {
    let stage = Stage::new("namespaces");
    let backend = stage.backend();
    enter(&backend, Scheme::MPS);
    stage.kill_daemon(0);
    let mut stranger = Command::new("sleep").arg("1000").spawn().expect("it starts");
    let pid_file = stage.daemon(0).join("pipe/nvidia-cuda-mps-control.pid");
    fs::write(pid_file, stranger.id().to_string()).expect("written");
    let mode =
        backend.device(&id(0)).expect("there").scheme(&Scheme::MPS).expect("has").mode.clone();
    assert!(!mode.active);
    enter(&backend, Scheme::MPS);
    assert!(is_alive(stranger.id()), "it was left alone");
    kill_child(&mut stranger);
}

#[test]
fn static_partitions_go_with_their_daemon() {
    let stage = Stage::new("static");
    let backend = stage.backend();
    enter(&backend, Scheme::MPS_STATIC);
    let of = std::num::NonZeroU32::new(16).expect("not 0");
    let chunks = |units| vgpu_core::Size {
        compute: Some(vgpu_core::ComputeShare { units, of }),
        memory: None,
    };
    let part = backend
        .create(&order(&backend, &Scheme::MPS_STATIC, chunks(7), "a"))
        .expect("seven of sixteen");
    let more = backend.create(&order(&backend, &Scheme::MPS_STATIC, chunks(10), "b"));
    assert_eq!(more.unwrap_err().kind, ErrorKind::Exhausted);
    assert_eq!(stage.backend().partitions(&id(0)), Ok(vec![part.clone()]));
    stage.kill_daemon(0);
    assert_eq!(backend.partitions(&id(0)), Ok(vec![]), "they are told as gone, never made anew");
    assert_eq!(backend.check(&id(0)).expect("read")[0].meaning, Meaning::Resetting);
    assert_eq!(backend.destroy(&part.id).unwrap_err().kind, ErrorKind::NotFound);
    enter(&backend, Scheme::MPS_STATIC);
    assert_eq!(backend.partitions(&id(0)), Ok(vec![]));
}

#[test]
fn one_domain_at_a_time() {
    let stage = Stage::new("namespaces");
    let backend = stage.backend();
    enter(&backend, Scheme::MPS);
    let part = share(&backend, 512, 10, "a").expect("fits");
    let theirs = mode(Some(Scheme::MPS), "team-b");
    assert_eq!(backend.set_mode(&theirs).unwrap_err().kind, ErrorKind::Busy);
    backend.destroy(&part.id).expect("free");
    let before = stage.pid(0);
    assert_eq!(backend.set_mode(&theirs), Ok(ModeChange::Done));
    assert!(!is_alive(before), "no client meets the other domain's daemon");
    let mode =
        backend.device(&id(0)).expect("there").scheme(&Scheme::MPS).expect("has").mode.clone();
    assert_eq!(mode.domain.expect("served").as_str(), "team-b");
}

#[test]
fn servers_that_outlive_their_daemon_do_not_outlive_its_start() {
    let stage = Stage::new("legacy");
    let backend = stage.backend();
    enter(&backend, Scheme::MPS);
    // A process that was started with the daemon's folder and is not the daemon.
    let left = Command::new("/bin/sh")
        .args(["-c", "sleep 1000 >/dev/null & echo $!"])
        .env("CUDA_MPS_PIPE_DIRECTORY", stage.daemon(0).join("pipe"))
        .stderr(Stdio::null())
        .output()
        .expect("it starts");
    let left: u32 = String::from_utf8_lossy(&left.stdout).trim().parse().expect("a pid");
    stage.kill_daemon(0);
    enter(&backend, Scheme::MPS);
    assert!(!is_alive(left));
    kill(stage.pid(0));
}
