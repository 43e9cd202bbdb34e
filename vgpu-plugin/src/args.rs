//! The command line of `vgpu-plugin`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use vgpu_kubelet_plugin::KubeletPaths;
use vgpu_node::absence::AbsenceOptions;

use crate::backends::{BackendArgs, Settings};
use crate::nvidia::NvidiaConfig;

/// The node agent of vgpu.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serves one vendor's backend over standard input and output: the agent calls itself so.
    #[command(hide = true)]
    Backend(Box<ServeArgs>),
    /// Checks a configuration file and the offers in it, and says what is wrong.
    CheckConfig(Box<CheckArgs>),
    /// Serves the node until SIGTERM; SIGHUP reads the configuration again.
    Run(Box<RunArgs>),
}

/// What is checked, and against what.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// The file.
    pub file: PathBuf,
    /// Look at this node's cards too, and tell which parts the layouts would make and unmake; nothing is changed.
    #[arg(long)]
    pub dry_run: bool,
    /// The agent's state, which tells the parts that are in use; it may run meanwhile.
    #[arg(long, default_value = "/var/lib/vgpu", requires = "dry_run")]
    pub state_dir: PathBuf,
    /// Which vendors are looked at.
    #[command(flatten)]
    pub backends: BackendArgs,
}

/// Which backend to serve.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// The vendor.
    pub vendor: String,
    /// The configuration's part on NVIDIA, as JSON.
    #[arg(long, value_name = "JSON")]
    pub nvidia: Option<String>,
    /// Which vendors there are.
    #[command(flatten)]
    pub backends: BackendArgs,
}

impl ServeArgs {
    /// The words by which a child has these settings.
    ///
    /// # Errors
    /// A path that is no text.
    pub(crate) fn again(nvidia: &NvidiaConfig) -> anyhow::Result<[OsString; 2]> {
        let text = serde_json::to_string(nvidia).context("nvidia.driverRoot is no text")?;
        Ok(["--nvidia".into(), text.into()])
    }

    /// The settings that the parent has.
    pub(crate) fn settings(&self) -> anyhow::Result<Settings> {
        let Some(text) = &self.nvidia else { return Ok(Settings::default()) };
        let nvidia: NvidiaConfig = serde_json::from_str(text).context("--nvidia")?;
        Ok(Settings { nvidia: nvidia.options().map_err(anyhow::Error::msg)? })
    }
}

/// How to run.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The configuration file.
    #[arg(long, env = "VGPU_CONFIG")]
    pub config: PathBuf,
    /// The kubelet's directory: its device-plugins folder, which --root-dir of a kubelet does not move, and its
    /// pod-resources socket, unless that is named.
    #[arg(long, default_value = "/var/lib/kubelet")]
    pub kubelet_dir: PathBuf,
    /// The kubelet's pod-resources socket, where its --root-dir is another
    /// [default: pod-resources/kubelet.sock in the kubelet's directory].
    #[arg(long, value_name = "SOCKET")]
    pub pod_resources_socket: Option<PathBuf>,
    /// Where CDI specs are written; the container runtime must read it.
    #[arg(long, default_value = "/var/run/cdi")]
    pub cdi_dir: PathBuf,
    /// The agent's own state: ledger, claim files, sockets. It must be on a disk that survives a reboot,
    /// at the same path on the host.
    #[arg(long, default_value = "/var/lib/vgpu")]
    pub state_dir: PathBuf,
    /// Where `vgpu-hook` lies on the host; a claim that needs it is refused without.
    #[arg(long)]
    pub hook_dir: Option<PathBuf>,
    /// The container runtime's CRI socket [default: containerd's or CRI-O's usual one].
    #[arg(long, value_name = "SOCKET")]
    pub runtime_endpoint: Option<PathBuf>,
    /// Where metrics and health are served, for example 127.0.0.1:9400; not at all without.
    #[arg(long)]
    pub metrics_address: Option<SocketAddr>,
    /// For tests: a claim of this age has no pod any more as soon as the kubelet names it nowhere.
    #[arg(long, value_name = "MILLISECONDS", hide = true)]
    pub absence_ms: Option<u64>,
    /// How logs are written.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Which vendors are served.
    #[command(flatten)]
    pub backends: BackendArgs,
}

impl RunArgs {
    /// Where the kubelet is.
    pub fn kubelet(&self) -> KubeletPaths {
        let mut paths = KubeletPaths::under(&self.kubelet_dir);
        if let Some(socket) = &self.pod_resources_socket {
            paths.pod_resources_socket.clone_from(socket);
        }
        paths
    }

    /// When the kubelet's silence is proof.
    pub(crate) fn absence(&self) -> AbsenceOptions {
        let usual = AbsenceOptions::default();
        self.absence_ms.map_or(usual, |age| AbsenceOptions {
            unbroken: Duration::ZERO,
            apart: Duration::ZERO,
            age: Duration::from_millis(age),
            ..usual
        })
    }
}

/// How logs are written, to standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}
