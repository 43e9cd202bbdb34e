use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

/// Lets callers share an answer that was asked for after each of them had called.
///
/// At most one request is under way. Who calls while one is, waits for it and then for the next, which all who wait share.
/// A caller that goes away while it asks leaves its turn to the next.
#[derive(Debug)]
pub(crate) struct SingleFlight<T> {
    /// The next caller's number.
    next: AtomicU64,
    last: Mutex<Option<Answer<T>>>,
}

#[derive(Debug)]
struct Answer<T> {
    /// Callers with a lower number had called before the request began.
    serves_below: u64,
    value: T,
}

impl<T: Clone> SingleFlight<T> {
    pub(crate) fn new() -> Self {
        Self { next: AtomicU64::new(0), last: Mutex::new(None) }
    }

    pub(crate) async fn run(&self, ask: impl AsyncFnOnce() -> T) -> T {
        let own = self.next.fetch_add(1, Ordering::SeqCst);
        let mut last = self.last.lock().await;
        if let Some(answer) = &*last
            && own < answer.serves_below
        {
            return answer.value.clone();
        }
        let serves_below = self.next.load(Ordering::SeqCst);
        let value = ask().await;
        *last = Some(Answer { serves_below, value: value.clone() });
        value
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    /// Counts requests; each waits for a permit.
    struct Source {
        begun: AtomicU64,
        gate: Semaphore,
    }

    async fn call(flight: Arc<SingleFlight<u64>>, source: Arc<Source>) -> u64 {
        flight
            .run(async || {
                let number = source.begun.fetch_add(1, Ordering::SeqCst) + 1;
                source.gate.acquire().await.unwrap().forget();
                number
            })
            .await
    }

    async fn settle() {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn late_callers_share_the_next_request_and_never_the_running_one() {
        let flight = Arc::new(SingleFlight::new());
        let source = Arc::new(Source { begun: AtomicU64::new(0), gate: Semaphore::new(0) });
        let start = || tokio::spawn(call(Arc::clone(&flight), Arc::clone(&source)));
        let first = start();
        settle().await;
        let late: Vec<_> = (0..20).map(|_| start()).collect();
        settle().await;
        assert_eq!(source.begun.load(Ordering::SeqCst), 1);
        source.gate.add_permits(2);
        assert_eq!(first.await.unwrap(), 1);
        for caller in late {
            assert_eq!(caller.await.unwrap(), 2);
        }
        assert_eq!(source.begun.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_caller_that_leaves_does_not_take_the_others_along() {
        let flight = Arc::new(SingleFlight::new());
        let source = Arc::new(Source { begun: AtomicU64::new(0), gate: Semaphore::new(0) });
        let start = || tokio::spawn(call(Arc::clone(&flight), Arc::clone(&source)));
        let first = start();
        settle().await;
        let second = start();
        settle().await;
        first.abort();
        settle().await;
        source.gate.add_permits(1);
        assert_eq!(second.await.unwrap(), 2);
    }
}
