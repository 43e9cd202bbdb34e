//! The driver's files that a container gets: libraries, programs, sockets of its daemons.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use vgpu_core::edits::{Mount, MountMode, Symlink};
use vgpu_core::{Error, ErrorKind, Result};

use crate::host::{Entry, HostTree, LIBRARY_FOLDERS};

/// The libraries of one driver version, and what makes the container's loader find them.
#[derive(Debug, Default)]
pub(crate) struct Libraries {
    pub(crate) mounts: Vec<Mount>,
    pub(crate) links: Vec<Symlink>,
    /// Folders of the container that hold them.
    pub(crate) folders: Vec<PathBuf>,
    names: BTreeSet<String>,
}

impl Libraries {
    /// Every library of this very version, less those that only draw: what belongs together is not
    /// listed by name, since each driver adds some.
    pub(crate) fn find(tree: &HostTree, version: &str) -> Self {
        let mut found = Self::default();
        for folder in LIBRARY_FOLDERS.iter().map(Path::new) {
            found.add(tree, folder, version);
        }
        found
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.mounts.is_empty()
    }

    /// # Errors
    /// `Io` if CUDA's own library is not among them: a container would start and find no CUDA.
    pub(crate) fn check(&self, tree: &HostTree, version: &str) -> Result<()> {
        let needed = format!("libcuda.so.{version}");
        if self.names.contains(&needed) {
            return Ok(());
        }
        let others = other_versions(tree);
        let advice = if others.is_empty() {
            "install the driver's compute libraries on the host, or say where it lies (driver root)"
                .to_owned()
        } else {
            format!(
                "there is {}, so the driver was upgraded and the kernel still runs the old one: \
                 reload its modules or reboot the node",
                others.join(", ")
            )
        };
        Err(Error::new(ErrorKind::Io, format!("the host has no {needed}; {advice}"))
            .with("driver root", super::shown(tree.driver_root()))
            .with("read below", super::shown(&tree.read_at(tree.driver_root()))))
    }

    fn add(&mut self, tree: &HostTree, folder: &Path, version: &str) {
        let entries = tree.entries(folder);
        let before = self.mounts.len();
        let wanted = entries.iter().filter(|entry| is_wanted(&entry.name, version));
        let mut here: BTreeSet<&str> = BTreeSet::new();
        for entry in wanted {
            // The same file through a merged `/usr`, or another architecture's of that name.
            if !self.names.insert(entry.name.clone()) {
                continue;
            }
            here.insert(&entry.name);
            self.mounts.push(Mount {
                host: tree.of_driver(&folder.join(&entry.name)),
                container: folder.join(&entry.name),
                mode: MountMode::ReadOnly,
            });
        }
        if self.mounts.len() > before {
            self.folders.push(folder.to_owned());
            self.links.extend(links(folder, &entries, here, version));
        }
    }
}

/// Programs that a tenant may want; those that start daemons only for one alone on its cards.
pub(crate) fn programs(tree: &HostTree, exclusive: bool) -> Vec<Mount> {
    const LOOK: &[&str] = &["nvidia-smi", "nvidia-debugdump"];
    const SERVE: &[&str] = &["nvidia-cuda-mps-control", "nvidia-cuda-mps-server"];
    const FOLDERS: &[&str] = &["/usr/bin", "/usr/local/nvidia/bin", "/usr/local/bin", "/opt/bin"];
    let names = LOOK.iter().chain(if exclusive { SERVE } else { &[] });
    names
        .filter_map(|name| {
            let mut places =
                FOLDERS.iter().map(|folder| tree.of_driver(&Path::new(folder).join(name)));
            Some(Mount {
                host: places.find(|place| tree.has(place))?,
                container: Path::new("/usr/bin").join(name),
                mode: MountMode::ReadOnly,
            })
        })
        .collect()
}

/// Sockets of the driver's daemons; one can connect through a read-only mount.
pub(crate) fn sockets(tree: &HostTree, exclusive: bool) -> Vec<Mount> {
    const ANY: &[&str] = &["/run/nvidia-persistenced/socket"];
    const ALONE: &[&str] = &["/run/nvidia-fabricmanager/socket"];
    let places = ANY.iter().chain(if exclusive { ALONE } else { &[] }).map(Path::new);
    places
        .map(|place| Mount {
            host: tree.of_driver(place),
            container: place.to_owned(),
            mode: MountMode::ReadOnly,
        })
        .filter(|mount| tree.has(&mount.host))
        .collect()
}

/// The links beside the libraries that lead to them, as the driver's installer made them, and those
/// without which CUDA is not found.
fn links(folder: &Path, entries: &[Entry], files: BTreeSet<&str>, version: &str) -> Vec<Symlink> {
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
    let cuda = format!("libcuda.so.{version}");
    for (name, target) in [("libcuda.so.1", &*cuda), ("libcuda.so", "libcuda.so.1")] {
        if files.contains(&*cuda) && !reached.contains(name) {
            add(name, target);
        }
    }
    links.sort();
    let symlink = |(name, target): (String, String)| Symlink {
        target: PathBuf::from(target),
        link: folder.join(name),
    };
    links.into_iter().map(symlink).collect()
}

fn is_wanted(name: &str, version: &str) -> bool {
    let of_version =
        name.strip_suffix(version).and_then(|rest| rest.strip_suffix(".so.")).is_some_and(|stem| {
            stem.starts_with("lib") && !DRAWING.iter().any(|d| stem.starts_with(d))
        });
    // The one library whose file has a number of its own.
    of_version || name.starts_with("libnvidia-nvvm70.so.")
}

/// Libraries for display, drawing and ray tracing: of no use without their configuration files.
const DRAWING: &[&str] = &[
    "libEGL_nvidia",
    "libGLESv1_CM_nvidia",
    "libGLESv2_nvidia",
    "libGLX_nvidia",
    "libnvidia-egl",
    "libnvidia-fbc",
    "libnvidia-gl",
    "libnvidia-gtk",
    "libnvidia-ngx",
    "libnvidia-present",
    "libnvidia-rtcore",
    "libnvidia-tls",
    "libnvidia-vulkan",
    "libnvidia-wayland",
    "libnvoptix",
    "libvdpau_nvidia",
];

fn other_versions(tree: &HostTree) -> Vec<String> {
    let all = LIBRARY_FOLDERS.iter().flat_map(|folder| tree.entries(Path::new(folder)));
    let versioned = |name: &String| {
        name.strip_prefix("libcuda.so.").is_some_and(|version| version.contains('.'))
    };
    let names: BTreeSet<String> = all.map(|entry| entry.name).filter(versioned).collect();
    names.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_of_this_version_that_compute() {
        for (name, wanted) in [
            ("libcuda.so.570.124.06", true),
            ("libnvidia-ml.so.570.124.06", true),
            ("libnvidia-something-new.so.570.124.06", true),
            ("libnvidia-nvvm70.so.4", true),
            ("libcuda.so.570.124.060", false),
            ("libcuda.so.1570.124.06", false),
            ("libcuda.so.1", false),
            ("libGLX_nvidia.so.570.124.06", false),
            ("libnvidia-glcore.so.570.124.06", false),
            ("nvidia.so.570.124.06", false),
        ] {
            assert_eq!(is_wanted(name, "570.124.06"), wanted, "{name}");
        }
    }
}
