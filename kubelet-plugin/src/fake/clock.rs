use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The kubelet's time for what it does after minutes. It can always be put forward.
#[derive(Debug, Clone)]
pub struct FakeClock {
    base: Option<Instant>,
    ahead: Arc<Mutex<Duration>>,
}

impl FakeClock {
    /// A clock that stands still but for [`advance`](Self::advance).
    #[must_use]
    pub fn manual() -> Self {
        Self { base: None, ahead: Arc::default() }
    }

    /// A clock that runs.
    #[must_use]
    pub fn running() -> Self {
        Self { base: Some(Instant::now()), ahead: Arc::default() }
    }

    /// Puts the clock, and all its clones, forward.
    pub fn advance(&self, by: Duration) {
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }

    pub(crate) fn now(&self) -> Duration {
        let ahead = *self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        self.base.map_or(Duration::ZERO, |base| base.elapsed()) + ahead
    }
}
