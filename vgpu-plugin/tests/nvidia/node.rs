//! A node of the stand-in for NVML: its machine as files, a prepared host, and what a runtime does with a spec.

use std::cell::RefCell;
use std::io::Write as _;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use vgpu_kubelet_plugin::fake::ContainerView;

use crate::stage::standin::{Standin, built};

/// A node with the program on the cards of a preset.
pub(crate) struct Node {
    standin: Standin,
    /// What the control file says.
    control: RefCell<Value>,
}

/// What the node is to be.
pub(crate) struct Machine<'m> {
    /// The preset, and keys that differ, as lines of YAML.
    pub(crate) scenario: &'m str,
    /// The driver's version, whose libraries the host has. Without one the kernel has no driver, as where
    /// a library is only tried out.
    pub(crate) driver: Option<&'m str>,
    pub(crate) resources: &'m [&'static str],
    /// The offers, and layouts after them.
    pub(crate) offers: &'m str,
    /// What the program is told besides.
    pub(crate) args: &'m [&'static str],
}

impl Node {
    /// Nothing where the stand-in is not built.
    pub(crate) fn new(machine: &Machine<'_>) -> Option<Self> {
        let library = built("examples/libfake_nvml.so")?;
        let mps = built("examples/fake_mps_control")?;
        let args = machine.args.to_vec();
        let standin = Standin::new(machine.resources, machine.offers, move |dir, command| {
            command.args(["--backend", "nvidia", "--nvml-library"]).arg(&library);
            command.arg("--mps-control").arg(&mps).args(["--mps-dir", MPS]).args(&args);
            command.env("FAKE_NVML", dir.join("nvml.yaml"));
        });
        let node = Self { standin, control: RefCell::new(json!({})) };
        node.is(machine.scenario);
        if let Some(version) = machine.driver {
            node.install(version);
        }
        Some(node)
    }

    /// What the machine is when the library is started next.
    pub(crate) fn is(&self, scenario: &str) {
        let at = |name: &str| self.at(name).display().to_string();
        let text = format!(
            "{scenario}\nstate: {}\nhost_root: {}\ncontrol: {}\n",
            at("nvml.json"),
            at("root"),
            at("control.yaml")
        );
        std::fs::write(self.at("nvml.yaml"), text).expect("written");
    }

    /// Installs a driver of this version on the host, beside whatever is there.
    pub(crate) fn install(&self, version: &str) {
        for name in ["libcuda", "libnvidia-ml", "libnvidia-ptxjitcompiler"] {
            self.write(&format!("root/usr/lib/x86_64-linux-gnu/{name}.so.{version}"), "");
        }
        let devices =
            "Character devices:\n195 nvidia\n195 nvidia-modeset\n236 nvidia-caps\n511 nvidia-uvm\n";
        self.write("root/proc/devices", devices);
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.stage.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.at(name);
        std::fs::create_dir_all(path.parent().expect("below the folder")).expect("made");
        std::fs::write(path, text).expect("written");
    }

    /// Changes what goes on with the machine, at once; JSON is YAML.
    pub(crate) fn control(&self, change: impl FnOnce(&mut Value)) {
        let mut control = self.control.borrow_mut();
        change(&mut control);
        let new = self.at("control.new");
        std::fs::write(&new, control.to_string()).expect("written");
        std::fs::rename(new, self.at("control.yaml")).expect("put in place");
    }

    /// The driver's own state, which outlives the program.
    pub(crate) fn state(&self) -> Value {
        match std::fs::read(self.at("nvml.json")) {
            Ok(text) => serde_json::from_slice(&text).expect("JSON"),
            // Nothing was changed yet.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => json!({ "limits": [] }),
            Err(e) => panic!("the driver's state: {e}"),
        }
    }

    /// The GPU instances of a card, each with its compute instances.
    pub(crate) fn instances(&self, card: u32) -> Vec<Value> {
        let state = self.state();
        let all = state["mig"]["cards"][card.to_string()]["instances"].as_array();
        all.cloned().unwrap_or_default()
    }

    /// The memory limits of cgroups that are in force: card, path below the host's root, bytes.
    pub(crate) fn limits(&self) -> Vec<(u64, String, u64)> {
        let (state, root) = (self.state(), self.at("root"));
        let all = state["limits"].as_array().expect("a list");
        let told = all.iter().map(|limit| {
            let cgroup = Path::new(limit["cgroup"].as_str().expect("a path"));
            let below = cgroup.strip_prefix(&root).expect("below the host's root");
            let (card, bytes) = (limit["card"].as_u64(), limit["hard"].as_u64());
            (card.expect("a number"), format!("/{}", below.display()), bytes.expect("a number"))
        });
        told.collect()
    }

    /// A cgroup of version 2 with these processes in it, and the cgroups above it.
    pub(crate) fn cgroup(&self, path: &str, pids: &[u32]) {
        let mut own: String = pids.iter().map(|pid| format!("{pid}\n")).collect();
        for folder in Path::new(path).ancestors().take_while(|f| f.starts_with("/sys/fs/cgroup")) {
            let below = format!("root{}", folder.display());
            self.write(&format!("{below}/cgroup.controllers"), "memory dmem\n");
            self.write(&format!("{below}/cgroup.procs"), &own);
            own.clear();
        }
        let populated = u32::from(!pids.is_empty());
        self.write(&format!("root{path}/cgroup.events"), &format!("populated {populated}\n"));
    }

    /// The first process of a container in a cgroup, as the host's `/proc` shows it.
    pub(crate) fn process(&self, pid: u32, cgroup: &str) {
        self.cgroup(cgroup, &[pid]);
        let within = cgroup.strip_prefix("/sys/fs/cgroup").expect("a cgroup's path");
        self.write(&format!("root/proc/{pid}/cgroup"), &format!("0::{within}\n"));
        let mounts = "31 24 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n";
        self.write("root/proc/self/mountinfo", mounts);
        let namespace = self.at(&format!("root/proc/{pid}/ns/pid"));
        std::fs::create_dir_all(namespace.parent().expect("a folder")).expect("made");
        symlink(format!("pid:[{}]", 4_026_532_000 + u64::from(pid)), namespace).expect("linked");
    }

    /// Puts the real `vgpu-hook` where specs name it; nothing where it is not built.
    pub(crate) fn with_hook(self) -> Option<Self> {
        let hook = built("vgpu-hook")?;
        let place = self.at("vgpu-hook");
        std::fs::remove_file(&place).expect("there was a stand-in");
        symlink(hook, place).expect("linked");
        Some(self)
    }

    /// Runs a container's `createRuntime` hooks, as its runtime does once it has a first process.
    pub(crate) fn create_runtime(&self, view: &ContainerView, pid: u32) -> Vec<Output> {
        let bundle = self.at("bundle");
        let state = json!({
            "ociVersion": "1.2.0", "id": "c", "status": "creating", "pid": pid, "bundle": bundle,
        });
        let edits = view.cdi_devices.iter().flat_map(|d| d.device_edits["hooks"].as_array());
        let hooks = edits.flatten().filter(|hook| hook["hookName"] == "createRuntime");
        hooks.map(|hook| run(hook, &self.at("root/proc"), &state)).collect()
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

/// Where daemons have their folders on the host; short, since sockets are in them.
pub(crate) const MPS: &str = "/run/m";

/// Runs one hook of a spec with a container's state on its standard input.
fn run(hook: &Value, proc: &Path, state: &Value) -> Output {
    let words = hook["args"].as_array().expect("arguments");
    // The first is the program's own name.
    let words = words.iter().skip(1).map(|word| word.as_str().expect("a word"));
    let mut child = Command::new(hook["path"].as_str().expect("a path"))
        .args(words)
        .arg("--proc")
        .arg(proc)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the hook starts");
    let text = state.to_string();
    // A hook that refuses its arguments does not read.
    let _ = child.stdin.take().expect("piped").write_all(text.as_bytes());
    child.wait_with_output().expect("the hook ends")
}
