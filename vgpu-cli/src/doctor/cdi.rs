//! CDI specs: those of others for the same nodes, and ours that nobody holds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use vgpu_plugin::agent::CDI_KIND;

use crate::doctor::catalogue::Check;
use crate::doctor::finding::{Finding, Topic};
use crate::doctor::owners::of_node;
use crate::doctor::places::Places;
use crate::doctor::reader::Reader;
use crate::doctor::record::Known;

/// The folders that every runtime reads.
const USUAL: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// A spec as far as it matters here; other fields are other programs' business.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    kind: String,
    #[serde(default)]
    devices: Vec<Device>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    name: String,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Edits {
    // Some writers say null for an empty list.
    #[serde(default)]
    device_nodes: Option<Vec<Node>>,
    #[serde(default)]
    hooks: Option<Vec<Hook>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    path: String,
    host_path: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
struct Hook {
    path: String,
}

/// A spec that is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) file: PathBuf,
    pub(crate) kind: String,
    /// Its devices' names.
    pub(crate) names: Vec<String>,
    /// Nodes on the host, of all its devices.
    pub(crate) nodes: BTreeSet<String>,
    /// Programs that it has the runtime call.
    pub(crate) hooks: BTreeSet<PathBuf>,
}

impl Spec {
    pub(crate) fn is_ours(&self) -> bool {
        self.kind == CDI_KIND
    }
}

/// Every spec in the usual folders and in the agent's.
pub(crate) fn read(reader: &mut Reader<'_>, places: &Places) -> Vec<Spec> {
    let mut folders: Vec<PathBuf> = USUAL.iter().map(PathBuf::from).collect();
    folders.push(places.cdi_dir.clone());
    // The same folder by two names is one.
    let mut seen = BTreeSet::new();
    folders.retain(|folder| seen.insert(places.tree.real(folder)));
    let paths: Vec<PathBuf> = folders.iter().flat_map(|folder| reader.paths(folder)).collect();
    paths.iter().filter_map(|path| spec(reader, path)).collect()
}

fn spec(reader: &mut Reader<'_>, path: &Path) -> Option<Spec> {
    let file: File = match path.extension().and_then(|e| e.to_str()) {
        Some("json") => reader.json(path)?,
        Some("yaml") => reader.yaml(path)?,
        // Runtimes pass over all others.
        _ => return None,
    };
    let mut spec = Spec { file: path.to_owned(), kind: file.kind, ..Spec::default() };
    let mut take = |edits: Edits| {
        let nodes = edits.device_nodes.into_iter().flatten();
        let on_host =
            |node: Node| node.host_path.filter(|path| !path.is_empty()).unwrap_or(node.path);
        spec.nodes.extend(nodes.map(on_host));
        spec.hooks.extend(edits.hooks.into_iter().flatten().map(|hook| PathBuf::from(hook.path)));
    };
    take(file.container_edits);
    for device in file.devices {
        take(device.container_edits);
        spec.names.push(device.name);
    }
    Some(spec)
}

/// Who else hands the same nodes out, and what of ours is out of step with the agent.
pub(crate) fn judge(specs: &[Spec], known: &Known, places: &Places) -> Vec<Finding> {
    let (ours, others): (Vec<&Spec>, Vec<&Spec>) = specs.iter().partition(|spec| spec.is_ours());
    let held: BTreeSet<&String> =
        ours.iter().flat_map(|spec| &spec.nodes).filter(|node| of_node(node).is_some()).collect();
    let mut found: Vec<Finding> =
        others.iter().filter_map(|spec| of_other(spec, &held, places)).collect();
    found.extend(twice(&ours));
    found.extend(out_of_step(&ours, known));
    if found.is_empty() {
        let what =
            "no other spec names the nodes of cards, and ours are those of the claims that live";
        found.push(Finding::new(Check::Fine(Topic::Cdi), what));
    }
    found
}

fn of_other(spec: &Spec, held: &BTreeSet<&String>, places: &Places) -> Option<Finding> {
    let cards: Vec<&String> = spec
        .nodes
        .iter()
        .filter(|node| of_node(node).is_some_and(|vendor| places.serves(vendor)))
        .collect();
    let first = cards.first()?;
    let at = spec.file.display();
    if let Some(shared) = cards.iter().find(|node| held.contains(**node)) {
        let what = format!(
            "{} names {shared} too, which a claim of ours holds: whoever asks for {} shares that card",
            spec.kind, spec.kind
        );
        let remedy =
            "remove the file, unless it is for administrators alone; vgpu does not need it";
        return Some(Finding::new(Check::SharedNode, what).at(&at).so(remedy));
    }
    let more = match cards.len() {
        1 => String::new(),
        n => format!(" and {} more nodes", n - 1),
    };
    let what = format!(
        "{} names {first}{more}: whoever may ask the runtime for it gets the card beside vgpu",
        spec.kind
    );
    let remedy =
        "keep it for administrators alone (`docker --device`, annotations), or remove the file";
    Some(Finding::new(Check::OtherSpec, what).at(&at).so(remedy))
}

/// A device in two files of one folder is usable from neither; in two folders the later one wins.
fn twice(ours: &[&Spec]) -> Vec<Finding> {
    let mut files: BTreeMap<_, Vec<&Path>> = BTreeMap::new();
    for spec in ours {
        for name in &spec.names {
            files.entry((spec.file.parent(), name)).or_default().push(&spec.file);
        }
    }
    let of = |((_folder, name), files): ((_, &String), Vec<&Path>)| {
        let [first, second, ..] = files[..] else { return None };
        let what = format!(
            "{CDI_KIND}={name} is in {} too: a runtime takes it from neither",
            second.display()
        );
        let remedy = "two agents write specs, or a file was copied; remove the one that `vgpu claims` does not know";
        Some(Finding::new(Check::TwoSpecs, what).at(first.display()).so(remedy))
    };
    files.into_iter().filter_map(of).collect()
}

fn out_of_step(ours: &[&Spec], known: &Known) -> Vec<Finding> {
    let Some(claims) = &known.claims else {
        let Some(spec) = ours.first() else { return Vec::new() };
        let what = format!(
            "{} specs of ours are there, and neither agent nor ledger says whose they are",
            ours.len()
        );
        let remedy = "give the agent's --state-dir, or run as root";
        return vec![Finding::new(Check::NotCompared, what).at(spec.file.display()).so(remedy)];
    };
    let mut found = Vec::new();
    let mut published = BTreeSet::new();
    for spec in ours {
        published.extend(spec.names.iter());
        let stray = spec.names.iter().find(|name| !claims.contains_key(name.as_str()));
        if let Some(name) = stray {
            let what = format!("a spec of ours is of no claim that lives: {name}");
            let remedy = match known.by_agent {
                true => {
                    "the agent removes such specs at its start: restart it; or it is of another agent"
                }
                false => "start the agent: it removes such specs; or it is of another agent",
            };
            found.push(Finding::new(Check::StraySpec, what).at(spec.file.display()).so(remedy));
        }
    }
    for (claim, state) in claims.iter().filter(|(_, state)| *state == "prepared") {
        // A claim of two names has a spec for each.
        if known.by_agent && !published.contains(claim) {
            let what =
                format!("{claim} is {state} and has no spec: its container cannot start again");
            let remedy = "look at the agent's log; the agent publishes it again at its next start";
            found.push(Finding::new(Check::SpecMissing, what).so(remedy));
        }
    }
    found
}
