//! Device nodes, and who may open them.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::doctor::catalogue::Check;
use crate::doctor::finding::Finding;
use crate::doctor::owners::of_node;
use crate::doctor::places::Places;
use crate::doctor::reader::Reader;

/// What every container of a vendor needs beside its card.
const SHARED: [&str; 3] = ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/cambricon_ctl"];

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) path: String,
    /// Permission bits.
    pub(crate) mode: u32,
}

/// Every node of a card, and those that all share.
pub(crate) fn read(reader: &mut Reader<'_>) -> Vec<Node> {
    let paths = paths(reader);
    let of = |path: String| {
        let metadata = reader.tree.metadata(Path::new(&path)).ok().flatten()?;
        Some(Node { path, mode: metadata.mode() & 0o777 })
    };
    paths.into_iter().filter_map(of).collect()
}

/// Their paths.
pub(crate) fn paths(reader: &mut Reader<'_>) -> Vec<String> {
    let folders = ["/dev", "/dev/cambricon-caps"];
    let listed: Vec<PathBuf> = folders.iter().flat_map(|f| reader.paths(Path::new(f))).collect();
    let names = listed.into_iter().filter_map(|path| Some(path.to_str()?.to_owned()));
    names.filter(|path| of_node(path).is_some() || SHARED.contains(&path.as_str())).collect()
}

/// Nodes that a container's user cannot open unless it is root.
pub(crate) fn judge(nodes: &[Node], places: &Places) -> Vec<Finding> {
    let serves = |node: &&Node| of_node(&node.path).is_none_or(|vendor| places.serves(vendor));
    let closed = nodes.iter().filter(serves).filter(|node| node.mode & 0o006 != 0o006);
    closed
        .map(|node| {
            let what = format!(
                "the node has mode {:04o}: containers that do not run as root cannot open it",
                node.mode
            );
            let remedy =
                "let the driver make it 0666 (NVIDIA: NVreg_DeviceFileMode; others: a udev rule)";
            Finding::new(Check::NodeClosed, what).at(&node.path).so(remedy)
        })
        .collect()
}
