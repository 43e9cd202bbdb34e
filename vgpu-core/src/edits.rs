//! What changes in a container so that it sees its grant and nothing else. Vendor-free,
//! Kubernetes-free.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::id::ClaimId;

/// Everything for one claim.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerEdits {
    /// Device nodes.
    pub nodes: Vec<DeviceNode>,
    /// Mounts.
    pub mounts: Vec<Mount>,
    /// Files of the claim.
    pub files: Vec<ClaimFile>,
    /// Environment: for information and for choosing, never for limiting.
    pub env: Vec<(String, String)>,
    /// Hooks.
    pub hooks: Vec<Hook>,
}

impl ContainerEdits {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
            && self.mounts.is_empty()
            && self.files.is_empty()
            && self.env.is_empty()
            && self.hooks.is_empty()
    }

    /// Adds `other`; what both have once stays once.
    ///
    /// # Errors
    /// `Invalid` where both put something different at one container path or variable: one of the
    /// two would silently lose.
    pub fn merge(mut self, other: Self) -> Result<Self> {
        merge_by(&mut self.nodes, other.nodes, "device node", |n| n.path.display().to_string())?;
        merge_by(&mut self.mounts, other.mounts, "mount", |m| m.container.display().to_string())?;
        merge_by(&mut self.files, other.files, "file", |f| f.container.display().to_string())?;
        merge_by(&mut self.env, other.env, "variable", |(key, _)| key.clone())?;
        for hook in other.hooks {
            if !self.hooks.contains(&hook) {
                self.hooks.push(hook);
            }
        }
        Ok(self)
    }
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// Path in the container.
    pub path: PathBuf,
    /// Path on the host, if another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_path: Option<PathBuf>,
    /// Major and minor of a character device, where the host may lack the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<(u32, u32)>,
    /// What the device cgroup allows.
    pub access: Access,
}

impl DeviceNode {
    /// A node at the same path on host and in container, read and write.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), host_path: None, number: None, access: Access::ReadWrite }
    }
}

/// What the device cgroup allows on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Read and write.
    ReadWrite,
    /// Read, write and mknod; nearly never.
    ReadWriteMknod,
}

impl Access {
    /// As CDI and the device cgroup write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadWrite => "rw",
            Self::ReadWriteMknod => "rwm",
        }
    }
}

/// A bind mount; read-only unless it must not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// On the host.
    pub host: PathBuf,
    /// In the container.
    pub container: PathBuf,
    /// What the tenant may do.
    pub mode: MountMode,
}

/// What a tenant may do with a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MountMode {
    /// Read; files may be executed and libraries mapped.
    ReadOnly,
    /// Write, execute nothing: sockets and shared memory only.
    Writable,
}

/// A file that the agent writes (root, 0444) into the claim's own folder and mounts read-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimFile {
    /// Path in the container.
    pub container: PathBuf,
    /// Its text.
    pub text: String,
}

/// A call of our hook program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// When.
    pub stage: HookStage,
    /// What.
    pub action: HookAction,
}

/// What our hook program does; the renderer puts its path on the host, no backend knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HookAction {
    /// Tell the agent which cgroup and PID namespace the claim got; the agent calls
    /// `Isolation::confine`; refusal ends the start.
    Confine(ClaimId),
    /// `link -> target` inside the container.
    Link(Vec<Symlink>),
    /// Refresh the loader's cache with these folders of the container.
    LoaderCache(Vec<PathBuf>),
}

/// A symbolic link inside the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Symlink {
    /// What it points to.
    pub target: PathBuf,
    /// Where it lies.
    pub link: PathBuf,
}

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HookStage {
    /// In the container's mount namespace, before the switch of root.
    CreateContainer,
    /// On the host, cgroup made, root not yet switched.
    CreateRuntime,
}

fn merge_by<T: PartialEq>(
    ours: &mut Vec<T>,
    theirs: Vec<T>,
    what: &str,
    key: impl Fn(&T) -> String,
) -> Result<()> {
    for item in theirs {
        match ours.iter().find(|o| key(o) == key(&item)) {
            None => ours.push(item),
            Some(same) if *same == item => {}
            Some(_) => {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    format!("two grants want a different {what} {}", key(&item)),
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edits(node: &str, env: &str) -> ContainerEdits {
        ContainerEdits {
            nodes: vec![DeviceNode::at("/dev/ctl"), DeviceNode::at(node)],
            env: vec![("CARD".into(), env.into())],
            ..ContainerEdits::default()
        }
    }

    #[test]
    fn merging_keeps_the_common_once_and_refuses_a_conflict() {
        let merged = edits("/dev/a", "x").merge(edits("/dev/b", "x")).expect("no conflict");
        assert_eq!(merged.nodes.len(), 3);
        let e = edits("/dev/a", "x").merge(edits("/dev/b", "y")).unwrap_err();
        assert_eq!(e.kind, ErrorKind::Invalid);
        assert!(e.message.contains("CARD"));
    }
}
