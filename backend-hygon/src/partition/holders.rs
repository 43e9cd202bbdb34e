//! Which processes hold what: the compute driver's list of processes, and what each sees as its own.

use std::io;
use std::path::Path;

use vgpu_backend_kit::HostTree;
use vgpu_core::Holders;

use crate::kfd;
use crate::partition::conf::VdevConf;

/// Where a container finds its virtual DCU.
pub(crate) const IN_CONTAINER: &str = "/etc/vdev/docker";

/// Processes that have memory of a card.
pub(crate) fn of_card(tree: &HostTree, gpu_id: u32) -> u32 {
    let all = kfd::processes(tree).into_iter();
    let holding = all.filter(|pid| kfd::memory_of(tree, *pid, gpu_id).is_some_and(|m| m > 0));
    u32::try_from(holding.count()).unwrap_or(u32::MAX)
}

/// Processes that have the compute driver open at all.
pub(crate) fn of_node(tree: &HostTree) -> usize {
    kfd::processes(tree).len()
}

/// Processes of a virtual DCU, with their PIDs.
///
/// # Errors
/// Not known: a process cannot be looked at, for example from another PID namespace.
pub(crate) fn of_vdcu(tree: &HostTree, address: &str, vdev: u32) -> Result<Vec<u32>, ()> {
    holding(tree, |root| {
        let folder = root.join(IN_CONTAINER.trim_start_matches('/'));
        let mut confs = match std::fs::read_dir(folder) {
            Ok(entries) => entries.filter_map(|e| std::fs::read_to_string(e.ok()?.path()).ok()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(e),
        };
        let is_it = |conf: VdevConf| conf.address == address && conf.vdev == vdev;
        Ok(confs.any(|text| text.parse().is_ok_and(is_it)))
    })
}

/// Processes that see a file of the host at the same place.
///
/// # Errors
/// As [`of_vdcu`].
pub(crate) fn seeing(tree: &HostTree, file: &str) -> Result<Vec<u32>, ()> {
    holding(tree, |root| root.join(file.trim_start_matches('/')).try_exists())
}

/// As the core counts them.
pub(crate) fn counted(pids: &Result<Vec<u32>, ()>) -> Holders {
    match pids {
        Ok(pids) => Holders::Processes(u32::try_from(pids.len()).unwrap_or(u32::MAX)),
        Err(()) => Holders::Unknown,
    }
}

fn holding(tree: &HostTree, holds: impl Fn(&Path) -> io::Result<bool>) -> Result<Vec<u32>, ()> {
    let mut found = Vec::new();
    for pid in kfd::processes(tree) {
        let own = tree.read_at(format!("/proc/{pid}"));
        match holds(&own.join("root")) {
            Ok(true) => found.push(pid),
            Ok(false) if own.exists() => {}
            // It ended, or it is of a PID namespace that this process does not see.
            _ if !kfd::processes(tree).contains(&pid) => {}
            _ => return Err(()),
        }
    }
    Ok(found)
}
