//! The child's side: answers over a stream with any factory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write};
use std::os::fd::AsFd as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::process::{Signal, getpid, kill_process, set_parent_process_death_signal};
use rustix::stdio::{dup2_stdin, dup2_stdout};
use vgpu_core::wire::{self, Call};
use vgpu_core::{Backend, BackendFactory, Error, ErrorKind, Probe, Result};

use crate::frame;
use crate::protocol::{Answered, Asked, Found, IN_FLIGHT, PROTOCOL, Unknown};

/// Serves with this factory until the agent closes the pipe or ends; `version` is the backend's own,
/// for logs.
///
/// Frames go over copies of standard input and output. The streams themselves are pointed elsewhere,
/// so that a library that prints does not speak between them. Once the pipe is closed the process
/// kills itself: a library's own way out may hang.
pub fn serve(factory: impl BackendFactory + 'static, version: &str) -> ExitCode {
    if io::stdin().is_terminal() {
        complain("this program is started by the agent of vgpu, with pipes; see child-protocol.md");
        return ExitCode::from(2);
    }
    // The pipe's end says the same; this one also reaches a process that hangs or is stopped.
    let _not_linux = set_parent_process_death_signal(Some(Signal::KILL));
    let served = streams().map_err(|e| format!("the streams cannot be taken: {e}"));
    let served =
        served.and_then(|(input, output)| serve_on(Arc::new(factory), version, input, output));
    if let Err(why) = served {
        complain(&why);
        return ExitCode::FAILURE;
    }
    let _dead = kill_process(getpid(), Signal::KILL);
    ExitCode::SUCCESS
}

/// The same over any two streams, until the first one ends.
///
/// # Errors
/// In words: the other side says something that is no message, or speaks another version.
pub fn serve_on(
    factory: Arc<dyn BackendFactory>,
    version: &str,
    mut input: impl Read,
    output: impl Write + Send + 'static,
) -> std::result::Result<(), String> {
    let server = Arc::new(Server {
        output: Mutex::new(Box::new(output)),
        factory,
        backend: Mutex::default(),
        running: AtomicUsize::new(0),
    });
    let unread = |error: io::Error| format!("the agent's messages cannot be read: {error}");
    let Some(first) = frame::read(&mut input).map_err(unread)? else { return Ok(()) };
    // Answered whatever its version is: the agent tells what does not belong together.
    let Ok(Asked::Hello { .. }) = serde_json::from_slice(&first) else {
        return Err("the first message is no hello; this program is started by the agent".into());
    };
    let vendor = server.factory.vendor();
    server.say(&Answered::Hello { protocol: PROTOCOL, vendor, version: version.to_owned() });
    while let Some(frame) = frame::read(&mut input).map_err(unread)? {
        match serde_json::from_slice(&frame) {
            Ok(Asked::Call { id, call }) => {
                server.start(id, move |server| server.answer(id, &call));
            }
            Ok(Asked::Probe { id, host }) => {
                server.start(id, move |server| {
                    let probe = server.probe(&host.into());
                    Answered::Probed { id, probe }
                });
            }
            Ok(Asked::Hello { .. }) => return Err("the agent said hello twice".into()),
            Err(error) => match id_of(&frame) {
                Some(id) => {
                    let why = format!("this backend does not know such a call: {error}");
                    let error = Error::new(ErrorKind::Unsupported, why);
                    server.say(&Answered::Failed { id, error });
                }
                None => return Err(format!("the agent's message makes no sense: {error}")),
            },
        }
    }
    Ok(())
}

/// The number of a message that is not understood otherwise: one of a newer agent.
fn id_of(frame: &[u8]) -> Option<u64> {
    let message: BTreeMap<String, Unknown> = serde_json::from_slice(frame).ok()?;
    message.into_values().next().map(|unknown| unknown.id)
}

struct Server {
    output: Mutex<Box<dyn Write + Send>>,
    factory: Arc<dyn BackendFactory>,
    backend: Mutex<Option<Arc<dyn Backend>>>,
    running: AtomicUsize,
}

impl Server {
    /// Works on a thread of its own, if not too many do.
    fn start(self: &Arc<Self>, id: u64, work: impl FnOnce(&Self) -> Answered + Send + 'static) {
        let fail =
            |kind, why: &str| self.say(&Answered::Failed { id, error: Error::new(kind, why) });
        if self.running.fetch_add(1, Ordering::AcqRel) >= IN_FLIGHT {
            self.running.fetch_sub(1, Ordering::AcqRel);
            return fail(ErrorKind::Busy, "too many calls are in this process; try again later");
        }
        let server = self.clone();
        let named = thread::Builder::new().name(format!("call-{id}"));
        let started = named.spawn(move || {
            let answer = catch_unwind(AssertUnwindSafe(|| work(&server)));
            server.running.fetch_sub(1, Ordering::AcqRel);
            server.say(&answer.unwrap_or_else(|_told_on_stderr| {
                let why = "the backend panicked; its process said where";
                Answered::Failed { id, error: Error::new(ErrorKind::Vendor, why) }
            }));
        });
        if let Err(error) = started {
            self.running.fetch_sub(1, Ordering::AcqRel);
            fail(ErrorKind::Io, &format!("the host gives no thread for the call: {error}"));
        }
    }

    fn answer(&self, id: u64, call: &Call) -> Answered {
        match self.backend().and_then(|backend| wire::serve(&*backend, call)) {
            Ok(reply) => Answered::Replied { id, reply },
            Err(error) => Answered::Failed { id, error },
        }
    }

    fn probe(&self, host: &vgpu_core::Host) -> Found {
        match self.factory.probe(host) {
            Probe::Absent(why) => Found::Absent(why),
            Probe::Broken(error) => Found::Broken(error),
            Probe::Ready(backend) => {
                let info = backend.info();
                *self.backend.lock().unwrap_or_else(PoisonError::into_inner) = Some(backend);
                Found::Ready(info)
            }
        }
    }

    fn backend(&self) -> Result<Arc<dyn Backend>> {
        let backend = self.backend.lock().unwrap_or_else(PoisonError::into_inner).clone();
        backend.ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "no probe has found a backend yet; probe first")
        })
    }

    fn say(&self, answer: &Answered) {
        let frame = frame::encode(answer).or_else(|why| {
            let (Answered::Failed { id, .. }
            | Answered::Probed { id, .. }
            | Answered::Replied { id, .. }) = answer
            else {
                return Err(why);
            };
            let why = format!("the answer cannot be sent: {why}");
            frame::encode(&Answered::Failed { id: *id, error: Error::new(ErrorKind::Vendor, why) })
        });
        let Ok(frame) = frame else { return complain("an answer cannot be written as a message") };
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        // An agent that does not read any more has closed the other pipe too, and that ends us.
        let _gone = output.write_all(&frame).and_then(|()| output.flush());
    }
}

/// Takes standard input and output for frames alone.
fn streams() -> io::Result<(File, File)> {
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    dup2_stdin(File::open("/dev/null")?)?;
    dup2_stdout(io::stderr())?;
    Ok((input, output))
}

fn complain(why: &str) {
    let _ = writeln!(io::stderr(), "{why}");
}
