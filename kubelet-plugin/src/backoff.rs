use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// Pauses that double up to a limit, each somewhere between half and the whole of its step, so that plugins that fell
/// together do not come back together.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    limit: Duration,
    step: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, limit: Duration) -> Self {
        let first = first.min(limit);
        Self { first, limit, step: first }
    }

    pub(crate) fn pause(&mut self) -> Duration {
        let step = self.step;
        self.step = (step * 2).min(self.limit);
        jittered(step, random())
    }

    pub(crate) fn reset(&mut self) {
        self.step = self.first;
    }
}

/// Seeded by the system per call; good enough for names and jitter, not for secrets.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

fn jittered(step: Duration, random: u64) -> Duration {
    let half = step / 2;
    let span = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).saturating_add(1);
    half + Duration::from_nanos(random % span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_the_limit_and_reset() {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        let mut step = Duration::from_millis(50);
        for _ in 0..12 {
            let pause = backoff.pause();
            assert!(pause >= step / 2 && pause <= step, "{pause:?} of {step:?}");
            step = (step * 2).min(Duration::from_secs(5));
        }
        backoff.reset();
        assert!(backoff.pause() <= Duration::from_millis(50));
    }

    #[test]
    fn any_random_number_stays_inside() {
        for random in [0, 1, u64::MAX / 2, u64::MAX] {
            for step in [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(5)] {
                let pause = jittered(step, random);
                assert!(pause >= step / 2 && pause <= step);
            }
        }
    }
}
