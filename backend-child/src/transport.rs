//! A backend in a child that is started anew when it has ended.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use vgpu_core::wire::{Call, Reply, Transport};
use vgpu_core::{BackendInfo, Error, ErrorKind, Event, Host, Meaning, Result, Subject, Vendor};

use crate::backoff::Backoff;
use crate::link::Link;
use crate::options::{ChildOptions, Replaced};
use crate::protocol::Found;

/// A backend in a child, as what carries its calls. The child is started anew by the first call
/// that comes once its pause is over.
#[derive(Debug)]
pub(crate) struct Child {
    vendor: Vendor,
    options: ChildOptions,
    host: Host,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    backoff: Backoff,
    /// What it told of itself when it was last started.
    info: BackendInfo,
}

#[derive(Debug)]
enum Phase {
    /// It is not there, and may not be started before.
    Down {
        why: Error,
        until: Instant,
    },
    /// Another has taken its place.
    Over {
        why: Error,
    },
    /// A call starts it now.
    Starting {
        why: Error,
    },
    Up {
        link: Arc<Link>,
        since: Instant,
    },
}

impl Child {
    /// The child behind `link`, whose probe found this.
    pub(crate) fn new(
        vendor: Vendor,
        options: ChildOptions,
        host: Host,
        link: Link,
        info: BackendInfo,
    ) -> Self {
        let backoff = Backoff::new(options.pause);
        let phase = Phase::Up { link: Arc::new(link), since: Instant::now() };
        Self { vendor, options, host, state: Mutex::new(State { phase, backoff, info }) }
    }

    /// Ends it for good.
    pub(crate) fn end(&self, why: &str) {
        let error =
            Error::new(ErrorKind::Io, format!("the process of {} was ended: {why}", self.vendor));
        let before = std::mem::replace(&mut self.state().phase, Phase::Over { why: error });
        if let Phase::Up { link, .. } = before {
            link.end(why);
        }
    }

    /// The id of the process that runs now.
    pub(crate) fn process_id(&self) -> Option<u32> {
        match &self.state().phase {
            Phase::Up { link, .. } if link.closed().is_none() => Some(link.process_id()),
            _ => None,
        }
    }

    /// A child that lives, started if it is time to.
    fn link(&self) -> Result<Arc<Link>> {
        let why = {
            let mut state = self.state();
            self.note_end(&mut state);
            match &state.phase {
                Phase::Up { link, .. } => return Ok(link.clone()),
                Phase::Over { why } => return Err(why.clone()),
                Phase::Starting { why } => return Err(waits(why)),
                Phase::Down { why, until } if Instant::now() < *until => return Err(waits(why)),
                Phase::Down { why, .. } => why.clone(),
            }
        };
        self.start(why)
    }

    /// Notes that a child has ended since it was last looked at.
    fn note_end(&self, state: &mut State) {
        let Phase::Up { link, since } = &state.phase else { return };
        if let Some(why) = link.closed() {
            let now = Instant::now();
            let until = state.backoff.failed(now, now.saturating_duration_since(*since));
            state.phase = Phase::Down { why, until };
        }
    }

    fn start(&self, why: Error) -> Result<Arc<Link>> {
        {
            let mut state = self.state();
            if !matches!(state.phase, Phase::Down { .. }) {
                // Another call was faster.
                return Err(waits(&why));
            }
            state.phase = Phase::Starting { why };
        }
        let begun = Instant::now();
        // Nobody's lock is held: this takes as long as a library takes to load.
        let started = self.open();
        let mut state = self.state();
        if let Phase::Over { why } = &state.phase {
            return Err(why.clone());
        }
        match started {
            Ok((link, info)) => {
                let link = Arc::new(link);
                state.info = info;
                state.phase = Phase::Up { link: link.clone(), since: Instant::now() };
                Ok(link)
            }
            Err(error) => {
                let until = state.backoff.failed(Instant::now(), begun.elapsed());
                let error = waits(&error);
                state.phase = Phase::Down { why: error.clone(), until };
                Err(error)
            }
        }
    }

    fn open(&self) -> Result<(Link, BackendInfo)> {
        let link = Link::start(&self.vendor, &self.options)?;
        match link.probe(&self.host)? {
            Found::Ready(info) => Ok((link, info)),
            Found::Absent(why) => Err(Error::new(
                ErrorKind::Io,
                format!("after its process was started anew, {} is absent: {why}", self.vendor),
            )),
            Found::Broken(error) => Err(error),
        }
    }

    /// Has the child started anew, since only a new process can load the new driver's library.
    fn replace(&self, link: &Arc<Link>) -> Error {
        let why = format!("the driver of {} was replaced", self.vendor);
        let why = Error::new(ErrorKind::Io, why);
        link.end("the driver under its library was replaced");
        let mut state = self.state();
        if let Phase::Up { link: current, since } = &state.phase
            && Arc::ptr_eq(current, link)
        {
            let (now, since) = (Instant::now(), *since);
            let until = state.backoff.failed(now, now.saturating_duration_since(since));
            state.phase = Phase::Down { why: why.clone(), until };
        }
        waits(&why)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport for Child {
    fn call(&self, call: &Call) -> Result<Reply> {
        let link = self.link()?;
        let answer = link.call(call);
        if self.options.replaced == Replaced::Tell {
            return answer;
        }
        match answer {
            Err(error) if error.kind == ErrorKind::DriverReplaced => Err(self.replace(&link)),
            Ok(Reply::Events(mut events)) => {
                if tell_changed(&mut events) {
                    self.replace(&link);
                }
                Ok(Reply::Events(events))
            }
            other => other,
        }
    }

    fn info(&self) -> Option<BackendInfo> {
        Some(self.state().info.clone())
    }
}

/// Of a driver that was replaced remains, for the agent, that everything may have changed.
fn tell_changed(events: &mut [Event]) -> bool {
    let mut replaced = false;
    for event in events.iter_mut().filter(|e| e.meaning == Meaning::DriverReplaced) {
        replaced = true;
        event.subject = Subject::Vendor;
        event.meaning = Meaning::Changed;
    }
    replaced
}

/// The error of calls while it is down; nothing of them was started.
pub(crate) fn waits(why: &Error) -> Error {
    const GOES_ON: &str = "; it is started anew";
    let mut error = why.clone();
    error.kind = ErrorKind::Io;
    if !error.message.ends_with(GOES_ON) {
        error.message.push_str(GOES_ON);
    }
    error
}
