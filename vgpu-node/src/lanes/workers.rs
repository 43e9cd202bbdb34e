//! Threads for calls. One that is done is kept for the next call; one that hangs is in its call and is
//! given to nobody.

use std::ffi::CString;
use std::io;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, ThreadId};
use std::time::Duration;

/// So many idle threads are kept at most: the cards of a node are read side by side.
const KEPT: usize = 8;

/// So long one is kept: longer than the waits of one claim for another, and than those for events.
const IDLE: Duration = Duration::from_secs(5);

type Job = Box<dyn FnOnce() + Send>;

/// The threads of one backend's calls. Dropping it ends those that are idle.
#[derive(Debug, Default)]
pub(super) struct Workers {
    idle: Arc<Idle>,
}

/// Where the threads that wait for a call are reached, the last one that was done at the end.
#[derive(Debug, Default)]
struct Idle(Mutex<Vec<(ThreadId, SyncSender<Job>)>>);

impl Workers {
    /// Runs a call on a thread that has nothing else to do, which is named after the operation.
    ///
    /// # Errors
    /// What the host says if it gives no thread; nothing was started then.
    pub(super) fn start(
        &self,
        operation: &'static str,
        call: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let job: Job = Box::new(move || {
            name_after(operation);
            call();
        });
        let worker = self.idle.lock().pop();
        // One that is listed takes what it is sent, also if it was about to end.
        let job = match worker {
            Some((_, worker)) => match worker.send(job) {
                Ok(()) => return Ok(()),
                Err(unsent) => unsent.0,
            },
            None => job,
        };
        let idle = Arc::downgrade(&self.idle);
        thread::Builder::new().name("vgpu-call".into()).spawn(move || work(job, &idle)).map(drop)
    }

    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.idle.lock().len()
    }
}

impl Idle {
    fn lock(&self) -> MutexGuard<'_, Vec<(ThreadId, SyncSender<Job>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does a call, and then those that it is sent, until there are none for a while.
fn work(first: Job, idle: &Weak<Idle>) {
    let mut job = first;
    loop {
        job();
        let Some(next) = wait(idle) else { return };
        job = next;
    }
}

/// The next call; none if enough others wait, if none came for a while, or if the backend is gone.
fn wait(idle: &Weak<Idle>) -> Option<Job> {
    let me = thread::current().id();
    let (sender, jobs) = sync_channel(1);
    {
        let idle = idle.upgrade()?;
        let mut waiting = idle.lock();
        if waiting.len() >= KEPT {
            return None;
        }
        waiting.push((me, sender));
    }
    match jobs.recv_timeout(IDLE) {
        Ok(job) => return Some(job),
        Err(RecvTimeoutError::Disconnected) => return None,
        Err(RecvTimeoutError::Timeout) => {}
    }
    let idle = idle.upgrade()?;
    let mut waiting = idle.lock();
    let at = waiting.iter().position(|(id, _)| *id == me);
    match at {
        Some(at) => drop(waiting.remove(at)),
        None => {
            drop(waiting);
            // Somebody took it off the list a moment ago and is about to send.
            return jobs.recv().ok();
        }
    }
    None
}

/// For whoever looks at a process that hangs.
fn name_after(operation: &str) {
    // The kernel keeps 15 bytes.
    if let Ok(name) = CString::new(&operation.as_bytes()[..operation.len().min(15)]) {
        let _ = rustix::thread::set_name(&name);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::mpsc;

    use super::*;

    /// Long enough for any machine; only a test that hangs waits so long.
    const PATIENCE: Duration = Duration::from_secs(60);

    fn eventually(what: &str, is: impl Fn() -> bool) {
        let until = std::time::Instant::now() + PATIENCE;
        while !is() {
            assert!(std::time::Instant::now() < until, "never: {what}");
            thread::yield_now();
        }
    }

    /// Does one call, and says on which thread, and under which name for the kernel.
    fn call(workers: &Workers, operation: &'static str) -> (ThreadId, String) {
        let (tell, told) = mpsc::channel();
        let says = move || {
            let comm = std::fs::read_to_string("/proc/thread-self/comm").expect("Linux has it");
            tell.send((thread::current().id(), comm.trim().to_owned())).expect("it is heard");
        };
        workers.start(operation, says).expect("a thread");
        told.recv_timeout(PATIENCE).expect("it runs")
    }

    #[test]
    fn a_thread_that_is_done_has_the_next_call_under_its_name() {
        let workers = Workers::default();
        let (first, name) = call(&workers, "scan");
        assert_eq!(name, "scan");
        for _ in 0..100 {
            eventually("it is idle", || workers.idle() == 1);
            assert_eq!(call(&workers, "partitions of all"), (first, "partitions of a".into()));
        }
    }

    #[test]
    fn a_thread_that_hangs_is_given_to_nobody_until_it_is_back() {
        let workers = Workers::default();
        let (release, released) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let hangs = move || {
            tell.send(thread::current().id()).expect("it is heard");
            let _ = released.recv();
        };
        workers.start("create", hangs).expect("a thread");
        let stuck = told.recv_timeout(PATIENCE).expect("it runs");
        for _ in 0..20 {
            assert_ne!(call(&workers, "check").0, stuck);
            eventually("the other is idle", || workers.idle() == 1);
        }
        drop(release);
        eventually("it is idle too", || workers.idle() == 2);
        assert_eq!(
            call(&workers, "check").0,
            stuck,
            "the last that was done is the first that is taken"
        );
    }

    #[test]
    fn no_more_are_kept_than_are_of_use_and_all_run_at_once() {
        let workers = Workers::default();
        let all = Arc::new(std::sync::Barrier::new(3 * KEPT));
        let (tell, told) = mpsc::channel();
        for _ in 0..3 * KEPT {
            let (all, tell) = (all.clone(), tell.clone());
            let meets = move || {
                all.wait();
                tell.send(thread::current().id()).expect("it is heard");
            };
            workers.start("check", meets).expect("a thread");
        }
        let ids: BTreeSet<String> = (0..3 * KEPT)
            .map(|_| format!("{:?}", told.recv_timeout(PATIENCE).expect("all met")))
            .collect();
        assert_eq!(ids.len(), 3 * KEPT);
        eventually("some are kept", || workers.idle() == KEPT);
    }
}
