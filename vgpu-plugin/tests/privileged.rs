//! A container that may open every device of the node: the hook of its claim sees it and the agent says so.
//!
//! The hooks are called as a runtime calls them: by the words of the spec, with a bundle.

mod stage;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use stage::program::{Program, claims, configure, stage, up};
use stage::{MEM, MIG, Stage, claim_of, eventually, mixed};
use vgpu_backend_mock::Preset;
use vgpu_kubelet_plugin::fake::ContainerView;
use vgpu_plugin::sockets::SocketPaths;

const WORD: &str = "this container may open every device of the node";

/// What a runtime makes for a container before it calls hooks.
struct Bundle {
    program: PathBuf,
    folder: PathBuf,
    proc: PathBuf,
}

impl Bundle {
    /// None where the hook program is not built; cargo puts it beside the agent's own.
    #[expect(clippy::print_stdout, reason = "what is skipped is told")]
    fn new(stage: &Stage, name: &str, rules: &Value) -> Option<Self> {
        let program = Path::new(env!("CARGO_BIN_EXE_vgpu-plugin")).with_file_name("vgpu-hook");
        if !program.is_file() {
            println!("skipped: vgpu-hook is not built; cargo build -p vgpu-hook");
            return None;
        }
        let folder = stage.dir.path().join("bundles").join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        let config = json!({
            "ociVersion": "1.2.1", "root": {"path": "rootfs"},
            "annotations": {"io.kubernetes.cri.container-name": "main"},
            "linux": {"resources": {"devices": rules}},
        });
        std::fs::write(folder.join("config.json"), config.to_string()).expect("a file");
        let proc = folder.join("proc");
        std::fs::create_dir_all(proc.join("4711/ns")).expect("a folder");
        std::fs::create_dir_all(proc.join("self")).expect("a folder");
        std::fs::write(proc.join("4711/cgroup"), format!("0::/kubepods/{name}\n")).expect("a file");
        std::os::unix::fs::symlink("pid:[4026532000]", proc.join("4711/ns/pid")).expect("a link");
        let mounts = "31 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        std::fs::write(proc.join("self/mountinfo"), mounts).expect("a file");
        Some(Self { program, folder, proc })
    }

    fn privileged(stage: &Stage, name: &str) -> Option<Self> {
        Self::new(stage, name, &json!([{"allow": true, "access": "rwm"}]))
    }

    fn plain(stage: &Stage, name: &str) -> Option<Self> {
        let rules = json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"},
        ]);
        Self::new(stage, name, &rules)
    }

    /// Calls the one createRuntime hook of a container's spec; says which it is, and what it said.
    fn start(&self, view: &ContainerView) -> (String, String) {
        let hooks = view.cdi_devices[0].device_edits["hooks"].as_array().expect("hooks");
        let hooks: Vec<&Value> =
            hooks.iter().filter(|hook| hook["hookName"] == "createRuntime").collect();
        assert_eq!(hooks.len(), 1, "{hooks:?}");
        let args = hooks[0]["args"].as_array().expect("args").iter().filter_map(Value::as_str);
        let args: Vec<&str> = args.skip(1).collect();
        let (ok, said) = self.call(&args);
        assert!(ok, "{args:?}: {said}");
        (args[0].to_owned(), said)
    }

    fn call(&self, args: &[&str]) -> (bool, String) {
        let mut child = Command::new(&self.program)
            .args(args)
            .arg("--proc")
            .arg(&self.proc)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let state = json!({"ociVersion": "1.2.1", "id": "c", "status": "creating", "pid": 4711,
                           "bundle": self.folder});
        child.stdin.take().expect("piped").write_all(state.to_string().as_bytes()).expect("told");
        let output = child.wait_with_output().expect("it ends");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_told_once_known_and_kept() {
    let (stage, machine) = stage();
    let (Some(open), Some(plain)) =
        (Bundle::privileged(&stage, "open"), Bundle::plain(&stage, "plain"))
    else {
        return;
    };
    configure(&stage, &mixed(&stage.machine));
    let mut program = Program::start(&stage, &machine);
    up(&stage, &program).await;
    let (_, beside) = stage.run("beside", MIG, 1).await;
    let (_, all) = stage.run("all", MIG, 1).await;
    let said = tokio::task::block_in_place(|| plain.start(&beside));
    assert_eq!(said, ("notice".to_owned(), String::new()));
    assert!(!program.log().contains(WORD), "{}", program.log());
    let said = tokio::task::block_in_place(|| open.start(&all));
    assert_eq!(said, ("notice".to_owned(), String::new()));
    let log = program.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains(WORD)).collect();
    assert_eq!(told.len(), 1, "{log}");
    for word in [
        "WARN",
        "default/all",
        "main",
        all.cdi_devices[0].name.rsplit('=').next().expect("a claim"),
    ] {
        assert!(told[0].contains(word), "{word}: {}", told[0]);
    }
    let marked = || async {
        let claims = claims(&stage).await.expect("it answers").claims;
        let marked = claims.into_iter().filter(|claim| claim.every_device);
        marked.map(|claim| claim.holder.expect("known").pod).collect::<Vec<_>>()
    };
    assert_eq!(marked().await, ["all"]);
    // The ledger has it, and no hook has to say it again.
    program.child.kill().expect("it runs");
    program.ended().await;
    let said = tokio::task::block_in_place(|| open.start(&all)).1;
    assert!(said.contains("nobody was told") && said.contains("starts all the same"), "{said}");
    program = Program::start(&stage, &machine);
    up(&stage, &program).await;
    assert_eq!(marked().await, ["all"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn confine_tells_it_beside_its_own() {
    let stage = Stage::new(Preset::Mixed);
    let (Some(open), Some(plain)) =
        (Bundle::privileged(&stage, "open"), Bundle::plain(&stage, "plain"))
    else {
        return;
    };
    let agent = stage.agent(&mixed(&stage.machine)).await;
    let (beside, beside_view) = stage.run("beside", MEM, 2).await;
    let (all, all_view) = stage.run("all", MEM, 2).await;
    let marked = |pod, view: &ContainerView, bundle: &Bundle| {
        let said = tokio::task::block_in_place(|| bundle.start(view));
        assert_eq!(said, ("confine".to_owned(), String::new()));
        claim_of(&agent, pod, "main", MEM).expect("it lives").every_device
    };
    assert!(!marked(&beside, &beside_view, &plain));
    // In the host's PID namespace it is refused, and who does not start is not told.
    let hook = SocketPaths::under(&stage.state_dir()).hook;
    let claim = claim_of(&agent, &all, "main", MEM).expect("it lives").claim;
    let ours = ["confine", claim.as_str(), "--socket", hook.to_str().expect("UTF-8")];
    std::fs::remove_file(open.proc.join("4711/ns/pid")).expect("there was one");
    std::os::unix::fs::symlink("pid:[4026531836]", open.proc.join("4711/ns/pid")).expect("a link");
    let (ok, said) = tokio::task::block_in_place(|| open.call(&ours));
    assert!(!ok && said.contains("hostPID"), "{said}");
    assert!(!claim_of(&agent, &all, "main", MEM).expect("it lives").every_device);
    std::fs::remove_file(open.proc.join("4711/ns/pid")).expect("there was one");
    std::os::unix::fs::symlink("pid:[4026532001]", open.proc.join("4711/ns/pid")).expect("a link");
    assert!(marked(&all, &all_view, &open));
    assert!(!claim_of(&agent, &beside, "main", MEM).expect("it lives").every_device);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_word_that_is_not_understood_marks_nothing() {
    let stage = Stage::new(Preset::Mixed);
    let agent = stage.agent(&mixed(&stage.machine)).await;
    let opened = stage.admit("opened", MIG, 1).await;
    let (pod, _) = stage.run("holder", MIG, 1).await;
    let not_yet = claim_of(&agent, &opened, "main", MIG).expect("it lives").claim;
    let claim = claim_of(&agent, &pod, "main", MIG).expect("it lives").claim;
    let socket = SocketPaths::under(&stage.state_dir()).hook;
    let ask = |line: Value| -> Value {
        use std::io::Read as _;

        let mut stream = std::os::unix::net::UnixStream::connect(&socket).expect("it listens");
        writeln!(stream, "{line}").expect("told");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        serde_json::from_str(&answer).expect("JSON")
    };
    for (line, word) in [
        (json!({"version": 1, "op": "notice", "claim": "vgpu-none"}), "no claim vgpu-none"),
        (json!({"version": 1, "op": "notice", "claim": not_yet}), "started on"),
        (json!({"version": 1, "op": "notice", "claim": "../x"}), "does not understand"),
        (json!({"version": 2, "op": "notice", "claim": claim}), "does not understand"),
        (json!({"version": 1, "op": "notice"}), "does not understand"),
    ] {
        let answer = tokio::task::block_in_place(|| ask(line.clone()));
        assert_eq!(answer["ok"], false, "{line}: {answer}");
        assert!(answer["error"].as_str().is_some_and(|e| e.contains(word)), "{line}: {answer}");
    }
    assert!(agent.node().claims().iter().all(|claim| !claim.every_device));
    // Fields of a newer hook are passed over.
    let line =
        json!({"version": 1, "op": "notice", "claim": claim, "every_device": true, "more": 1});
    assert_eq!(tokio::task::block_in_place(|| ask(line)), json!({"ok": true}));
    let marked = || claim_of(&agent, &pod, "main", MIG).expect("it lives").every_device;
    eventually("the mark", marked).await;
}
