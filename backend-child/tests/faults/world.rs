//! A machine in a file, and children on it.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use vgpu_backend_child::{ChildFactory, ChildOptions};
use vgpu_backend_mock::{Machine, Preset};
use vgpu_core::{Backend, BackendFactory, DeviceId, Error, Host, Probe, Result, Vendor};

use crate::children::{MACHINE, MODE};

/// Only a guard against waiting for good.
pub(crate) const GUARD: Duration = Duration::from_secs(60);

pub(crate) struct World {
    pub(crate) machine: Arc<Machine>,
    pub(crate) file: PathBuf,
    _dir: TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("machine.json");
        let machine = Machine::open(&file, Preset::Mlu370x8).expect("a machine");
        Self { machine, file, _dir: dir }
    }

    /// A child of this mode, started anew at once.
    pub(crate) fn options(&self, mode: &str) -> ChildOptions {
        ChildOptions {
            pause: (Duration::from_millis(10), Duration::from_millis(100)),
            hello: GUARD,
            call: GUARD,
            ..ChildOptions::own(["child"])
                .variable(MODE, mode)
                .variable(MACHINE, &self.file)
                .variable("RUST_BACKTRACE", "0")
        }
    }

    /// A backend that works.
    pub(crate) fn good(&self, options: ChildOptions) -> (ChildFactory, Arc<dyn Backend>) {
        let factory = ChildFactory::new(Vendor::new("mock"), options);
        match factory.probe(&Host::default()) {
            Probe::Ready(backend) => (factory, backend),
            other => panic!("it is not ready: {other:?}"),
        }
    }

    /// What becomes of a child of this mode.
    pub(crate) fn probe(options: ChildOptions) -> Probe {
        ChildFactory::new(Vendor::new("mock"), options).probe(&Host::default())
    }

    pub(crate) fn broken(options: ChildOptions) -> Error {
        match Self::probe(options) {
            Probe::Broken(error) => {
                let text = error.to_string();
                assert_eq!(text.lines().count(), 1, "one line: {text}");
                error
            }
            other => panic!("it is not broken: {other:?}"),
        }
    }

    pub(crate) fn card(&self) -> DeviceId {
        self.machine.devices().expect("cards").remove(0)
    }
}

/// Tries until it works.
pub(crate) fn eventually<T>(what: &str, mut tried: impl FnMut() -> Result<T>) -> T {
    let until = Instant::now() + GUARD;
    loop {
        match tried() {
            Ok(value) => return value,
            Err(error) => assert!(Instant::now() < until, "{what}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn holds(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + GUARD;
    while !holds() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("not 0");
    kill_process(pid, signal).expect("it runs");
}

/// Whether a process runs; one that only waits to be reaped does not.
pub(crate) fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap_or_default().trim_start().chars().next();
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

/// How many descriptors this process has, and how many children.
pub(crate) fn belongings() -> (usize, usize) {
    let open = std::fs::read_dir("/proc/self/fd").expect("there is /proc").count();
    let tasks = std::fs::read_dir("/proc/self/task").expect("there is /proc");
    let children = tasks.map(|task| {
        let file = task.expect("a task").path().join("children");
        std::fs::read_to_string(file).unwrap_or_default().split_whitespace().count()
    });
    (open, children.sum())
}

/// A process between the test and a child, to be killed: it tells the child's id and waits.
pub(crate) fn be_an_agent() -> ! {
    let file = std::env::var_os(MACHINE).expect("the machine's file is named");
    let options = ChildOptions::own(["child"]).variable(MODE, "good").variable(MACHINE, file);
    let factory = ChildFactory::new(Vendor::new("mock"), options);
    let Probe::Ready(_backend) = factory.probe(&Host::default()) else { panic!("not ready") };
    let child = factory.process_id().expect("it runs");
    let mut out = std::io::stdout().lock();
    writeln!(out, "{child}").and_then(|()| out.flush()).expect("the test reads");
    loop {
        std::thread::sleep(GUARD);
    }
}
