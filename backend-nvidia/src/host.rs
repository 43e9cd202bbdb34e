//! What the host's own files say of cards and driver. Nothing here asks the library.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use vgpu_backend_kit::{HostTree, relative};

/// NVIDIA on the PCI bus.
const VENDOR: u32 = 0x10de;

/// A host's files, and where on it the driver lies.
#[derive(Debug, Clone)]
pub(crate) struct DriverTree {
    pub(crate) host: HostTree,
    driver_root: PathBuf,
}

impl DriverTree {
    pub(crate) fn new(root: &Path, driver_root: &Path) -> Self {
        Self { host: HostTree::new(root), driver_root: Path::new("/").join(driver_root) }
    }

    /// Where the driver lies, as the host names it.
    pub(crate) fn driver_root(&self) -> &Path {
        &self.driver_root
    }

    /// Where a path below the driver's root lies on the host.
    pub(crate) fn of_driver(&self, below: &Path) -> PathBuf {
        self.driver_root.join(relative(below))
    }

    /// PCI addresses of NVIDIA's display and 3D controllers, sorted.
    pub(crate) fn functions(&self) -> Vec<String> {
        let all = self.host.pci_functions(VENDOR).into_iter();
        let is_card = |class: u32| matches!(class >> 8, 0x0300 | 0x0302);
        all.filter(|f| f.class.is_some_and(is_card)).map(|f| f.address).collect()
    }

    /// Major numbers of character devices by name, as the kernel registered them.
    pub(crate) fn majors(&self) -> BTreeMap<String, u32> {
        let text = self.host.text("/proc/devices").unwrap_or_default();
        let characters = text.split("Block devices:").next().unwrap_or_default();
        characters
            .lines()
            .filter_map(|line| {
                let (major, name) = line.trim().split_once(char::is_whitespace)?;
                Some((name.trim().to_owned(), major.parse().ok()?))
            })
            .collect()
    }

    /// What the driver calls the right to use a GPU instance, or a compute instance in it.
    pub(crate) fn capability_name(card: u32, gpu: u32, compute: Option<u32>) -> String {
        let compute = compute.map(|id| format!("/ci{id}")).unwrap_or_default();
        format!("gpu{card}/gi{gpu}{compute}/access")
    }

    /// The minor number of that right's node: from the file that the driver keeps for the instance, else from the
    /// driver's table of all.
    pub(crate) fn capability_minor(
        &self,
        card: u32,
        gpu: u32,
        compute: Option<u32>,
    ) -> Option<u32> {
        let name = Self::capability_name(card, gpu, compute);
        let below = name.replacen("/gi", "/mig/gi", 1);
        let file = Path::new("/proc/driver/nvidia/capabilities").join(below);
        let own = self.host.text(&file).ok().and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("DeviceFileMinor:"))?;
            line.trim().parse().ok()
        });
        own.or_else(|| {
            let text = self.host.text("/proc/driver/nvidia-caps/mig-minors").ok()?;
            let mut lines = text.lines().filter_map(|line| line.trim().split_once(' '));
            let (_, minor) = lines.find(|(of, _)| *of == name)?;
            minor.trim().parse().ok()
        })
    }

    /// Whether the driver is said to lie in a folder of its own, and that is not there.
    pub(crate) fn lacks_driver_root(&self) -> bool {
        self.driver_root != Path::new("/") && !self.host.has(&self.driver_root)
    }

    /// Where the kernel looks for firmware, first to last, on the host: the folder that it was told at
    /// its start, and the usual ones of the host and of the driver's root.
    pub(crate) fn firmware_folders(&self) -> Vec<PathBuf> {
        let text = |file: &str| self.host.text(file).ok().filter(|text| !text.is_empty());
        let told = text("/sys/module/firmware_class/parameters/path").map(PathBuf::from);
        let release = text("/proc/sys/kernel/osrelease");
        let mut folders: Vec<PathBuf> = told.into_iter().collect();
        for root in [self.driver_root.as_path(), Path::new("/")] {
            let usual = root.join("lib/firmware");
            if let Some(release) = &release {
                folders.push(usual.join("updates").join(release));
            }
            folders.push(usual.join("updates"));
            folders.extend(release.as_ref().map(|release| usual.join(release)));
            folders.push(usual);
        }
        folders.dedup();
        folders
    }

    /// Files and links of a folder below the driver's root; none for a folder that is not there or
    /// that a link leads out of the tree, into the files of whoever runs this.
    pub(crate) fn entries(&self, below: &Path) -> Vec<Entry> {
        let folder = self.host.read_at(self.of_driver(below));
        let (Ok(real), Ok(root)) = (folder.canonicalize(), self.host.root().canonicalize()) else {
            return Vec::new();
        };
        if !real.starts_with(root) {
            return Vec::new();
        }
        let entry = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            // The folder says what is a link; such a folder has thousands of files that are none.
            let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            let link = is_link.then(|| fs::read_link(entry.path()).ok()).flatten();
            Some(Entry { name, link })
        };
        let listed = fs::read_dir(&real).into_iter().flatten().flatten();
        let mut found: Vec<Entry> = listed.filter_map(entry).collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    /// Where NVML may lie; files that are there only.
    pub(crate) fn nvml_candidates(&self) -> Vec<PathBuf> {
        let folders = LIBRARY_FOLDERS.iter().map(|folder| self.of_driver(Path::new(folder)));
        self.host.files(folders, &[NVML])
    }
}

/// A name in a folder, and what it points to if it is a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) link: Option<PathBuf>,
}

/// NVML by its SONAME.
pub(crate) const NVML: &str = "libnvidia-ml.so.1";

/// Where distributions put the driver's libraries; the real folders before those that are links to
/// them on a merged `/usr`.
pub(crate) const LIBRARY_FOLDERS: &[&str] = &[
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu/nvidia/current",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu/nvidia/current",
    "/usr/lib",
    "/usr/local/nvidia/lib64",
    "/lib64",
    "/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn majors_of_this_machine_s_kernel() {
        let tree = DriverTree::new(Path::new("/"), Path::new("/"));
        assert_eq!(tree.majors().get("mem"), Some(&1));
    }

    #[test]
    fn a_link_out_of_the_tree_is_not_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(folder.path().join("usr/lib64")).expect("made");
        fs::write(folder.path().join("usr/lib64/libcuda.so.1"), "").expect("written");
        std::os::unix::fs::symlink("/dev", folder.path().join("lib64")).expect("linked");
        let tree = DriverTree::new(folder.path(), Path::new("/"));
        assert_eq!(tree.entries(Path::new("/usr/lib64")).len(), 1);
        assert_eq!(tree.entries(Path::new("/lib64")), []);
    }
}
