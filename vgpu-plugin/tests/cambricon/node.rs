//! A node of the stand-in for libcndev: its machine as a file.

use std::ops::{Deref, DerefMut};
use std::os::unix::fs::MetadataExt as _;

use serde_json::Value;

use crate::stage::standin::{Standin, built};

pub(crate) const MEM: &str = "vgpu.dev/mem";
pub(crate) const WHOLE: &str = "vgpu.dev/mlu";
pub(crate) const SLOT: &str = "vgpu.dev/slot";

/// The card of that number of the preset `mlu370x8`.
pub(crate) fn card(n: u32) -> String {
    format!("MLU-3708{n:04x}-6d6c-7500-a000-00000000{n:04x}")
}

/// A node with the program on eight cards.
pub(crate) struct Node(Standin);

impl Node {
    /// Nothing where the stand-in is not built.
    pub(crate) fn new() -> Option<Self> {
        let library = built("examples/libfake_cndev.so")?;
        let offers = format!(
            "
- {{resource: {MEM}, kind: unit, unit: 1Gi, largest: 16, schemes: [smlu], select: {{devices: [{}]}}}}
- {{resource: {SLOT}, kind: slice, slots: 64, schemes: [smlu], select: {{devices: [{}]}}}}
- {{resource: {WHOLE}, kind: whole, select: {{devices: [{}, {}, {}]}}}}
",
            card(0),
            card(1),
            card(2),
            card(3),
            card(4),
        );
        let standin = Standin::new(&[MEM, SLOT, WHOLE], &offers, move |dir, command| {
            command.args(["--backend", "cambricon", "--cndev-library"]).arg(&library);
            command.env("FAKE_CNDEV", dir.join("cndev.yaml"));
        });
        let dir = standin.stage.dir.path();
        let scenario = format!("preset: mlu370x8\nstate: {}\n", dir.join("cndev.json").display());
        std::fs::write(dir.join("cndev.yaml"), scenario).expect("written");
        Some(Self(standin))
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
        let file = self.stage.dir.path().join("cndev.json");
        let lock = std::fs::File::create(file.with_extension("lock")).expect("a lock");
        lock.lock().expect("locked");
        let text = std::fs::read(&file).expect("the library wrote it");
        let mut state: Value = serde_json::from_slice(&text).expect("JSON");
        change(&mut state);
        let new = file.with_extension("renamed");
        std::fs::write(&new, state.to_string()).expect("written");
        std::fs::rename(new, file).expect("put in place");
    }

    pub(crate) fn state(&self) -> Value {
        let mut now = Value::Null;
        self.change(|state| now = state.clone());
        now
    }

    pub(crate) fn instances(&self, card: usize) -> Vec<Value> {
        self.state()["cards"][card]["instances"].as_array().cloned().unwrap_or_default()
    }
}

impl Deref for Node {
    type Target = Standin;

    fn deref(&self) -> &Standin {
        &self.0
    }
}

impl DerefMut for Node {
    fn deref_mut(&mut self) -> &mut Standin {
        &mut self.0
    }
}
