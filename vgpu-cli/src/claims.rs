//! `vgpu claims`: which pod holds what, since when, in which state.

use std::fmt::Write as _;
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use vgpu_node::ClaimStatus;
use vgpu_plugin::sockets::{ClaimsReply, SocketPaths};

use crate::answer::{Answer, Done};
use crate::failure::Failure;
use crate::table;

/// How long the agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks the node's agent which pod holds what, since when, and in which state.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The agent's state directory.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/vgpu")]
    state_dir: PathBuf,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

/// Asks and tells.
pub(crate) fn run(args: &Args) -> Done {
    let socket = SocketPaths::under(&args.state_dir).claims;
    let away = |e: std::io::Error| {
        Failure::broken(format!("the agent does not answer: {e}"))
            .at(socket.display().to_string())
            .so("is vgpu-plugin running, and is this its --state-dir?")
    };
    let mut stream = UnixStream::connect(&socket).map_err(away)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(away)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(away)?;
    let reply: ClaimsReply = serde_json::from_str(&text).map_err(|e| {
        Failure::broken(format!("the agent's answer is not understood: {e}"))
            .so("use the `vgpu` that came with the agent")
    })?;
    Ok(if args.json { Answer::json(&reply) } else { Answer::text(told(&reply)) })
}

fn told(reply: &ClaimsReply) -> String {
    let mut text = String::new();
    if let Some(trouble) = &reply.trouble {
        let _ = writeln!(text, "the offers are as they were before: {trouble}\n");
    }
    if reply.claims.is_empty() {
        text.push_str("no claim lives\n");
        return text;
    }
    let head =
        ["POD", "CONTAINER", "STATE", "SINCE", "RESOURCE", "CARD", "MECHANISM", "SIZE", "CLAIM"];
    let rows: Vec<[String; 9]> = reply.claims.iter().flat_map(lines).collect();
    text.push_str(&table::table(head, &rows));
    for claim in reply.claims.iter().filter(|c| c.trouble.is_some()) {
        let why = claim.trouble.as_deref().unwrap_or_default();
        let _ = writeln!(text, "{}: {why}", claim.claim);
    }
    for claim in reply.claims.iter().filter(|c| c.every_device) {
        let _ = writeln!(
            text,
            "{}: privileged; its container may open every device of this node, other pods' cards too",
            claim.claim
        );
    }
    text
}

/// One line a grant; a claim for which nothing was made yet has one line too.
fn lines(claim: &ClaimStatus) -> Vec<[String; 9]> {
    let (pod, container) = match &claim.holder {
        Some(holder) => (format!("{}/{}", holder.namespace, holder.pod), holder.container.clone()),
        None => ("?".into(), "?".into()),
    };
    let line = |card: String, mechanism: String, size: String| {
        [
            pod.clone(),
            container.clone(),
            claim.state.clone(),
            ago(claim.since),
            claim.resource.to_string(),
            card,
            mechanism,
            size,
            claim.claim.to_string(),
        ]
    };
    if claim.grants.is_empty() {
        let card = claim.ids.first().map(|id| id.device.to_string()).unwrap_or_default();
        return vec![line(card, String::new(), String::new())];
    }
    let grants = claim.grants.iter();
    grants.map(|g| line(g.device.to_string(), g.scheme.to_string(), g.size.clone())).collect()
}

fn ago(since: SystemTime) -> String {
    let seconds = since.elapsed().unwrap_or_default().as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}
