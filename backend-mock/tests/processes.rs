//! A machine in a file outlives the process, and several processes share it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use vgpu_backend_mock::{Action, At, Machine, MockFactory, Op, Preset, Rule};
use vgpu_core::{
    Backend, BackendExt, BackendFactory, Bytes, ClaimId, ComputeShare, CreateOrder, Error,
    ErrorKind, Host, Partition, Placement, Probe, Scheme, Shape, Size,
};

/// Names the machine's file to the child; only children have it.
const CHILD: &str = "VGPU_MOCK_TEST_CHILD";

fn open(path: &Path) -> (Arc<Machine>, Arc<dyn Backend>) {
    let machine = Machine::open(path, Preset::Mlu370x8).expect("a machine");
    match MockFactory::combined(&machine).probe(&Host::default()) {
        Probe::Ready(backend) => (machine, backend),
        other => panic!("the machine has cards: {other:?}"),
    }
}

fn create(backend: &dyn Backend, claim: &str) -> Result<Partition, Error> {
    let card = backend.scan()?.devices.remove(0);
    let of = std::num::NonZeroU32::new(100).expect("not 0");
    let compute = Some(ComputeShare { units: 1, of });
    let shape = Shape::Size(Size { compute, memory: Some(Bytes::mib(256)) });
    let claim = ClaimId::new(claim)?;
    let order = CreateOrder::admit(&card, &Scheme::SMLU, shape, Placement::Driver, claim)?;
    backend.create(&order)
}

/// What a child does: one create. In the test run itself there is no file, and nothing to do.
#[test]
fn child() {
    if let Some(path) = std::env::var_os(CHILD) {
        let (_, backend) = open(Path::new(&path));
        create(&*backend, &format!("claim-of-{}", std::process::id())).expect("a part");
    }
}

fn spawn(path: &Path) -> std::process::Child {
    Command::new(std::env::current_exe().expect("this test's program"))
        .args(["--exact", "child"])
        .env(CHILD, path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a child")
}

#[test]
fn parts_outlive_a_process_that_aborts_between_two_calls() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("machine.json");
    let (machine, backend) = open(&path);
    let card = machine.devices().expect("cards").remove(0);
    for (call, parts, swept) in
        [("cndevCreateSMluProfileInfo", 0, 1), ("cndevCreateSMluInstanceByProfileId", 1, 0)]
    {
        let rule = Rule::new(At::Call(call.into()), Action::AbortAfter);
        machine.faults().add(rule).expect("a rule");
        let status = spawn(&path).wait().expect("a child");
        assert!(!status.success(), "the child aborts in {call}");
        assert_eq!(backend.partitions(&card).expect("parts").len(), parts, "{call}");
        assert_eq!(backend.sweep(&card, &[]).expect("a sweep").len(), swept, "{call}");
    }
    // The rules are spent.
    assert!(spawn(&path).wait().expect("a child").success());
    assert_eq!(machine.truth(&card).expect("parts").len(), 2);
}

#[test]
fn processes_and_threads_at_once_lose_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("machine.json");
    let (machine, _) = open(&path);
    let card = machine.devices().expect("cards").remove(0);
    let mut children: Vec<_> = (0..4).map(|_| spawn(&path)).collect();
    thread::scope(|scope| {
        for t in 0..4 {
            let path = &path;
            scope.spawn(move || {
                let (_, backend) = open(path);
                for n in 0..5 {
                    create(&*backend, &format!("claim-{t}-{n}")).expect("a part");
                }
            });
        }
    });
    for child in &mut children {
        assert!(child.wait().expect("a child").success());
    }
    let parts = machine.truth(&card).expect("parts");
    assert_eq!(parts.len(), 24);
    let mut ids: Vec<_> = parts.iter().map(|p| &p.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 24, "every part has an id of its own");
}

#[test]
fn a_file_that_is_something_else_is_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("machine.json");
    std::fs::write(&path, "{}").expect("a file");
    let e = Machine::open(&path, Preset::Mixed).expect_err("it is no machine");
    assert_eq!(e.kind, ErrorKind::Invalid);
    assert!(e.message.contains("machine.json"), "{e}");
    let (machine, backend) = open(&dir.path().join("other.json"));
    std::fs::remove_file(dir.path().join("other.json")).expect("a file");
    assert_eq!(machine.boot_id().expect_err("it is gone").kind, ErrorKind::Io);
    assert_eq!(backend.scan().expect_err("it is gone").kind, ErrorKind::Io);
}

#[test]
fn a_hang_in_one_process_is_let_go_from_another() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("machine.json");
    let (machine, backend) = open(&path);
    let (other, _) = open(&path);
    let card = machine.devices().expect("cards").remove(0);
    let rule = other.faults().hang(Op::Partitions, &card).expect("a rule");
    let stuck = thread::spawn(move || backend.partitions(&card).map(drop));
    while !other.faults().has_hit(rule).expect("a machine") {
        thread::yield_now();
    }
    other.faults().take_all_back().expect("a machine");
    stuck.join().expect("no panic").expect("it goes on");
    let (_, backend) = open(&path);
    assert!(backend.device(&machine.devices().expect("cards")[0]).is_ok());
}
