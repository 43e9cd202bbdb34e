//! The host: kernel interfaces, drivers, folders, the kubelet.

mod cgroups;
mod drivers;
pub(crate) mod elf;
pub(crate) mod folders;
pub(crate) mod hook;
mod kubelet;
mod nodes;
pub(crate) mod process_view;

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::doctor::catalogue::Check;
use crate::doctor::finding::{Finding, Topic};
use crate::doctor::places::Places;
use crate::doctor::reader::Reader;
use crate::doctor::record::Agent;

/// What the host's files tell.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    cgroups: cgroups::Facts,
    drivers: Vec<drivers::Facts>,
    nodes: Vec<nodes::Node>,
    view: process_view::Facts,
    hooks: hook::Facts,
    folders: folders::Facts,
    kubelet: kubelet::Facts,
}

/// Reads them; `hooks` are the programs that specs of ours name.
pub(crate) fn read(
    reader: &mut Reader<'_>,
    places: &Places,
    hooks: &BTreeSet<PathBuf>,
    agent: &Agent,
) -> Facts {
    Facts {
        cgroups: cgroups::read(reader),
        drivers: drivers::read(reader, places),
        nodes: nodes::read(reader),
        view: process_view::read(reader),
        hooks: hook::read(reader, places, hooks, agent),
        folders: folders::read(reader, places),
        kubelet: kubelet::read(places),
    }
}

/// What of it is in the way.
pub(crate) fn judge(facts: &Facts, places: &Places) -> Vec<Finding> {
    let nvidia = drivers::major(&facts.drivers);
    let found: Vec<Finding> = [
        kubelet::judge(&facts.kubelet, places),
        folders::judge(&facts.folders),
        hook::judge(&facts.hooks),
        drivers::judge(&facts.drivers),
        nodes::judge(&facts.nodes, places),
        cgroups::judge(&facts.cgroups, nvidia),
        process_view::judge(&facts.view),
    ]
    .concat();
    if found.iter().any(|finding| finding.severity > crate::doctor::finding::Severity::Note) {
        return found;
    }
    let fine = Finding::new(
        Check::Fine(Topic::Host),
        "kernel, drivers, folders and kubelet are as vgpu needs them",
    );
    std::iter::once(fine).chain(found).collect()
}
