//! The program with backends in children: whatever becomes of one, the other vendors and everything
//! that runs is untouched, and it comes back by itself.

mod stage;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use stage::program::{Program, claims, configure, stage, up};
use stage::{DCU, MEM, Stage, eventually, mixed};
use vgpu_backend_mock::{Action, At, Op, Preset, Rule};
use vgpu_kubelet_plugin::fake::{ContainerView, FakeKubelet, Pod};
use vgpu_plugin::sockets::ClaimsReply;

/// Two containers that run, and everything that must stay as it is.
struct Running {
    pods: [(Pod, ContainerView); 2],
    before: (Vec<vgpu_core::PartitionId>, Vec<String>, ClaimsReply),
}

impl Running {
    async fn on(stage: &Stage) -> Self {
        let pods = [stage.run("holder", DCU, 1).await, stage.run("other", MEM, 4).await];
        let before = (stage.parts(), stage.specs(), claims(stage).await.expect("it answers"));
        Self { pods, before }
    }

    /// Nothing of it has changed.
    async fn untouched(&self, stage: &Stage, why: &str) {
        let now = (stage.parts(), stage.specs(), claims(stage).await.expect("it answers"));
        assert_eq!(now, self.before, "{why}");
    }

    /// Each container starts again as it was.
    async fn restarts(&self, stage: &Stage) {
        for (pod, view) in &self.pods {
            assert_eq!(stage.start(&pod.uid, "main").await, *view);
        }
    }
}

fn children(program: &Program) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", program.child.id()));
    let lists = tasks
        .into_iter()
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
    let pids: Vec<String> =
        lists.flat_map(|l| l.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect();
    pids.iter().map(|pid| pid.parse().expect("a number")).collect()
}

/// The child of a vendor, if it runs now.
fn child(program: &Program, vendor: &str) -> Option<u32> {
    children(program).into_iter().find(|pid| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = words.split(|b| *b == 0).collect();
        words.windows(2).any(|w| w[0] == b"backend" && w[1] == vendor.as_bytes())
    })
}

async fn child_other_than(program: &Program, vendor: &str, before: Option<u32>) -> u32 {
    let new = || child(program, vendor).is_some_and(|pid| Some(pid) != before);
    eventually("another child", new).await;
    child(program, vendor).expect("it was there just now")
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("not 0");
    kill_process(pid, signal).expect("it runs");
}

fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap_or_default().trim_start().chars().next();
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

async fn told(program: &Program, text: &str, times: usize) {
    let times_told = || program.log().matches(text).count() >= times;
    eventually(text, times_told).await;
}

async fn served(stage: &Stage, resource: &str, program: &Program) {
    let some = |k: &FakeKubelet| k.allocatable(resource) > 0;
    let waited = stage.kubelet.wait_until(resource, some).await;
    waited.unwrap_or_else(|e| panic!("{e}\n{}", program.log()));
}

fn configuration(stage: &Stage, backends: &str) -> String {
    format!("{}\nbackends: {backends}", mixed(&stage.machine).trim_end())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_and_stopped_it_comes_back_and_nobody_else_notices() {
    let (stage, machine) = stage();
    configure(&stage, &configuration(&stage, "{hygon: {process: child, callSeconds: 5}}"));
    let program = Program::start(&stage, &machine);
    up(&stage, &program).await;
    let running = Running::on(&stage).await;
    let units = stage.kubelet.allocatable(MEM);
    let mut pid = child(&program, "hygon").expect("it runs");
    assert_eq!(children(&program).len(), 1, "one for the vendor that was named");
    for times in 1..=2 {
        signal(pid, Signal::KILL);
        told(&program, "the process of hygon was ended by signal 9", times).await;
        running.untouched(&stage, "its child was killed").await;
        pid = child_other_than(&program, "hygon", Some(pid)).await;
    }
    // As long as it hangs, and after.
    signal(pid, Signal::STOP);
    let pod = stage.run("meanwhile", MEM, 1).await.0;
    told(&program, "did not return in time", 1).await;
    assert!(stage.kubelet.delete_pod(&pod.uid));
    let back = child_other_than(&program, "hygon", Some(pid)).await;
    assert!(!runs(pid) && runs(back));
    running.restarts(&stage).await;
    served(&stage, DCU, &program).await;
    stage.run("next", DCU, 1).await;
    // What the others have to offer changed with their own pods only.
    eventually("the units", || stage.kubelet.allocatable(MEM) == units).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_foreign_program_does_it_comes_back_by_itself() {
    let (stage, machine) = stage();
    let dir = stage.dir.path().to_owned();
    let program_of_vendor = foreign(&dir, &machine);
    let mode = |mode: &str| std::fs::write(dir.join("mode"), mode).expect("written");
    let command = format!(
        "{{hygon: {{command: [{}, {}], callSeconds: 5}}}}",
        program_of_vendor.display(),
        dir.join("mode").display()
    );
    configure(&stage, &configuration(&stage, &command));
    mode("good");
    let program = Program::start(&stage, &machine);
    up(&stage, &program).await;
    let mut running = Running::on(&stage).await;
    let mut pid = child(&program, "hygon").expect("it runs");
    for (ill, word) in [
        ("segv", "was ended by signal 11"),
        ("garbage", "is no message"),
        ("hang", "did not return in time"),
    ] {
        mode(ill);
        signal(pid, Signal::KILL);
        // The reason is the vendor's state, which is told as it changes.
        let broken = || {
            let log = program.log();
            log.lines().any(|l| l.contains("the vendor's state changed") && l.contains(word))
        };
        eventually(word, broken).await;
        running.untouched(&stage, ill).await;
        let (pod, view) = stage.run(&format!("beside-{ill}"), MEM, 1).await;
        stage.has_exactly(&pod, "main", &view);
        assert!(stage.kubelet.delete_pod(&pod.uid));
        mode("good");
        pid = child_other_than(&program, "hygon", Some(pid)).await;
        served(&stage, DCU, &program).await;
        running.restarts(&stage).await;
        running.before.0 = stage.parts();
        running.before.1 = stage.specs();
        running.before.2 = claims(&stage).await.expect("it answers");
    }
    stage.run("next", DCU, 1).await;
}

/// A program that is the real backend or something worse, as its file says.
fn foreign(dir: &Path, machine: &Path) -> PathBuf {
    let path = dir.join("backend");
    let own = env!("CARGO_BIN_EXE_vgpu-plugin");
    let machine = machine.display();
    let text = format!(
        "#!/bin/sh\ncase $(cat \"$1\") in\n\
         good) exec {own} backend hygon --backend mock --machine-state {machine} ;;\n\
         segv) kill -SEGV $$ ;;\n\
         garbage) echo loading libacme; sleep 1000 ;;\n\
         hang) sleep 1000 ;;\nesac\n"
    );
    std::fs::write(&path, text).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("set");
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_dies_in_a_create_and_the_pod_gets_exactly_its_part() {
    let (stage, machine) = stage();
    configure(&stage, &configuration(&stage, "{cambricon: {process: child}}"));
    let program = Program::start(&stage, &machine);
    up(&stage, &program).await;
    let before = stage.parts().len();
    for (n, action) in [Action::AbortBefore, Action::AbortAfter].into_iter().enumerate() {
        let pod = stage.admit(&format!("p{n}"), MEM, 2).await;
        let pid = child(&program, "cambricon");
        stage.machine.faults().add(Rule::new(At::CallsOf(Op::Create), action)).expect("a rule");
        let view = stage.start(&pod.uid, "main").await;
        stage.has_exactly(&pod, "main", &view);
        assert_ne!(child(&program, "cambricon"), pid, "it died");
        assert_eq!(stage.parts().len(), before + n + 1, "nothing leaked or doubled");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_driver_is_a_new_child_and_not_a_new_agent() {
    let (stage, machine) = stage();
    let all = "{nvidia: {process: child}, hygon: {process: child}, cambricon: {process: child}}";
    configure(&stage, &configuration(&stage, all));
    let mut program = Program::start(&stage, &machine);
    up(&stage, &program).await;
    let running = Running::on(&stage).await;
    let vendors = ["nvidia", "hygon", "cambricon"];
    let before = vendors.map(|vendor| child(&program, vendor).expect("it runs"));
    stage.machine.faults().replace_driver().expect("replaced");
    for (vendor, pid) in vendors.into_iter().zip(before) {
        child_other_than(&program, vendor, Some(pid)).await;
        assert!(!runs(pid));
    }
    up(&stage, &program).await;
    running.untouched(&stage, "its driver was replaced").await;
    running.restarts(&stage).await;
    stage.run("next", DCU, 1).await;
    assert!(!program.log().contains("starting anew"), "{}", program.log());
    // It ends, and its children with it, however it ends.
    for end in [Signal::TERM, Signal::KILL] {
        let children = children(&program);
        assert_eq!(children.len(), 3);
        program.signal(end);
        program.ended().await;
        eventually("its children to end", || !children.iter().any(|pid| runs(*pid))).await;
        program = Program::start(&stage, &machine);
        up(&stage, &program).await;
    }
    running.restarts(&stage).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_has_no_vendor_code_in_it() {
    let own = std::env::current_exe().expect("a test knows its own path");
    let profile = own.parent().and_then(Path::parent).expect("tests lie in target/<profile>/deps");
    let library = profile.join("examples/libfake_nvml.so");
    if !library.exists() {
        eprintln!("skipped: {} is not built", library.display());
        return;
    }
    let offer = "- {resource: vgpu.dev/gpu, kind: whole, select: {vendors: [nvidia]}}";
    for (process, in_agent) in [("child", false), ("in-process", true)] {
        let stage = Stage::new(Preset::Empty);
        let backends = format!("{offer}\nbackends: {{nvidia: {{process: {process}}}}}");
        configure(&stage, &backends);
        let program = Program::with(&stage, |command| {
            command
                .args(["--backend", "nvidia", "--nvml-library"])
                .arg(&library)
                .env("FAKE_NVML", "h200x2");
        });
        let two = stage.kubelet.wait_allocatable("vgpu.dev/gpu", 2).await;
        two.unwrap_or_else(|e| panic!("{e}\n{}", program.log()));
        let maps =
            |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("it runs");
        assert_eq!(maps(program.child.id()).contains("libfake_nvml"), in_agent, "{process}");
        let child = child(&program, "nvidia");
        let in_child = child.is_some_and(|pid| maps(pid).contains("libfake_nvml"));
        assert_eq!(in_child, !in_agent, "{process}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vendor_that_is_not_served_and_has_no_command_is_told() {
    let (stage, machine) = stage();
    configure(&stage, &configuration(&stage, "{hydon: {process: child}}"));
    let mut program = Program::start(&stage, &machine);
    let status = program.ended().await;
    assert_eq!(status.code(), Some(1));
    let log = program.log();
    assert!(log.contains("backends.hydon") && log.contains("nvidia, hygon, cambricon"), "{log}");
}
