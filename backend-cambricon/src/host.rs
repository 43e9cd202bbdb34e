//! What the host's own files say of cards, driver and processes. Nothing here asks the library.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use vgpu_core::edits::DeviceNode;

/// A host's files: `/`, or where somebody mounted or prepared a host's `/`.
#[derive(Debug, Clone)]
pub(crate) struct HostTree {
    root: PathBuf,
}

impl HostTree {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Where a path of the host is to be read by this process.
    pub(crate) fn read_at(&self, on_host: &Path) -> PathBuf {
        let below = on_host.components().filter(|c| matches!(c, Component::Normal(_)));
        self.root.join(below.collect::<PathBuf>())
    }

    /// PCI addresses of Cambricon's cards, sorted; the virtual functions of a card are none.
    pub(crate) fn functions(&self) -> Vec<String> {
        let folder = self.read_at(Path::new("/sys/bus/pci/devices"));
        let mut found: Vec<String> =
            names(&folder).into_iter().filter(|address| is_card(&folder.join(address))).collect();
        found.sort();
        found
    }

    /// The NUMA node of a PCI function; the kernel says -1 where there is none.
    pub(crate) fn numa_node(&self, address: &str) -> Option<u32> {
        let file = Path::new("/sys/bus/pci/devices").join(address).join("numa_node");
        fs::read_to_string(self.read_at(&file)).ok()?.trim().parse().ok()
    }

    /// The node at a path of the host, with its number, if it is there.
    pub(crate) fn node(&self, on_host: &str) -> Option<DeviceNode> {
        let metadata = fs::metadata(self.read_at(Path::new(on_host))).ok()?;
        let number = metadata.rdev();
        let character = metadata.file_type().is_char_device();
        Some(DeviceNode {
            number: character.then(|| (major(number), minor(number))),
            ..DeviceNode::at(on_host)
        })
    }

    /// Names in `/dev/cambricon/`, the folder of message nodes.
    pub(crate) fn message_nodes(&self) -> Vec<String> {
        let mut names = names(&self.read_at(Path::new("/dev/cambricon")));
        names.sort();
        names.into_iter().map(|name| format!("/dev/cambricon/{name}")).collect()
    }

    /// Whether the host's kernel has the driver, or a node of it is there.
    pub(crate) fn has_driver(&self) -> bool {
        let there = |path: &str| fs::symlink_metadata(self.read_at(Path::new(path))).is_ok();
        there("/proc/driver/cambricon")
            || there("/dev/cambricon_ctl")
            || names(&self.read_at(Path::new("/dev")))
                .iter()
                .any(|n| n.starts_with("cambricon_dev"))
    }

    /// What a process of the host has open; nothing for one that ended, `None` where it may not be read.
    pub(crate) fn opened_by(&self, pid: u32) -> Option<Vec<PathBuf>> {
        match fs::read_dir(self.read_at(Path::new(&format!("/proc/{pid}/fd")))) {
            Ok(files) => {
                let links = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
                Some(links.collect())
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Some(Vec::new()),
            Err(_) => None,
        }
    }

    /// Where libcndev may lie; files that are there only.
    pub(crate) fn candidates(&self) -> Vec<PathBuf> {
        let folders = LIBRARY_FOLDERS.iter().map(PathBuf::from);
        // The variable is of the machine that this process runs on.
        let home = std::env::var_os("NEUWARE_HOME").filter(|_| self.is_own()).map(PathBuf::from);
        let home = home.iter().flat_map(|home| [home.join("lib64"), home.join("lib")]);
        home.chain(folders)
            .map(|folder| self.read_at(&folder.join(LIBRARY)))
            .filter(|path| path.is_file())
            .collect()
    }

    /// Whether the tree is this process's own, so that the loader's search applies to it.
    pub(crate) fn is_own(&self) -> bool {
        self.root == Path::new("/")
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }
}

/// The library by its name; it has no SONAME with a number.
pub(crate) const LIBRARY: &str = "libcndev.so";

/// Where driver packages and the vendor's toolkit put it.
pub(crate) const LIBRARY_FOLDERS: &[&str] = &[
    "/usr/local/neuware/lib64",
    "/usr/local/neuware/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
];

fn is_card(function: &Path) -> bool {
    let vendor = hex(&function.join("vendor"));
    let class = hex(&function.join("class")).map(|class| class >> 16);
    vendor == Some(0xcabc)
        && class == Some(0x12)
        && fs::symlink_metadata(function.join("physfn")).is_err()
}

fn hex(file: &Path) -> Option<u32> {
    let text = fs::read_to_string(file).ok()?;
    u32::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
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
        let tree = HostTree::new(Path::new("/"));
        assert_eq!(tree.node("/dev/null").and_then(|n| n.number), Some((1, 3)));
        assert_eq!(tree.node("/dev/no-such-node"), None);
    }

    #[test]
    fn a_process_that_ended_has_nothing_open() {
        let root = tempfile::tempdir().expect("a folder");
        let tree = HostTree::new(root.path());
        assert_eq!(tree.opened_by(7), Some(Vec::new()));
        let fds = root.path().join("proc/8/fd");
        fs::create_dir_all(&fds).expect("made");
        std::os::unix::fs::symlink("/dev/cambricon-caps/cap_dev0_mi1", fds.join("3"))
            .expect("linked");
        assert_eq!(tree.opened_by(8), Some(vec!["/dev/cambricon-caps/cap_dev0_mi1".into()]));
    }
}
