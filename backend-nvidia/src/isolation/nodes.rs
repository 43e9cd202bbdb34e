//! Device nodes, with their numbers, so that a spec holds where the host lacks the node itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use vgpu_core::edits::DeviceNode;
use vgpu_core::{Error, ErrorKind, Result};

use crate::host::DriverTree;

/// The host's NVIDIA nodes.
pub(crate) struct Nodes<'t> {
    tree: &'t DriverTree,
    majors: BTreeMap<String, u32>,
}

impl<'t> Nodes<'t> {
    pub(crate) fn new(tree: &'t DriverTree) -> Self {
        Self { tree, majors: tree.majors() }
    }

    pub(crate) fn kernel_has_driver(&self) -> bool {
        self.majors.keys().any(|name| name.starts_with("nvidia"))
            || self.tree.host.has(Path::new("/dev/nvidiactl"))
    }

    /// What every container needs beside its cards; `exclusive` ones get the tools' nodes as well.
    pub(crate) fn control(&self, exclusive: bool, stand_in: bool) -> Result<Vec<DeviceNode>> {
        let mut nodes = vec![self.needed(&CONTROL, stand_in)?, self.needed(&UVM, stand_in)?];
        if exclusive {
            nodes.extend([&UVM_TOOLS, &MODESET].into_iter().filter_map(|node| self.found(node)));
        }
        Ok(nodes)
    }

    pub(crate) fn card(&self, minor: u32, stand_in: bool) -> Result<DeviceNode> {
        let path = format!("/dev/nvidia{minor}");
        self.needed(&Known { path: &path, minor, ..CONTROL }, stand_in)
    }

    /// The card's own nodes for display and rendering.
    pub(crate) fn display(&self, address: &str) -> Vec<DeviceNode> {
        let numbered = |(path, number): (PathBuf, Option<(u32, u32)>)| {
            number.map(|_| DeviceNode { number, ..DeviceNode::at(path) })
        };
        self.tree.host.dri_nodes(address).into_iter().filter_map(numbered).collect()
    }

    /// The node through which a GPU instance, or a compute instance in it, may be used.
    pub(crate) fn capability(
        &self,
        card: u32,
        gpu: u32,
        compute: Option<u32>,
        stand_in: bool,
    ) -> Result<DeviceNode> {
        let named = DriverTree::capability_name(card, gpu, compute);
        let minor = match self.tree.capability_minor(card, gpu, compute) {
            Some(minor) => minor,
            None if stand_in => stand_in_minor(card, gpu, compute),
            None => {
                return Err(Error::new(
                    ErrorKind::Io,
                    format!(
                        "the host tells no number for {named}; /proc/driver/nvidia/capabilities has \
                         it where the driver made the instance"
                    ),
                )
                .with("read below", super::shown(&self.tree.host.read_at(Path::new("/proc")))));
            }
        };
        let path = format!("/dev/nvidia-caps/nvidia-cap{minor}");
        let major = self.majors.get("nvidia-caps").copied();
        let number = major.map(|major| (major, minor));
        match number.or_else(|| self.tree.host.node_number(&path)) {
            None if !stand_in => Err(Error::new(
                ErrorKind::Io,
                format!(
                    "the host has no {path} and /proc/devices no nvidia-caps; load the module on the \
                     host, `nvidia-modprobe -f {named}`"
                ),
            )),
            number => Ok(DeviceNode { number, ..DeviceNode::at(path) }),
        }
    }

    fn needed(&self, node: &Known<'_>, stand_in: bool) -> Result<DeviceNode> {
        if let Some(found) = self.found(node) {
            return Ok(found);
        }
        if stand_in {
            let number = node.fixed.map(|major| (major, node.minor));
            return Ok(DeviceNode { number, ..DeviceNode::at(node.path) });
        }
        Err(Error::new(
            ErrorKind::Io,
            format!(
                "the host has no {} and /proc/devices no {}; load the module on the host, `{}`",
                node.path, node.majors[0], node.load
            ),
        )
        .with("path", super::shown(&self.tree.host.read_at(Path::new(node.path)))))
    }

    /// The kernel's own number first: a node may be a leftover of a module that was loaded before
    /// under another one.
    fn found(&self, node: &Known<'_>) -> Option<DeviceNode> {
        let registered = node.majors.iter().find_map(|name| self.majors.get(*name));
        let number = match registered {
            Some(major) => (*major, node.minor),
            None => self.tree.host.node_number(node.path)?,
        };
        Some(DeviceNode { number: Some(number), ..DeviceNode::at(node.path) })
    }
}

/// Whether a display node is for rendering alone, which needs no rights over the display.
pub(crate) fn renders(node: &DeviceNode) -> bool {
    let name = node.path.file_name().unwrap_or_default();
    name.as_encoded_bytes().starts_with(b"renderD")
}

/// A node of the driver.
struct Known<'p> {
    path: &'p str,
    /// Names in `/proc/devices`, of new drivers and old.
    majors: &'static [&'static str],
    /// The major number, where it is the same on every host.
    fixed: Option<u32>,
    minor: u32,
    /// What makes it.
    load: &'static str,
}

const CONTROL: Known<'static> = Known {
    path: "/dev/nvidiactl",
    majors: &["nvidia", "nvidiactl", "nvidia-frontend"],
    fixed: Some(195),
    minor: 255,
    load: "modprobe nvidia",
};

const MODESET: Known<'static> = Known {
    path: "/dev/nvidia-modeset",
    majors: &["nvidia-modeset"],
    minor: 254,
    load: "modprobe nvidia-modeset",
    ..CONTROL
};

const UVM: Known<'static> = Known {
    path: "/dev/nvidia-uvm",
    majors: &["nvidia-uvm"],
    fixed: None,
    minor: 0,
    load: "nvidia-modprobe -u -c 0",
};

const UVM_TOOLS: Known<'static> = Known { path: "/dev/nvidia-uvm-tools", minor: 1, ..UVM };

/// As the driver lays its table out: 3 for the first GPU instance, 9 for each, 15 to a card.
fn stand_in_minor(card: u32, gpu: u32, compute: Option<u32>) -> u32 {
    let first = card.saturating_mul(15).saturating_add(gpu).saturating_mul(9).saturating_add(3);
    first.saturating_add(compute.map_or(0, |compute| compute.saturating_add(1)))
}
