//! `notice` with containers of every kind and agents of every mood: whatever comes, the container starts.

use std::os::unix::net::UnixListener;

use serde_json::json;

use crate::support::{Bundle, Ended, agent, call, says};

#[expect(dead_code, reason = "each test file uses a part of it")]
mod support;

fn privileged() -> Bundle {
    let bundle = Bundle::new();
    bundle.allow(&json!([{ "allow": true, "access": "rwm" }]));
    bundle
}

fn notice(bundle: &Bundle, more: &[&str]) -> Ended {
    let socket = bundle.path().join("agent.sock");
    let socket = socket.to_string_lossy();
    bundle.call(&[&["notice", "claim-1", "--socket", &socket], more].concat())
}

#[test]
fn the_agent_is_told_of_a_privileged_container() {
    let bundle = privileged();
    let agent = agent(&bundle.path().join("agent.sock"), says("{\"ok\":true}\n"));
    notice(&bundle, &[]).succeeded();
    let told = agent.join().expect("the agent");
    let expected = json!({
        "version": 1, "op": "notice", "claim": "claim-1", "every_device": true, "container": "main",
    });
    assert_eq!(told, expected);
}

/// Nobody is asked: there is no agent here, and no word of it.
#[test]
fn a_plain_container_starts_without_a_word() {
    let bundle = Bundle::new();
    notice(&bundle, &[]).succeeded();
    bundle.allow(&json!([
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm" },
        { "allow": true, "type": "c", "major": 195, "minor": 0, "access": "rw" },
    ]));
    notice(&bundle, &[]).succeeded();
}

#[test]
fn whatever_the_agent_does_the_container_starts() {
    notice(&privileged(), &[]).went_on_saying("cannot reach the vgpu agent at ");
    for (answer, told) in [
        ("{\"ok\":false,\"error\":\"speaks version 1 of confine\"}\n", "refuses: speaks version 1"),
        ("", "hung up without an answer"),
        ("yes\n", "neither yes nor no"),
    ] {
        let bundle = privileged();
        let agent = agent(&bundle.path().join("agent.sock"), says(answer));
        let ended = notice(&bundle, &[]);
        ended.went_on_saying(told);
        ended.went_on_saying("the container starts all the same");
        agent.join().expect("the agent");
    }
    let bundle = privileged();
    let _never_accepts = UnixListener::bind(bundle.path().join("agent.sock")).expect("a socket");
    notice(&bundle, &["--timeout-ms", "200"]).went_on_saying("did not answer within 200 ms");
}

#[test]
fn whatever_cannot_be_read_the_container_starts() {
    let bundle = Bundle::new();
    for (config, told) in [
        ("", "not as an OCI runtime writes it"),
        ("{\"linux\": 7}", "not as an OCI runtime writes it"),
        (
            "{\"linux\": {\"resources\": {\"devices\": [{\"major\": \"x\"}]}}}",
            "not as an OCI runtime writes it",
        ),
    ] {
        bundle.write("config.json", config);
        notice(&bundle, &[]).went_on_saying(told);
    }
    std::fs::write(bundle.path().join("config.json"), [0xff, 0xfe]).expect("a file");
    notice(&bundle, &[]).went_on_saying("not UTF-8");
    std::fs::remove_file(bundle.path().join("config.json")).expect("there was one");
    notice(&bundle, &[]).went_on_saying("cannot read the container's configuration");
    let args = ["notice", "c", "--socket", "/nonexistent/s"];
    call(&args, "not json").went_on_saying("stdin is not a container's state");
    call(&args, "").went_on_saying("stdin is not a container's state");
    call(&["notice"], "").went_on_saying("which claim? vgpu-hook notice");
    call(&["notice", "../c", "--socket", "/s"], "").went_on_saying("claim \"../c\" is not");
}

/// A file that is sparse and reads as zeros: more than is ever read.
#[test]
fn a_configuration_without_end_is_not_read() {
    let bundle = Bundle::new();
    let file = std::fs::File::create(bundle.path().join("config.json")).expect("a file");
    file.set_len(1 << 40).expect("sparse");
    notice(&bundle, &[]).went_on_saying("more than 16777216 bytes");
}

/// Nobody reads what it says.
#[test]
fn a_closed_stderr_does_not_keep_a_container_from_starting() {
    use std::process::{Command, Stdio};

    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let status = Command::new(env!("CARGO_BIN_EXE_vgpu-hook"))
        .args(["notice", "c", "--socket", "/nonexistent/s"])
        .stdin(Stdio::null())
        .stderr(writer)
        .status()
        .expect("it starts");
    assert!(status.success(), "{status}");
}
