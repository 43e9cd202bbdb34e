//! The threads that follow the hardware: one that looks again and again, one a backend that waits
//! for its events.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use vgpu_core::id::Vendor;

use crate::lanes::Lanes;
use crate::node::{Node, lock};

/// How long a backend's event wait lasts; an end is noticed within it.
const EVENT_WAIT: Duration = Duration::from_millis(500);

/// The threads of a node: one that looks, one that lays cards out, one a backend for its events.
/// Dropping it lets them end by themselves.
#[derive(Debug)]
pub struct Watch {
    bell: Arc<Bell>,
    layouts: Arc<Bell>,
    threads: Vec<JoinHandle<()>>,
}

/// Ends the threads, or has them look at once.
#[derive(Debug, Default)]
struct Bell {
    state: Mutex<Ring>,
    rung: Condvar,
}

#[derive(Debug, Default)]
struct Ring {
    ended: bool,
    look: bool,
}

impl Node {
    /// Follows the hardware: events at once, everything else every `poll`.
    pub fn watch(node: &Arc<Self>, poll: Duration) -> Watch {
        let bell = Arc::new(Bell::default());
        let (weak, rung) = (Arc::downgrade(node), bell.clone());
        let looker = std::thread::Builder::new()
            .name("vgpu-look".into())
            .spawn(move || look(&weak, &rung, poll));
        let mut threads = match looker {
            Ok(thread) => vec![thread],
            Err(error) => {
                tracing::error!(%error, "cannot start a thread; hardware is not followed");
                Vec::new()
            }
        };
        // Of its own: making parts takes seconds, in which health is looked at all the same.
        let layouts = Arc::new(Bell::default());
        let (weak, rung) = (Arc::downgrade(node), layouts.clone());
        let keeper = std::thread::Builder::new().name("vgpu-layout".into()).spawn(move || {
            loop {
                let Some(node) = weak.upgrade() else { return };
                node.lay_out();
                drop(node);
                if !rung.wait(poll) {
                    return;
                }
            }
        });
        match keeper {
            Ok(thread) => threads.push(thread),
            Err(error) => tracing::error!(%error, "cannot start a thread; layouts are not kept"),
        }
        Watch { bell, layouts, threads }
    }
}

impl Watch {
    /// Looks now rather than at the next poll.
    pub fn look(&self) {
        for bell in [&self.bell, &self.layouts] {
            lock(&bell.state).look = true;
            bell.rung.notify_all();
        }
    }

    /// Ends the threads and waits for the one that looks. One that waits for a driver ends with the
    /// driver's answer.
    pub fn stop(mut self) {
        self.end();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("the thread that follows the hardware ended badly");
            }
        }
    }

    fn end(&self) {
        for bell in [&self.bell, &self.layouts] {
            lock(&bell.state).ended = true;
            bell.rung.notify_all();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
    }
}

impl Bell {
    /// Waits for `time`, or until it is rung; tells whether to go on.
    fn wait(&self, time: Duration) -> bool {
        let state = lock(&self.state);
        let (mut state, _) = self
            .rung
            .wait_timeout_while(state, time, |ring| !ring.ended && !ring.look)
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        state.look = false;
        !state.ended
    }

    fn ended(&self) -> bool {
        lock(&self.state).ended
    }
}

fn look(node: &Weak<Node>, bell: &Arc<Bell>, poll: Duration) {
    let mut listening: BTreeMap<Vendor, Weak<Lanes>> = BTreeMap::new();
    loop {
        {
            let Some(node) = node.upgrade() else { return };
            for lanes in node.inventory.all_lanes() {
                let before = listening.get(lanes.vendor()).and_then(Weak::upgrade);
                if before.is_some_and(|before| Arc::ptr_eq(&before, &lanes)) {
                    continue;
                }
                listening.insert(lanes.vendor().clone(), Arc::downgrade(&lanes));
                listen(&node, bell, &lanes);
            }
        }
        if !bell.wait(poll) {
            return;
        }
        let Some(node) = node.upgrade() else { return };
        node.refresh();
    }
}

/// Starts a thread that waits for a backend's events as long as that backend is in use.
fn listen(node: &Arc<Node>, bell: &Arc<Bell>, lanes: &Arc<Lanes>) {
    let (node, lanes) = (Arc::downgrade(node), Arc::downgrade(lanes));
    let bell = bell.clone();
    let listener = std::thread::Builder::new().name("vgpu-events".into()).spawn(move || {
        while let (Some(node), Some(lanes)) = (node.upgrade(), lanes.upgrade()) {
            if bell.ended() {
                return;
            }
            match lanes.events(EVENT_WAIT) {
                Ok(events) if events.is_empty() => {}
                Ok(events) => node.take_events(&events),
                Err(error) => {
                    tracing::warn!(vendor = %lanes.vendor(), %error, "cannot wait for events");
                    drop((node, lanes));
                    // A driver that refuses at once would make this thread spin.
                    if !bell.wait(EVENT_WAIT * 4) {
                        return;
                    }
                }
            }
        }
    });
    if let Err(error) = listener {
        tracing::error!(%error, "cannot start a thread; events are noticed at the next poll");
    }
}
