//! The thread that hears a child: its answers, its words, its silence and its end.

use std::io::{self, Read};
use std::process::{ChildStderr, ChildStdout};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vgpu_core::{Error, ErrorKind, Result, Vendor};

use crate::frame::Assembler;
use crate::link::{DEATH, Waiting};
use crate::process::{Process, thread_name};
use crate::protocol::Answered;
use crate::words::Words;

/// It looks so often whether a call is overdue or the child has ended with its pipes still open in
/// another process.
const LOOK: Duration = Duration::from_secs(1);

/// How much is read at once.
const PIECE: usize = 64 << 10;

/// Starts it.
///
/// # Errors
/// `Io` where the host gives no thread or the pipes are none.
pub(crate) fn start(
    vendor: &Vendor,
    process: Arc<Process>,
    waiting: Arc<Waiting>,
    stdout: ChildStdout,
    stderr: ChildStderr,
) -> Result<()> {
    let refused = |error: io::Error| {
        Error::new(ErrorKind::Io, format!("the process of {vendor} cannot be heard: {error}"))
    };
    rustix::io::ioctl_fionbio(&stdout, true).map_err(|e| refused(e.into()))?;
    rustix::io::ioctl_fionbio(&stderr, true).map_err(|e| refused(e.into()))?;
    let pump = Pump {
        vendor: vendor.clone(),
        words: Words::of(vendor.clone(), Instant::now()),
        process,
        waiting,
        stdout: Some(stdout),
        stderr: Some(stderr),
        frames: Assembler::default(),
        piece: vec![0; PIECE],
    };
    let named = thread::Builder::new().name(thread_name(vendor, "-io"));
    named.spawn(move || pump.run()).map(drop).map_err(refused)
}

struct Pump {
    vendor: Vendor,
    process: Arc<Process>,
    waiting: Arc<Waiting>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    words: Words,
    frames: Assembler,
    piece: Vec<u8>,
}

impl Pump {
    fn run(mut self) {
        while self.stdout.is_some() {
            // Before the streams: what it said to its end is heard then.
            let ended = self.process.has_ended();
            self.wait(ended);
            self.hear_words();
            if let Err(why) = self.hear_answers() {
                self.process.kill(&why);
                break;
            }
            if ended {
                break;
            }
            if let Some((operation, due)) = self.waiting.due()
                && Instant::now() >= due
            {
                self.process.kill(&format!("its {operation} did not return in time"));
                break;
            }
        }
        self.finish();
    }

    /// Until something can be read, a call is overdue, or it is time to look.
    fn wait(&self, ended: bool) {
        let now = Instant::now();
        let due = self.waiting.due().map_or(LOOK, |(_, due)| due.saturating_duration_since(now));
        // Rounded up: a wait that ends just before is a wait for nothing.
        let time = if ended { Duration::ZERO } else { due.min(LOOK) + Duration::from_millis(1) };
        let time = Timespec::try_from(time).ok();
        let streams = [
            self.stdout.as_ref().map(|s| PollFd::new(s, PollFlags::IN)),
            self.stderr.as_ref().map(|s| PollFd::new(s, PollFlags::IN)),
        ];
        let mut streams: Vec<PollFd<'_>> = streams.into_iter().flatten().collect();
        if poll(&mut streams, time.as_ref()).is_err() {
            // Interrupted, or out of memory for a moment: never a reason to spin.
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn hear_words(&mut self) {
        let Some(stderr) = &mut self.stderr else { return };
        match stderr.read(&mut self.piece) {
            Ok(0) => self.stderr = None,
            Ok(length) => self.words.hear(&self.piece[..length], Instant::now()),
            Err(error) if waits(&error) => {}
            Err(_) => self.stderr = None,
        }
    }

    fn hear_answers(&mut self) -> std::result::Result<(), String> {
        loop {
            let Some(stdout) = &mut self.stdout else { return Ok(()) };
            match stdout.read(&mut self.piece) {
                Ok(0) => self.stdout = None,
                Ok(length) => self.frames.push(&self.piece[..length]),
                Err(error) if waits(&error) => return Ok(()),
                Err(error) => return Err(format!("its output cannot be read: {error}")),
            }
            while let Some(frame) = self.frames.next().map_err(garbage)? {
                let answer: Answered = serde_json::from_slice(frame).map_err(|error| {
                    let begins: String = frame.escape_ascii().take(60).map(char::from).collect();
                    garbage(format!("{error}; it begins with \"{begins}\""))
                })?;
                self.waiting.answer(answer).map_err(garbage)?;
            }
        }
    }

    /// Tells all who wait.
    fn finish(mut self) {
        self.stdout = None;
        if !self.process.has_ended() && !self.process.ends_within(Duration::from_millis(500)) {
            self.process.kill("it closed its output");
            self.process.ends_within(DEATH);
        }
        self.hear_words();
        let (vendor, fate) = (&self.vendor, self.process.fate());
        let mut why = format!("the process of {vendor} {fate}");
        let last = self.words.last(Instant::now());
        if !last.is_empty() {
            let last: String = last.chars().take(200).collect();
            why = format!("{why}; it said last: {last}");
        }
        tracing::warn!(%vendor, why, "the backend's process is gone");
        self.waiting.close(&Error::new(ErrorKind::Io, why));
    }
}

fn garbage(why: String) -> String {
    format!("what it wrote is no message: {why}")
}

fn waits(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}
