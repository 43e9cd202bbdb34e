//! The fake control program beside the fake library: its control file, and daemons put away again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};
use vgpu_backend_nvidia::{Launch, MpsOptions};
use vgpu_conformance::Support;
use vgpu_core::{DeviceId, Error, ErrorKind, PartitionId, Result, Scheme};

use crate::built::built;

/// Commands of a share's create, in order, with and without namespaces, and of a partition's.
const NAMED: &[&str] = &["namespace list", "namespace create", "namespace set", "namespace get"];
const LEGACY: &[&str] = &[
    "set_default_active_thread_percentage",
    "set_default_device_pinned_mem_limit",
    "get_server_list",
    "get_default_device_pinned_mem_limit",
    "get_default_active_thread_percentage",
];
const STATIC: &[&str] = &["sm_partition add", "lspart"];

/// What the control program plays.
#[derive(Debug)]
pub(crate) struct Mps {
    /// The preset of the program.
    preset: &'static str,
    /// The prepared host; daemons have their folders in it.
    root: PathBuf,
    control: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    clients: BTreeMap<String, Vec<Value>>,
    fail: Vec<Value>,
}

impl Mps {
    /// Presets take turns over the machines, so that each has met every kind of machine's suite.
    pub(crate) fn beside(
        scenario: &Path,
        root: &Path,
        preset: &'static str,
    ) -> std::io::Result<Self> {
        let control = scenario.with_file_name("mps-control.yaml");
        let file = scenario.with_file_name("mps.yaml");
        fs::write(&file, format!("preset: {preset}\ncontrol: {}\n", control.display()))?;
        // A program in front, since a process that tests run in has its environment already.
        let program = scenario.with_file_name("nvidia-cuda-mps-control");
        let text = format!(
            "#!/bin/sh\nFAKE_MPS={} exec {} \"$@\"\n",
            file.display(),
            built("fake_mps_control").display()
        );
        fs::write(&program, text)?;
        fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        Ok(Self { preset, root: root.to_owned(), control, state: Mutex::default() })
    }

    /// What a backend is told of the program beside a scenario, if there is one.
    pub(crate) fn options_beside(scenario: &Path) -> Option<MpsOptions> {
        let program = scenario.with_file_name("nvidia-cuda-mps-control");
        program.is_file().then(|| MpsOptions {
            program: Some(program),
            folder: FOLDER.into(),
            launch: Launch::Bare,
            ..MpsOptions::default()
        })
    }

    /// The program that a driver of this version brings; one of each kind among the machines.
    pub(crate) fn preset_of(machine: &str, driver: &str) -> Option<&'static str> {
        let major = driver.split('.').next().and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
        match (major, machine) {
            (615.., _) => Some("namespaces"),
            (590.., _) | (_, "h200x8") => Some("static"),
            (_, "t4x1") => Some("legacy"),
            // Hosts without the compute utilities: their cards claim neither scheme.
            _ => None,
        }
    }

    /// Whether the card has a daemon.
    pub(crate) fn has_daemon(&self, device: &DeviceId) -> bool {
        self.scheme(device).is_some()
    }

    /// The scheme that a card's daemon was started for, as it is written down.
    fn scheme(&self, device: &DeviceId) -> Option<Scheme> {
        let text = fs::read(self.folder(device).join("daemon.json")).ok()?;
        let record: Value = serde_json::from_slice(&text).ok()?;
        Some(Scheme::new(record["scheme"].as_str()?.to_owned()))
    }

    fn folder(&self, device: &DeviceId) -> PathBuf {
        let name = device.as_str().trim_start_matches("GPU-");
        self.root.join(FOLDER.trim_start_matches('/')).join(name)
    }

    /// The `nth` command of the next create on a card fails.
    pub(crate) fn fail(&self, device: &DeviceId, nth: u32, kind: ErrorKind) -> Result<Support> {
        let commands = match (self.scheme(device) == Some(Scheme::MPS_STATIC), self.preset) {
            (true, _) => STATIC,
            (false, "namespaces") => NAMED,
            (false, _) => LEGACY,
        };
        let text = match kind {
            ErrorKind::Busy => "it is in use",
            ErrorKind::Permission => "not permitted",
            ErrorKind::Vendor => "out of luck",
            other => return Ok(Support::Declined(format!("no word of the program is {other}"))),
        };
        let Some(command) = nth.checked_sub(1).and_then(|at| commands.get(at as usize)) else {
            // There is no such command, so that nothing fails.
            return Ok(Support::Played);
        };
        let rule = json!({ "command": command, "card": device, "text": text, "exit": 7 });
        self.state().fail.push(rule);
        self.write()?;
        Ok(Support::Played)
    }

    pub(crate) fn heal(&self) -> Result<()> {
        self.state().fail.clear();
        self.write()
    }

    /// So many clients of a part, each in a container that has the part's file.
    pub(crate) fn hold(&self, part: &PartitionId, processes: u32) -> Result<Support> {
        let card = part.device();
        let handle = match part.scheme() == Scheme::MPS_STATIC {
            true => part.local().replace('-', "+").replace('_', "/"),
            false => format!("n{}", part.local()),
        };
        let mut clients = Vec::new();
        for n in 0..processes {
            let pid = 900_000 + n;
            self.container_of(pid, part).map_err(|e| Error::io("prepare", &self.root, &e))?;
            clients.push(match part.scheme() == Scheme::MPS_STATIC {
                true => json!({ "pid": pid, "card": card, "partition": handle }),
                false => json!({ "pid": pid, "card": card, "namespace": handle }),
            });
        }
        self.state().clients.insert(part.to_string(), clients);
        if self.preset != "namespaces" && part.scheme() == Scheme::MPS {
            // Without names a client is one of a server.
            self.ask(&card, "start_server -uid 0")?;
        }
        self.write()?;
        Ok(Support::Played)
    }

    /// A partition goes behind our back; a share is nothing but ours.
    pub(crate) fn vanish(&self, part: &PartitionId) -> Result<Support> {
        if part.scheme() != Scheme::MPS_STATIC {
            return Ok(Support::Declined("a share is a record of the backend's own".into()));
        }
        let id = part.local().replace('-', "+").replace('_', "/");
        self.ask(&part.device(), &format!("sm_partition rm {} {id}", part.device()))?;
        Ok(Support::Played)
    }

    /// No daemon outlives a boot, and what is written down of it does.
    pub(crate) fn reboot(&self) -> Result<()> {
        for card in self.cards() {
            self.ask_at(&card, &["-q"], None)?;
            self.ask_at(&card, &[], Some("quit"))?;
        }
        let folder = self.root.join("proc/sys/kernel/random");
        let file = folder.join("boot_id");
        let before = fs::read_to_string(&file).unwrap_or_default().len();
        fs::create_dir_all(&folder)
            .and_then(|()| fs::write(&file, "b".repeat(before + 1)))
            .map_err(|e| Error::io("write", &file, &e))
    }

    /// Ends every daemon and forgets what they were given.
    pub(crate) fn reset(&self) -> Result<()> {
        *self.state() = State::default();
        self.write()?;
        for card in self.cards() {
            self.ask_at(&card, &["-q"], None)?;
            self.ask_at(&card, &[], Some("quit"))?;
            fs::remove_dir_all(&card).map_err(|e| Error::io("remove", &card, &e))?;
        }
        Ok(())
    }

    fn cards(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.root.join(FOLDER.trim_start_matches('/')));
        entries.into_iter().flatten().filter_map(|e| Some(e.ok()?.path())).collect()
    }

    fn container_of(&self, pid: u32, part: &PartitionId) -> std::io::Result<()> {
        let folder = self.root.join(format!("proc/{pid}/root/etc/vgpu/mps"));
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("share"), format!("{part}\n"))
    }

    fn ask(&self, card: &DeviceId, command: &str) -> Result<()> {
        self.ask_at(&self.folder(card), &[], Some(command))
    }

    /// What the daemon says does not matter; it may be gone.
    fn ask_at(&self, folder: &Path, args: &[&str], command: Option<&str>) -> Result<()> {
        let program = self.control.with_file_name("nvidia-cuda-mps-control");
        let line = command.unwrap_or_default();
        let feeds = format!("echo \"$1\" | \"$0\" {}", args.join(" "));
        Command::new("/bin/sh")
            .args(["-c", &feeds])
            .arg(&program)
            .arg(line)
            .env("CUDA_MPS_PIPE_DIRECTORY", folder.join("pipe"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .map(drop)
            .map_err(|e| Error::io("run", &program, &e))
    }

    fn write(&self) -> Result<()> {
        let text = {
            let state = self.state();
            let clients: Vec<&Value> = state.clients.values().flatten().collect();
            json!({ "clients": clients, "fail": state.fail }).to_string()
        };
        let new = self.control.with_extension("new");
        fs::write(&new, text).map_err(|e| Error::io("write", &new, &e))?;
        fs::rename(&new, &self.control).map_err(|e| Error::io("replace", &self.control, &e))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Mps {
    fn drop(&mut self) {
        // No daemon outlives its test.
        let _told = self.reset();
    }
}

const FOLDER: &str = "/run/mps";
