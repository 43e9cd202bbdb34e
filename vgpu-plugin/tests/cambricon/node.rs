//! A node of the stand-in for libcndev: its machine as a file.

use std::ops::{Deref, DerefMut};
use std::os::unix::fs::MetadataExt as _;

use serde_json::Value;
use vgpu_scenarios::cambricon::{Machine, offers};

use crate::stage::standin::{Standin, built};

pub(crate) use vgpu_scenarios::cambricon::{MEM, SLOT, WHOLE, card};

/// A node with the program on eight cards.
pub(crate) struct Node {
    standin: Standin,
    machine: Machine,
}

impl Node {
    /// Nothing where the stand-in is not built.
    pub(crate) fn new() -> Option<Self> {
        let library = built("examples/libfake_cndev.so")?;
        let standin = Standin::new(&[MEM, SLOT, WHOLE], &offers(), move |dir, command| {
            command.args(["--backend", "cambricon", "--cndev-library"]).arg(&library);
            command.env("FAKE_CNDEV", dir.join("cndev.yaml"));
        });
        let machine = Machine::new(standin.stage.dir.path()).expect("described");
        Some(Self { standin, machine })
    }

    /// Waits until all that is offered can be had, or as much of it as pods leave.
    pub(crate) async fn serves(&self, mem: usize) {
        for (resource, least) in [(MEM, mem), (SLOT, 64), (WHOLE, 3)] {
            self.gives(resource, least..).await;
        }
    }

    /// A process of the host in a PID namespace of its own, or in that of another; the namespace's inode.
    pub(crate) fn process(&self, pid: u32, beside: Option<u32>) -> u64 {
        let of = |pid: u32| self.stage.dir.path().join(format!("root/proc/{pid}/ns/pid"));
        let file = of(pid);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        match beside {
            Some(other) => std::fs::hard_link(of(other), &file).expect("linked"),
            None => std::fs::write(&file, "").expect("written"),
        }
        std::fs::metadata(file).expect("there").ino()
    }

    /// Changes the machine under the library.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Value)) {
        self.machine.change(change).expect("changed");
    }

    pub(crate) fn state(&self) -> Value {
        self.machine.state().expect("read")
    }

    pub(crate) fn instances(&self, card: usize) -> Vec<Value> {
        self.machine.instances(card).expect("read")
    }
}

impl Deref for Node {
    type Target = Standin;

    fn deref(&self) -> &Standin {
        &self.standin
    }
}

impl DerefMut for Node {
    fn deref_mut(&mut self) -> &mut Standin {
        &mut self.standin
    }
}
