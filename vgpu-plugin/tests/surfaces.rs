//! What others read from the agent, and what its hook asks of it.

mod stage;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};
use stage::{DCU, GPU, MEM, MIG, Stage, at_once, claim_of, eventually, mixed};
use vgpu_backend_mock::{HOST_PID_NAMESPACE, Preset};
use vgpu_core::id::ClaimId;
use vgpu_core::{BackendFactory as _, Bytes, Host, Probe, Subject, Vendor};
use vgpu_plugin::AgentOptions;
use vgpu_plugin::sockets::{ClaimsReply, SocketPaths};

const LIMITED: &str = "vgpu.dev/limited";

fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n").expect("asks");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head.to_owned(), body.to_owned())
}

/// Sends bytes and reads all that comes back.
fn ask(socket: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).expect("it listens");
    // A peer that is refused early closes its end; what it said is read all the same.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

fn refusal(answer: &str) -> String {
    let value: Value = serde_json::from_str(answer).unwrap_or_else(|e| panic!("{answer:?}: {e}"));
    assert_eq!(value["ok"], false, "{answer}");
    value["error"].as_str().expect("a reason").to_owned()
}

fn line(claim: &str, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut line = json!({
        "version": 1, "op": "confine", "claim": claim, "cgroup": "/sys/fs/cgroup/pod/main",
        "pid": 4711, "pid_namespace": 4_026_532_000_u64,
    });
    change(&mut line);
    format!("{line}\n").into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_and_health_tell_what_is() {
    let stage = Stage::new(Preset::Mixed);
    let address = Some("127.0.0.1:0".parse().expect("an address"));
    let options =
        AgentOptions { metrics_address: address, ..stage.options(&mixed(&stage.machine)) };
    let agent = stage.agent_with(options).await;
    let address = agent.metrics_address().expect("it is bound");
    let (pod, _) = stage.run("holder", MEM, 4).await;
    stage.served(&agent).await;
    tokio::task::block_in_place(|| agent.node().refresh());
    let (head, body) = tokio::task::block_in_place(|| get(address, "/metrics"));
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("openmetrics-text"), "{head}");
    assert!(body.ends_with("# EOF\n"));
    let series = |name: &str, labels: &[&str]| -> f64 {
        let is_it = |l: &&str| l.starts_with(name) && labels.iter().all(|x| l.contains(x));
        let found: Vec<&str> = body.lines().filter(is_it).collect();
        assert_eq!(found.len(), 1, "{name} {labels:?}: {found:?}");
        found[0].rsplit(' ').next().expect("a value").parse().expect("a number")
    };
    let healthy = stage.kubelet.allocatable(DCU) as f64;
    assert_eq!(series("vgpu_ids{", &[DCU, "\"healthy\""]), healthy);
    assert_eq!(series("vgpu_ids{", &[DCU, "\"unhealthy\""]), 0.0);
    assert_eq!(series("vgpu_claims{", &[MEM, "prepared"]), 1.0);
    let claim = claim_of(&agent, &pod, "main", MEM).expect("it lives").claim;
    for (axis, level) in [("memory", "driver"), ("compute", "driver"), ("faults", "none")] {
        let labels = [claim.as_str(), axis, level];
        assert_eq!(series("vgpu_claim_enforcement{", &labels), 1.0, "{axis}");
    }
    let whose = [claim.as_str(), MEM, "pod=\"holder\"", "container=\"main\""];
    let limit = series("vgpu_claim_memory_limit_bytes{", &whose);
    assert_eq!(limit, (4_u64 << 30) as f64);
    assert!(series("vgpu_claim_memory_used_bytes{", &whose) <= limit);
    assert_eq!(series("vgpu_limit_repairs", &[]), 0.0);
    // A container of it that may open every device is told, and of no other resource.
    assert_eq!(series("vgpu_claims_with_every_device{", &[MEM]), 0.0);
    tokio::task::block_in_place(|| agent.node().note_every_device(&claim)).expect("noted");
    let (_, body_now) = tokio::task::block_in_place(|| get(address, "/metrics"));
    for (resource, count) in [(MEM, 1), (MIG, 0)] {
        let line = format!("vgpu_claims_with_every_device{{resource=\"{resource}\"}} {count}\n");
        assert!(body_now.contains(&line), "{line}{body_now}");
    }
    let calls = ["Allocate", MEM, "Ok"];
    assert_eq!(series("vgpu_kubelet_call_seconds_count{", &calls), 1.0);
    let up = body.lines().filter(|l| l.starts_with("vgpu_card_up{") && l.ends_with(" 1"));
    assert_eq!(up.count(), stage.machine.devices().expect("cards").len());
    for text in body.lines().filter(|l| !l.starts_with('#')) {
        let (name, value) = text.rsplit_once(' ').expect("a value");
        assert!(value.parse::<f64>().is_ok(), "{text}");
        assert!(name.starts_with("vgpu_"), "{text}");
    }

    let (head, body) = tokio::task::block_in_place(|| get(address, "/healthz"));
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    for resource in [GPU, MIG, DCU, MEM] {
        assert!(body.contains(&format!("{resource}: registered")), "{body}");
    }
    let (head, _) = tokio::task::block_in_place(|| get(address, "/nothing"));
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");

    // A kubelet that is away does not make the agent unwell: a restart would not heal it.
    stage.kubelet.stop().await;
    std::fs::remove_file(stage.kubelet.paths().registration_socket()).expect("there was one");
    let waits = || {
        let (head, body) = tokio::task::block_in_place(|| get(address, "/healthz"));
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        body.contains("waiting: ")
    };
    eventually("the agent to say so", waits).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anyone_may_read_who_holds_what() {
    let stage = Stage::new(Preset::Mixed);
    let agent = stage.agent(&mixed(&stage.machine)).await;
    let (pod, _) = stage.run("holder", MEM, 4).await;
    let socket = SocketPaths::under(&stage.state_dir()).claims;
    assert_eq!(mode(&socket), 0o666);
    let answer = tokio::task::block_in_place(|| ask(&socket, b""));
    let reply: ClaimsReply = serde_json::from_str(&answer).expect("a reply");
    assert_eq!(reply.claims, agent.node().claims());
    assert_eq!(reply.trouble, None);
    assert_eq!(reply.version.as_deref(), Some(env!("CARGO_PKG_VERSION")));
    let resources = reply.resources.expect("it says how each stands");
    assert_eq!(resources.get(MEM).map(String::as_str), Some("registered"), "{resources:?}");
    let holder = reply.claims[0].holder.clone().expect("known");
    assert_eq!((holder.namespace.as_str(), holder.pod.as_str()), ("default", "holder"));
    assert_eq!(holder.uid.as_deref(), Some(pod.uid.as_str()));
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_is_set_on_the_cgroup_and_taken_back() {
    let stage = Stage::new(Preset::H200x8);
    let offers = format!(
        "- {{resource: {LIMITED}, kind: slice, size: {{memory: 10Gi}}, schemes: [time-slice], \
         minimum: {{memory: driver}}}}"
    );
    let options = AgentOptions { absence: at_once(), ..stage.options(&offers) };
    let agent = stage.agent_with(options).await;
    let (pod, view) = stage.run("holder", LIMITED, 1).await;
    let claim = claim_of(&agent, &pod, "main", LIMITED).expect("it lives");
    let hooks = view.cdi_devices[0].device_edits["hooks"].as_array().expect("hooks").clone();
    let hook = hooks.iter().find(|h| h["hookName"] == "createRuntime").expect("a hook");
    let args: Vec<&str> =
        hook["args"].as_array().expect("args").iter().filter_map(Value::as_str).collect();
    let socket = SocketPaths::under(&stage.state_dir()).hook;
    assert!(args.contains(&"confine") && args.contains(&claim.claim.as_str()), "{args:?}");
    assert!(args.contains(&socket.to_str().expect("UTF-8")), "{args:?}");
    assert_eq!(mode(&socket), 0o600);

    let answer = ask_there(&socket, &line(claim.claim.as_str(), |_| {}));
    assert_eq!(answer, "{\"ok\":true}\n");
    let subject = Subject::Cgroup(claim.grants[0].device.clone(), "/sys/fs/cgroup/pod/main".into());
    assert_eq!(limit(&stage, &subject), Some(Bytes::gib(10)), "as the driver has it");
    // The container restarts in another cgroup: the limit goes with it.
    let other = |l: &mut Value| l["cgroup"] = json!("/sys/fs/cgroup/pod/main-2");
    assert_eq!(ask_there(&socket, &line(claim.claim.as_str(), other)), "{\"ok\":true}\n");
    let second =
        Subject::Cgroup(claim.grants[0].device.clone(), "/sys/fs/cgroup/pod/main-2".into());
    assert_eq!(limit(&stage, &second), Some(Bytes::gib(10)));
    assert!(stage.kubelet.delete_pod(&pod.uid));
    eventually("the claim to be released", || agent.node().claims().is_empty()).await;
    assert_eq!(limit(&stage, &second), None, "taken back");
}

fn ask_there(socket: &Path, bytes: &[u8]) -> String {
    tokio::task::block_in_place(|| ask(socket, bytes))
}

/// What the driver has set on a cgroup.
fn limit(stage: &Stage, subject: &Subject) -> Option<Bytes> {
    let factory = vgpu_backend_mock::MockFactory::new(&stage.machine, Vendor::NVIDIA);
    let Probe::Ready(backend) = factory.probe(&Host::default()) else { panic!("it is there") };
    backend.usage(subject).ok().and_then(|usage| usage.limit)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hooks_socket_refuses_what_it_does_not_understand() {
    let stage = Stage::new(Preset::Mixed);
    let agent = stage.agent(&mixed(&stage.machine)).await;
    let (pod, _) = stage.run("holder", MEM, 4).await;
    let opened = stage.admit("opened", MEM, 2).await;
    let claim = claim_of(&agent, &pod, "main", MEM).expect("it lives").claim;
    let not_yet = claim_of(&agent, &opened, "main", MEM).expect("it lives").claim;
    let claim = claim.as_str();
    let socket = SocketPaths::under(&stage.state_dir()).hook;
    for (bytes, word) in [
        (line(claim, |l| l["version"] = json!(2)), "speaks version 1"),
        (line(claim, |l| l["op"] = json!("destroy")), "not 1 of destroy"),
        (line("vgpu-none", |_| {}), "there is no claim vgpu-none"),
        (line(not_yet.as_str(), |_| {}), "not prepared"),
        (line("../../etc", |_| {}), "does not understand"),
        (line(claim, |l| l["pid"] = json!("many")), "does not understand"),
        (line(claim, |l| drop(l.as_object_mut().expect("an object").remove("cgroup"))), "cgroup"),
        (line(claim, |l| l["pid_namespace"] = json!(HOST_PID_NAMESPACE)), "hostPID"),
        (b"garbage\n".to_vec(), "does not understand"),
        (b"\n".to_vec(), "does not understand"),
    ] {
        let why = refusal(&ask_there(&socket, &bytes));
        assert!(why.contains(word), "{word}: {why}");
    }
    // No line at all, or one without end: an answer that says so, and no yes.
    for bytes in [vec![b'x'; 200_000], b"half a line".to_vec(), vec![0xff, 0xfe, b'\n']] {
        let answer = ask_there(&socket, &bytes);
        assert!(!answer.contains("true"), "{answer}");
        assert!(refusal(&answer).contains("line"), "{answer}");
    }
    // A peer that says nothing keeps nobody waiting.
    let silent = UnixStream::connect(&socket).expect("it listens");
    assert_eq!(ask_there(&socket, &line(claim, |_| {})), "{\"ok\":true}\n");
    drop(silent);
    assert!(ClaimId::new(claim).is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hook_program_itself_confines() {
    let Some(hook) = hook_program() else {
        println!("skipped: vgpu-hook is not built; cargo build -p vgpu-hook");
        return;
    };
    let stage = Stage::new(Preset::Mixed);
    let agent = stage.agent(&mixed(&stage.machine)).await;
    let (pod, _) = stage.run("holder", MEM, 4).await;
    let claim = claim_of(&agent, &pod, "main", MEM).expect("it lives").claim;
    let socket = SocketPaths::under(&stage.state_dir()).hook;
    let proc = stage.dir.path().join("proc");
    let of_process = proc.join("4711");
    std::fs::create_dir_all(of_process.join("ns")).expect("a folder");
    std::fs::write(of_process.join("cgroup"), "0::/kubepods/pod1/main\n").expect("a file");
    std::os::unix::fs::symlink("pid:[4026532000]", of_process.join("ns/pid")).expect("a link");
    std::fs::create_dir_all(proc.join("self")).expect("a folder");
    let mounts = "31 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
    std::fs::write(proc.join("self/mountinfo"), mounts).expect("a file");
    let run = |claim: &str| {
        let mut child = std::process::Command::new(&hook)
            .args(["confine", claim, "--socket"])
            .arg(&socket)
            .arg("--proc")
            .arg(&proc)
            .stdin(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("it starts");
        let state = json!({"ociVersion": "1.1.0", "id": "c", "status": "creating", "pid": 4711,
                           "bundle": "/run/c"});
        child.stdin.take().expect("piped").write_all(state.to_string().as_bytes()).expect("told");
        let output = child.wait_with_output().expect("it ends");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (ok, said) = tokio::task::block_in_place(|| run(claim.as_str()));
    assert!(ok, "{said}");
    let (ok, said) = tokio::task::block_in_place(|| run("vgpu-none"));
    assert!(!ok && said.contains("there is no claim vgpu-none"), "{said}");
    agent.stop().await;
    let (ok, said) = tokio::task::block_in_place(|| run(claim.as_str()));
    assert!(!ok && said.contains("cannot reach the vgpu agent"), "no answer, no start: {said}");
}

/// Beside the agent's own program, where cargo puts it.
fn hook_program() -> Option<std::path::PathBuf> {
    let hook = Path::new(env!("CARGO_BIN_EXE_vgpu-plugin")).with_file_name("vgpu-hook");
    hook.is_file().then_some(hook)
}
