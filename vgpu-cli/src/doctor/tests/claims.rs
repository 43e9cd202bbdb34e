//! Specs, claims and the agent.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::time::SystemTime;

use vgpu_node::ClaimStatus;
use vgpu_node::claim::{ClaimRecord, Stage};
use vgpu_node::ledger::{Ledger, LedgerOptions};
use vgpu_node::pool::Record;
use vgpu_plugin::hook::Hook;
use vgpu_plugin::sockets::ClaimsReply;

use crate::doctor::tests::{CLEAN, Prepared, told};

const SPEC: &str = "/run/cdi/vgpu.dev-claim_vgpu-1.json";

fn spec(kind: &str, name: &str, node: &str) -> String {
    serde_json::json!({"cdiVersion": "0.5.0", "kind": kind, "devices": [{"name": name,
        "containerEdits": {"deviceNodes": [{"path": node}],
            "hooks": [{"hookName": "createRuntime", "path": "/opt/vgpu/vgpu-hook"}]}}]})
    .to_string()
}

/// A ledger with these claims; each has an alias beside its name.
fn ledger(host: &Prepared, claims: &[(&str, Stage)]) {
    let (mut ledger, _) =
        Ledger::<Record>::open(LedgerOptions::new(host.at("/s"))).expect("nobody uses it");
    for (name, stage) in claims {
        let record = ClaimRecord {
            claim: name.parse().expect("a claim's id"),
            aliases: vec![format!("{name}b").parse().expect("a claim's id")],
            resource: "vgpu.dev/slice".to_owned().try_into().expect("a name"),
            ids: Default::default(),
            holder: None,
            domain: "team".parse().expect("a word"),
            minimum: Default::default(),
            wanted: Vec::new(),
            stage: stage.clone(),
            grants: Vec::new(),
            container: None,
            every_device: false,
            opened: SystemTime::UNIX_EPOCH,
        };
        ledger.put(*name, &Record::Claim(Box::new(record))).expect("written");
    }
}

fn status(name: &str, state: &str, trouble: Option<&str>) -> ClaimStatus {
    ClaimStatus {
        claim: name.parse().expect("a claim's id"),
        resource: "vgpu.dev/slice".to_owned().try_into().expect("a name"),
        ids: Vec::new(),
        holder: None,
        state: state.into(),
        since: SystemTime::UNIX_EPOCH,
        grants: Vec::new(),
        every_device: false,
        trouble: trouble.map(str::to_owned),
    }
}

fn reply(claims: Vec<ClaimStatus>) -> ClaimsReply {
    ClaimsReply {
        claims,
        trouble: None,
        version: Some(env!("CARGO_PKG_VERSION").into()),
        resources: Some(BTreeMap::from([("vgpu.dev/slice".into(), "registered".into())])),
        hook: None,
    }
}

/// What is found while an agent answers so.
fn answered(host: &Prepared, text: &str) -> Vec<&'static str> {
    let socket = host.at("/s/claims.sock");
    let listener = UnixListener::bind(&socket).expect("bound");
    let text = text.to_owned();
    // It is asked twice, before and after everything else.
    let agent = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().expect("asked");
            stream.write_all(text.as_bytes()).expect("answered");
        }
    });
    let findings = host.findings();
    let ids = told(&findings);
    let is_fine = findings.iter().any(|finding| finding.id == "DOC-AGENT-0");
    assert_ne!(is_fine, ids.iter().any(|id| id.starts_with("DOC-AGENT")), "{findings:#?}");
    agent.join().expect("it answered");
    std::fs::remove_file(socket).expect("removed");
    ids
}

fn json(reply: &ClaimsReply) -> String {
    serde_json::to_string(reply).expect("plain data")
}

#[test]
fn specs_of_others_for_the_same_nodes() {
    let host = Prepared::clean();
    host.write(
        "/etc/cdi/other.yaml",
        "cdiVersion: 0.5.0\nkind: vendor.com/net\ndevices: [{name: a, containerEdits: {}}]\n",
    );
    assert_eq!(host.ids(), CLEAN);
    let yaml = "---\ncdiVersion: 0.5.0\nkind: nvidia.com/gpu\ncontainerEdits:\n  deviceNodes:\n  - path: /dev/nvidiactl\n\
                devices:\n- name: \"0\"\n  containerEdits:\n    deviceNodes:\n    - path: /dev/nvidia0\n";
    host.write("/etc/cdi/nvidia.yaml", yaml);
    assert_eq!(host.ids(), ["DOC-CDI-1", "DOC-AGENT-1"]);
    assert_eq!(host.finding("DOC-CDI-1").place.as_deref(), Some("/etc/cdi/nvidia.yaml"));
    ledger(&host, &[("vgpu-1", Stage::Prepared)]);
    host.write(SPEC, spec("vgpu.dev/claim", "vgpu-1", "/dev/nvidia1"));
    assert_eq!(host.ids(), ["DOC-CDI-1", "DOC-AGENT-1"], "another card");
    host.write(SPEC, spec("vgpu.dev/claim", "vgpu-1", "/dev/nvidia0"));
    assert_eq!(host.ids(), ["DOC-CDI-5", "DOC-AGENT-1"], "a card that a claim holds");
}

#[test]
fn specs_of_ours_are_those_of_the_ledger() {
    let host = Prepared::clean();
    host.write(SPEC, spec("vgpu.dev/claim", "vgpu-1", "/dev/nvidia0"));
    assert_eq!(host.ids(), ["DOC-CDI-6", "DOC-AGENT-1"], "nobody says whose it is");
    ledger(&host, &[("vgpu-2", Stage::Prepared)]);
    assert_eq!(host.ids(), ["DOC-CDI-2", "DOC-AGENT-1"]);
    ledger(&host, &[("vgpu-1", Stage::Prepared)]);
    assert_eq!(host.ids(), CLEAN);
    host.write(
        "/run/cdi/vgpu.dev-claim_vgpu-1b.json",
        spec("vgpu.dev/claim", "vgpu-1b", "/dev/nvidia0"),
    );
    assert_eq!(host.ids(), CLEAN, "its other name");
    host.write("/run/cdi/copy.json", spec("vgpu.dev/claim", "vgpu-1", "/dev/nvidia0"));
    assert_eq!(host.ids(), ["DOC-CDI-4", "DOC-AGENT-1"]);
    std::fs::remove_file(host.at("/run/cdi/copy.json")).expect("removed");
    host.write("/run/cdi/vgpu.dev-claim_vgpu-1.json.tmp", "{");
    assert_eq!(host.ids(), CLEAN, "runtimes pass over it too");
    std::fs::remove_file(host.at("/opt/vgpu/vgpu-hook")).expect("removed");
    assert_eq!(host.ids(), ["DOC-HOST-13", "DOC-AGENT-1"]);
    assert!(host.finding("DOC-HOST-13").what.contains("containers cannot start"));
}

#[test]
fn an_agent_that_gets_on_is_fine() {
    let host = Prepared::clean();
    ledger(&host, &[("vgpu-1", Stage::Prepared)]);
    host.write(SPEC, spec("vgpu.dev/claim", "vgpu-1", "/dev/nvidia0"));
    host.write(
        "/run/cdi/vgpu.dev-claim_vgpu-1b.json",
        spec("vgpu.dev/claim", "vgpu-1b", "/dev/nvidia0"),
    );
    let good = reply(vec![status("vgpu-1", "prepared", None)]);
    assert_eq!(answered(&host, &json(&good)), Vec::<&str>::new());
    std::fs::remove_file(host.at(SPEC)).expect("removed");
    assert_eq!(answered(&host, &json(&good)), ["DOC-CDI-3"], "it is gated from now on");
}

#[test]
fn an_agent_tells_its_troubles() {
    let host = Prepared::clean();
    let with = |change: &dyn Fn(&mut ClaimsReply)| {
        let mut reply = reply(Vec::new());
        change(&mut reply);
        answered(&host, &json(&reply))
    };
    assert_eq!(with(&|_| ()), Vec::<&str>::new());
    assert_eq!(with(&|r| r.version = Some("0.0.1".into())), ["DOC-AGENT-3"]);
    assert_eq!(with(&|r| r.version = None), ["DOC-AGENT-3"], "one from before it said so");
    assert_eq!(with(&|r| r.trouble = Some("offers overlap".into())), ["DOC-AGENT-4"]);
    let waits = |r: &mut ClaimsReply| {
        r.resources =
            Some(BTreeMap::from([("vgpu.dev/slice".into(), "waiting: no kubelet".into())]));
    };
    assert_eq!(with(&waits), ["DOC-AGENT-5"]);
    assert_eq!(
        with(&|r| r.claims = vec![status("vgpu-1", "broken", Some("lost"))]),
        ["DOC-AGENT-6"]
    );
    assert_eq!(
        with(&|r| r.claims = vec![status("vgpu-1", "releasing", Some("busy"))]),
        ["DOC-AGENT-7"]
    );
    assert_eq!(with(&|r| r.claims = vec![status("vgpu-1", "releasing", None)]), Vec::<&str>::new());
    assert_eq!(answered(&host, "{\"claims\": 7}"), ["DOC-AGENT-3"]);
}

#[test]
fn an_agent_tells_where_its_hook_is_and_what_it_saw_of_it() {
    let mut host = Prepared::clean();
    let found = |host: &Prepared, hook: Option<Hook>| {
        answered(host, &json(&ClaimsReply { hook, ..reply(Vec::new()) }))
    };
    let seen =
        |path: &str, version: &str| Some(Hook { path: path.into(), version: Some(version.into()) });
    let own = env!("CARGO_PKG_VERSION");
    assert_eq!(found(&host, seen("/opt/vgpu/vgpu-hook", own)), Vec::<&str>::new());
    assert_eq!(found(&host, seen("/opt/vgpu/vgpu-hook", "0.0.1")), ["DOC-HOST-23"]);
    assert_eq!(found(&host, seen("/other", "0.0.1")), Vec::<&str>::new(), "--hook-dir counts");
    host.places.hook_dir = None;
    assert_eq!(found(&host, None), ["DOC-HOST-16"]);
    assert_eq!(found(&host, seen("/opt/vgpu/vgpu-hook", own)), Vec::<&str>::new());
    assert_eq!(found(&host, Some(Hook::at("/gone"))), ["DOC-HOST-13"]);
    // Itself, where it can: the agent's word is of its start.
    host.places.on_host = true;
    host.write("/opt/vgpu/vgpu-hook", "#!/bin/sh\necho vgpu-hook 0.0.1\n");
    let ids = found(&host, seen("/opt/vgpu/vgpu-hook", own));
    assert_eq!(ids, ["DOC-HOST-15", "DOC-HOST-23"]);
}

#[test]
fn an_agent_that_has_ended_and_a_second_one() {
    let mut host = Prepared::clean();
    host.leave("/s/claims.sock");
    assert_eq!(host.ids(), ["DOC-AGENT-2"]);
    std::fs::remove_file(host.at("/s/claims.sock")).expect("removed");
    host.process(10, &["/usr/bin/vgpu-plugin", "run", "--state-dir", "/s"], None);
    host.process(11, &["/usr/bin/vgpu-plugin", "backend", "hygon"], None);
    host.process(12, &["/usr/bin/other", "run", "--state-dir=/t"], None);
    assert_eq!(host.ids(), CLEAN, "one agent, and its child");
    host.process(13, &["/opt/vgpu-plugin", "run", "--state-dir=/t"], None);
    assert_eq!(host.ids(), ["DOC-AGENT-8", "DOC-AGENT-1"]);
    let what = host.finding("DOC-AGENT-8").what;
    assert!(what.contains("10 (/s)") && what.contains("13 (/t)"), "{what}");
    std::fs::remove_dir_all(host.at("/proc/10")).expect("removed");
    assert_eq!(host.ids(), ["DOC-AGENT-8", "DOC-AGENT-1"], "another one than this state folder's");
}

#[test]
fn a_stranger_s_mps_daemon() {
    let host = Prepared::clean();
    let daemon = ["/usr/bin/nvidia-cuda-mps-control", "-d"];
    host.process(20, &daemon, Some(&["A=b", "CUDA_MPS_PIPE_DIRECTORY=/s/mps/GPU-1/pipe"]));
    assert_eq!(host.ids(), CLEAN);
    host.process(21, &daemon, Some(&["CUDA_MPS_PIPE_DIRECTORY=/run/nvidia/mps/pipe"]));
    assert_eq!(host.ids(), ["DOC-CARD-8", "DOC-AGENT-1"]);
    host.process(22, &daemon, None);
    assert_eq!(host.ids(), ["DOC-CARD-8", "DOC-CARD-9", "DOC-AGENT-1"]);
}
