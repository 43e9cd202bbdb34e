//! The hook program: where it lies, whether it runs, and of which version it is.
//!
//! A runtime calls it for every container with a claim, and a hook that does not run ends the start.

use std::io::{ErrorKind, Read};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// The program's name.
pub const PROGRAM: &str = "vgpu-hook";

/// How long it may take to say its version; a millisecond is usual.
pub const LIMIT: Duration = Duration::from_secs(10);

/// A hook program on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Where it lies.
    pub path: PathBuf,
    /// Its version, where it was asked for it and said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

impl Hook {
    /// The program at a path, which nobody has asked for its version.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), version: None }
    }
}

/// What became of asking a hook program for its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It does not run, for this reason.
    Broken(String),
    /// It runs and is another program; this is what it said.
    Other(String),
    /// It did not end in time.
    Silent,
    /// It runs and is of this version.
    Version(String),
}

/// The program in a folder, if one is named.
///
/// # Errors
/// There is none, or it does not run: no container with a claim could start.
pub(crate) fn find(dir: Option<&Path>, host_root: &Path) -> anyhow::Result<Option<Hook>> {
    let Some(dir) = dir else { return Ok(None) };
    let path = dir.join(PROGRAM);
    let at = path.display();
    anyhow::ensure!(path.is_file(), "there is no {at}; install vgpu-hook there");
    let own = env!("CARGO_PKG_VERSION");
    let answer = ask(&path, LIMIT);
    let version = match &answer {
        Answer::Version(version) => Some(version.clone()),
        _ => None,
    };
    match answer {
        Answer::Version(version) if version == own => {
            tracing::info!(hook = %at, version, "the hook program runs");
        }
        Answer::Version(version) => tracing::warn!(
            hook = %at, version, agent = own,
            "the hook program is of another version than this agent: install the vgpu-hook that came with the agent; \
             an older one may not know what the agent's specs call, and then no container with a claim starts"
        ),
        Answer::Other(said) => anyhow::bail!(
            "{at} is no vgpu-hook: asked for its version it says {said:?}; install vgpu-hook there"
        ),
        Answer::Silent => tracing::warn!(
            hook = %at,
            "the hook program did not say its version within {} s; containers with a claim wait for it as long: look \
             at it and at its disk, and install the vgpu-hook that came with the agent",
            LIMIT.as_secs()
        ),
        // The host's runtime has other libraries and mounts than this container: it may run there.
        Answer::Broken(why) if host_root != Path::new("/") => tracing::warn!(
            hook = %at, why,
            "the hook program does not run in the agent's container; whether it runs on the host is not known. A \
             static one (`cargo xtask hook`) runs in both"
        ),
        Answer::Broken(why) => anyhow::bail!(
            "{at} does not run, and no container with a claim would start: {why}; install the vgpu-hook that came with \
             the agent there (`cargo xtask hook` builds one that runs on any Linux); where the agent is in a container, \
             give --host-root"
        ),
    }
    Ok(Some(Hook { path, version }))
}

/// Asks a program for its version, `vgpu-hook version`, as a runtime would call it: without this process's environment.
///
/// One that does not end within `limit` is killed.
pub fn ask(program: &Path, limit: Duration) -> Answer {
    let until = Instant::now() + limit;
    let mut child = loop {
        match command(program).spawn() {
            Ok(child) => break child,
            // An installer still writes it.
            Err(e) if e.kind() == ErrorKind::ExecutableFileBusy && Instant::now() < until => {
                thread::sleep(PAUSE);
            }
            Err(e) => return Answer::Broken(told(&e, program)),
        }
    };
    let (out, err) = (listen(child.stdout.take()), listen(child.stderr.take()));
    let Some(status) = ended(&mut child, until) else {
        end(child);
        return Answer::Silent;
    };
    // Whoever else holds its pipes is not waited for longer.
    let said = |heard: &mpsc::Receiver<String>| {
        heard.recv_timeout(until.saturating_duration_since(Instant::now())).unwrap_or_default()
    };
    match status {
        Ok(status) if status.success() => version(&said(&out)),
        Ok(status) => Answer::Broken(format!("it ended with {status}: {}", quoted(&said(&err)))),
        Err(e) => Answer::Broken(e.to_string()),
    }
}

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// A version or a reason is shorter.
const LONGEST: u64 = 4 << 10;

fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .arg("version")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // So that what it started is ended with it.
        .process_group(0);
    command
}

/// What is written to a pipe, once it is closed.
fn listen(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (tell, heard) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came until it failed is as good.
        let _ = pipe.map(|pipe| pipe.take(LONGEST).read_to_end(&mut bytes));
        // Nobody may wait any longer.
        let _ = tell.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    heard
}

/// How it ended; nothing where it did not in time.
fn ended(child: &mut Child, until: Instant) -> Option<std::io::Result<ExitStatus>> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(Ok(status)),
            Ok(None) if Instant::now() < until => thread::sleep(PAUSE),
            Ok(None) => return None,
            Err(e) => return Some(Err(e)),
        }
    }
}

fn end(mut child: Child) {
    if let Ok(pid) = i32::try_from(child.id())
        && let Some(group) = rustix::process::Pid::from_raw(pid)
    {
        // It may have ended by itself; nobody has its number before it is waited for.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    // One that hangs in the kernel does not end even so.
    thread::spawn(move || child.wait());
}

fn version(said: &str) -> Answer {
    match said.trim_end().strip_prefix("vgpu-hook ") {
        Some(version) if !version.is_empty() && version.bytes().all(|b| b.is_ascii_graphic()) => {
            Answer::Version(version.to_owned())
        }
        _ => Answer::Other(quoted(said)),
    }
}

/// Why a program cannot be started, in words that say what to do.
fn told(error: &std::io::Error, program: &Path) -> String {
    let hint = match error.kind() {
        ErrorKind::NotFound if program.exists() => {
            " (it is there: the loader or interpreter that it names is not)"
        }
        ErrorKind::PermissionDenied => " (its mode lacks x, or its file system is mounted noexec)",
        _ if error.raw_os_error() == Some(NO_PROGRAM) => {
            " (it is for another processor, or damaged)"
        }
        _ => "",
    };
    format!("{error}{hint}")
}

/// `ENOEXEC`.
const NO_PROGRAM: i32 = rustix::io::Errno::NOEXEC.raw_os_error();

/// The first line with something in it, or a word.
fn quoted(said: &str) -> String {
    let line = said.lines().map(str::trim).find(|line| !line.is_empty());
    line.unwrap_or("nothing").chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A folder with a program in it.
    fn stand_in(text: impl AsRef<[u8]>, mode: u32) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join(PROGRAM);
        fs::write(&file, text).expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("set");
        dir
    }

    fn asked(text: impl AsRef<[u8]>, mode: u32) -> Answer {
        ask(&stand_in(text, mode).path().join(PROGRAM), LIMIT)
    }

    fn broken(text: impl AsRef<[u8]>, mode: u32) -> String {
        match asked(text, mode) {
            Answer::Broken(why) => why,
            other => panic!("{other:?}"),
        }
    }

    /// As `vgpu-hook version`, and only so.
    fn says(version: &str) -> String {
        format!("#!/bin/sh\n[ \"$*\" = version ] && echo vgpu-hook {version}\n")
    }

    #[test]
    fn one_that_runs_says_its_version() {
        assert_eq!(asked(says("7.8.9-rc.1"), 0o755), Answer::Version("7.8.9-rc.1".into()));
        assert_eq!(asked("#!/bin/sh\necho hello\n", 0o755), Answer::Other("hello".into()));
        assert_eq!(asked("#!/bin/sh\n", 0o755), Answer::Other("nothing".into()));
        let many = "#!/bin/sh\necho vgpu-hook 1; echo two\n";
        assert!(matches!(asked(many, 0o755), Answer::Other(_)));
    }

    #[test]
    fn nothing_of_our_environment_helps_it() {
        // What it was started with; what a shell sets by itself is not there.
        let text = "#!/bin/sh\necho \"vgpu-hook bare$(tr '\\0' , < /proc/$$/environ)\"\n";
        assert_eq!(asked(text, 0o755), Answer::Version("bare".into()));
    }

    #[test]
    fn one_that_does_not_run_says_why() {
        assert!(broken(says("1"), 0o644).contains("lacks x"), "{}", broken(says("1"), 0o644));
        assert!(broken("#!/nonexistent/sh\n", 0o755).contains("interpreter"));
        let mut other = b"\x7fELF\x02\x01\x01".to_vec();
        other.resize(64, 0);
        assert!(broken(other, 0o755).contains("another processor"));
        // As a loader says it of a newer library.
        let text = "#!/bin/sh\necho 'libc.so.6: version GLIBC_2.99 not found' >&2\nexit 1\n";
        let why = broken(text, 0o755);
        assert!(why.contains("exit status: 1") && why.contains("GLIBC_2.99"), "{why}");
        assert!(broken("#!/bin/sh\nkill -9 $$\n", 0o755).contains("signal"));
        let none = ask(Path::new("/nonexistent/vgpu-hook"), LIMIT);
        assert!(matches!(none, Answer::Broken(_)), "{none:?}");
    }

    #[test]
    fn one_that_hangs_is_ended_with_what_it_started() {
        let dir = stand_in("#!/bin/sh\nsleep 1000 &\necho $! > \"${0%/*}/child\"\nwait\n", 0o755);
        let hook = dir.path().join(PROGRAM);
        // Long enough for it to have started its own, on any machine: else it is tried again.
        let child = (0..10).find_map(|n| {
            assert_eq!(ask(&hook, Duration::from_millis(200 << n)), Answer::Silent);
            fs::read_to_string(dir.path().join("child")).ok()?.trim().parse::<i32>().ok()
        });
        let pid = rustix::process::Pid::from_raw(child.expect("it started one")).expect("not 0");
        let stat = format!("/proc/{pid}/stat", pid = pid.as_raw_nonzero());
        let until = Instant::now() + Duration::from_secs(60);
        // It may be a zombie, where nobody reaps those whose parent has ended.
        while fs::read_to_string(&stat).is_ok_and(|text| !text.contains(") Z ")) {
            assert!(Instant::now() < until, "what it started lives on");
            thread::sleep(PAUSE);
        }
    }

    #[test]
    fn one_that_is_being_written_is_waited_for() {
        let dir = stand_in(says("1.2.3"), 0o755);
        let hook = dir.path().join(PROGRAM);
        let writing = fs::File::options().append(true).open(&hook).expect("opened");
        let writer = thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            drop(writing);
        });
        assert_eq!(ask(&hook, Duration::from_secs(60)), Answer::Version("1.2.3".into()));
        writer.join().expect("it wrote");
    }

    #[test]
    fn the_agent_starts_only_with_one_that_can_work() {
        let host = Path::new("/");
        let own = env!("CARGO_PKG_VERSION");
        let found = |text: &str, mode, root: &Path| {
            let dir = stand_in(text, mode);
            let found = find(Some(dir.path()), root);
            let hook = found.map_err(|e| e.to_string())?.expect("a folder was named");
            assert_eq!(hook.path, dir.path().join(PROGRAM));
            Ok(hook.version)
        };
        let is = |version: &str| Ok::<_, String>(Some(version.to_owned()));
        assert_eq!(find(None, host).expect("none is asked for"), None);
        assert_eq!(found(&says(own), 0o755, host), is(own));
        assert_eq!(found(&says("0.0.1"), 0o755, host), is("0.0.1"), "a warning");
        let why = found(&says(own), 0o644, host).expect_err("it does not run");
        assert!(why.contains("does not run") && why.contains("cargo xtask hook"), "{why}");
        assert_eq!(found(&says(own), 0o644, Path::new("/host")), Ok(None), "in a container");
        for root in [host, Path::new("/host")] {
            let why = found("#!/bin/sh\necho hello\n", 0o755, root).expect_err("another program");
            assert!(why.contains("no vgpu-hook") && why.contains("hello"), "{why}");
        }
        let why = find(Some(Path::new("/nonexistent")), host).expect_err("there is none");
        assert!(why.to_string().contains("install vgpu-hook there"), "{why}");
    }
}
