//! Keeps one resource served and registered, whatever the kubelet does.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::backoff::Backoff;
use crate::device_plugin::DevicePlugin;
use crate::host::{Farewell, HostOptions, Registration};
use crate::pb::device_plugin::device_plugin_server::DevicePluginServer;
use crate::register::{RegisterError, register};
use crate::resource::Resource;
use crate::service::{REQUEST_LIMIT, Service, Streams};
use crate::transport::{Acceptor, Listening, SocketIdentity};

/// A stream that lived so long says that the kubelet and we get on; the next pause is a short one again.
const SETTLED: Duration = Duration::from_secs(30);

/// What a keeper is given.
pub(crate) struct Assignment {
    pub(crate) resource: Resource,
    pub(crate) plugin: Arc<dyn DevicePlugin>,
    pub(crate) options: HostOptions,
    /// The plugin's own socket, in the kubelet's folder.
    pub(crate) socket: PathBuf,
    /// Its bare file name.
    pub(crate) endpoint: String,
    pub(crate) ticks: watch::Receiver<u64>,
    pub(crate) state: watch::Sender<Registration>,
    pub(crate) farewell: watch::Receiver<Option<Farewell>>,
    /// Ends everything abruptly.
    pub(crate) cut: CancellationToken,
}

/// Serves and keeps registered until the farewell.
pub(crate) async fn keep(assignment: Assignment) {
    let cut = assignment.cut.clone();
    let keeper = Keeper::new(assignment);
    tokio::select! {
        () = cut.cancelled() => {}
        () = keeper.run() => {}
    }
    cut.cancel();
}

type Attempt = Pin<Box<dyn Future<Output = Result<(), RegisterError>> + Send>>;

enum Standing {
    /// A Register call is under way.
    Attempting { target: SocketIdentity, opened_before: u64, work: Attempt },
    /// The kubelet said yes; its stream is open, or about to be.
    Registered { target: SocketIdentity, opened_before: u64, since: Instant },
    /// Nothing to do before the time, unless another kubelet comes.
    Waiting { last: Option<SocketIdentity>, until: Instant },
}

impl Standing {
    fn target(&self) -> Option<SocketIdentity> {
        match self {
            Self::Attempting { target, .. } | Self::Registered { target, .. } => Some(*target),
            Self::Waiting { last, .. } => *last,
        }
    }
}

struct Keeper {
    given: Assignment,
    kubelet_socket: PathBuf,
    acceptor: Acceptor,
    server: JoinHandle<()>,
    streams: watch::Receiver<Streams>,
    /// Our socket file.
    bound: Option<Listening>,
    backoff: Backoff,
    standing: Standing,
}

impl Keeper {
    fn new(given: Assignment) -> Self {
        let (acceptor, incoming) = Acceptor::new(given.cut.clone());
        let (streams, streams_seen) = watch::channel(Streams::default());
        let service = Service {
            plugin: Arc::clone(&given.plugin),
            limits: given.options.limits,
            streams,
            taken: watch::Sender::default(),
            farewell: given.farewell.clone(),
        };
        let server = Server::builder()
            .add_service(DevicePluginServer::new(service).max_decoding_message_size(REQUEST_LIMIT))
            .serve_with_incoming_shutdown(incoming, goodbye(given.farewell.clone()));
        let server = tokio::spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "the plugin's server ended");
            }
        });
        Self {
            kubelet_socket: given.options.device_plugins.join("kubelet.sock"),
            acceptor,
            server,
            streams: streams_seen,
            bound: None,
            backoff: Backoff::new(given.options.retry.first, given.options.retry.limit),
            standing: Standing::Waiting { last: None, until: Instant::now() },
            given,
        }
    }

    async fn run(mut self) {
        let farewell = goodbye(self.given.farewell.clone());
        tokio::pin!(farewell);
        loop {
            let wake = self.decide();
            let attempt = match &mut self.standing {
                Standing::Attempting { work, .. } => Some(work),
                _ => None,
            };
            tokio::select! {
                biased;
                () = &mut farewell => break,
                outcome = pending_or(attempt) => self.note(outcome),
                () = changed(&mut self.given.ticks) => {}
                () = changed(&mut self.streams) => {}
                () = sleep_until(wake) => {}
            }
        }
        self.part().await;
    }

    /// Looks at the two sockets and the streams, and does what is due. It may be called at any time. The answer is when to look
    /// again if nothing happens before; it may have passed already.
    fn decide(&mut self) -> Option<Instant> {
        if let Err(reason) = self.keep_socket() {
            self.publish(Registration::Waiting { reason });
            return None;
        }
        let now = Instant::now();
        let streams = *self.streams.borrow_and_update();
        let Some(kubelet) = SocketIdentity::of(&self.kubelet_socket) else {
            // A stream that is open, or a call under way, is better news than a missing file.
            if streams.open == 0 && !matches!(self.standing, Standing::Attempting { .. }) {
                self.standing = Standing::Waiting { last: None, until: now };
                let reason = format!(
                    "there is no kubelet at {}; if it runs, its device-plugins folder is another",
                    self.kubelet_socket.display()
                );
                self.publish(Registration::Waiting { reason });
            }
            return None;
        };
        if self.standing.target() != Some(kubelet) {
            // Another kubelet process. It admits pods 0.8 s after it made its socket: no pause.
            self.backoff.reset();
            self.attempt(kubelet, streams);
            return None;
        }
        match self.standing {
            Standing::Attempting { .. } => None,
            Standing::Waiting { until, .. } if now < until => Some(until),
            Standing::Waiting { .. } => {
                self.attempt(kubelet, streams);
                None
            }
            Standing::Registered { .. } if streams.open > 0 => {
                self.publish(Registration::Serving);
                None
            }
            Standing::Registered { target, opened_before, since } => {
                let last_moment = since + self.given.options.stream_grace;
                if streams.opened == opened_before && now < last_moment {
                    return Some(last_moment);
                }
                Some(self.lost(target, since))
            }
        }
    }

    /// The kubelet has no stream of ours and will not open one by itself. The answer is when to register again.
    fn lost(&mut self, target: SocketIdentity, since: Instant) -> Instant {
        if since.elapsed() >= SETTLED {
            self.backoff.reset();
        }
        let until = Instant::now() + self.backoff.pause();
        self.standing = Standing::Waiting { last: Some(target), until };
        let reason = "the kubelet dropped the list of devices; registering again".to_owned();
        self.publish(Registration::Waiting { reason });
        until
    }

    fn attempt(&mut self, target: SocketIdentity, streams: Streams) {
        let (socket, endpoint) = (self.kubelet_socket.clone(), self.given.endpoint.clone());
        let (resource, limit) = (self.given.resource.clone(), self.given.options.register_limit);
        let options = self.given.plugin.options().into();
        let work =
            Box::pin(async move { register(&socket, &resource, &endpoint, options, limit).await });
        self.standing = Standing::Attempting { target, opened_before: streams.opened, work };
    }

    fn note(&mut self, outcome: Result<(), RegisterError>) {
        let Standing::Attempting { target, opened_before, .. } = self.standing else { return };
        match outcome {
            Ok(()) => {
                self.standing =
                    Standing::Registered { target, opened_before, since: Instant::now() };
            }
            Err(error) => {
                let until = Instant::now() + self.backoff.pause();
                self.standing = Standing::Waiting { last: Some(target), until };
                self.publish(Registration::Waiting { reason: error.to_string() });
            }
        }
    }

    /// Binds our socket where it is missing or not ours: a kubelet that starts removes every socket in its folder. Streams
    /// that are open stay so.
    fn keep_socket(&mut self) -> Result<(), String> {
        let path = &self.given.socket;
        if let Some(bound) = &self.bound {
            if SocketIdentity::of(path) == Some(bound.identity) {
                return Ok(());
            }
            self.bound = None;
        }
        match self.acceptor.listen(path) {
            Ok(bound) => {
                self.bound = Some(bound);
                Ok(())
            }
            Err(error) => Err(format!("cannot bind {}: {error}", path.display())),
        }
    }

    /// Ends in order: streams say their last word, the file goes, and what is still open after the limit is cut.
    async fn part(self) {
        if let Some(bound) = self.bound
            && SocketIdentity::of(&self.given.socket) == Some(bound.identity)
        {
            // Not there any more is what we want.
            let _ = std::fs::remove_file(&self.given.socket);
        }
        drop(self.acceptor);
        let limit = self.given.options.farewell_limit;
        if tokio::time::timeout(limit, self.server).await.is_err() {
            tracing::warn!(resource = %self.given.resource, ?limit, "calls were still under way; their connections are cut");
        }
        self.given.state.send_replace(Registration::Stopped);
    }

    fn publish(&self, new: Registration) {
        let resource = &self.given.resource;
        self.given.state.send_if_modified(|old| {
            if *old == new {
                return false;
            }
            match &new {
                Registration::Waiting { reason } => {
                    tracing::warn!(%resource, reason, "not registered")
                }
                _ => tracing::info!(%resource, "registered, the kubelet reads the list"),
            }
            *old = new;
            true
        });
    }
}

async fn goodbye(mut farewell: watch::Receiver<Option<Farewell>>) {
    if farewell.wait_for(Option::is_some).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn pending_or(attempt: Option<&mut Attempt>) -> Result<(), RegisterError> {
    match attempt {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

async fn changed<T>(value: &mut watch::Receiver<T>) {
    if value.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}
