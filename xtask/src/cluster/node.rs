//! The box: a node's namespaces, and what runs in them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::cluster::assets::Assets;
use crate::cluster::cgroups;
use crate::cluster::config::{ADDRESS, Layout, NODE, SERVICE};
use crate::cluster::process::{Pid, children, run, wait_for};

const INIT: &str = include_str!("../../cluster/node/init.sh");
const CGROUPS: &str = "/sys/fs/cgroup";

/// How long the box may take to be made, or a process in it to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A box that is there.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) layout: Layout,
    /// PID 1 of the box, by its number outside.
    init: Pid,
    path: String,
}

impl Node {
    /// Makes the namespaces, file systems and network; nothing of Kubernetes runs yet.
    pub(crate) fn make(layout: Layout, assets: &Assets) -> Result<Self> {
        if let Some(old) = Pid::read(&layout.dir.join("init.pid"))?.filter(|p| p.is_alive()) {
            bail!(
                "a node runs in {} already (process {}); end it with `cargo xtask cluster down`",
                layout.dir.display(),
                old.number
            );
        }
        fs::create_dir_all(layout.dir.join("log"))
            .with_context(|| format!("cannot make {}", layout.dir.display()))?;
        cgroups::make(Path::new(CGROUPS), &layout.cgroup())?;
        let script = layout.dir.join("init.sh");
        fs::write(&script, INIT)?;
        let init = start(&layout, &script)?;
        init.write(&layout.dir.join("init.pid"))?;
        let path = format!(
            "{}:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin",
            assets.dir().display()
        );
        let node = Self { layout, init, path };
        wait_for("box", PATIENCE, || {
            ensure!(
                node.init.is_alive(),
                "the box could not be made: {}",
                tail(&node.layout.log("init"))
            );
            Ok(node.layout.dir.join("ready").exists().then_some(()))
        })?;
        Ok(node)
    }

    /// Ends whatever runs in a folder, and takes away what it left on the machine.
    pub(crate) fn end(dir: &Path) -> Result<bool> {
        let file = dir.join("init.pid");
        let alive = Pid::read(&file)?.filter(|pid| pid.is_alive());
        if let Some(init) = alive {
            // Its parent would otherwise live on for a moment.
            run(Command::new("kill").args(["-KILL", &init.number.to_string()]))?;
            wait_for("end of the node", PATIENCE, || Ok((!init.is_alive()).then_some(())))?;
        }
        cgroups::remove(Path::new(CGROUPS), &cgroups::name(dir))?;
        let was_there = file.exists();
        if was_there {
            fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        }
        Ok(was_there)
    }

    /// A path of the box as it is reached from outside.
    pub(crate) fn inside(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init.number))
    }

    /// Runs a program in the box to its end and gives what it printed.
    pub(crate) fn output<I, S>(&self, program: &Path, args: I) -> Result<String>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        run(self.enter().arg(program).args(args))
    }

    /// Starts a component in the box; its output goes to a log of its name, its number to a file.
    pub(crate) fn spawn<I, S>(&self, name: &str, program: &Path, args: I) -> Result<()>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.spawn_with(name, program, args, &[])
    }

    /// The same with variables of its own.
    pub(crate) fn spawn_with<I, S>(
        &self,
        name: &str,
        program: &Path,
        args: I,
        env: &[(String, String)],
    ) -> Result<()>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let path = self.layout.log(name);
        let log = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        let pid = self.layout.pid(name);
        drop(fs::remove_file(&pid));
        self.enter()
            .args(["/bin/sh", "-c", r#"echo $$ >"$0.new" && mv "$0.new" "$0" && exec "$@""#])
            .arg(&pid)
            .arg(program)
            .args(args)
            .envs(env.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A Ctrl-C at the terminal is for us, not for the node.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        wait_for(&format!("process {name}"), PATIENCE, || Ok(pid.exists().then_some(())))
    }

    /// Calls a component by another's name, which must have ended.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<()> {
        ensure!(!self.runs(to), "{to} still runs");
        fs::rename(self.layout.pid(from), self.layout.pid(to))
            .with_context(|| format!("cannot call {from} {to}"))
    }

    /// Whether a component runs.
    pub(crate) fn runs(&self, name: &str) -> bool {
        self.number(name).is_ok_and(|pid| self.inside(&format!("/proc/{pid}/exe")).exists())
    }

    /// Sends a signal to a component, and with KILL or TERM waits for its end.
    pub(crate) fn signal(&self, name: &str, signal: &str) -> Result<()> {
        let pid = self.number(name)?;
        run(self.enter().args(["kill", &format!("-{signal}"), &pid.to_string()]))?;
        if !matches!(signal, "KILL" | "TERM") {
            return Ok(());
        }
        wait_for(&format!("end of {name}"), PATIENCE, || Ok((!self.runs(name)).then_some(())))
    }

    /// The last lines of a component's log.
    pub(crate) fn log_tail(&self, name: &str) -> String {
        tail(&self.layout.log(name))
    }

    /// A component's process, by its number in the box.
    pub(crate) fn number(&self, name: &str) -> Result<u32> {
        let file = self.layout.pid(name);
        let text =
            fs::read_to_string(&file).with_context(|| format!("{name} was never started"))?;
        text.trim().parse().with_context(|| format!("{} holds no number", file.display()))
    }

    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--mount", "--net", "--uts", "--pid", "--wd=/", "--target"])
            .arg(self.init.number.to_string())
            .arg("--")
            .env_clear()
            .env("PATH", &self.path)
            .env("HOME", "/root")
            .env("TMPDIR", self.layout.dir.join("tmp"));
        command
    }
}

/// Starts PID 1 of the box and gives its number outside.
fn start(layout: &Layout, script: &Path) -> Result<Pid> {
    let log = File::create(layout.log("init"))?;
    let outer = Command::new("unshare")
        .args(["--mount", "--net", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child"])
        .args(["--propagation", "private", "--", "/bin/sh"])
        .arg(script)
        .arg(&layout.dir)
        .args([ADDRESS, SERVICE, NODE])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .context("cannot run unshare")?;
    let outer = outer.id();
    wait_for("PID 1 of the box", PATIENCE, || {
        ensure!(Pid::of(outer).is_some(), "unshare ended: {}", tail(&layout.log("init")));
        Ok(children(outer).into_iter().find_map(Pid::of))
    })
}

fn tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}
