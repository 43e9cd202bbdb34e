//! What HAMi left on the node.

use std::path::{Path, PathBuf};

use crate::doctor::catalogue::Check;
use crate::doctor::finding::{Finding, Topic};
use crate::doctor::reader::Reader;

const PRELOAD: &str = "/etc/ld.so.preload";
const FOLDER: &str = "/usr/local/vgpu";
const LOCK: &str = "/tmp/vgpulock";

/// What is there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// What the host preloads into every program.
    pub(crate) preload: String,
    /// HAMi's own files: its library and its list to preload.
    pub(crate) files: Vec<PathBuf>,
    /// Folders of containers that it limits or limited.
    pub(crate) containers: Vec<PathBuf>,
    /// Whether its lock is there, which every tenant can write.
    pub(crate) lock: bool,
}

/// Looks at the places that HAMi uses.
pub(crate) fn read(reader: &mut Reader<'_>) -> Facts {
    let folder = Path::new(FOLDER);
    let is_hami = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("libvgpu.so") || name == "ld.so.preload"
    };
    let files = reader.paths(folder).into_iter().filter(is_hami).collect();
    let containers =
        ["containers", "dcu"].iter().flat_map(|kind| reader.paths(&folder.join(kind))).collect();
    Facts {
        preload: reader.text(Path::new(PRELOAD)).unwrap_or_default(),
        files,
        containers,
        lock: reader.tree.has(Path::new(LOCK)),
    }
}

/// What of it still has an effect.
pub(crate) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    // What stands behind a # is for people.
    let mut said = facts.preload.lines().map(|line| line.split('#').next().unwrap_or_default());
    if said.any(|line| line.contains("libvgpu.so")) {
        let what = "every program of the host loads HAMi's libvgpu.so, the agent too; it answers NVML's calls in the \
                    driver's place";
        let remedy =
            "take the line out; programs that run keep the library until they are started again";
        found.push(Finding::new(Check::HamiPreload, what).at(PRELOAD).so(remedy));
    }
    if let Some(file) = facts.files.first() {
        let what = "HAMi's library is installed; its containers have it mounted";
        let remedy = "uninstall HAMi's device plugin here, drain its pods, then remove the folder";
        found.push(Finding::new(Check::HamiFiles, what).at(file.display()).so(remedy));
    }
    if let Some(folder) = facts.containers.first() {
        let what = format!(
            "{} folders of containers that HAMi limits or limited; their cards are in use where these run",
            facts.containers.len()
        );
        let at = folder.parent().unwrap_or(folder).display();
        let remedy =
            "drain these pods, then remove the folders; HAMi keeps its state in their names";
        found.push(Finding::new(Check::HamiContainers, what).at(&at).so(remedy));
    }
    if facts.lock {
        let what = "HAMi's lock is there; every one of its tenants can write it";
        found.push(Finding::new(Check::HamiLock, what).at(LOCK).so("remove it when HAMi is gone"));
    }
    if found.is_empty() {
        found.push(Finding::new(Check::Fine(Topic::Hami), "nothing of HAMi is left"));
    }
    found
}
