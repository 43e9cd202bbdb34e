//! What the host's own files say of cards, driver and processes. Nothing here asks the library.

use std::fs;
use std::io;
use std::path::PathBuf;

use vgpu_backend_kit::HostTree;
use vgpu_core::edits::DeviceNode;

/// Cambricon on the PCI bus.
pub(crate) const VENDOR: u32 = 0xcabc;

/// PCI addresses of Cambricon's cards, sorted; the virtual functions of a card are none.
pub(crate) fn functions(tree: &HostTree) -> Vec<String> {
    let all = tree.pci_functions(VENDOR).into_iter();
    let is_card = |class: u32| class >> 16 == 0x12;
    all.filter(|f| !f.is_virtual && f.class.is_some_and(is_card)).map(|f| f.address).collect()
}

/// The node at a path of the host, with its number, if it is there.
pub(crate) fn node(tree: &HostTree, on_host: &str) -> Option<DeviceNode> {
    // Followed, unlike `has`: a node that is a link to nowhere is none.
    fs::metadata(tree.read_at(on_host)).ok()?;
    Some(DeviceNode { number: tree.node_number(on_host), ..DeviceNode::at(on_host) })
}

/// Nodes in `/dev/cambricon/`, the folder of message nodes.
pub(crate) fn message_nodes(tree: &HostTree) -> Vec<String> {
    let names = tree.names("/dev/cambricon").into_iter();
    names.map(|name| format!("/dev/cambricon/{name}")).collect()
}

/// Whether the host's kernel has the driver, or a node of it is there.
pub(crate) fn has_driver(tree: &HostTree) -> bool {
    tree.has("/proc/driver/cambricon")
        || tree.has("/dev/cambricon_ctl")
        || tree.names("/dev").iter().any(|name| name.starts_with("cambricon_dev"))
}

/// What a process of the host has open; nothing for one that ended, `None` where it may not be read.
pub(crate) fn opened_by(tree: &HostTree, pid: u32) -> Option<Vec<PathBuf>> {
    match fs::read_dir(tree.read_at(format!("/proc/{pid}/fd"))) {
        Ok(files) => {
            let links = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
            Some(links.collect())
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Some(Vec::new()),
        Err(_) => None,
    }
}

/// Where libcndev may lie; files that are there only.
pub(crate) fn candidates(tree: &HostTree) -> Vec<PathBuf> {
    // The variable is of the machine that this process runs on.
    let home = std::env::var_os("NEUWARE_HOME").filter(|_| tree.is_own()).map(PathBuf::from);
    let home = home.iter().flat_map(|home| [home.join("lib64"), home.join("lib")]);
    tree.files(home.chain(LIBRARY_FOLDERS.iter().map(PathBuf::from)), &[LIBRARY])
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn nodes_of_this_machine() {
        let tree = HostTree::new(Path::new("/"));
        assert_eq!(node(&tree, "/dev/null").and_then(|n| n.number), Some((1, 3)));
        assert_eq!(node(&tree, "/dev/no-such-node"), None);
    }

    #[test]
    fn a_process_that_ended_has_nothing_open() {
        let root = tempfile::tempdir().expect("a folder");
        let tree = HostTree::new(root.path());
        assert_eq!(opened_by(&tree, 7), Some(Vec::new()));
        let fds = root.path().join("proc/8/fd");
        fs::create_dir_all(&fds).expect("made");
        std::os::unix::fs::symlink("/dev/cambricon-caps/cap_dev0_mi1", fds.join("3"))
            .expect("linked");
        assert_eq!(opened_by(&tree, 8), Some(vec!["/dev/cambricon-caps/cap_dev0_mi1".into()]));
    }
}
