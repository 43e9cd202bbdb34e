//! What is in force, what is claimed for it, and what a container gets of it.

use serde_json::json;
use vgpu_core::edits::MountMode;
use vgpu_core::guarantee::Minimum;
use vgpu_core::id::{ClaimId, TrustDomain};
use vgpu_core::plan::{Inventory, Modes, Policy, Request, Selector, Want, plan};
use vgpu_core::{
    BackendExt, Enforcement, ErrorKind, Grant, Health, Isolation, Meaning, Partition, Partitioner,
    Scheme, Target,
};

use super::{Stage, enter, in_force, share, size};
use crate::id;

fn target(part: &Partition) -> Target {
    Target { claim: ClaimId::new("c").expect("an id"), grant: Grant::Part(part.id.clone()) }
}

/// Whether a share of which memory must be held from outside the tenant is planned.
fn is_planned(stage: &Stage, memory: Enforcement) -> bool {
    let device = stage.backend().device(&id(0)).expect("there");
    let request = Request {
        claim: ClaimId::new("c").expect("an id"),
        want: Want::AtLeast(size(1024, 10)),
        count: 1,
        selector: Selector::default(),
        minimum: Minimum { memory, ..Minimum::default() },
        schemes: vec![Scheme::MPS],
        domain: TrustDomain::new("team-a").expect("a word"),
        modes: Modes::Enter,
    };
    let one = Inventory { devices: vec![device], links: vec![] };
    plan(&one, &[], &request, Policy::Binpack).is_ok()
}

#[test]
fn driver_is_claimed_with_namespaces_and_refused_without() {
    for (preset, has) in [("namespaces", true), ("legacy", false), ("static", false)] {
        let stage = Stage::new(preset);
        assert_eq!(is_planned(&stage, Enforcement::Driver), has, "{preset}");
        assert!(is_planned(&stage, Enforcement::Cooperative), "{preset}");
    }
}

#[test]
fn a_container_gets_its_own_namespace_and_no_other() {
    let stage = Stage::new("namespaces");
    let backend = stage.backend();
    enter(&backend, Scheme::MPS);
    let parts = [
        share(&backend, 512, 10, "a").expect("fits"),
        share(&backend, 1024, 20, "b").expect("fits"),
    ];
    stage.play_stand_in_driver();
    for (part, n) in parts.iter().zip(["n0", "n1"]) {
        let edits = backend.edits(&[target(part)]).expect("shown");
        let pipe =
            edits.mounts.iter().find(|m| m.container.ends_with("nvidia-mps")).expect("a pipe");
        assert_eq!(pipe.mode, MountMode::Writable);
        assert!(pipe.host.starts_with("/m") && pipe.host.ends_with(format!("pipe/vgpu/{n}")));
        let limits = ["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"];
        assert!(edits.env.iter().all(|(name, _)| !limits.contains(&&**name)), "no limit is in env");
        let text =
            &edits.files.iter().find(|f| f.container.ends_with("share")).expect("a file").text;
        assert_eq!(text.lines().next(), Some(part.id.as_str()));
    }
    let both = [target(&parts[0]), target(&parts[1])];
    let e = backend.edits(&both).expect_err("one share to a container");
    assert_eq!(e.kind, ErrorKind::Invalid);
}

#[test]
fn without_namespaces_the_largest_share_is_the_daemon_s_limit_for_each() {
    let stage = Stage::new("legacy");
    let backend = stage.backend();
    enter(&backend, Scheme::MPS);
    let small = share(&backend, 1000, 10, "a").expect("fits");
    assert_eq!(in_force(&backend, &small), Some(1000));
    let large = share(&backend, 4096, 30, "b").expect("fits");
    assert_eq!((in_force(&backend, &small), in_force(&backend, &large)), (Some(1000), Some(4096)));
    stage.play_stand_in_driver();
    let edits = backend.edits(&[target(&small)]).expect("shown");
    let own = ("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT".to_owned(), "0=1000M".to_owned());
    assert!(edits.env.contains(&own), "{:?}", edits.env);
    backend.destroy(&large.id).expect("free");
    assert_eq!(in_force(&backend, &small), Some(1000));
}

#[test]
fn a_limit_that_the_daemon_does_not_take_is_no_share() {
    let stage = Stage::new("namespaces");
    let backend = stage.backend();
    enter(&backend, Scheme::MPS);
    // It says that all is well, and sets nothing.
    stage.play(&json!({ "fail": [{ "command": "namespace set", "text": "", "exit": 0 }] }));
    let e = share(&backend, 512, 10, "a").expect_err("read back, it is not so");
    assert_eq!(e.kind, ErrorKind::Vendor);
    stage.play(&json!({}));
    assert_eq!(backend.partitions(&id(0)), Ok(vec![]));
    share(&backend, 512, 10, "a").expect("nothing of it was left");
}

#[test]
fn a_fault_of_one_client_is_told_as_everybody_s() {
    for preset in ["namespaces", "legacy"] {
        let stage = Stage::new(preset);
        let backend = stage.backend();
        enter(&backend, Scheme::MPS);
        share(&backend, 512, 10, "a").expect("fits");
        if preset == "legacy" {
            stage.ask(0, "start_server -uid 0");
        }
        stage.play(&json!({ "fault": true }));
        let event = &backend.check(&id(0)).expect("read")[0];
        assert_eq!(event.meaning, Meaning::Resetting, "{preset}: {}", event.cause);
        stage.play(&json!({}));
        assert_eq!(backend.check(&id(0)).expect("read")[0].meaning, Meaning::Good);
    }
}
