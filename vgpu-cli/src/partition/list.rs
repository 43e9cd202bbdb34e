//! `vgpu partition list`: what the drivers hold, ours or not.

use vgpu_core::{Holders, Partition, PartitionState, Probe};

use crate::answer::{Answer, Done};
use crate::backends::{Name, Sources};
use crate::table;

/// Lists the parts that the drivers hold on this machine's cards, whoever made them.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this backend; may be given again [default: nvidia, hygon, cambricon].
    #[arg(long = "backend", value_name = "NAME", value_enum)]
    backends: Vec<Name>,
    #[command(flatten)]
    sources: Sources,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

/// Asks each backend that is there.
pub(crate) fn run(args: &Args) -> Done {
    let names = if args.backends.is_empty() { &Name::REAL[..] } else { &args.backends };
    args.sources.check(names)?;
    let mut parts: Vec<Partition> = Vec::new();
    let mut notes: Vec<String> = Vec::new();
    for name in names {
        let (factory, host) = args.sources.factory(*name)?;
        let backend = match factory.probe(&host) {
            Probe::Ready(backend) => backend,
            Probe::Absent(_) => continue,
            Probe::Broken(error) => {
                notes.push(format!("{name} is broken: {error}"));
                continue;
            }
        };
        for device in backend.scan()?.devices {
            match backend.partitions(&device.id) {
                Ok(listed) => parts.extend(listed),
                Err(error) => notes.push(error.to_string()),
            }
        }
    }
    let broken = !notes.is_empty();
    let answer = match args.json {
        true => Answer::json(&parts),
        false => Answer::text(text(&parts)),
    };
    Ok(Answer { notes, ..answer }.exits(u8::from(broken)))
}

fn text(parts: &[Partition]) -> String {
    if parts.is_empty() {
        return "no card holds a part\n".to_owned();
    }
    let head = ["PART", "SIZE", "STATE", "HELD BY", "CLAIM"];
    let row = |part: &Partition| {
        [
            part.id.to_string(),
            part.size.to_string(),
            match part.state {
                PartitionState::Broken => "broken".to_owned(),
                PartitionState::Complete => "complete".to_owned(),
                PartitionState::Half => "half".to_owned(),
            },
            match part.holders {
                Holders::Processes(n) => format!("{n} processes"),
                Holders::Unknown => "unknown".to_owned(),
            },
            part.tag.as_ref().map(ToString::to_string).unwrap_or_default(),
        ]
    };
    table::table(head, &parts.iter().map(row).collect::<Vec<_>>())
}
