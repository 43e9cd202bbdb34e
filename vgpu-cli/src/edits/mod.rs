//! `vgpu edits`: what a container would get, as CDI. A dry run: nothing is made on a real card.

mod grants;
mod parse;

use std::collections::BTreeMap;
use std::path::PathBuf;

use vgpu_core::cdi::{self, Kind, RenderOptions, Spec};
use vgpu_core::{
    Backend, Bytes, ClaimId, ComputeShare, ContainerEdits, DeviceId, PartitionId, ProfileId,
    TrustDomain, Vendor,
};
use vgpu_plugin::sockets::SocketPaths;

use crate::answer::{Answer, Done};
use crate::backends::{Name, Sources};
use crate::failure::Failure;

pub(crate) use crate::edits::parse::share;

/// Shows what a container would get, as the CDI spec that would be written.
///
/// A dry run: nothing is written, and nothing is made on a real card. Shares without a driver object
/// (whole, time-slice, mps) can be shown for any card; of schemes that keep an object (mig, smlu, vdcu),
/// a part that is there, by `--partition`. On `--backend mock` the part is made on the scripted machine,
/// which ends with this command.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true)
    .args(["whole", "partition", "scheme", "memory", "compute", "profile"]))]
pub(crate) struct Args {
    /// Whose card.
    #[arg(long, value_name = "NAME", value_enum)]
    backend: Name,
    #[command(flatten)]
    sources: Sources,
    /// This card [default: the planner chooses].
    #[arg(long, value_name = "ID")]
    device: Option<DeviceId>,
    /// Cards of this vendor, on a machine of several.
    #[arg(long, value_name = "NAME", value_parser = parse::vendor)]
    vendor: Option<Vendor>,
    /// On so many cards, each once.
    #[arg(long, value_name = "N", default_value_t = 1)]
    count: usize,
    /// A card alone.
    #[arg(long, conflicts_with_all = ["partition", "scheme", "memory", "compute", "profile"])]
    whole: bool,
    /// A part that is there.
    #[arg(long, value_name = "ID",
        conflicts_with_all = ["scheme", "memory", "compute", "profile", "device", "vendor", "count"])]
    partition: Option<PartitionId>,
    /// A share or part under this scheme [default: the strongest that serves].
    #[arg(long, value_name = "SCHEME", value_parser = parse::scheme)]
    scheme: Option<vgpu_core::Scheme>,
    /// At least so much memory, 10Gi.
    #[arg(long, value_name = "SIZE", conflicts_with = "profile")]
    memory: Option<Bytes>,
    /// At least this share of the card's compute, 25% or 30/120.
    #[arg(long, value_name = "SHARE", value_parser = parse::share, conflicts_with = "profile")]
    compute: Option<ComputeShare>,
    /// A part of this profile, by the vendor's name.
    #[arg(long, value_name = "NAME")]
    profile: Option<ProfileId>,
    /// The claim's id, which becomes the name of the CDI device.
    #[arg(long, value_name = "ID", default_value = "dry-run")]
    claim: ClaimId,
    /// Beside whom the claim may run.
    #[arg(long, value_name = "NAME", default_value = "default")]
    domain: TrustDomain,
    /// The kind of the CDI device.
    #[arg(long, value_name = "VENDOR/CLASS", default_value = "vgpu.dev/claim")]
    kind: Kind,
    /// Where vgpu-hook lies on the host.
    #[arg(long, value_name = "FILE", default_value = "/opt/vgpu/bin/vgpu-hook")]
    hook: PathBuf,
    /// The agent's state directory, with its socket and a folder for each claim.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/vgpu")]
    state_dir: PathBuf,
    /// Instead of the spec, list what in it gives a tenant more than it may need.
    #[arg(long)]
    audit: bool,
}

/// Plans, asks the backend, renders.
pub(crate) fn run(args: &Args) -> Done {
    args.sources.check(&[args.backend])?;
    if args.count == 0 {
        return Err(Failure::input("no card is asked for")
            .at("--count 0")
            .so("ask for at least 1"));
    }
    let backend = args.sources.open(args.backend)?;
    let edits = grants::edits(args, &*backend)?;
    let spec = spec(args, &edits)?;
    if args.audit {
        return Ok(audit(&spec));
    }
    let mut answer = Answer::json(&spec);
    answer.notes = notes(args, &*backend, &edits)?;
    Ok(answer)
}

fn spec(args: &Args, edits: &ContainerEdits) -> Result<Spec, Failure> {
    let options = RenderOptions {
        kind: args.kind.clone(),
        name: args.claim.clone(),
        hook: Some(args.hook.clone()),
        socket: SocketPaths::under(&args.state_dir).hook,
        claim_dir: claim_dir(args),
        annotations: BTreeMap::new(),
    };
    Ok(cdi::render(edits, &options)?)
}

fn audit(spec: &Spec) -> Answer {
    let found = cdi::audit(spec);
    if found.is_empty() {
        return Answer::text("nothing in it gives a tenant more than it needs\n");
    }
    Answer::text(found.join("\n") + "\n")
}

/// What the spec does not say by itself; on stderr, so that stdout is the file.
fn notes(
    args: &Args,
    backend: &dyn Backend,
    edits: &ContainerEdits,
) -> Result<Vec<String>, Failure> {
    let name = cdi::file_name(&args.kind, &args.claim)?;
    let mut notes = vec![format!("dry run: the file would be {name} in /var/run/cdi")];
    for (path, text) in cdi::files(edits, &claim_dir(args)) {
        notes.push(format!("with {} beside it, {} bytes", path.display(), text.len()));
    }
    let missing = backend.info().missing_symbols;
    if !missing.is_empty() {
        notes.push(format!("the library lacks {}; some schemes are not there", missing.join(" ")));
    }
    Ok(notes)
}

fn claim_dir(args: &Args) -> PathBuf {
    args.state_dir.join("claims").join(args.claim.as_str())
}
