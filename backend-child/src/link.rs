//! One living child: calls go out, and wait for their answers by number.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ChildStdin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use vgpu_core::wire::{Call, Reply};
use vgpu_core::{Error, ErrorKind, Host, Result, Vendor};

use crate::frame;
use crate::options::ChildOptions;
use crate::process::Process;
use crate::protocol::{Answered, Asked, Found, IN_FLIGHT, PROTOCOL, changes, name};
use crate::pump;

/// How long the end of a child that was killed is waited for. One that the kernel holds in a driver
/// does not end.
pub(crate) const DEATH: Duration = Duration::from_secs(5);

/// A child that has said hello. Dropping it ends the child.
#[derive(Debug)]
pub(crate) struct Link {
    vendor: Vendor,
    process: Arc<Process>,
    waiting: Arc<Waiting>,
    stdin: Mutex<ChildStdin>,
    next: AtomicU64,
    limit: Duration,
}

/// The calls that wait for their answers.
#[derive(Debug, Default)]
pub(crate) struct Waiting(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    calls: BTreeMap<u64, Asking>,
    /// Why no more are taken.
    closed: Option<Error>,
}

#[derive(Debug)]
struct Asking {
    operation: &'static str,
    changes: bool,
    due: Instant,
    tell: mpsc::Sender<Result<Answered>>,
}

/// A call that waits for its answer and is not sent yet.
#[derive(Debug)]
struct Enlisted {
    frame: Vec<u8>,
    told: mpsc::Receiver<Result<Answered>>,
}

/// The number under which hello waits.
const HELLO: u64 = 0;

impl Link {
    /// Starts a child and waits for its hello.
    ///
    /// # Errors
    /// As [`Process::start`]; `Invalid` for a child of another protocol or vendor; `Io` for one that
    /// ends, says something else or nothing.
    pub(crate) fn start(vendor: &Vendor, options: &ChildOptions) -> Result<Self> {
        let (process, pipes) = Process::start(vendor, options)?;
        let waiting = Arc::new(Waiting::default());
        let link = Self {
            vendor: vendor.clone(),
            process: process.clone(),
            waiting: waiting.clone(),
            stdin: Mutex::new(pipes.stdin),
            next: AtomicU64::new(HELLO),
            limit: options.call,
        };
        let hello = |_| Asked::Hello { protocol: PROTOCOL };
        // Before anything is read: a child may greet before it is asked.
        let hello = link.enlist("hello", false, options.hello, hello)?;
        pump::start(vendor, process, waiting, pipes.stdout, pipes.stderr)?;
        match link.send(hello)? {
            Answered::Hello { protocol, .. } if protocol != PROTOCOL => {
                let why = format!(
                    "{} speaks version {protocol} of the child protocol, and this program version \
                     {PROTOCOL}; install versions that belong together",
                    options.program.display()
                );
                Err(Error::new(ErrorKind::Invalid, why))
            }
            Answered::Hello { vendor: told, .. } if told != *vendor => {
                let why = format!(
                    "{} is the backend of {told}, not of {vendor}; correct the command",
                    options.program.display()
                );
                Err(Error::new(ErrorKind::Invalid, why))
            }
            Answered::Hello { version, .. } => {
                tracing::info!(%vendor, pid = link.process.id(), version, "its process has started");
                Ok(link)
            }
            other => Err(link.out_of_turn(&other)),
        }
    }

    /// Has it look and load.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(crate) fn probe(&self, host: &Host) -> Result<Found> {
        let probe = |id| Asked::Probe { id, host: host.into() };
        match self.ask("probe", false, self.limit, probe)? {
            Answered::Probed { probe, .. } => Ok(probe),
            Answered::Failed { error, .. } => Err(error),
            other => Err(self.out_of_turn(&other)),
        }
    }

    /// Calls its backend.
    ///
    /// # Errors
    /// The backend's own; `Io` when the child is gone, `InDoubt` when it went in the middle of a
    /// change; `Busy` where too many calls are in it.
    pub(crate) fn call(&self, call: &Call) -> Result<Reply> {
        let limit = match call {
            Call::Wait(time) => self.limit.saturating_add(*time),
            _ => self.limit,
        };
        let asked = |id| Asked::Call { id, call: call.clone() };
        match self.ask(name(call), changes(call), limit, asked)? {
            Answered::Replied { reply, .. } => Ok(reply),
            Answered::Failed { error, .. } => Err(error),
            other => Err(self.out_of_turn(&other)),
        }
    }

    /// The id of its process.
    pub(crate) fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Why it is closed, if it is.
    pub(crate) fn closed(&self) -> Option<Error> {
        self.waiting.lock().closed.clone()
    }

    /// Ends the child and waits a moment for its end.
    pub(crate) fn end(&self, why: &str) {
        self.process.kill(why);
        self.process.ends_within(DEATH);
    }

    fn ask(
        &self,
        operation: &'static str,
        changes: bool,
        limit: Duration,
        asked: impl FnOnce(u64) -> Asked,
    ) -> Result<Answered> {
        self.send(self.enlist(operation, changes, limit, asked)?)
    }

    /// Has the call wait for its answer.
    fn enlist(
        &self,
        operation: &'static str,
        changes: bool,
        limit: Duration,
        asked: impl FnOnce(u64) -> Asked,
    ) -> Result<Enlisted> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let frame = frame::encode(&asked(id)).map_err(|why| {
            Error::new(ErrorKind::Invalid, format!("the call cannot be sent: {why}"))
        })?;
        let (tell, told) = mpsc::channel();
        let due = Instant::now().checked_add(limit).unwrap_or_else(far_away);
        self.waiting.add(id, Asking { operation, changes, due, tell })?;
        Ok(Enlisted { frame, told })
    }

    fn send(&self, call: Enlisted) -> Result<Answered> {
        let Enlisted { frame, told } = call;
        // One that does not read makes this hang until it is overdue, and is killed then.
        let sent = self.stdin.lock().unwrap_or_else(PoisonError::into_inner).write_all(&frame);
        // One that is about to end has a better reason than this, and the pump hears it.
        if let Err(error) = sent
            && !self.process.ends_within(Duration::from_secs(1))
        {
            self.process.kill(&format!("it does not read: {error}"));
        }
        told.recv().unwrap_or_else(|_| unreachable!("the pump answers every call when it ends"))
    }

    fn out_of_turn(&self, answer: &Answered) -> Error {
        let answer: String = format!("{answer:?}").chars().take(60).collect();
        self.process.kill("it answered out of turn");
        let why = format!("the process of {} answered out of turn: {answer}…", self.vendor);
        Error::new(ErrorKind::Io, why)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.end("it is not needed any more");
    }
}

impl Waiting {
    fn add(&self, id: u64, call: Asking) -> Result<()> {
        let mut state = self.lock();
        if let Some(why) = &state.closed {
            return Err(why.clone());
        }
        if state.calls.len() >= IN_FLIGHT {
            let why = format!("{IN_FLIGHT} calls wait for its process already; try again later");
            return Err(Error::new(ErrorKind::Busy, why));
        }
        state.calls.insert(id, call);
        Ok(())
    }

    /// Hands an answer to the one who waits for it.
    ///
    /// # Errors
    /// In words, where nobody does.
    pub(crate) fn answer(&self, answer: Answered) -> std::result::Result<(), String> {
        let id = match &answer {
            Answered::Failed { id, .. }
            | Answered::Probed { id, .. }
            | Answered::Replied { id, .. } => *id,
            Answered::Hello { .. } => HELLO,
        };
        let Some(call) = self.lock().calls.remove(&id) else {
            return Err(format!("it answered call {id}, which nobody made"));
        };
        // Whoever asks waits to the end.
        let _told = call.tell.send(Ok(answer));
        Ok(())
    }

    /// The call that is due first, and when.
    pub(crate) fn due(&self) -> Option<(&'static str, Instant)> {
        let state = self.lock();
        state.calls.values().min_by_key(|call| call.due).map(|call| (call.operation, call.due))
    }

    /// Takes no more calls, and tells those that wait.
    pub(crate) fn close(&self, why: &Error) {
        let mut state = self.lock();
        state.closed.get_or_insert_with(|| why.clone());
        for call in std::mem::take(&mut state.calls).into_values() {
            let error = match call.changes {
                false => why.clone(),
                true => {
                    let message = format!(
                        "{}; whether the {} was carried out is in doubt",
                        why.message, call.operation
                    );
                    Error { message, kind: ErrorKind::InDoubt, ..why.clone() }
                }
            };
            let _told = call.tell.send(Err(error));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn far_away() -> Instant {
    Instant::now() + Duration::from_secs(86_400 * 365)
}
