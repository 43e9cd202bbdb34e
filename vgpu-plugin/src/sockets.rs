//! Two sockets of the agent: one for its hook program, root only, and one to read claims from.
//!
//! Both speak one line of JSON in, one line out.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use vgpu_core::id::ClaimId;
use vgpu_core::{Confinement, Container, Partition, PartitionId, Size};
use vgpu_kubelet_plugin::{PluginHost, Registration};
use vgpu_node::{ClaimStatus, Node};

use crate::hook::Hook;
use crate::metrics::Metrics;
use crate::notice::{self, Notice};

/// The version of the root-only socket's lines.
pub const HOOK_VERSION: u32 = 1;

/// A line is short; whoever sends more is cut.
const LONGEST_LINE: u64 = 64 * 1024;

/// How long a peer may take to send its line.
const PATIENCE: Duration = Duration::from_secs(10);

/// The agent's two sockets, below its state directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketPaths {
    /// For `vgpu-hook` and `vgpu partition resize`; mode 0600.
    pub hook: PathBuf,
    /// For `vgpu claims`; mode 0666, read-only by nature.
    pub claims: PathBuf,
}

impl SocketPaths {
    /// The usual names below a directory.
    pub fn under(dir: &Path) -> Self {
        Self { hook: dir.join("hook.sock"), claims: dir.join("claims.sock") }
    }
}

/// What `vgpu claims` gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimsReply {
    /// Every claim that lives, oldest first.
    pub claims: Vec<ClaimStatus>,
    /// Why the configuration could not be laid over the cards, if so.
    pub trouble: Option<String>,
    /// The agent's version; absent from one that does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// How each resource stands with the kubelet: `registered`, `waiting: …` or `stopped`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<BTreeMap<String, String>>,
    /// The hook program that its specs name, as it was at its start; absent where it has none, or does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<Hook>,
}

#[derive(Debug, Deserialize)]
struct HookRequest {
    version: u32,
    op: String,
    claim: ClaimId,
    cgroup: PathBuf,
    pid: u32,
    pid_namespace: u64,
    /// As in [`Notice`]; an older hook does not look.
    #[serde(default)]
    every_device: bool,
    #[serde(default)]
    container: Option<String>,
}

/// An admin's line on the root-only socket: change what a living part holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResizeRequest {
    /// The version of the line, [`HOOK_VERSION`].
    pub version: u32,
    /// `resize`.
    pub op: String,
    /// The part.
    pub part: PartitionId,
    /// What it shall hold; what is left out stays.
    pub size: Size,
}

impl ResizeRequest {
    /// The line for a part and a size.
    pub fn new(part: PartitionId, size: Size) -> Self {
        Self { version: HOOK_VERSION, op: "resize".into(), part, size }
    }
}

/// What the root-only socket answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookReply {
    /// Whether it was done.
    pub ok: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The part as it is now, after a resize.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Partition>,
}

/// Serves both sockets as long as the tasks live.
pub(crate) fn serve(
    tasks: &mut JoinSet<()>,
    paths: &SocketPaths,
    node: &Arc<Node>,
    host: &Arc<PluginHost>,
    metrics: &Arc<Metrics>,
    program: Option<Hook>,
) -> anyhow::Result<()> {
    let hooks = bind(&paths.hook, 0o600)?;
    let claims = bind(&paths.claims, 0o666)?;
    let (node, metrics) = (node.clone(), metrics.clone());
    let (reader, host) = (node.clone(), host.clone());
    tasks.spawn(accept(hooks, move |stream| hook(stream, node.clone(), metrics.clone())));
    tasks.spawn(accept(claims, move |stream| {
        tell(stream, reader.clone(), host.clone(), program.clone())
    }));
    Ok(())
}

/// Removes the sockets; for an orderly end.
pub(crate) fn remove(paths: &SocketPaths) {
    for path in [&paths.hook, &paths.claims] {
        if let Err(error) = std::fs::remove_file(path) {
            tracing::debug!(path = %path.display(), %error, "cannot remove a socket");
        }
    }
}

/// Binds in the place of whatever an earlier run left: the ledger's lock says that it is gone.
fn bind(path: &Path, mode: u32) -> anyhow::Result<UnixListener> {
    let what = || format!("cannot listen on {}", path.display());
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(what)?;
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).with_context(what)?,
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(what)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).with_context(what)?;
    Ok(listener)
}

async fn accept<F, A>(listener: UnixListener, answer: F)
where
    F: Fn(UnixStream) -> A,
    A: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    // Whoever is being answered is let go with this task, and with him the node.
    let mut peers = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = peers.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                let answering = answer(stream);
                peers.spawn(async move {
                    if let Err(error) = answering.await {
                        tracing::warn!(error = format!("{error:#}"), "a peer got no answer");
                    }
                });
            }
            Err(error) => {
                // Out of files, say: others will be freed.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn hook(stream: UnixStream, node: Arc<Node>, metrics: Arc<Metrics>) -> anyhow::Result<()> {
    let uid = stream.peer_cred()?.uid();
    let mut stream = BufReader::new(stream);
    let asked = match tokio::time::timeout(PATIENCE, line(&mut stream)).await {
        Ok(asked) => asked.and_then(|text| Request::parse(&text)),
        Err(_elapsed) => Err(format!("the agent got no line within {} s", PATIENCE.as_secs())),
    };
    // What is only told confines nothing.
    let counts = !matches!(asked, Ok(Request::Notice(_)));
    let outcome = match asked {
        Err(why) => Err(why),
        Ok(_) if uid != rustix::process::geteuid().as_raw() && uid != 0 => {
            Err(format!("user {uid} may not confine containers"))
        }
        Ok(Request::Notice(told)) => notice::take(node, told).await.map(|()| None),
        Ok(Request::Resize(ask)) => resize(node, ask).await.map(Some),
        Ok(Request::Confine(ask)) if ask.version != HOOK_VERSION || ask.op != "confine" => {
            Err(format!(
                "the agent speaks version {HOOK_VERSION} of confine, not {} of {}",
                ask.version, ask.op
            ))
        }
        Ok(Request::Confine(ask)) => confine(node, ask).await.map(|()| None),
    };
    if counts {
        metrics.hook_call(outcome.is_ok());
    }
    let reply = match outcome {
        Ok(part) => HookReply { ok: true, error: None, part },
        Err(why) => HookReply { ok: false, error: Some(why), part: None },
    };
    send(&mut stream, &serde_json::to_string(&reply)?).await
}

/// A line of the root-only socket.
#[derive(Debug)]
enum Request {
    Confine(HookRequest),
    Notice(Notice),
    Resize(ResizeRequest),
}

impl Request {
    fn parse(text: &str) -> Result<Self, String> {
        let bad =
            |e: serde_json::Error| format!("the agent does not understand the hook's line: {e}");
        let line: serde_json::Value = serde_json::from_str(text).map_err(bad)?;
        match (line["op"].as_str(), line["version"].as_u64()) {
            (Some("resize"), Some(version)) if version == u64::from(HOOK_VERSION) => {
                serde_json::from_value(line).map(Self::Resize).map_err(bad)
            }
            (Some("notice"), Some(version)) if version == u64::from(HOOK_VERSION) => {
                serde_json::from_value(line).map(Self::Notice).map_err(bad)
            }
            _ => serde_json::from_value(line).map(Self::Confine).map_err(bad),
        }
    }
}

async fn resize(node: Arc<Node>, ask: ResizeRequest) -> Result<Partition, String> {
    let done = tokio::task::spawn_blocking(move || node.resize(&ask.part, &ask.size));
    match done.await {
        Err(e) => Err(format!("resizing ended badly: {e}")),
        Ok(outcome) => outcome.map_err(|e| e.to_string()),
    }
}

async fn confine(node: Arc<Node>, ask: HookRequest) -> Result<(), String> {
    let container =
        Container { cgroup: ask.cgroup, pid: ask.pid, pid_namespace: ask.pid_namespace };
    let claim = ask.claim;
    let beyond =
        ask.every_device.then(|| Notice { claim: claim.clone(), container: ask.container });
    let confining = node.clone();
    let done = tokio::task::spawn_blocking(move || {
        let outcome = confining.confine(&claim, &container);
        (claim, outcome)
    });
    match done.await {
        Err(e) => Err(format!("confining ended badly: {e}")),
        Ok((claim, Err(e))) => {
            tracing::warn!(%claim, error = %e, "refused a container");
            Err(e.to_string())
        }
        Ok((claim, Ok(done))) => {
            if done == Confinement::Set {
                tracing::info!(%claim, "confined");
            }
            if let Some(told) = beyond {
                // Its limit is set; what is only told must not end the start.
                let _ = notice::take(node, told).await;
            }
            Ok(())
        }
    }
}

async fn tell(
    stream: UnixStream,
    node: Arc<Node>,
    host: Arc<PluginHost>,
    hook: Option<Hook>,
) -> anyhow::Result<()> {
    let resources = host.registrations().into_iter();
    let reply = ClaimsReply {
        claims: node.claims(),
        trouble: node.trouble().map(|e| e.to_string()),
        version: Some(env!("CARGO_PKG_VERSION").into()),
        resources: Some(resources.map(|(name, how)| (name.to_string(), told(&how))).collect()),
        hook,
    };
    send(&mut BufReader::new(stream), &serde_json::to_string(&reply)?).await
}

/// How a resource stands with the kubelet, in a few words.
pub(crate) fn told(registration: &Registration) -> String {
    match registration {
        Registration::Serving => "registered".to_owned(),
        Registration::Waiting { reason } => format!("waiting: {reason}"),
        _ => "stopped".to_owned(),
    }
}

/// One line; the error is for the peer.
async fn line(stream: &mut BufReader<UnixStream>) -> Result<String, String> {
    let mut text = String::new();
    match stream.take(LONGEST_LINE).read_line(&mut text).await {
        Ok(_) if text.ends_with('\n') => Ok(text),
        Ok(0) => Err("the agent got no line".into()),
        Ok(got) if got as u64 == LONGEST_LINE => {
            Err(format!("the agent reads lines of at most {LONGEST_LINE} bytes"))
        }
        Ok(_) => Err("the agent got half a line".into()),
        Err(e) => Err(format!("the agent cannot read the line: {e}")),
    }
}

async fn send(stream: &mut BufReader<UnixStream>, text: &str) -> anyhow::Result<()> {
    stream.get_mut().write_all(text.as_bytes()).await?;
    stream.get_mut().write_all(b"\n").await?;
    stream.get_mut().shutdown().await?;
    Ok(())
}
