//! One lane: who is in it, and who waits for a turn.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use vgpu_core::error::{Error, ErrorKind, Result};

/// A queue in which one call at a time has its turn, first come, first served.
#[derive(Debug, Default)]
pub(super) struct Lane {
    state: Mutex<State>,
    changed: Condvar,
}

/// A call that has its turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    /// Never given to another call.
    pub(super) id: u64,
    /// What it does.
    pub(super) operation: &'static str,
    /// Since when.
    pub(super) since: Instant,
    /// Whether its caller has given up waiting, and the lane is shut until it returns.
    pub(super) late: bool,
}

#[derive(Debug, Default)]
struct State {
    running: Option<Turn>,
    waiting: VecDeque<u64>,
}

impl Lane {
    /// Waits for a turn until `until`.
    ///
    /// # Errors
    /// `Busy`, and nothing was started: the lane is shut, or its calls took too long.
    pub(super) fn take(&self, operation: &'static str, until: Instant) -> Result<Turn> {
        let id = next_id();
        let mut state = self.lock();
        state.waiting.push_back(id);
        loop {
            let now = Instant::now();
            let outcome = match state.running {
                Some(running) if running.late => Some(Err(shut(&running))),
                None if state.waiting.front() == Some(&id) => {
                    Some(Ok(Turn { id, operation, since: now, late: false }))
                }
                running if now >= until => Some(Err(waited(running.as_ref()))),
                _ => None,
            };
            if let Some(outcome) = outcome {
                state.waiting.retain(|w| *w != id);
                if let Ok(turn) = &outcome {
                    state.running = Some(*turn);
                }
                self.changed.notify_all();
                return outcome;
            }
            let wait = self.changed.wait_timeout(state, until - now);
            state = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Shuts the lane until the call of `turn` leaves.
    pub(super) fn shut(&self, turn: &Turn) {
        if let Some(running) = self.lock().running.as_mut().filter(|r| r.id == turn.id) {
            running.late = true;
        }
        self.changed.notify_all();
    }

    /// Ends a turn; nothing happens where it was ended before.
    pub(super) fn leave(&self, turn: &Turn) {
        let mut state = self.lock();
        if state.running.is_some_and(|r| r.id == turn.id) {
            state.running = None;
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The call that keeps the lane shut.
    pub(super) fn shut_by(&self) -> Option<Turn> {
        self.lock().running.filter(|r| r.late)
    }

    #[cfg(test)]
    pub(super) fn is_taken(&self) -> bool {
        self.lock().running.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call's turn on every lane that it needs; at least one.
#[derive(Debug, Clone)]
pub(super) struct Turns(Vec<(Arc<Lane>, Turn)>);

impl Turns {
    /// Takes a turn on each lane, in their order, or on none.
    ///
    /// # Errors
    /// As [`Lane::take`].
    pub(super) fn take(
        lanes: impl Iterator<Item = Arc<Lane>>,
        operation: &'static str,
        until: Instant,
    ) -> Result<Self> {
        let mut turns = Self(Vec::new());
        for lane in lanes {
            match lane.take(operation, until) {
                Ok(turn) => turns.0.push((lane, turn)),
                Err(error) => {
                    turns.leave();
                    return Err(error);
                }
            }
        }
        Ok(turns)
    }

    /// The turn that names the call.
    pub(super) fn first(&self) -> &Turn {
        &self.0.first().expect("a call has at least one lane").1
    }

    pub(super) fn shut(&self) {
        self.0.iter().for_each(|(lane, turn)| lane.shut(turn));
    }

    pub(super) fn leave(&self) {
        self.0.iter().for_each(|(lane, turn)| lane.leave(turn));
    }
}

/// What a caller is told whose lane is shut.
fn shut(by: &Turn) -> Error {
    Error::new(
        ErrorKind::Busy,
        format!(
            "{} on this card has not returned for {} s; nothing else is changed on it until then",
            by.operation,
            by.since.elapsed().as_secs()
        ),
    )
}

fn waited(behind: Option<&Turn>) -> Error {
    let behind = behind.map_or("other calls", |turn| turn.operation);
    Error::new(ErrorKind::Busy, format!("waited too long behind {behind}; nothing was started"))
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
