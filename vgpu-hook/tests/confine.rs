//! `confine` against agents that answer, refuse, hang, babble or are not there.

use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;

use serde_json::json;

use crate::support::{Bundle, Ended, agent, call, says};

#[expect(dead_code, reason = "each test file uses a part of it")]
mod support;

/// Calls confine for a prepared process, with `more` arguments.
fn confine(bundle: &Bundle, more: &[&str]) -> Ended {
    let proc = bundle.process(77);
    let socket = bundle.path().join("agent.sock");
    let (proc, socket) = (proc.to_string_lossy(), socket.to_string_lossy());
    let mut args = vec!["confine", "claim-1", "--socket", &socket, "--proc", &proc];
    args.extend(more);
    bundle.call(&args)
}

#[test]
fn the_agent_learns_cgroup_and_namespace() {
    let bundle = Bundle::new();
    let agent = agent(&bundle.path().join("agent.sock"), says("{\"ok\":true}\n"));
    confine(&bundle, &[]).succeeded();
    let asked = agent.join().expect("the agent");
    let expected = json!({
        "version": 1,
        "op": "confine",
        "claim": "claim-1",
        "cgroup": "/sys/fs/cgroup/kubepods.slice/c.scope",
        "pid": 77,
        "pid_namespace": 4_026_532_777_u64,
    });
    assert_eq!(asked, expected);
}

#[test]
fn a_privileged_container_is_told_beside() {
    let bundle = Bundle::new();
    bundle.allow(&json!([{ "allow": true, "access": "rwm" }]));
    let agent = agent(&bundle.path().join("agent.sock"), says("{\"ok\":true}\n"));
    confine(&bundle, &[]).succeeded();
    let asked = agent.join().expect("the agent");
    assert_eq!(asked["op"], "confine");
    assert_eq!(asked["every_device"], true);
    assert_eq!(asked["container"], "main");
}

#[test]
fn a_configuration_that_cannot_be_read_keeps_nobody_from_being_confined() {
    let bundle = Bundle::new();
    bundle.write("config.json", "{");
    let agent = agent(&bundle.path().join("agent.sock"), says("{\"ok\":true}\n"));
    let ended = confine(&bundle, &[]);
    assert!(
        ended.ok && ended.stderr.contains("not as an OCI runtime writes it"),
        "{}",
        ended.stderr
    );
    let asked = agent.join().expect("the agent");
    assert_eq!((&asked["op"], asked.get("every_device")), (&json!("confine"), None));
}

#[test]
fn an_answer_may_come_in_pieces() {
    let bundle = Bundle::new();
    let agent = agent(&bundle.path().join("agent.sock"), |stream| {
        for piece in ["{\"ok\"", ":tr", "ue}", "\n"] {
            stream.write_all(piece.as_bytes()).expect("still there");
            thread::yield_now();
        }
    });
    confine(&bundle, &[]).succeeded();
    agent.join().expect("the agent");
}

#[test]
fn a_real_process_is_found() {
    let hierarchies = ["/sys/fs/cgroup/cgroup.controllers", "/sys/fs/cgroup/memory"];
    if !hierarchies.iter().any(|path| Path::new(path).exists()) {
        eprintln!("skipped: this machine shows no cgroups under /sys/fs/cgroup");
        return;
    }
    let bundle = Bundle::new();
    let socket = bundle.path().join("agent.sock");
    let agent = agent(&socket, says("{\"ok\":true}\n"));
    let own = std::process::id();
    let args = ["confine", "c", "--socket", &socket.to_string_lossy()];
    call(&args, &bundle.state(own).to_string()).succeeded();
    let asked = agent.join().expect("the agent");
    assert_eq!(asked["pid"], own);
    let namespace = std::fs::read_link("/proc/self/ns/pid").expect("a namespace");
    assert_eq!(namespace.to_string_lossy(), format!("pid:[{}]", asked["pid_namespace"]));
    let cgroup = asked["cgroup"].as_str().expect("a path");
    assert!(Path::new(cgroup).join("cgroup.procs").exists(), "{cgroup}");
}

#[test]
fn a_refusal_is_told() {
    let bundle = Bundle::new();
    let answer = "{\"ok\":false,\"error\":\"claim-1 is not here:\\nsee the log\"}\n";
    let agent = agent(&bundle.path().join("agent.sock"), says(answer));
    confine(&bundle, &[]).failed_with("the vgpu agent refuses: claim-1 is not here: see the log");
    agent.join().expect("the agent");
}

#[test]
fn no_agent_no_start() {
    confine(&Bundle::new(), &[]).failed_with("cannot reach the vgpu agent at ");
    let stale = Bundle::new();
    drop(UnixListener::bind(stale.path().join("agent.sock")).expect("a socket"));
    confine(&stale, &[]).failed_with("check that the agent runs on this node");
}

#[test]
fn an_agent_that_hangs_is_not_waited_for() {
    let bundle = Bundle::new();
    let (release, held) = std::sync::mpsc::channel::<()>();
    let agent = agent(&bundle.path().join("agent.sock"), move |_| {
        // Ends when the test lets go.
        let _ = held.recv();
    });
    confine(&bundle, &["--timeout-ms", "200"]).failed_with("did not answer within 200 ms");
    drop(release);
    agent.join().expect("the agent");
}

#[test]
fn an_agent_that_never_accepts_is_not_waited_for() {
    let bundle = Bundle::new();
    let socket = bundle.path().join("agent.sock");
    let _listener = UnixListener::bind(&socket).expect("a socket");
    confine(&bundle, &["--timeout-ms", "200"]).failed_with("did not answer within 200 ms");
}

#[test]
fn an_agent_that_dribbles_is_not_waited_for() {
    let bundle = Bundle::new();
    let agent = agent(&bundle.path().join("agent.sock"), |stream| {
        while stream.write_all(b" ").is_ok() {
            thread::sleep(std::time::Duration::from_millis(20));
        }
    });
    confine(&bundle, &["--timeout-ms", "300"]).failed_with("did not answer within 300 ms");
    agent.join().expect("the agent");
}

#[test]
fn an_agent_that_hangs_up_or_babbles_is_no_yes() {
    for (answer, told) in [
        ("", "hung up without an answer"),
        ("{\"ok\":true}", "hung up without an answer"),
        ("yes\n", "neither yes nor no"),
        ("{\"ok\":null}\n", "neither yes nor no"),
    ] {
        let bundle = Bundle::new();
        let agent = agent(&bundle.path().join("agent.sock"), says(answer));
        confine(&bundle, &[]).failed_with(told);
        agent.join().expect("the agent");
    }
    let bundle = Bundle::new();
    let agent =
        agent(
            &bundle.path().join("agent.sock"),
            |stream| {
                while stream.write_all(&[b'x'; 4096]).is_ok() {}
            },
        );
    confine(&bundle, &[]).failed_with("without a line end");
    agent.join().expect("the agent");
}

#[test]
fn bad_input_is_told() {
    let bundle = Bundle::new();
    let args = ["confine", "c", "--socket", "/nonexistent/s"];
    call(&args, "not json").failed_with("stdin is not a container's state");
    call(&args, "{}").failed_with("no \"bundle\"");
    call(&args, &bundle.state(0).to_string()).failed_with("no pid");
    call(&["confine"], "").failed_with("which claim?");
    call(&["confine", "c"], "").failed_with("which agent?");
    call(&["confine", "../c", "--socket", "/s"], "").failed_with("claim \"../c\" is not");
    call(&[], "").failed_with("no command given");
    call(&["frob"], "").failed_with("no command is called \"frob\"");
    assert!(call(&["version"], "").stdout.starts_with("vgpu-hook 0."));
    assert!(call(&["help"], "").stdout.contains("loader-cache DIR"));
}

#[test]
fn a_process_that_is_gone_or_elsewhere_is_told() {
    let bundle = Bundle::new();
    let proc = bundle.process(77).to_string_lossy().into_owned();
    let args = ["confine", "c", "--socket", "/nonexistent/s", "--proc", &proc];
    call(&args, &bundle.state(78).to_string()).failed_with("78/cgroup");
    bundle.write("proc/77/cgroup", "0::/../outside\n");
    bundle.call(&args).failed_with("lies under no mount");
    bundle.write("proc/79/cgroup", "0::/x\n");
    bundle.symlink("net:[1]", "proc/79/ns/pid");
    call(&args, &bundle.state(79).to_string()).failed_with("not pid:[number]");
}
