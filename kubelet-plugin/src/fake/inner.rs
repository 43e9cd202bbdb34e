use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::fake::checkpoint_file;
use crate::fake::options::FakeOptions;
use crate::fake::state::{ResourceState, State};

/// What the fake kubelet's services, tasks and handle share.
pub(crate) struct Inner {
    pub(crate) options: FakeOptions,
    state: Mutex<State>,
    version: watch::Sender<u64>,
    /// One writer of the checkpoint at a time.
    file: Mutex<()>,
}

impl Inner {
    pub(crate) fn new(options: FakeOptions) -> Self {
        let state = Mutex::new(State::new(options.seed));
        Self { options, state, version: watch::Sender::new(0), file: Mutex::new(()) }
    }

    /// Changes with the state.
    pub(crate) fn version(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Reads the state.
    pub(crate) fn look<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.expire(self.options.clock.now());
        read(&state)
    }

    /// Changes the state and wakes who waits.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let value = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.expire(self.options.clock.now());
            change(&mut state)
        };
        self.version.send_modify(|version| *version = version.wrapping_add(1));
        value
    }

    /// The same on behalf of one run of the kubelet; what comes late, when it was killed meanwhile, changes nothing.
    pub(crate) fn change_in<T>(
        &self,
        run: &CancellationToken,
        change: impl FnOnce(&mut State) -> T,
    ) -> Option<T> {
        // A kill cancels under the state's lock.
        self.change(|state| (!run.is_cancelled()).then(|| change(state)))
    }

    pub(crate) fn write_checkpoint(&self) -> Result<(), String> {
        let _one = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (held, registered) = self.look(|state| {
            let ids = |(name, known): (&String, &ResourceState)| {
                (name.clone(), known.healthy.iter().cloned().collect())
            };
            (state.held.clone(), state.resources.iter().map(ids).collect())
        });
        let path = self.options.paths.checkpoint();
        checkpoint_file::write(&path, &held, registered)
            .map_err(|error| format!("failed to write checkpoint {}: {error}", path.display()))
    }

    /// What ends this run of the kubelet; `None` while it does not run.
    pub(crate) fn cut(&self) -> Option<CancellationToken> {
        self.look(|state| state.run.as_ref().map(|run| run.cut.clone()))
    }
}
