//! `vgpu partition resize`: by the agent where one runs, so that its ledger stays true.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vgpu_core::{BackendExt as _, Bytes, ComputeShare, Partition, PartitionId, Size};
use vgpu_node::claim::PREFIX;
use vgpu_plugin::sockets::{HookReply, ResizeRequest, SocketPaths};

use crate::answer::{Answer, Done};
use crate::backends::{Name, Sources};
use crate::edits::share;
use crate::failure::Failure;

/// How long the agent may take: the driver's call, and its ledger.
const PATIENCE: Duration = Duration::from_secs(60);

/// Changes what a living part holds, while its container runs.
///
/// The node's agent does it, so that what it gives out next is right; it needs root. Where no agent runs, a part that
/// no agent made can be changed with `--without-agent`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("size").required(true).multiple(true).args(["memory", "compute"]))]
pub(crate) struct Args {
    /// The part, as `vgpu partition list` names it.
    #[arg(value_name = "PART")]
    part: PartitionId,
    /// So much memory, 10Gi; without it the memory stays.
    #[arg(long, value_name = "SIZE")]
    memory: Option<Bytes>,
    /// This share of the card's compute, 25%; without it the share stays.
    #[arg(long, value_name = "SHARE", value_parser = share)]
    compute: Option<ComputeShare>,
    /// The agent's state directory.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/vgpu")]
    state_dir: PathBuf,
    /// Ask the driver itself; refused while an agent runs, and for parts that an agent made.
    #[arg(long, requires = "backend")]
    without_agent: bool,
    /// Whose card, with `--without-agent`.
    #[arg(long, value_name = "NAME", value_enum)]
    backend: Option<Name>,
    #[command(flatten)]
    sources: Sources,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

/// Asks the agent, or the driver.
pub(crate) fn run(args: &Args) -> Done {
    let size = Size { compute: args.compute, memory: args.memory };
    let socket = SocketPaths::under(&args.state_dir).hook;
    let part = match UnixStream::connect(&socket) {
        Ok(_) if args.without_agent => {
            return Err(Failure::input("an agent runs here and would not know of it")
                .at(socket.display().to_string())
                .so("leave --without-agent out"));
        }
        Ok(stream) => by_agent(stream, &socket, &args.part, size)?,
        Err(_) if args.without_agent => by_driver(args, size)?,
        Err(e) => return Err(no_agent(&socket, &e)),
    };
    Ok(match args.json {
        true => Answer::json(&part),
        false => Answer::text(format!("{} holds {} now\n", part.id, part.size)),
    })
}

fn by_agent(
    stream: UnixStream,
    socket: &Path,
    part: &PartitionId,
    size: Size,
) -> Result<Partition, Failure> {
    let away = |e: io::Error| no_agent(socket, &e);
    stream.set_read_timeout(Some(PATIENCE)).map_err(away)?;
    let request = ResizeRequest::new(part.clone(), size);
    let line = serde_json::to_string(&request).expect("a request is plain data") + "\n";
    (&stream).write_all(line.as_bytes()).map_err(away)?;
    let mut text = String::new();
    BufReader::new(&stream).read_line(&mut text).map_err(away)?;
    let reply: HookReply = serde_json::from_str(&text).map_err(|e| {
        Failure::broken(format!("the agent's answer is not understood: {e}"))
            .so("use the `vgpu` that came with the agent")
    })?;
    match (reply.part, reply.error) {
        (Some(part), _) if reply.ok => Ok(part),
        (_, why) => Err(Failure::broken(why.unwrap_or_else(|| "the agent refused".into()))),
    }
}

fn by_driver(args: &Args, size: Size) -> Result<Partition, Failure> {
    let Some(name) = args.backend else {
        return Err(Failure::input("it is not said whose card").so("add --backend NAME"));
    };
    args.sources.check(&[name])?;
    let backend = args.sources.open(name)?;
    let before = backend.partition(&args.part)?;
    if before.tag.as_ref().is_some_and(|tag| tag.as_str().starts_with(PREFIX)) {
        return Err(Failure::broken(
            "an agent made the part, and its ledger has the size that it gave",
        )
        .at(args.part.to_string())
        .so("start the agent and leave --without-agent out"));
    }
    let size = Size {
        compute: size.compute.or(before.size.compute),
        memory: size.memory.or(before.size.memory),
    };
    Ok(backend.resize(&args.part, &size)?)
}

fn no_agent(socket: &Path, error: &io::Error) -> Failure {
    Failure::broken(format!("the agent does not answer: {error}"))
        .at(socket.display().to_string())
        .so("is vgpu-plugin running, is this its --state-dir, are you root? For a part that no agent made, add \
             --without-agent --backend NAME")
}
