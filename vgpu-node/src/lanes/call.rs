//! One call on a thread of its own, and the caller that waits for it only so long.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

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
