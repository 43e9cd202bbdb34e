//! The driver's libraries, and what makes a container's loader find them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use vgpu_core::edits::{ContainerEdits, Hook, HookAction, HookStage, Mount, MountMode, Symlink};
use vgpu_core::{Error, ErrorKind, Result};

use crate::elf::Machine;
use crate::host::{DriverTree, Entry, LIBRARY_FOLDERS};
use crate::isolation::sets::{self, Capability, Delivery};

/// The libraries of one driver version.
#[derive(Debug, Default)]
pub(crate) struct Libraries {
    folders: Vec<Folder>,
    /// For another machine than this one, and which.
    foreign: BTreeMap<String, (PathBuf, Machine)>,
}

/// A folder of the driver's that has some.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    files: Vec<Library>,
    /// Links beside them that lead to them: name and target.
    links: Vec<(String, String)>,
}

#[derive(Debug)]
struct Library {
    name: String,
    host: PathBuf,
}

impl Libraries {
    /// Every library of this very version in the sets that are asked for: what belongs together is
    /// not listed by name, since each driver adds some.
    pub(crate) fn find(tree: &DriverTree, version: &str, asked: &BTreeSet<Capability>) -> Self {
        let mut found = Self::default();
        let mut names = BTreeSet::new();
        for folder in LIBRARY_FOLDERS.iter().map(Path::new) {
            found.add(tree, folder, version, asked, &mut names);
            if asked.contains(&Capability::Graphics) {
                found.add(tree, &folder.join("vdpau"), version, asked, &mut names);
            }
        }
        found
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.folders.is_empty() && self.foreign.is_empty()
    }

    /// # Errors
    /// `NotFound` for a driver root that is not there; `Io` if a library is missing without which a
    /// container starts and finds no CUDA, or no OpenGL and Vulkan.
    pub(crate) fn check(
        &self,
        tree: &DriverTree,
        version: &str,
        asked: &BTreeSet<Capability>,
    ) -> Result<()> {
        if tree.lacks_driver_root() {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "the driver root {} is not there; correct nvidia.driverRoot, or start what installs \
                     the driver there",
                    tree.driver_root().display()
                ),
            ));
        }
        let needed = [
            (Capability::Compute, format!("libcuda.so.{version}")),
            (Capability::Graphics, format!("libnvidia-glcore.so.{version}")),
        ];
        let has = |name: &str| {
            self.folders.iter().any(|folder| folder.files.iter().any(|file| file.name == name))
        };
        let missing = needed.into_iter().find(|(set, name)| asked.contains(set) && !has(name));
        match missing {
            None => Ok(()),
            Some((_, name)) => Err(self.without(tree, &name)),
        }
    }

    fn without(&self, tree: &DriverTree, needed: &str) -> Error {
        let stem = needed.split(".so.").next().unwrap_or(needed);
        let others = other_versions(tree, stem);
        let advice = if let Some((path, machine)) = self.foreign.get(needed) {
            format!(
                "{} is for {machine}, and this host is {}: install the driver of this machine",
                path.display(),
                Machine::here()
            )
        } else if others.is_empty() {
            "install the driver's libraries on the host, or say where it lies (nvidia.driverRoot)"
                .into()
        } else {
            format!(
                "there is {}, so the driver was upgraded and the kernel still runs the old one: \
                 reload its modules or reboot the node",
                others.join(", ")
            )
        };
        Error::new(ErrorKind::Io, format!("the host has no {needed}; {advice}"))
            .with("driver root", tree.driver_root().display())
            .with("read below", tree.host.read_at(tree.driver_root()).display())
    }

    /// What shows them to a container.
    pub(crate) fn edits(self, delivery: Delivery) -> ContainerEdits {
        match delivery {
            Delivery::Hook => self.where_they_are(),
            Delivery::Hookless => self.in_one_folder(),
        }
    }

    fn where_they_are(self) -> ContainerEdits {
        let mut edits = ContainerEdits::default();
        let (mut links, mut folders) = (Vec::new(), Vec::new());
        for folder in self.folders {
            for file in folder.files {
                edits.mounts.push(read_only(file.host, folder.path.join(file.name)));
            }
            for (name, target) in folder.links {
                links.push(Symlink { target: target.into(), link: folder.path.join(name) });
            }
            folders.push(folder.path);
        }
        let actions = [
            (!links.is_empty()).then_some(HookAction::Link(links)),
            (!folders.is_empty()).then_some(HookAction::LoaderCache(folders)),
        ];
        let hook = |action| Hook { stage: HookStage::CreateContainer, action };
        edits.hooks = actions.into_iter().flatten().map(hook).collect();
        edits
    }

    /// Each library under its own name and under that of every link to it, as a file each.
    fn in_one_folder(self) -> ContainerEdits {
        let mut edits = ContainerEdits::default();
        let mut taken = BTreeSet::new();
        for folder in &self.folders {
            let files = folder.files.iter().map(|file| (file.name.as_str(), &file.host));
            let linked = folder.links.iter().filter_map(|(name, _)| {
                let host = folder.file_behind(name)?;
                Some((name.as_str(), host))
            });
            for (name, host) in files.chain(linked) {
                if taken.insert(name.to_owned()) {
                    edits.mounts.push(read_only(host.clone(), Path::new(ONE_FOLDER).join(name)));
                }
            }
        }
        if !edits.mounts.is_empty() {
            edits.env.push(("LD_LIBRARY_PATH".into(), ONE_FOLDER.into()));
        }
        edits
    }

    fn add(
        &mut self,
        tree: &DriverTree,
        folder: &Path,
        version: &str,
        asked: &BTreeSet<Capability>,
        names: &mut BTreeSet<String>,
    ) {
        let entries = tree.entries(folder);
        let mut here = Folder { path: folder.to_owned(), files: Vec::new(), links: Vec::new() };
        for entry in entries.iter().filter(|entry| is_wanted(&entry.name, version, asked)) {
            let host = tree.of_driver(&folder.join(&entry.name));
            // A link may lead elsewhere than it does on the host, so only a file is looked into.
            let machine =
                entry.link.is_none().then(|| Machine::of(&tree.host.read_at(&host))).flatten();
            if let Some(machine) = machine.filter(|machine| *machine != Machine::here()) {
                // 32-bit libraries beside the others are nothing odd.
                self.foreign.insert(entry.name.clone(), (host, machine));
                continue;
            }
            // The same file through a merged `/usr`.
            if names.insert(entry.name.clone()) {
                here.files.push(Library { name: entry.name.clone(), host });
            }
        }
        if !here.files.is_empty() {
            let files = here.files.iter().map(|file| file.name.as_str()).collect();
            here.links = links(&entries, &files, version);
            // The one file whose link lies in a folder of its own.
            let allocator = format!("libnvidia-allocator.so.{version}");
            if asked.contains(&Capability::Graphics) && files.contains(&*allocator) {
                let target = format!("../{allocator}");
                here.links.push(("gbm/nvidia-drm_gbm.so".to_owned(), target));
            }
            self.folders.push(here);
        }
    }
}

impl Folder {
    /// The file that a link of this folder leads to, through other links.
    fn file_behind(&self, name: &str) -> Option<&PathBuf> {
        let mut at = name;
        for _ in 0..=self.links.len() {
            if let Some(file) = self.files.iter().find(|file| file.name == at) {
                return Some(&file.host);
            }
            at = &self.links.iter().find(|(link, _)| link == at)?.1;
        }
        None
    }
}

/// Where CUDA's own images look besides the usual places.
const ONE_FOLDER: &str = "/usr/local/nvidia/lib64";

pub(super) fn read_only(host: PathBuf, container: PathBuf) -> Mount {
    Mount { host, container, mode: MountMode::ReadOnly }
}

/// The links beside the libraries that lead to them, as the driver's installer made them, and those
/// without which CUDA is not found.
fn links(entries: &[Entry], files: &BTreeSet<&str>, version: &str) -> Vec<(String, String)> {
    let mut reached = files.clone();
    let mut links: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, target: &str| {
        links.push((name.to_owned(), target.to_owned()));
    };
    // A link may lead to a link; each round reaches one further.
    loop {
        let next = entries.iter().find(|entry| {
            let target = entry.link.as_deref().and_then(Path::to_str);
            target.is_some_and(|target| reached.contains(target)) && !reached.contains(&*entry.name)
        });
        let Some(next) = next else { break };
        let target = next.link.as_deref().and_then(Path::to_str).unwrap_or_default();
        add(&next.name, target);
        reached.insert(&next.name);
    }
    for library in ["libcuda", "libnvidia-ml"] {
        let file = format!("{library}.so.{version}");
        let names = [(format!("{library}.so.1"), file.clone())].into_iter();
        // Programs are linked against CUDA by the name without a number.
        let plain =
            (library == "libcuda").then(|| ("libcuda.so".to_owned(), "libcuda.so.1".to_owned()));
        for (name, target) in names.chain(plain) {
            if files.contains(&*file) && !reached.contains(&*name) {
                add(&name, &target);
            }
        }
    }
    links.sort();
    links
}

fn is_wanted(name: &str, version: &str, asked: &BTreeSet<Capability>) -> bool {
    let stem = name
        .strip_suffix(version)
        .and_then(|rest| rest.strip_suffix(".so."))
        // The one library whose file has a number of its own.
        .or_else(|| name.starts_with("libnvidia-nvvm70.so.").then_some("libnvidia-nvvm70"));
    stem.is_some_and(|stem| stem.starts_with("lib") && sets::wanted(sets::of_library(stem), asked))
}

fn other_versions(tree: &DriverTree, stem: &str) -> Vec<String> {
    let all = LIBRARY_FOLDERS.iter().flat_map(|folder| tree.entries(Path::new(folder)));
    let versioned = |name: &String| {
        let version = name.strip_prefix(stem).and_then(|rest| rest.strip_prefix(".so."));
        version.is_some_and(|version| version.contains('.'))
    };
    let names: BTreeSet<String> = all.map(|entry| entry.name).filter(versioned).collect();
    names.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_of_this_version_in_their_sets() {
        use Capability::{Compute, Graphics, Utility};
        for (name, sets) in [
            ("libcuda.so.570.124.06", &[Compute][..]),
            ("libnvidia-ml.so.570.124.06", &[Utility]),
            ("libnvidia-something-new.so.570.124.06", &[Compute]),
            ("libnvidia-nvvm70.so.4", &[Compute]),
            ("libcuda.so.570.124.060", &[]),
            ("libcuda.so.1570.124.06", &[]),
            ("libcuda.so.1", &[]),
            ("libGLX_nvidia.so.570.124.06", &[Graphics]),
            ("libnvidia-glcore.so.570.124.06", &[Graphics]),
            ("libnvidia-allocator.so.570.124.06", &[Compute, Graphics]),
            ("nvidia.so.570.124.06", &[]),
        ] {
            for set in [Compute, Graphics, Utility] {
                let asked = BTreeSet::from([set]);
                let expected = sets.contains(&set);
                assert_eq!(is_wanted(name, "570.124.06", &asked), expected, "{name} {set:?}");
            }
        }
    }
}
