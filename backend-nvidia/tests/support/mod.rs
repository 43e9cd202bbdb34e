//! A process that has loaded the fake NVML, and what it says.

mod built;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

pub(crate) use built::built;

/// How long an answer may take before the test gives up; a guard, not a measure.
const PATIENCE: Duration = Duration::from_secs(60);

/// `probe_nvml` with a library loaded.
#[derive(Debug)]
pub(crate) struct Probe {
    child: Child,
    commands: Option<ChildStdin>,
    lines: Receiver<String>,
    /// What it said first: how loading went.
    pub(crate) loaded: Value,
}

impl Probe {
    /// Loads a library in a process of its own, with a scenario for the fake in its environment.
    pub(crate) fn start(library: &Path, scenario: Option<&str>) -> Self {
        let mut command = Command::new(built("probe_nvml"));
        command.arg(library).env_remove("FAKE_NVML");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        if let Some(scenario) = scenario {
            command.env("FAKE_NVML", scenario);
        }
        let mut child = command.spawn().expect("the probe starts");
        let output = BufReader::new(child.stdout.take().expect("its output is piped"));
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let commands = child.stdin.take();
        let mut probe = Self { child, commands, lines, loaded: Value::Null };
        probe.loaded = probe.answer();
        probe
    }

    /// The fake with a preset or scenario file.
    pub(crate) fn fake(scenario: &str) -> Self {
        let probe = Self::start(&built("libfake_nvml.so"), Some(scenario));
        assert_eq!(probe.loaded["loaded"], true, "{}", probe.loaded);
        probe
    }

    /// Sends a command and waits for its answer.
    pub(crate) fn ask(&mut self, command: &str) -> Value {
        self.send(command);
        self.answer()
    }

    pub(crate) fn send(&mut self, command: &str) {
        let commands = self.commands.as_mut().expect("still open");
        writeln!(commands, "{command}").expect("the probe reads");
    }

    pub(crate) fn answer(&self) -> Value {
        let line = self.lines.recv_timeout(PATIENCE).expect("the probe answers");
        serde_json::from_str(&line).expect("an answer is JSON")
    }

    /// Whether nothing was said for a while.
    pub(crate) fn is_silent(&self, a_while: Duration) -> bool {
        self.lines.recv_timeout(a_while).is_err()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A scenario in a folder of its own, and its control file.
#[derive(Debug)]
pub(crate) struct Machine {
    folder: TempDir,
}

impl Machine {
    /// A machine as the YAML says; its control file is added.
    pub(crate) fn new(scenario: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the scenario");
        let control = folder.path().join("control.yaml");
        let text = format!("{scenario}\ncontrol: {}\n", control.display());
        std::fs::write(folder.path().join("scenario.yaml"), text).expect("the scenario is written");
        Self { folder }
    }

    pub(crate) fn scenario(&self) -> String {
        self.folder.path().join("scenario.yaml").to_string_lossy().into_owned()
    }

    /// Changes the machine, all at once.
    pub(crate) fn control(&self, text: &str) {
        let new = self.folder.path().join("control.new");
        std::fs::write(&new, text).expect("the control file is written");
        std::fs::rename(&new, self.folder.path().join("control.yaml")).expect("and put in place");
    }
}
