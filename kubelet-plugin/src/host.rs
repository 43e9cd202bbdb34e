use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::backoff::random;
use crate::device_plugin::DevicePlugin;
use crate::keeper::{Assignment, keep};
use crate::paths::{KubeletPaths, SocketPathError, check_socket_path};
use crate::resource::Resource;
use crate::socket_name::SocketNames;
use crate::sweep::sweep;
use crate::watch::watch_folder;

/// Serves several resources to one kubelet and keeps each of them registered.
///
/// Every resource has a socket of its own in the kubelet's folder, bound before it is registered, under a name that no other
/// process has. A kubelet that restarts, drops a stream or wipes the folder is answered by itself; so is a kubelet that is
/// not there yet.
///
/// Dropping the host ends everything at once, as a killed process would: connections are cut and the socket files stay for
/// the next instance to sweep. [`shutdown`](Self::shutdown) is the orderly way.
pub struct PluginHost {
    options: HostOptions,
    names: SocketNames,
    ticks: watch::Receiver<u64>,
    cut: CancellationToken,
    running: Mutex<BTreeMap<Resource, Running>>,
}

impl PluginHost {
    /// Begins to watch the kubelet's folder and sweeps sockets that an earlier instance left. It must be called within a
    /// Tokio runtime.
    ///
    /// # Errors
    ///
    /// [`HostError::Prefix`] for a socket prefix that cannot stand in a file name.
    pub fn new(options: HostOptions) -> Result<Self, HostError> {
        let names = SocketNames::new(&options.socket_prefix, random())
            .ok_or_else(|| HostError::Prefix { prefix: options.socket_prefix.clone() })?;
        let cut = CancellationToken::new();
        let (tick, ticks) = watch::channel(0);
        let folder = options.device_plugins.clone();
        let watching = watch_folder(folder.clone(), options.poll, tick);
        let sweeping = sweep(folder, names.clone());
        let ended = cut.clone();
        tokio::spawn(ended.run_until_cancelled_owned(async {
            tokio::join!(sweeping, watching);
        }));
        Ok(Self { options, names, ticks, cut, running: Mutex::default() })
    }

    /// Begins to serve a resource. It returns at once; the receiver tells how the registration goes.
    ///
    /// # Errors
    ///
    /// What would never heal: [`HostError::Path`] and [`HostError::Running`]. A kubelet that is not there, or a folder that
    /// cannot be written, is told by the receiver and tried again.
    pub fn start(
        &self,
        resource: Resource,
        plugin: Arc<dyn DevicePlugin>,
    ) -> Result<watch::Receiver<Registration>, HostError> {
        if self.cut.is_cancelled() {
            return Err(HostError::ShutDown);
        }
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.contains_key(&resource) {
            return Err(HostError::Running { resource });
        }
        let endpoint = self.names.endpoint(&resource);
        let socket = self.options.device_plugins.join(&endpoint);
        check_socket_path(&socket)?;
        let (farewell, farewell_heard) = watch::channel(None);
        let reason = "not registered yet".to_owned();
        let (state, registration) = watch::channel(Registration::Waiting { reason });
        let task = tokio::spawn(keep(Assignment {
            resource: resource.clone(),
            plugin,
            options: self.options.clone(),
            socket,
            endpoint,
            ticks: self.ticks.clone(),
            state,
            farewell: farewell_heard,
            cut: self.cut.child_token(),
        }));
        let entry = Running { farewell, registration: registration.clone(), task };
        running.insert(resource, entry);
        Ok(registration)
    }

    /// Ends one resource in order and removes its socket.
    ///
    /// # Errors
    ///
    /// [`HostError::NotRunning`].
    pub async fn stop(&self, resource: &Resource, farewell: Farewell) -> Result<(), HostError> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(resource);
        let Some(running) = running else {
            return Err(HostError::NotRunning { resource: resource.clone() });
        };
        running.farewell.send_replace(Some(farewell));
        running.ended().await;
        Ok(())
    }

    /// Ends all resources in order and at the same time, then the watch. Nothing can be started afterwards.
    pub async fn shutdown(&self, farewell: Farewell) {
        let all = std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner));
        for running in all.values() {
            running.farewell.send_replace(Some(farewell));
        }
        for running in all.into_values() {
            running.ended().await;
        }
        self.cut.cancel();
    }

    /// How each resource's registration stands.
    #[must_use]
    pub fn registrations(&self) -> BTreeMap<Resource, Registration> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = |(resource, running): (&Resource, &Running)| {
            (resource.clone(), running.registration.borrow().clone())
        };
        running.iter().map(entry).collect()
    }
}

impl Drop for PluginHost {
    fn drop(&mut self) {
        self.cut.cancel();
    }
}

impl fmt::Debug for PluginHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginHost")
            .field("options", &self.options)
            .field("registrations", &self.registrations())
            .finish_non_exhaustive()
    }
}

/// How a host behaves; start from [`HostOptions::new`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostOptions {
    /// The folder with the kubelet's `kubelet.sock`.
    pub device_plugins: PathBuf,
    /// What the names of our sockets begin with; leftovers of earlier instances are known by it, so it must not be shared
    /// with another program.
    pub socket_prefix: String,
    /// How often the folder is looked at besides inotify.
    pub poll: Duration,
    /// For one Register call; the kubelet itself takes up to 10 s.
    pub register_limit: Duration,
    /// How long a kubelet that accepted a registration may take to open its stream (it takes milliseconds); then it is
    /// registered again.
    pub stream_grace: Duration,
    /// Pauses between registrations that failed or did not last.
    pub retry: Retry,
    /// How long the plugin's answers may take.
    pub limits: CallLimits,
    /// How long calls under way and last words may take at the end, before connections are cut.
    pub farewell_limit: Duration,
}

impl HostOptions {
    /// The usual limits for a kubelet at these places, with sockets that begin with the prefix.
    #[must_use]
    pub fn new(paths: &KubeletPaths, socket_prefix: impl Into<String>) -> Self {
        Self {
            device_plugins: paths.device_plugins.clone(),
            socket_prefix: socket_prefix.into(),
            poll: Duration::from_secs(1),
            register_limit: Duration::from_secs(12),
            stream_grace: Duration::from_secs(5),
            retry: Retry::default(),
            limits: CallLimits::default(),
            farewell_limit: Duration::from_secs(5),
        }
    }
}

/// Pauses between two tries: doubling from the first to the limit, with jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// The first pause.
    pub first: Duration,
    /// The longest pause.
    pub limit: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { first: Duration::from_millis(50), limit: Duration::from_secs(5) }
    }
}

/// How long the kubelet is kept waiting. A call that takes longer runs on, and the kubelet gets an error (an empty
/// preference for `preferred`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallLimits {
    /// For `allocate`. The kubelet has no deadline of its own and admits no other pod meanwhile.
    pub allocate: Duration,
    /// For the kubelet to take the list in which an allocation left less to give, before the answer. It would else admit
    /// the next pod by the list before, and refuse it for good where the plugin no longer serves it.
    pub list: Duration,
    /// For `pre_start`. The kubelet's own deadline is 30 s; stay below, so that the user reads our text.
    pub pre_start: Duration,
    /// For `preferred_allocation`, inside the kubelet's sync loop like `allocate`.
    pub preferred: Duration,
}

impl Default for CallLimits {
    fn default() -> Self {
        Self {
            allocate: Duration::from_secs(5),
            list: Duration::from_millis(50),
            pre_start: Duration::from_secs(25),
            preferred: Duration::from_secs(2),
        }
    }
}

/// How a resource takes its leave of the kubelet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Farewell {
    /// Only the stream ends: nothing is allocatable, the capacity stays for 5 minutes. For a restart.
    Disconnect,
    /// An empty list first: the capacity is 0 at once. For a resource that is no longer offered.
    Withdraw,
}

/// How a registration stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Registration {
    /// The kubelet reads the list of devices.
    Serving,
    /// The resource was stopped.
    Stopped,
    /// Not now; it is tried again by itself.
    Waiting {
        /// Why, and what to do.
        reason: String,
    },
}

/// Why a resource cannot be started or stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// There is nothing to stop.
    #[error("resource {resource} is not served here")]
    NotRunning {
        /// The resource.
        resource: Resource,
    },
    /// The socket's path is too long.
    #[error(transparent)]
    Path(#[from] SocketPathError),
    /// The prefix cannot stand in a file name.
    #[error(
        "the socket prefix {prefix:?} is not usable: it takes 1 to 32 of a-z A-Z 0-9 - and _ (an example: vgpu)"
    )]
    Prefix {
        /// What was given.
        prefix: String,
    },
    /// One resource, one plugin.
    #[error("resource {resource} is served already; stop it first")]
    Running {
        /// The resource.
        resource: Resource,
    },
    /// The host has been shut down.
    #[error("the plugin host has been shut down; make a new one")]
    ShutDown,
}

struct Running {
    farewell: watch::Sender<Option<Farewell>>,
    registration: watch::Receiver<Registration>,
    task: JoinHandle<()>,
}

impl Running {
    async fn ended(self) {
        if let Err(error) = self.task.await {
            tracing::error!(%error, "a resource's task ended badly");
        }
    }
}
