//! The agent: a node, a kubelet, and what keeps the two together until the end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use vgpu_core::cdi::Kind;
use vgpu_kubelet_plugin::{Farewell, HostOptions, KubeletPaths, PluginHost, Resource};
use vgpu_node::absence::AbsenceOptions;
use vgpu_node::health::HealthOptions;
use vgpu_node::inventory::{InventoryOptions, Registry};
use vgpu_node::lanes::LaneOptions;
use vgpu_node::ledger::{Recovery, Tail};
use vgpu_node::points::FaultPoints;
use vgpu_node::publish::SpecOptions;
use vgpu_node::{Node, NodeOptions, ResourceName, Watch};

use crate::args::RunArgs;
use crate::backends::Choice;
use crate::children::{self, BackendConfig};
use crate::config::{NodeConfig, Poll};
use crate::hook::{self, Hook};
use crate::http::{self, Pages};
use crate::kubelet::KubeletEyes;
use crate::lists::Lists;
use crate::logs;
use crate::metrics::Metrics;
use crate::nvidia::NvidiaConfig;
use crate::resource::NodeResource;
use crate::runtime;
use crate::sockets::{self, SocketPaths};
use crate::sys;

/// The CDI kind of all our devices; a device's name is its claim.
pub const CDI_KIND: &str = "vgpu.dev/claim";

/// What the names of our sockets in the kubelet's folder begin with.
const SOCKET_PREFIX: &str = "vgpu";

/// For one PreStart; the kubelet gives up after 30 s and its author then reads nothing of ours.
const PRE_START: Duration = Duration::from_secs(28);

/// How an agent is set up.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// What is offered.
    pub config: NodeConfig,
    /// Where the kubelet is.
    pub kubelet: KubeletPaths,
    /// Where CDI specs go.
    pub cdi_dir: PathBuf,
    /// Ledger, claim files, sockets.
    pub state_dir: PathBuf,
    /// The hook program on the host.
    pub hook: Option<Hook>,
    /// The host's root as seen from here.
    pub host_root: PathBuf,
    /// Where metrics are served.
    pub metrics_address: Option<SocketAddr>,
    /// Whether the container runtime is asked for CDI.
    pub runtime: RuntimeCheck,
    /// When silence of the kubelet is proof.
    pub absence: AbsenceOptions,
    /// When a card is taken out and back.
    pub health: HealthOptions,
    /// How calls to drivers behave.
    pub lanes: LaneOptions,
    /// How long to wait for another agent that still holds the ledger.
    pub ledger_wait: Duration,
    /// Where tests end the agent.
    pub points: FaultPoints,
}

impl AgentOptions {
    /// The usual agent at these places.
    pub fn new(
        config: NodeConfig,
        kubelet: KubeletPaths,
        cdi_dir: PathBuf,
        state_dir: PathBuf,
    ) -> Self {
        Self {
            config,
            kubelet,
            cdi_dir,
            state_dir,
            hook: None,
            host_root: PathBuf::from("/"),
            metrics_address: None,
            runtime: RuntimeCheck::Skip,
            absence: AbsenceOptions::default(),
            health: HealthOptions::default(),
            // Below PreStart's own limit, so that the pod's author reads what the driver was at.
            lanes: LaneOptions { deadline: Duration::from_secs(20), ..LaneOptions::default() },
            ledger_wait: Duration::from_secs(30),
            points: FaultPoints::default(),
        }
    }
}

/// Whether the container runtime is asked, before anything is registered, if it resolves CDI names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RuntimeCheck {
    /// The one at this socket, or at a usual one below the host's root.
    Ask(Option<PathBuf>),
    /// Not at all: there is none, as in tests and the demo.
    #[default]
    Skip,
}

/// A running agent. Dropping it ends it as a kill would: nothing is said, nothing is tidied.
pub struct Agent {
    node: Arc<Node>,
    host: Arc<PluginHost>,
    metrics: Arc<Metrics>,
    sockets: SocketPaths,
    metrics_address: Option<SocketAddr>,
    poll: Poll,
    nvidia: NvidiaConfig,
    backends: BTreeMap<String, BackendConfig>,
    watch: Option<Watch>,
    /// They hold the node, and with it the ledger's lock; dropping them ends them.
    tasks: JoinSet<()>,
}

impl Agent {
    /// Starts: opens the ledger, looks at the hardware, lays the offers over it, and registers.
    ///
    /// # Errors
    /// What a restart would not heal: a ledger of a newer agent, offers that overlap, a socket that
    /// cannot be bound. A kubelet or a card that is away is waited for.
    pub async fn start(choices: Vec<Choice>, options: AgentOptions) -> anyhow::Result<Self> {
        let poll = options.config.poll;
        let nvidia = options.config.nvidia.clone();
        let backends = options.config.backends.clone();
        let (offers, layouts) = (options.config.offers.clone(), options.config.layouts.clone());
        let node_options = node_options(&options)?;
        let registry = choices.into_iter().fold(Registry::new(), |r, c| r.with(c.factory, c.host));
        let eyes = Arc::new(KubeletEyes::new(&options.kubelet, CDI_KIND));
        let known = eyes.clone();
        let opened = tokio::task::spawn_blocking(move || -> vgpu_core::Result<Arc<Node>> {
            let (node, recovery) = Node::open(node_options, registry)?;
            tell_recovery(&recovery);
            node.refresh();
            node.configure(&offers, &layouts)?;
            node.adopt(&known.allocated());
            Ok(node)
        });
        let node = opened.await.context("opening the node ended badly")??;
        told(&node);
        let metrics = Arc::new(Metrics::new());
        let sockets = SocketPaths::under(&options.state_dir);
        let mut tasks = JoinSet::new();
        let mut host_options = HostOptions::new(&options.kubelet, SOCKET_PREFIX);
        host_options.limits.pre_start = PRE_START;
        let host = Arc::new(PluginHost::new(host_options)?);
        sockets::serve(&mut tasks, &sockets, &node, &host, &metrics, options.hook)?;
        let lists = Lists::follow(&node);
        let serving = Serving {
            node: node.clone(),
            host: host.clone(),
            eyes: eyes.clone(),
            metrics: metrics.clone(),
            lists: lists.clone(),
            runtime: options.runtime,
            host_root: options.host_root,
        };
        let mut agent = Self {
            watch: Some(Node::watch(&node, poll.hardware())),
            node,
            host,
            metrics,
            sockets,
            metrics_address: None,
            poll,
            nvidia,
            backends,
            tasks,
        };
        agent.tasks.spawn(serving.keep());
        let following = follow_kubelet(agent.node.clone(), eyes, lists, poll.kubelet());
        agent.tasks.spawn(following);
        if let Some(address) = options.metrics_address {
            let pages = Pages {
                node: agent.node.clone(),
                host: agent.host.clone(),
                metrics: agent.metrics.clone(),
            };
            agent.metrics_address = Some(http::serve(&mut agent.tasks, address, pages).await?);
        }
        Ok(agent)
    }

    /// The node.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// How each resource's registration stands.
    pub fn registrations(&self) -> BTreeMap<Resource, vgpu_kubelet_plugin::Registration> {
        self.host.registrations()
    }

    /// Where metrics are served, with the port that was bound.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Takes another configuration; the node keeps the last good one otherwise.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn reload(&self, config: NodeConfig) -> anyhow::Result<()> {
        if config.poll != self.poll {
            tracing::warn!("poll times come into effect with the next start");
        }
        if config.nvidia != self.nvidia {
            tracing::warn!("the nvidia part comes into effect with the next start");
        }
        if config.backends != self.backends {
            tracing::warn!("where backends run comes into effect with the next start");
        }
        let node = self.node.clone();
        let applied =
            tokio::task::spawn_blocking(move || node.configure(&config.offers, &config.layouts));
        let applied = applied.await?;
        self.metrics.reload(applied.is_ok());
        applied?;
        // Layouts that changed come into effect now.
        self.watch.iter().for_each(Watch::look);
        told(&self.node);
        Ok(())
    }

    /// Ends in order: the kubelet sees the stream end, running containers keep what they have.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
        self.host.shutdown(Farewell::Disconnect).await;
        if let Some(watch) = self.watch.take() {
            watch.stop();
        }
        sockets::remove(&self.sockets);
    }
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent").field("node", &self.node).finish_non_exhaustive()
    }
}

/// Serves a node until SIGTERM or SIGINT. When the driver under a library was replaced it starts
/// itself anew in the same process.
///
/// # Errors
/// As [`Agent::start`], and for a configuration that cannot be read at the start.
pub fn run(choices: Vec<Choice>, args: RunArgs) -> anyhow::Result<()> {
    logs::start(args.log_format);
    // Before there is any other thread.
    sys::few_heaps();
    let config = NodeConfig::read(&args.config)?;
    let (choices, children) = children::place(choices, &config, &args.backends)?;
    let options = AgentOptions {
        hook: hook::find(args.hook_dir.as_deref(), &args.backends.look.host_root)?,
        host_root: args.backends.look.host_root.clone(),
        metrics_address: args.metrics_address,
        absence: args.absence(),
        runtime: RuntimeCheck::Ask(args.runtime_endpoint.clone()),
        ..AgentOptions::new(config, args.kubelet(), args.cdi_dir.clone(), args.state_dir.clone())
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let end = runtime.block_on(until_the_end(choices, options, &args.config));
    runtime.shutdown_timeout(Duration::from_secs(1));
    // By hand: the program that takes this one's place would not know that they are its own.
    children.iter().for_each(|child| child.end());
    let end = end?;
    match end {
        End::Signal => Ok(()),
        End::DriverReplaced => Err(start_anew()),
    }
}

enum End {
    DriverReplaced,
    Signal,
}

async fn until_the_end(
    choices: Vec<Choice>,
    options: AgentOptions,
    config: &Path,
) -> anyhow::Result<End> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let agent = Agent::start(choices, options).await?;
    let mut look = tokio::time::interval(Duration::from_secs(1));
    let end = loop {
        tokio::select! {
            _ = terminate.recv() => break End::Signal,
            _ = interrupt.recv() => break End::Signal,
            _ = hangup.recv() => match reread(&agent, config).await {
                Ok(()) => tracing::info!(file = %config.display(), "took the configuration"),
                Err(error) => tracing::error!(
                    error = format!("{error:#}"), "kept the last good configuration"
                ),
            },
            _ = look.tick() => if agent.node().driver_replaced() {
                tracing::warn!("the driver was replaced; starting anew");
                break End::DriverReplaced;
            },
        }
    };
    agent.stop().await;
    Ok(end)
}

async fn reread(agent: &Agent, config: &Path) -> anyhow::Result<()> {
    match NodeConfig::read(config) {
        Ok(config) => agent.reload(config).await,
        Err(error) => {
            agent.metrics.reload(false);
            Err(error.into())
        }
    }
}

/// Only comes back if it failed.
fn start_anew() -> anyhow::Error {
    use std::os::unix::process::CommandExt as _;
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return anyhow::Error::new(error).context("cannot find my own program"),
    };
    let error = std::process::Command::new(&program).args(std::env::args_os().skip(1)).exec();
    anyhow::Error::new(error).context(format!("cannot start {} anew", program.display()))
}

fn node_options(options: &AgentOptions) -> anyhow::Result<NodeOptions> {
    let points = options.points.clone();
    let lanes = LaneOptions { points: points.clone(), ..options.lanes.clone() };
    Ok(NodeOptions {
        root: options.host_root.clone(),
        specs: SpecOptions {
            cdi_dir: options.cdi_dir.clone(),
            claims_dir: options.state_dir.join("claims"),
            kind: Kind::new(CDI_KIND)?,
            hook: options.hook.as_ref().map(|hook| hook.path.clone()),
            socket: SocketPaths::under(&options.state_dir).hook,
            points: points.clone(),
        },
        state_dir: options.state_dir.clone(),
        inventory: InventoryOptions { lanes, ..InventoryOptions::default() },
        health: options.health.clone(),
        absence: options.absence,
        ledger_wait: options.ledger_wait,
        points,
    })
}

/// Says what was found of the ledger.
fn tell_recovery(recovery: &Recovery) {
    match &recovery.tail {
        Tail::Damaged { kept, bytes, lost } => tracing::error!(
            kept = %kept.display(), bytes, lost,
            "the ledger's end was damaged and put aside; claims are rebuilt from the kubelet's checkpoint"
        ),
        Tail::HalfWritten { bytes } => {
            tracing::info!(bytes, "dropped a half-written record; it was never acknowledged");
        }
        Tail::Clean => {}
    }
    for (key, error) in &recovery.unreadable {
        tracing::error!(claim = key, %error, "a claim in the ledger cannot be read; it is left alone");
    }
}

/// Says what is served and what is not, with the reason.
fn told(node: &Node) {
    for (name, resource) in &node.layout().resources {
        let ids: u32 = resource.cards.values().map(|c| c.count).sum();
        tracing::info!(resource = %name, cards = resource.cards.len(), ids, "offered");
        for (device, why) in &resource.unfit {
            tracing::warn!(resource = %name, %device, why, "a selected card does not serve");
        }
        if resource.cards.is_empty() && resource.unfit.is_empty() {
            tracing::warn!(resource = %name, "the offer selects no card of this node");
        }
    }
}

/// How seldom the kubelet is made to write its checkpoint anew.
const SEND_AGAIN: Duration = Duration::from_secs(10);

/// Tells the node what the kubelet lists, again and again.
async fn follow_kubelet(
    node: Arc<Node>,
    eyes: Arc<KubeletEyes>,
    lists: Arc<Lists>,
    every: Duration,
) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut sent: Option<Instant> = None;
    loop {
        ticks.tick().await;
        let view = eyes.view().await;
        let node = node.clone();
        let observed = tokio::task::spawn_blocking(move || node.observe_kubelet(view.as_ref()));
        match observed.await {
            Ok(true) if sent.is_none_or(|sent| sent.elapsed() >= SEND_AGAIN) => {
                lists.send_again();
                sent = Some(Instant::now());
            }
            Ok(_) => {}
            Err(error) => {
                tracing::error!(%error, "following the kubelet ended badly; it goes on");
            }
        }
    }
}

/// Keeps the set of served resources equal to the node's.
struct Serving {
    node: Arc<Node>,
    host: Arc<PluginHost>,
    eyes: Arc<KubeletEyes>,
    metrics: Arc<Metrics>,
    lists: Arc<Lists>,
    runtime: RuntimeCheck,
    host_root: PathBuf,
}

impl Serving {
    async fn keep(self) {
        if let RuntimeCheck::Ask(socket) = &self.runtime {
            runtime::resolves_cdi(socket.as_deref(), &self.host_root).await;
        }
        let mut changes = self.lists.resources.subscribe();
        let mut served: BTreeMap<ResourceName, Resource> = BTreeMap::new();
        loop {
            changes.borrow_and_update();
            let wanted = self.lists.names();
            let gone: Vec<ResourceName> =
                served.keys().filter(|name| !wanted.contains(name)).cloned().collect();
            for name in gone {
                if let Some(resource) = served.remove(&name)
                    && let Err(error) = self.host.stop(&resource, Farewell::Withdraw).await
                {
                    tracing::warn!(%error, "cannot withdraw a resource");
                }
            }
            for name in wanted {
                if served.contains_key(&name) {
                    continue;
                }
                match self.start(&name) {
                    Ok(resource) => drop(served.insert(name, resource)),
                    Err(error) => {
                        tracing::error!(resource = %name, error = format!("{error:#}"), "cannot serve");
                    }
                }
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn start(&self, name: &ResourceName) -> anyhow::Result<Resource> {
        let resource = Resource::parse(name.as_str())?;
        let plugin = NodeResource {
            name: name.clone(),
            node: self.node.clone(),
            eyes: self.eyes.clone(),
            metrics: self.metrics.clone(),
            list: self.lists.of(name),
        };
        self.host.start(resource.clone(), Arc::new(plugin))?;
        Ok(resource)
    }
}
