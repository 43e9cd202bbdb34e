//! The process itself: started, limited, killed, reaped.

use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group,
    prlimit, waitid,
};
use vgpu_core::{Error, ErrorKind, Result, Vendor};

use crate::options::ChildOptions;

/// A process of ours. It is reaped by the thread that started it, which lives as long as it does:
/// the kernel's signal on a parent's death is about that thread.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    life: Mutex<Life>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Life {
    ended: Option<ExitStatus>,
    /// Why we ended it.
    why: Option<String>,
}

/// Its standard streams.
#[derive(Debug)]
pub(crate) struct Pipes {
    pub(crate) stdin: ChildStdin,
    pub(crate) stdout: ChildStdout,
    pub(crate) stderr: ChildStderr,
}

impl Process {
    /// Starts it, in a process group of its own, with no signal blocked and no descriptor of ours
    /// but the three streams.
    ///
    /// # Errors
    /// `NotFound`, `Permission`, `Invalid` for a program that is not there, may not be started or is
    /// none for this machine; `Io` for what the host refuses.
    pub(crate) fn start(vendor: &Vendor, options: &ChildOptions) -> Result<(Arc<Self>, Pipes)> {
        let (tell, told) = mpsc::channel();
        let sent = options.clone();
        let keeper = thread::Builder::new().name(thread_name(vendor, ""));
        let kept = keeper.spawn(move || match spawn(&sent) {
            Ok((process, pipes, child)) => {
                if tell.send(Ok((process.clone(), pipes))).is_err() {
                    process.kill("its start took too long");
                }
                process.reap(child);
            }
            // Whoever asked may have given up.
            Err(error) => drop(tell.send(Err(error))),
        });
        if let Err(error) = kept {
            let why = format!("the host gives no thread for the {vendor} process: {error}");
            return Err(Error::new(ErrorKind::Io, why));
        }
        // A program on a disk that hangs holds up its thread, not us.
        told.recv_timeout(options.hello).unwrap_or_else(|_| {
            let why = format!("{} does not start; is its disk away?", options.program.display());
            Err(Error::new(ErrorKind::Io, why))
        })
    }

    /// Its id.
    pub(crate) fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Ends it and all that it started. The first reason is the one that is told.
    pub(crate) fn kill(&self, why: &str) {
        let mut life = self.life();
        life.why.get_or_insert_with(|| why.to_owned());
        // Once it has ended its id may be another's.
        if life.ended.is_none() {
            self.kill_group();
        }
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.life().ended.is_some()
    }

    /// Waits for its end, at most so long; says whether it has.
    pub(crate) fn ends_within(&self, time: Duration) -> bool {
        let life = self.life();
        let waited = self.changed.wait_timeout_while(life, time, |life| life.ended.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.ended.is_some()
    }

    /// What became of it, in words that go on from "the process …".
    pub(crate) fn fate(&self) -> String {
        let life = self.life();
        match (&life.why, life.ended) {
            (Some(why), Some(_)) => format!("was ended: {why}"),
            (Some(why), None) => format!("was to be ended and does not end: {why}"),
            (None, Some(status)) => match (status.code(), status.signal()) {
                (Some(code), _) => format!("ended by itself with exit code {code}"),
                (None, Some(signal)) => format!("was ended by signal {}", named(signal)),
                (None, None) => format!("ended: {status}"),
            },
            (None, None) => "closed its output".to_owned(),
        }
    }

    fn reap(&self, mut child: Child) {
        // Left a zombie for a moment, so that its group's id is still its own.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while let Err(error) = waitid(WaitId::Pid(self.pid), options) {
            if error != rustix::io::Errno::INTR {
                break;
            }
        }
        let mut life = self.life();
        self.kill_group();
        let status = child.wait().unwrap_or_else(|_| ExitStatus::from_raw(0));
        life.ended = Some(status);
        self.changed.notify_all();
    }

    fn kill_group(&self) {
        if kill_process_group(self.pid, Signal::KILL).is_err() {
            // It has left its group, or is gone already.
            let _gone = kill_process(self.pid, Signal::KILL);
        }
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn spawn(options: &ChildOptions) -> Result<(Arc<Process>, Pipes, Child)> {
    let mut command = Command::new(&options.program);
    command
        .args(&options.arguments)
        .envs(options.environment.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| refused(options, &e))?;
    let pid = Pid::from_child(&child);
    let process = Process { pid, life: Mutex::default(), changed: Condvar::new() };
    let taken = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(stdin), Some(stdout), Some(stderr)) = taken else {
        unreachable!("all three were asked for");
    };
    if let Some(memory) = options.memory {
        let limit = Rlimit { current: Some(memory.0), maximum: Some(memory.0) };
        if let Err(error) = prlimit(Some(pid), Resource::As, limit) {
            process.kill("its memory cannot be limited");
            process.reap(child);
            let why = format!("the host does not limit the memory of a process: {error}");
            return Err(Error::new(ErrorKind::Io, why));
        }
    }
    Ok((Arc::new(process), Pipes { stdin, stdout, stderr }, child))
}

fn refused(options: &ChildOptions, error: &io::Error) -> Error {
    let program = options.program.display();
    match (error.kind(), error.raw_os_error().map(rustix::io::Errno::from_raw_os_error)) {
        (io::ErrorKind::NotFound, _) => {
            let why = format!("there is no program {program}, or its loader is missing");
            Error::new(ErrorKind::NotFound, why + "; install it, or correct the command")
        }
        (io::ErrorKind::PermissionDenied, _) => {
            let why = format!("{program} may not be started; make it an executable file");
            Error::new(ErrorKind::Permission, why)
        }
        (_, Some(rustix::io::Errno::NOEXEC)) => {
            let why = format!("{program} is no program for this machine; install the one for it");
            Error::new(ErrorKind::Invalid, why)
        }
        _ => Error::new(ErrorKind::Io, format!("{program} does not start: {error}")),
    }
}

/// A name that a thread may have, whatever the vendor is called.
pub(crate) fn thread_name(vendor: &Vendor, what: &str) -> String {
    format!("vgpu-{vendor}{what}").replace('\0', "")
}

fn named(signal: i32) -> String {
    let name = match Signal::from_named_raw(signal) {
        Some(Signal::ABORT) => " (aborted)",
        Some(Signal::BUS) => " (bus error)",
        Some(Signal::FPE) => " (arithmetic)",
        Some(Signal::ILL) => " (illegal instruction)",
        Some(Signal::KILL) => {
            " (killed; if by nobody, look for the OOM killer in the kernel's log)"
        }
        Some(Signal::SEGV) => " (segmentation fault)",
        Some(Signal::TERM) => " (terminated)",
        _ => "",
    };
    format!("{signal}{name}")
}
