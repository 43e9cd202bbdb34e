//! The program itself, as a process that is signalled, killed, and ended between two vendor calls.

mod stage;

use std::io::Write as _;
use std::process::Command;

use stage::program::{Program, allocatable, claims, configure, stage, stand_in, up};
use stage::raw::socket_of;
use stage::{DCU, MEM, cdi_name, config_text, eventually, facts, folder, mixed};
use tokio::io::AsyncWriteExt as _;
use vgpu_backend_mock::{Action, At, Op, Rule};
use vgpu_plugin::sockets::SocketPaths;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_killed_and_started_again_and_ends_in_order() {
    let (stage, machine) = stage();
    configure(&stage, &mixed(&stage.machine));
    let mut program = Program::start(&stage, &machine);
    up(&stage, &program).await;
    let (pod, view) = stage.run("holder", DCU, 1).await;
    let (other, other_view) = stage.run("other", MEM, 4).await;
    stage.has_exactly(&other, "main", &other_view);
    let before = (stage.parts(), stage.specs(), claims(&stage).await.expect("it answers"));
    for _ in 0..3 {
        program.child.kill().expect("it runs");
        program.ended().await;
        allocatable(&stage, DCU, 0, &program).await;
        program = Program::start(&stage, &machine);
        up(&stage, &program).await;
        let after = (stage.parts(), stage.specs(), claims(&stage).await.expect("it answers"));
        assert_eq!(after, before);
        assert_eq!(stage.start(&pod.uid, "main").await, view);
        assert_eq!(stage.start(&other.uid, "main").await, other_view);
    }
    program.signal(rustix::process::Signal::TERM);
    let status = program.ended().await;
    assert_eq!(status.code(), Some(0), "{}", program.log());
    allocatable(&stage, DCU, 0, &program).await;
    assert_eq!(stage.specs(), before.1, "who runs keeps what it has");
    let sockets = SocketPaths::under(&stage.state_dir());
    assert!(!sockets.hook.exists() && !sockets.claims.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hangup_takes_a_good_configuration_and_no_bad_one() {
    let (stage, machine) = stage();
    let quarters =
        format!("- {{resource: {DCU}, kind: slice, slots: 4, select: {{vendors: [hygon]}}}}");
    configure(&stage, &quarters);
    let program = Program::start(&stage, &machine);
    allocatable(&stage, DCU, 8, &program).await;
    let file = stage.dir.path().join("node.yaml");
    let mut refusals = 0;
    for bad in [
        config_text(&quarters.replace("slots", "slotz")),
        config_text(&quarters)[..40].to_owned(),
        config_text(&format!(
            "{quarters}\n- {{resource: vgpu.dev/all, kind: slice, slots: 2, select: {{vendors: [hygon]}}}}"
        )),
    ] {
        std::fs::write(&file, bad).expect("written");
        program.signal(rustix::process::Signal::HUP);
        refusals += 1;
        let told = || program.log().matches("kept the last good configuration").count() == refusals;
        eventually("the refusal to be told", told).await;
        assert_eq!(stage.kubelet.allocatable(DCU), 8);
    }
    std::fs::remove_file(&file).expect("there was one");
    program.signal(rustix::process::Signal::HUP);
    let told = || program.log().matches("kept the last good configuration").count() == refusals + 1;
    eventually("the refusal to be told", told).await;
    stage.run("served", DCU, 1).await;
    configure(&stage, &quarters.replace("slots: 4", "slots: 2"));
    program.signal(rustix::process::Signal::HUP);
    // Three halves, and the quarter that is held.
    allocatable(&stage, DCU, 4, &program).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_dies_between_two_vendor_calls_and_nothing_is_lost() {
    let (stage, machine) = stage();
    configure(&stage, &mixed(&stage.machine));
    let before = stage.parts().len();
    let mut program = Program::start(&stage, &machine);
    let (mut pods, mut deaths) = (Vec::new(), Vec::new());
    for (op, action, nth) in [
        (Op::Create, Action::AbortBefore, 1),
        (Op::Create, Action::AbortAfter, 1),
        (Op::Create, Action::AbortAfter, 2),
        (Op::Edits, Action::AbortBefore, 1),
        (Op::Partitions, Action::AbortAfter, 1),
    ] {
        let told = format!("{op} {action:?} {nth}");
        up(&stage, &program).await;
        let pod = stage.admit(&format!("p{}", pods.len()), MEM, 2).await;
        let rule = Rule::new(At::CallsOf(op), action).nth(nth);
        let rule = stage.machine.faults().add(rule).expect("a rule");
        let uid = pod.uid.clone();
        // It dies in this or in a later try; where the call has no such step it lives.
        let outcome = stage.kubelet.start_container(&uid, "main").await;
        if outcome.is_err() || stage.machine.faults().has_hit(rule).expect("known") {
            let status = program.ended().await;
            assert_eq!(status.code(), None, "{told}: it was not ended by the abort: {status}");
            deaths.push(told.clone());
            program = Program::start(&stage, &machine);
        }
        stage.machine.faults().take_all_back().expect("no rules");
        let view = stage.start(&uid, "main").await;
        stage.has_exactly(&pod, "main", &view);
        pods.push(pod);
        assert_eq!(stage.parts().len(), before + pods.len(), "{told}: leaked or doubled");
    }
    // Taking down: the part goes, the process dies, another pod has the ids already.
    for nth in 1..=2 {
        up(&stage, &program).await;
        let last = pods.pop().expect("one");
        let rule = Rule::new(At::CallsOf(Op::Destroy), Action::AbortAfter).nth(nth);
        let rule = stage.machine.faults().add(rule).expect("a rule");
        assert!(stage.kubelet.delete_pod(&last.uid));
        let next = stage.admit("next", MEM, 2).await;
        let again = next.device_ids("main", MEM) == last.device_ids("main", MEM);
        let outcome = stage.kubelet.start_container(&next.uid, "main").await;
        if outcome.is_err() || stage.machine.faults().has_hit(rule).expect("known") {
            program.ended().await;
            deaths.push(format!("destroy {nth}"));
            program = Program::start(&stage, &machine);
        }
        stage.machine.faults().take_all_back().expect("no rules");
        let view = stage.start(&next.uid, "main").await;
        stage.has_exactly(&next, "main", &view);
        assert_eq!(view.cdi_devices[0].name, cdi_name(&next, "main", MEM));
        pods.push(next);
        if again {
            assert_eq!(stage.parts().len(), before + pods.len(), "leaked or doubled");
        }
    }
    println!("it died at {deaths:?}");
    assert!(deaths.len() >= 5, "{deaths:?}");
    let owned: std::collections::BTreeSet<_> = {
        let mut parts = std::collections::BTreeSet::new();
        for pod in &pods {
            parts.extend(facts(&stage.start(&pod.uid, "main").await).grants[0].part.clone());
        }
        parts
    };
    assert_eq!(owned.len(), pods.len(), "no part is in two containers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_100_megabytes_gets_an_error_and_it_lives_on() {
    let (stage, machine) = stage();
    configure(&stage, &mixed(&stage.machine));
    let mut program = Program::start(&stage, &machine);
    up(&stage, &program).await;
    let folder = &stage.kubelet.paths().device_plugins;
    let mut raw = stage::raw::Raw::to(folder, DCU).await;
    let ids: Vec<String> = (0..1_000).map(|_| "x".repeat(100_000)).collect();
    let e = raw.allocate(&ids).await.expect_err("too large");
    assert_eq!(e.code(), tonic::Code::OutOfRange, "{e}");
    assert!(e.message().contains("limit"), "{e}");
    // Not even gRPC.
    let socket = socket_of(folder, DCU);
    let mut stream = tokio::net::UnixStream::connect(&socket).await.expect("it listens");
    let junk = vec![0x55_u8; 1 << 20];
    for _ in 0..100 {
        if stream.write_all(&junk).await.is_err() {
            break;
        }
    }
    let hook = SocketPaths::under(&stage.state_dir()).hook;
    let mut stream = tokio::net::UnixStream::connect(&hook).await.expect("it listens");
    for _ in 0..100 {
        if stream.write_all(&junk).await.is_err() {
            break;
        }
    }
    assert!(program.child.try_wait().expect("ours").is_none(), "it lives");
    stage.run("served", DCU, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_driver_has_it_start_itself_anew() {
    let (stage, machine) = stage();
    configure(&stage, &mixed(&stage.machine));
    let mut program = Program::start(&stage, &machine);
    up(&stage, &program).await;
    let (pod, view) = stage.run("holder", MEM, 4).await;
    stage.machine.faults().replace_driver().expect("replaced");
    let anew = || program.log().contains("the driver was replaced; starting anew");
    eventually("it to start itself anew", anew).await;
    let twice = || program.log().matches("offered").count() > 4;
    eventually("it to serve again", twice).await;
    up(&stage, &program).await;
    assert!(program.child.try_wait().expect("ours").is_none(), "under the same pid");
    assert_eq!(stage.start(&pod.uid, "main").await, view);
    stage.run("next", DCU, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_program_of_another_version_is_told_and_served_with() {
    let (stage, machine) = stage();
    configure(&stage, &mixed(&stage.machine));
    const WORD: &str = "the hook program is of another version";
    let mut program = Program::start(&stage, &machine);
    up(&stage, &program).await;
    assert!(!program.log().contains(WORD), "{}", program.log());
    program.child.kill().expect("it runs");
    program.ended().await;
    stand_in(stage.dir.path(), "0.0.1");
    allocatable(&stage, DCU, 0, &program).await;
    program = Program::start(&stage, &machine);
    up(&stage, &program).await;
    let log = program.log();
    let told = log.lines().find(|line| line.contains(WORD)).unwrap_or_else(|| panic!("{log}"));
    assert!(told.contains("WARN") && told.contains("0.0.1"), "{told}");
    let hook = claims(&stage).await.expect("it answers").hook.expect("it has one");
    assert_eq!(hook.path, stage.dir.path().join("vgpu-hook"));
    assert_eq!(hook.version.as_deref(), Some("0.0.1"));
    stage.run("served", DCU, 1).await;
}

#[test]
fn a_configuration_is_checked_from_the_command_line() {
    let dir = folder();
    let file = dir.path().join("node.yaml");
    let check = |text: Option<&str>| {
        match text {
            Some(text) => {
                let mut written = std::fs::File::create(&file).expect("a file");
                written.write_all(text.as_bytes()).expect("written");
            }
            None => std::fs::remove_file(&file).expect("there was one"),
        }
        let output = Command::new(env!("CARGO_BIN_EXE_vgpu-plugin"))
            .arg("check-config")
            .arg(&file)
            .output()
            .expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let good = config_text("- {resource: vgpu.dev/gpu, kind: whole}");
    let (code, out, err) = check(Some(&good));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("1 offers: vgpu.dev/gpu"), "{out}");
    for (text, word) in [
        (Some(good.replace("whole", "half")), "whole, slice or unit"),
        (Some(good.replace("vgpu.dev/gpu", "gpu")), "domain"),
        (Some(good[..good.len() - 3].to_owned()), "line"),
        (None, "cannot read"),
    ] {
        let (code, out, err) = check(text.as_deref());
        assert_eq!((code, out.as_str()), (Some(1), ""), "{word}");
        assert!(err.contains(word), "{word}: {err}");
        assert!(err.contains(file.to_str().expect("UTF-8")), "it names the file: {err}");
        assert_eq!(err.lines().count(), 1, "one line: {err}");
    }
}

#[test]
fn what_cannot_be_started_is_told_in_one_line() {
    let dir = folder();
    let config = dir.path().join("node.yaml");
    std::fs::write(&config, config_text("- {resource: vgpu.dev/gpu, kind: whole}"))
        .expect("written");
    let hooks = dir.path().join("hooks");
    std::fs::create_dir(&hooks).expect("a folder");
    std::fs::write(hooks.join("vgpu-hook"), "").expect("written");
    let hooks = hooks.to_str().expect("UTF-8");
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_vgpu-plugin"))
            .arg("run")
            .arg("--config")
            .arg(&config)
            .arg("--state-dir")
            .arg(dir.path().join("state"))
            .arg("--cdi-dir")
            .arg(dir.path().join("cdi"))
            .arg("--kubelet-dir")
            .arg(dir.path().join("k"))
            .args(args)
            .env("VGPU_LOG", "off")
            .output()
            .expect("it runs");
        (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
    };
    for (args, word) in [
        (&["--backend", "mock", "--machine", "none"][..], "name a preset"),
        (&["--backend", "mock", "--backend", "mock"], "given twice"),
        (&["--backend", "mock", "--hook-dir", "/nowhere"], "install vgpu-hook there"),
        (&["--backend", "mock", "--hook-dir", hooks], "does not run, and no container"),
        (&["--backend", "mock", "--metrics-address", "192.0.2.1:1"], "--metrics-address"),
    ] {
        let (code, said) = run(args);
        assert_eq!(code, Some(1), "{word}: {said}");
        assert!(said.contains(word), "{word}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}
