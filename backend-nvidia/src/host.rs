//! What the host's own files say of cards and driver. Nothing here asks the library.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

/// A host's files: `/`, or where somebody mounted or prepared a host's `/`.
#[derive(Debug, Clone)]
pub(crate) struct HostTree {
    root: PathBuf,
    driver_root: PathBuf,
}

impl HostTree {
    pub(crate) fn new(root: &Path, driver_root: &Path) -> Self {
        Self { root: root.to_owned(), driver_root: Path::new("/").join(driver_root) }
    }

    /// Where the driver lies, as the host names it.
    pub(crate) fn driver_root(&self) -> &Path {
        &self.driver_root
    }

    /// Where a path of the host is to be read by this process.
    pub(crate) fn read_at(&self, on_host: &Path) -> PathBuf {
        self.root.join(relative(on_host))
    }

    /// Where a path below the driver's root lies on the host.
    pub(crate) fn of_driver(&self, below: &Path) -> PathBuf {
        self.driver_root.join(relative(below))
    }

    /// PCI addresses of NVIDIA's display and 3D controllers, sorted.
    pub(crate) fn functions(&self) -> Vec<String> {
        let folder = self.read_at(Path::new("/sys/bus/pci/devices"));
        let mut found: Vec<String> = names(&folder)
            .into_iter()
            .filter(|address| {
                let says = |file| read_hex(&folder.join(address).join(file));
                let class = says("class").map(|class| class >> 8);
                says("vendor") == Some(0x10de) && matches!(class, Some(0x0300 | 0x0302))
            })
            .collect();
        found.sort();
        found
    }

    /// The NUMA node of a PCI function; the kernel says -1 where there is none.
    pub(crate) fn numa_node(&self, address: &str) -> Option<u32> {
        let file = Path::new("/sys/bus/pci/devices").join(address).join("numa_node");
        fs::read_to_string(self.read_at(&file)).ok()?.trim().parse().ok()
    }

    /// Nodes below `/dev/dri` of a PCI function, with their numbers, sorted.
    pub(crate) fn dri_nodes(&self, address: &str) -> Vec<(PathBuf, (u32, u32))> {
        let folder = self.read_at(&Path::new("/sys/bus/pci/devices").join(address).join("drm"));
        let mut found: Vec<(PathBuf, (u32, u32))> = names(&folder)
            .into_iter()
            .filter(|name| name.starts_with("card") || name.starts_with("renderD"))
            .filter_map(|name| {
                let text = fs::read_to_string(folder.join(&name).join("dev")).ok()?;
                let (major, minor) = text.trim().split_once(':')?;
                let number = (major.parse().ok()?, minor.parse().ok()?);
                Some((Path::new("/dev/dri").join(name), number))
            })
            .collect();
        found.sort();
        found
    }

    /// Major numbers of character devices by name, as the kernel registered them.
    pub(crate) fn majors(&self) -> BTreeMap<String, u32> {
        let text = fs::read_to_string(self.read_at(Path::new("/proc/devices"))).unwrap_or_default();
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
        let own = fs::read_to_string(self.read_at(&file)).ok().and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("DeviceFileMinor:"))?;
            line.trim().parse().ok()
        });
        own.or_else(|| {
            let table = self.read_at(Path::new("/proc/driver/nvidia-caps/mig-minors"));
            let text = fs::read_to_string(table).ok()?;
            let mut lines = text.lines().filter_map(|line| line.trim().split_once(' '));
            let (_, minor) = lines.find(|(of, _)| *of == name)?;
            minor.trim().parse().ok()
        })
    }

    /// The number of the character device at a path of the host.
    pub(crate) fn number_at(&self, on_host: &Path) -> Option<(u32, u32)> {
        let metadata = fs::metadata(self.read_at(on_host)).ok()?;
        let number = metadata.rdev();
        metadata.file_type().is_char_device().then(|| (major(number), minor(number)))
    }

    /// Whether the driver is said to lie in a folder of its own, and that is not there.
    pub(crate) fn lacks_driver_root(&self) -> bool {
        self.driver_root != Path::new("/") && !self.has(&self.driver_root)
    }

    /// Where the kernel looks for firmware, first to last, on the host: the folder that it was told at
    /// its start, and the usual ones of the host and of the driver's root.
    pub(crate) fn firmware_folders(&self) -> Vec<PathBuf> {
        let text = |file: &str| {
            let text = fs::read_to_string(self.read_at(Path::new(file))).ok()?;
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        };
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

    /// Names in a folder of the host, sorted; none for a folder that is not there.
    pub(crate) fn names(&self, on_host: &Path) -> Vec<String> {
        let mut found = names(&self.read_at(on_host));
        found.sort();
        found
    }

    /// Whether a path of the host is there.
    pub(crate) fn has(&self, on_host: &Path) -> bool {
        // Not followed: an absolute link leads elsewhere here than it does on the host.
        fs::symlink_metadata(self.read_at(on_host)).is_ok()
    }

    /// Files and links of a folder below the driver's root; none for a folder that is not there or
    /// that a link leads out of the tree, into the files of whoever runs this.
    pub(crate) fn entries(&self, below: &Path) -> Vec<Entry> {
        let folder = self.read_at(&self.of_driver(below));
        let (Ok(real), Ok(root)) = (folder.canonicalize(), self.root.canonicalize()) else {
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
        LIBRARY_FOLDERS
            .iter()
            .map(|folder| self.read_at(&self.of_driver(&Path::new(folder).join(NVML))))
            .filter(|path| path.is_file())
            .collect()
    }

    /// Whether the tree is this process's own, so that the loader's search applies to it.
    pub(crate) fn is_own(&self) -> bool {
        self.root == Path::new("/")
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

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

fn relative(path: &Path) -> PathBuf {
    path.components().filter(|c| matches!(c, Component::Normal(_))).collect()
}

fn read_hex(file: &Path) -> Option<u32> {
    let text = fs::read_to_string(file).ok()?;
    u32::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
}

/// Linux keeps 32 bits of each in a 64-bit number, in two pieces.
fn major(number: u64) -> u32 {
    low(((number >> 8) & 0xfff) | ((number >> 32) & 0xffff_f000))
}

fn minor(number: u64) -> u32 {
    low((number & 0xff) | ((number >> 12) & 0xffff_ff00))
}

fn low(number: u64) -> u32 {
    u32::try_from(number & 0xffff_ffff).expect("masked to 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_this_machine_s_nodes() {
        let tree = HostTree::new(Path::new("/"), Path::new("/"));
        assert_eq!(tree.number_at(Path::new("/dev/null")), Some((1, 3)));
        assert_eq!(tree.number_at(Path::new("/proc/devices")), None);
        assert_eq!(tree.majors().get("mem"), Some(&1));
    }

    #[test]
    fn large_numbers_come_apart() {
        // As gnu_dev_makedev(0x12345, 0xabcde) lays them out.
        let number = (0x12_u64 << 44) | (0x345 << 8) | (0xabc << 20) | 0xde;
        assert_eq!((major(number), minor(number)), (0x12345, 0xabcde));
    }

    #[test]
    fn a_link_out_of_the_tree_is_not_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(folder.path().join("usr/lib64")).expect("made");
        fs::write(folder.path().join("usr/lib64/libcuda.so.1"), "").expect("written");
        std::os::unix::fs::symlink("/dev", folder.path().join("lib64")).expect("linked");
        let tree = HostTree::new(folder.path(), Path::new("/"));
        assert_eq!(tree.entries(Path::new("/usr/lib64")).len(), 1);
        assert_eq!(tree.entries(Path::new("/lib64")), []);
    }
}
