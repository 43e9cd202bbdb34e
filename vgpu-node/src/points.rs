//! Named places between two durable steps, where a test ends the agent.

use std::fmt;
use std::sync::Arc;

/// Called at every named place, before and after the step of that name.
///
/// Empty in the agent. A test gives a closure that panics or aborts at the n-th call and then starts
/// the agent anew on what is left. That only proves something because no `Drop` of this crate
/// repairs or writes anything.
#[derive(Clone, Default)]
pub struct FaultPoints(Option<Arc<dyn Fn(&'static str) + Send + Sync>>);

impl FaultPoints {
    /// Calls `f` with the name of each place that is passed.
    pub fn new(f: impl Fn(&'static str) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(f)))
    }

    /// Passes one place.
    ///
    /// # Panics
    /// In debug builds, for a name that is not in [`NAMES`]; and wherever the test's closure does.
    pub fn hit(&self, name: &'static str) {
        debug_assert!(NAMES.contains(&name), "the fault point {name} is missing in NAMES; add it");
        if let Some(f) = &self.0 {
            f(name);
        }
    }

    /// Does one step, with its place before and after it.
    pub fn around<T>(&self, name: &'static str, step: impl FnOnce() -> T) -> T {
        self.hit(name);
        let result = step();
        self.hit(name);
        result
    }
}

impl fmt::Debug for FaultPoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "FaultPoints(set)" } else { "FaultPoints" })
    }
}

/// Every name, so that a test can end the agent at each.
pub const NAMES: &[&str] = &[
    "lanes.change",
    "ledger.append",
    "ledger.create",
    "ledger.dir-fsync",
    "ledger.fsync",
    "ledger.quarantine",
    "ledger.rename",
    "ledger.reserve",
    "ledger.rewrite",
    "ledger.truncate",
    "pool.make",
    "pool.unmake",
    "prepare.listed",
    "publish.claim-dir",
    "publish.claim-file",
    "publish.rename",
    "publish.spec-file",
    "publish.sweep",
    "withdraw.claim-dir",
    "withdraw.spec",
];

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_step_is_passed_before_and_after() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let points = FaultPoints::new({
            let seen = seen.clone();
            move |name| seen.lock().expect("not poisoned").push(name.to_owned())
        });
        points.around("ledger.fsync", || {
            seen.lock().expect("not poisoned").push("the step".into());
        });
        assert_eq!(
            *seen.lock().expect("not poisoned"),
            ["ledger.fsync", "the step", "ledger.fsync"]
        );
    }

    #[test]
    fn names_are_sorted_and_given_once() {
        assert!(NAMES.windows(2).all(|w| w[0] < w[1]));
    }
}
