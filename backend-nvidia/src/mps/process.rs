//! Processes of this host, by what `/proc` says: a pid alone may be another one's by now.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::mps::record::ProcessRecord;

/// When a process started, in ticks since boot; `None` if there is none, or only its corpse.
pub(crate) fn start_time(proc: &Path, pid: u32) -> Option<u64> {
    let text = fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?;
    // The name before may hold spaces and brackets of its own.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    // State is field 3, the start time 22.
    fields.nth(18)?.parse().ok()
}

/// Whether the process was started with this pipe folder; `None` if that may not be read.
pub(crate) fn has_pipe(pid: u32, pipe: &Path) -> Option<bool> {
    let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut wanted = b"CUDA_MPS_PIPE_DIRECTORY=".to_vec();
    wanted.extend(pipe.as_os_str().as_bytes());
    Some(environ.split(|b| *b == 0).any(|entry| entry == wanted))
}

/// Processes that were started with this pipe folder, apart from those that this one runs now.
pub(crate) fn with_pipe(pipe: &Path) -> Vec<ProcessRecord> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let own = std::process::id();
    pids.filter(|pid| *pid != own && parent(*pid) != Some(own))
        .filter(|pid| has_pipe(*pid, pipe) == Some(true))
        .filter_map(|pid| {
            let started = start_time(Path::new("/proc"), pid)?;
            Some(ProcessRecord { pid, started })
        })
        .collect()
}

fn parent(pid: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Ends a process for certain, and waits until it is gone.
pub(crate) fn kill(pid: u32, started: u64, patience: Duration) -> bool {
    let alive = || start_time(Path::new("/proc"), pid) == Some(started);
    if alive() {
        // One that ended by itself meanwhile cannot be killed, which is as good.
        let _gone = Command::new("kill")
            .args(["-9", &pid.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
    gone(patience, alive)
}

/// Waits until a process is gone, at most so long.
pub(crate) fn gone(patience: Duration, alive: impl Fn() -> bool) -> bool {
    let until = Instant::now() + patience;
    while alive() {
        if Instant::now() >= until {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_start_time_and_a_corpse_has_none() {
        let own = std::process::id();
        assert!(start_time(Path::new("/proc"), own).is_some_and(|t| t > 0));
        let mut child = Command::new("true").spawn().expect("true runs");
        let until = Instant::now() + Duration::from_secs(60);
        // Not waited for, so that it stays a corpse.
        while start_time(Path::new("/proc"), child.id()).is_some() {
            assert!(Instant::now() < until, "it never ends");
            thread::sleep(Duration::from_millis(1));
        }
        child.wait().expect("it ended");
        assert_eq!(start_time(Path::new("/proc"), u32::MAX), None);
    }
}
