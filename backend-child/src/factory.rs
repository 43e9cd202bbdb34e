//! The agent's side: a factory over a command.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use vgpu_core::wire::Remote;
use vgpu_core::{Backend, BackendFactory, Error, ErrorKind, Host, Probe, Result, Vendor};

use crate::backoff::Backoff;
use crate::link::Link;
use crate::options::{ChildOptions, Replaced};
use crate::protocol::Found;
use crate::transport::{Child, waits};

/// Makes a vendor's backend in a child process: one child at a time.
#[derive(Debug)]
pub struct ChildFactory {
    vendor: Vendor,
    options: ChildOptions,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Found nothing, and is asked again.
    idle: Option<Link>,
    /// Serves, as long as anybody uses it.
    serving: Weak<Child>,
    backoff: Backoff,
    /// Why there is none, and until when none is started.
    down: Option<(Error, Instant)>,
    over: bool,
}

impl ChildFactory {
    /// The backend of `vendor` behind a program.
    pub fn new(vendor: Vendor, options: ChildOptions) -> Self {
        let backoff = Backoff::new(options.pause);
        let state = State { idle: None, serving: Weak::new(), backoff, down: None, over: false };
        Self { vendor, options, state: Mutex::new(state) }
    }

    /// Ends the child and starts no other: before this program ends or becomes another one, since
    /// that one would not know it.
    pub fn end(&self) {
        let (idle, serving) = {
            let mut state = self.state();
            state.over = true;
            (state.idle.take(), state.serving.upgrade())
        };
        drop(idle);
        if let Some(child) = serving {
            child.end("the agent ends");
        }
    }

    /// The id of the process that runs now, if one does.
    pub fn process_id(&self) -> Option<u32> {
        let state = self.state();
        let serving = state.serving.upgrade().and_then(|child| child.process_id());
        serving.or_else(|| state.idle.as_ref().map(Link::process_id))
    }

    fn open(&self, host: &Host) -> Result<Probe> {
        let idle = {
            let mut state = self.state();
            if state.over {
                return Err(Error::new(ErrorKind::Io, "the agent ends; no process is started"));
            }
            if let Some((why, until)) = &state.down
                && Instant::now() < *until
            {
                return Err(why.clone());
            }
            let before = std::mem::take(&mut state.serving);
            let idle = state.idle.take();
            drop(state);
            if let Some(before) = before.upgrade() {
                before.end("another takes its place");
            }
            idle.filter(|link| link.closed().is_none())
        };
        let link = match idle {
            Some(link) => link,
            None => Link::start(&self.vendor, &self.options)?,
        };
        match link.probe(host)? {
            Found::Absent(why) => {
                self.state().idle = Some(link);
                Ok(Probe::Absent(why))
            }
            Found::Broken(error) => Ok(Probe::Broken(error)),
            Found::Ready(info) => {
                let (vendor, options) = (self.vendor.clone(), self.options.clone());
                let child = Arc::new(Child::new(vendor, options, host.clone(), link, info));
                self.state().serving = Arc::downgrade(&child);
                let backend: Arc<dyn Backend> = Arc::new(Remote::connect(child)?);
                Ok(Probe::Ready(backend))
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BackendFactory for ChildFactory {
    fn vendor(&self) -> Vendor {
        self.vendor.clone()
    }

    fn probe(&self, host: &Host) -> Probe {
        let begun = Instant::now();
        let probe = self.open(host).unwrap_or_else(Probe::Broken);
        let mut state = self.state();
        match probe {
            Probe::Broken(error) => {
                let error = match (error.kind, self.options.replaced) {
                    // Only for this process would that be true.
                    (ErrorKind::DriverReplaced, Replaced::Restart) => waits(&error),
                    _ => error,
                };
                if state.down.as_ref().is_none_or(|(_, until)| begun >= *until) {
                    let until = state.backoff.failed(Instant::now(), begun.elapsed());
                    state.down = Some((error.clone(), until));
                }
                Probe::Broken(error)
            }
            found => {
                state.down = None;
                state.backoff = Backoff::new(self.options.pause);
                found
            }
        }
    }
}

impl Drop for ChildFactory {
    fn drop(&mut self) {
        // The one that serves lives on with its backend.
        self.state().idle = None;
    }
}
