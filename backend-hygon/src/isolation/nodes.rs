//! Device nodes, with their numbers, so that a spec holds where the host lacks the node itself.

use std::path::PathBuf;

use vgpu_backend_kit::HostTree;
use vgpu_core::edits::DeviceNode;
use vgpu_core::{Error, ErrorKind, Result};

use crate::cards::Card;

/// What every container needs: the compute driver, and the one of virtual DCUs where the host has it.
///
/// # Errors
/// `Io` if the host has no compute driver's node.
pub(crate) fn common(tree: &HostTree) -> Result<Vec<DeviceNode>> {
    const KFD: &str = "/dev/kfd";
    const MKFD: &str = "/dev/mkfd";
    let number = tree.class_number("/sys/class/kfd/kfd").or_else(|| tree.node_number(KFD));
    if number.is_none() && !tree.has(KFD) {
        let why =
            format!("the host has no {KFD}; load the driver, `modprobe hycu` (before: hydcu)");
        return Err(Error::new(ErrorKind::Io, why).with("read below", tree.root().display()));
    }
    let mut nodes = vec![DeviceNode { number, ..DeviceNode::at(KFD) }];
    if tree.has(MKFD) {
        nodes.push(DeviceNode { number: tree.node_number(MKFD), ..DeviceNode::at(MKFD) });
    }
    Ok(nodes)
}

/// The card's own nodes, and no other card's: they are looked up by its PCI address, since numbers
/// count other vendors' cards as well.
///
/// # Errors
/// `Io` if it has none to compute with.
pub(crate) fn of_card(tree: &HostTree, card: &Card) -> Result<Vec<DeviceNode>> {
    let found = tree.dri_nodes(card.address());
    let renders = found.iter().any(|(path, _)| path.to_string_lossy().contains("renderD"));
    if !renders {
        let why = format!("{} has no node /dev/dri/renderD*; is its driver loaded?", card.id);
        return Err(Error::new(ErrorKind::Io, why));
    }
    let node = |(path, number): (PathBuf, Option<(u32, u32)>)| DeviceNode {
        number,
        ..DeviceNode::at(path)
    };
    Ok(found.into_iter().map(node).collect())
}
