//! The pause before a child is started anew.

use std::time::{Duration, Instant};

/// The pause before a child is started anew: longer with each failure in a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new((first, longest): (Duration, Duration)) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// Counts a failure of a child that lived so long, and says when it may be tried again.
    pub(crate) fn failed(&mut self, now: Instant, lived: Duration) -> Instant {
        // One that lived longer than the longest pause is no loop of crashes.
        if lived > self.longest {
            self.failures = 0;
        }
        let pause = self.first.saturating_mul(1 << self.failures.min(16)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        now + pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_the_longest_and_forgets_after_a_long_life() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new((second, 10 * second));
        let now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..40 {
            pauses.push((backoff.failed(now, second) - now).as_secs());
        }
        assert_eq!(pauses[..6], [1, 2, 4, 8, 10, 10]);
        assert_eq!(pauses[39], 10);
        assert_eq!(backoff.failed(now, 11 * second) - now, second);
    }
}
