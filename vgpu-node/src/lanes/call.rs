//! One call on a thread of its own, and the caller that waits for it only so long.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use vgpu_core::error::{Error, ErrorKind, Result};

/// Where the thread of a call and its caller meet.
#[derive(Debug)]
pub(super) struct Meeting<T> {
    phase: Mutex<Phase<T>>,
    done: Condvar,
}

#[derive(Debug)]
enum Phase<T> {
    Done(Result<T>),
    /// The caller has gone; nobody fetches the result.
    GivenUp,
    Running,
}

impl<T> Meeting<T> {
    pub(super) fn new() -> Self {
        Self { phase: Mutex::new(Phase::Running), done: Condvar::new() }
    }

    /// Hands the result over; says whether the caller had given up, and drops the result then.
    pub(super) fn finish(&self, result: Result<T>) -> bool {
        let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*phase, Phase::GivenUp) {
            return true;
        }
        *phase = Phase::Done(result);
        self.done.notify_all();
        false
    }

    /// Waits for the result until `until`, else gives up.
    ///
    /// `giving_up` runs before the call's thread can learn of it, so that what it notes is there
    /// when the thread takes it back.
    pub(super) fn wait(&self, until: Instant, giving_up: impl FnOnce()) -> Option<Result<T>> {
        let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Phase::Done(_) = &*phase {
                let Phase::Done(result) = std::mem::replace(&mut *phase, Phase::GivenUp) else {
                    unreachable!("looked at above, under the same lock");
                };
                return Some(result);
            }
            let now = Instant::now();
            if now >= until {
                *phase = Phase::GivenUp;
                giving_up();
                return None;
            }
            let wait = self.done.wait_timeout(phase, until - now);
            phase = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A call that belongs to no backend yet, one at a time.
#[derive(Debug, Default)]
pub(crate) struct Alone(Arc<AtomicBool>);

impl Alone {
    /// Calls on a thread of its own and waits so long.
    ///
    /// # Errors
    /// `Busy` while an earlier call has not returned, `InDoubt` when the deadline passed, `Vendor`
    /// for a panic, `Io` where the host gives no thread.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        who: &str,
        operation: &'static str,
        deadline: Duration,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let fail = |kind, why| Error::new(kind, why).during(operation);
        if self.0.swap(true, Ordering::AcqRel) {
            return Err(fail(
                ErrorKind::Busy,
                format!("the last {operation} has not returned yet"),
            ));
        }
        let meeting = Arc::new(Meeting::new());
        let worker = {
            let (meeting, running, who) = (meeting.clone(), self.0.clone(), who.to_owned());
            move || {
                let result = caught(&who, || Ok(call()));
                // First: whoever has the result may call again at once.
                running.store(false, Ordering::Release);
                meeting.finish(result);
            }
        };
        if let Err(error) = thread::Builder::new().name(operation.to_owned()).spawn(worker) {
            self.0.store(false, Ordering::Release);
            return Err(fail(ErrorKind::Io, format!("the host gives no thread for it: {error}")));
        }
        let result = meeting.wait(Instant::now() + deadline, || {});
        let result = result.unwrap_or_else(|| {
            Err(Error::new(
                ErrorKind::InDoubt,
                format!("the {who} driver has not answered in time"),
            ))
        });
        result.map_err(|error| error.during(operation))
    }
}

/// Calls, and makes an error of a panic.
pub(super) fn caught<T>(who: &str, call: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|payload| {
        let said = said(&*payload);
        Err(Error::new(ErrorKind::Vendor, format!("the {who} backend panicked: {said}")))
    })
}

/// The text of a panic.
pub(super) fn said(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
