//! Running the machine's programs, and telling a process from another with the same number.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

/// Runs a program to its end and gives what it printed.
///
/// # Errors
/// It cannot be run, or says that it failed; with what it wrote to standard error.
pub(crate) fn output<I, S>(program: &str, args: I) -> Result<String>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(program);
    command.args(args);
    run(&mut command)
}

/// As [`output`], for a command that is set up already.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {name}"))?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    if done.status.success() {
        return Ok(text);
    }
    let said = String::from_utf8_lossy(&done.stderr);
    bail!("{command:?} ended with {}: {}{}", done.status, said.trim(), text.trim())
}

/// Asks again and again until there is an answer.
///
/// # Errors
/// What the question fails with, at once; or that there was no answer when the time has passed.
pub(crate) fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut ask: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let began = Instant::now();
    let mut pause = Duration::from_millis(5);
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        ensure!(began.elapsed() < limit, "no {what} within {} s", limit.as_secs_f64());
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Does it again and again until it is done.
///
/// # Errors
/// What it failed with the last time, when the time has passed.
pub(crate) fn retry<T>(limit: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let began = Instant::now();
    loop {
        match attempt() {
            Err(error) if began.elapsed() > limit => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
            done => return done,
        }
    }
}

/// A process, told from a later one with the same number by when it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pid {
    pub(crate) number: u32,
    began: u64,
}

impl Pid {
    /// The process that has this number now, if one has.
    pub(crate) fn of(number: u32) -> Option<Self> {
        Some(Self { number, began: began(number)? })
    }

    pub(crate) fn is_alive(self) -> bool {
        began(self.number) == Some(self.began)
    }

    /// Reads what [`Pid::write`] wrote.
    pub(crate) fn read(file: &Path) -> Result<Option<Self>> {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", file.display())),
        };
        let parsed = text.trim().split_once(' ').and_then(|(number, began)| {
            Some(Self { number: number.parse().ok()?, began: began.parse().ok()? })
        });
        parsed.map(Some).with_context(|| format!("{} holds no process", file.display()))
    }

    pub(crate) fn write(self, file: &Path) -> Result<()> {
        fs::write(file, format!("{} {}\n", self.number, self.began))
            .with_context(|| format!("cannot write {}", file.display()))
    }
}

/// When a process began, in ticks since boot; none for one that has ended.
fn began(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; what follows is counted from its end.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if state == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// The children of a process.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    children_by(Path::new("/proc"), parent)
}

/// The same by another `/proc`, whose numbers they are.
pub(crate) fn children_by(proc: &Path, parent: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(proc) else { return Vec::new() };
    let pids = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent_of(proc, *pid) == Some(parent)).collect()
}

fn parent_of(proc: &Path, pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep runs");
        let pid = Pid::of(child.id()).expect("it lives");
        assert!(pid.is_alive());
        assert!(children(std::process::id()).contains(&child.id()));
        assert!(!Pid { began: pid.began + 1, ..pid }.is_alive());
        child.kill().expect("it ends");
        child.wait().expect("it is gone");
        assert!(!pid.is_alive());
    }

    #[test]
    fn a_process_is_kept_in_a_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("pid");
        assert_eq!(Pid::read(&file).expect("reads"), None);
        let own = Pid::of(std::process::id()).expect("it lives");
        own.write(&file).expect("writes");
        assert_eq!(Pid::read(&file).expect("reads"), Some(own));
        fs::write(&file, "nonsense").expect("writes");
        assert!(Pid::read(&file).is_err());
    }

    #[test]
    fn waiting_ends_in_each_way() {
        let limit = Duration::from_secs(30);
        let mut asked = 0;
        let third = wait_for("answer", limit, || {
            asked += 1;
            Ok((asked == 3).then_some(asked))
        });
        assert_eq!(third.expect("an answer"), 3);
        assert!(wait_for::<()>("answer", limit, || bail!("broken")).is_err());
        let late = wait_for::<()>("answer", Duration::ZERO, || Ok(None)).expect_err("too late");
        assert!(late.to_string().contains("no answer within"), "{late}");
        assert_eq!(retry(Duration::ZERO, || Ok(7)).expect("done"), 7);
        let last = retry::<()>(Duration::ZERO, || bail!("not yet")).expect_err("never done");
        assert_eq!(last.to_string(), "not yet");
    }

    #[test]
    fn what_failed_is_told() {
        let error = output("sh", ["-c", "echo woe >&2; exit 3"]).expect_err("it failed");
        assert!(error.to_string().contains("woe"), "{error}");
    }
}
