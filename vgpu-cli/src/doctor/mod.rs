//! `vgpu doctor`: whether a node is ready for vgpu, and whether vgpu is alone on it.
//!
//! Each topic is read by a thin reader and judged by a function over what was read. Nothing is changed, and no trouble
//! stops the others from being found.

mod agent;
mod cards;
mod catalogue;
mod cdi;
mod finding;
mod hami;
mod host;
mod mps;
mod owners;
mod places;
mod plugins;
mod processes;
mod reader;
mod record;
mod report;
mod runtimes;
#[cfg(test)]
mod tests;
mod text;
mod tree;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vgpu_kubelet_plugin::KubeletPaths;

use crate::answer::{Answer, Done};
use crate::backends::{Name, Sources};
use crate::devices::{Found, look};
use crate::doctor::cards::Vendor;
use crate::doctor::finding::{Finding, Severity, Topic};
use crate::doctor::places::Places;
use crate::doctor::reader::Reader;
use crate::doctor::report::Report;
use crate::doctor::tree::Tree;
use crate::failure::Failure;

/// Checks this node: other plugins, the runtime, specs, cards, the host and the agent.
///
/// It reads and changes nothing; run it as root, before vgpu is installed and after. Each finding has a name that
/// docs/doctor.md explains. The exit code is 1 if one is an error, else 0.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this vendor's cards are vgpu's here; may be given again [default: nvidia, hygon, cambricon].
    #[arg(long = "backend", value_name = "NAME", value_enum)]
    backends: Vec<Name>,
    #[command(flatten)]
    sources: Sources,
    /// The kubelet's directory, on the host.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet")]
    kubelet_dir: PathBuf,
    /// The kubelet's pod-resources socket, where its --root-dir is another [default: in the kubelet's directory].
    #[arg(long, value_name = "SOCKET")]
    pod_resources_socket: Option<PathBuf>,
    /// Where the agent writes CDI specs, on the host.
    #[arg(long, value_name = "DIR", default_value = "/var/run/cdi")]
    cdi_dir: PathBuf,
    /// The agent's state directory, on the host.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/vgpu")]
    state_dir: PathBuf,
    /// Where `vgpu-hook` lies on the host; without, what the agent says and specs name is looked at.
    #[arg(long, value_name = "DIR")]
    hook_dir: Option<PathBuf>,
    /// The container runtime's CRI socket, on the host [default: containerd's or CRI-O's usual one].
    #[arg(long, value_name = "SOCKET")]
    runtime_endpoint: Option<PathBuf>,
    /// Answer in JSON, in the form of docs/schemas/doctor.json.
    #[arg(long)]
    json: bool,
    /// Warnings count as errors.
    #[arg(long)]
    strict: bool,
    /// How many seconds a vendor may take to answer before it counts as broken.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

impl Args {
    fn places(&self) -> Places {
        let mut kubelet = KubeletPaths::under(&self.kubelet_dir);
        if let Some(socket) = &self.pod_resources_socket {
            kubelet.pod_resources_socket.clone_from(socket);
        }
        let look = &self.sources.look;
        let backends = if self.backends.is_empty() { &Name::REAL[..] } else { &self.backends };
        Places {
            tree: Tree::new(&look.host_root),
            on_host: look.host_root == Path::new("/"),
            kubelet,
            kubelet_dir: self.kubelet_dir.clone(),
            cdi_dir: self.cdi_dir.clone(),
            state_dir: self.state_dir.clone(),
            hook_dir: self.hook_dir.clone(),
            runtime_endpoint: self.runtime_endpoint.clone(),
            mps_dir: look.mps_dir.clone().unwrap_or_else(|| self.state_dir.join("mps")),
            vendors: backends.to_vec(),
        }
    }
}

/// Looks at everything and tells.
pub(crate) fn run(args: &Args) -> Done {
    let places = args.places();
    if places.vendors.iter().collect::<BTreeSet<_>>().len() < places.vendors.len() {
        return Err(Failure::input("a backend is named twice")
            .at("--backend")
            .so("name each one once"));
    }
    args.sources.check(&places.vendors)?;
    let timeout = Duration::from_secs(args.timeout);
    let broken = |name: Name, error| Vendor::of(Found::broken(name.to_string(), error));
    let vendors = || look::each(&places.vendors, &args.sources, timeout, cards::ask, broken);
    let report = Report::of(examine(&places, vendors)?);
    let worst = if args.strict { Severity::Warning } else { Severity::Error };
    let bad = report.worst() >= Some(worst);
    let answer = if args.json { Answer::json(&report) } else { Answer::text(text::of(&report)) };
    Ok(answer.exits(u8::from(bad)))
}

/// Every finding. `vendors` asks the backends.
fn examine(
    places: &Places,
    vendors: impl FnOnce() -> Result<Vec<Vendor>, Failure>,
) -> Result<Vec<Finding>, Failure> {
    let reader = |topic| Reader::new(&places.tree, topic);
    let mut about_agent = reader(Topic::Agent);
    // Claims come and go meanwhile: what is of one that was known before or after is of a claim.
    let first = record::ask(places);
    let before = record::known(&mut about_agent, places, &first);
    about_agent.troubles.clear();

    let mut about_plugins = reader(Topic::Plugins);
    let plugins = plugins::read(&mut about_plugins, places);
    let mut about_runtime = reader(Topic::Runtime);
    let runtimes = runtimes::read(&mut about_runtime, runtimes::ask(places));
    let mut about_cdi = reader(Topic::Cdi);
    let specs = cdi::read(&mut about_cdi, places);
    let mut about_cards = reader(Topic::Cards);
    let processes = processes::read(&mut about_cards, &[agent::PROGRAM, mps::PROGRAM]);
    let vendors = vendors()?;
    let mut about_hami = reader(Topic::Hami);
    let hami = hami::read(&mut about_hami);
    let mut about_host = reader(Topic::Host);
    let ours = specs.iter().filter(|spec| spec.is_ours());
    let hooks = ours.flat_map(|spec| spec.hooks.iter().cloned()).collect();
    let host = host::read(&mut about_host, places, &hooks, &first);

    let asked = record::ask(places);
    let known = before.and(record::known(&mut about_agent, places, &asked));
    let mps = mps::judge(&processes, &places.mps_dir);
    let facts = agent::Facts { agent: asked, processes, sockets: plugins.sockets.clone() };
    let found = [
        plugins::judge(&plugins, places, &known.resources),
        runtimes::judge(&runtimes, places),
        cdi::judge(&specs, &known, places),
        cards::judge(&vendors, &known),
        mps,
        hami::judge(&hami),
        host::judge(&host, places),
        agent::judge(&facts, places),
    ];
    let readers =
        [about_plugins, about_runtime, about_cdi, about_cards, about_hami, about_host, about_agent];
    let troubles = readers.into_iter().flat_map(|reader| reader.troubles);
    Ok(found.into_iter().flatten().chain(troubles).collect())
}
