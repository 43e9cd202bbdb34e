//! What a container would get of a real card, as lines for a script: `show_edits [CARD] [LIBRARY]`.
//!
//! `node PATH MAJOR MINOR`, `mount HOST CONTAINER`, `env KEY=VALUE`, `link TARGET LINK`, `folder PATH`, parted by tabs. For
//! `examples/on_card/with_edits.sh`.

use std::path::PathBuf;
use std::process::ExitCode;

use vgpu_backend_nvidia::NvidiaFactory;
use vgpu_core::edits::HookAction;
use vgpu_core::{BackendFactory, ClaimId, ContainerEdits, Grant, Host, Probe, Target};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let card = args.next().and_then(|text| text.parse().ok()).unwrap_or(0);
    match shown(card, args.next().map(PathBuf::from)) {
        Ok(edits) => {
            print(&edits);
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn shown(card: usize, library: Option<PathBuf>) -> Result<ContainerEdits, String> {
    let host = Host { root: PathBuf::from("/"), library };
    let backend = match NvidiaFactory::default().probe(&host) {
        Probe::Ready(backend) => backend,
        other => return Err(format!("no NVIDIA backend: {other:?}")),
    };
    let devices = backend.scan().map_err(|e| e.to_string())?.devices;
    let device = devices.get(card).ok_or_else(|| format!("there is no card {card}"))?;
    let claim = ClaimId::new("on-card").map_err(|e| e.to_string())?;
    let target = Target { claim, grant: Grant::Whole(device.id.clone()) };
    backend.edits(&[target]).map_err(|e| e.to_string())
}

#[expect(clippy::print_stdout, reason = "the lines are what this program is for")]
fn print(edits: &ContainerEdits) {
    for node in &edits.nodes {
        if let Some((major, minor)) = node.number {
            println!("node\t{}\t{major}\t{minor}", node.path.display());
        }
    }
    for mount in &edits.mounts {
        println!("mount\t{}\t{}", mount.host.display(), mount.container.display());
    }
    for (key, value) in &edits.env {
        println!("env\t{key}={value}");
    }
    for hook in &edits.hooks {
        match &hook.action {
            HookAction::Link(links) => links
                .iter()
                .for_each(|l| println!("link\t{}\t{}", l.target.display(), l.link.display())),
            HookAction::LoaderCache(folders) => {
                folders.iter().for_each(|folder| println!("folder\t{}", folder.display()));
            }
            HookAction::Confine(_) => {}
        }
    }
}
