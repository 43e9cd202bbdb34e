//! Where to look, and for whose cards.

use std::path::PathBuf;

use vgpu_kubelet_plugin::KubeletPaths;
use vgpu_plugin::sockets::SocketPaths;

use crate::backends::Name;
use crate::doctor::tree::Tree;

/// What every topic is looked at with. Paths are those of the host.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    pub(crate) tree: Tree,
    /// Whether the host's root is this process's own: what runs here runs there.
    pub(crate) on_host: bool,
    pub(crate) kubelet: KubeletPaths,
    pub(crate) kubelet_dir: PathBuf,
    pub(crate) cdi_dir: PathBuf,
    pub(crate) state_dir: PathBuf,
    pub(crate) hook_dir: Option<PathBuf>,
    pub(crate) runtime_endpoint: Option<PathBuf>,
    pub(crate) mps_dir: PathBuf,
    /// Whose cards vgpu serves here, or will.
    pub(crate) vendors: Vec<Name>,
}

impl Places {
    /// Whether vgpu serves this vendor's cards here.
    pub(crate) fn serves(&self, vendor: Name) -> bool {
        self.vendors.contains(&vendor)
    }

    /// The agent's sockets, as this process finds them.
    pub(crate) fn sockets(&self) -> SocketPaths {
        SocketPaths::under(&self.tree.find(&self.state_dir))
    }
}
