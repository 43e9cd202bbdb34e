//! The node's own corner of the machine's cgroups, v1 or v2 as the machine has them.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::cluster::process::retry;

/// The name of a node's group in every hierarchy, and its kubelet's `cgroupRoot`; another for each folder, so that
/// several nodes run side by side.
pub(crate) fn name(dir: &Path) -> String {
    // FNV-1a: the same folder has the same name in every run.
    let mix = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    let hash = dir.as_os_str().as_bytes().iter().fold(0x811c_9dc5, mix);
    format!("vgpu-cluster-{hash:08x}")
}

/// What pods need to be limited by.
const CONTROLLERS: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

/// Which cgroups the machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// What the machine has, from how its cgroups are mounted.
pub(crate) fn version(root: &Path) -> Version {
    if root.join("cgroup.controllers").exists() { Version::V2 } else { Version::V1 }
}

/// Makes our groups; nothing of the machine's own groups is changed.
pub(crate) fn make(root: &Path, name: &str) -> Result<()> {
    let groups = groups(root, name);
    ensure!(!groups.is_empty(), "{} has no cgroups", root.display());
    for group in groups {
        fs::create_dir_all(&group).with_context(|| format!("cannot make {}", group.display()))?;
        if version(root) == Version::V2 {
            delegate(&group)?;
        } else if group.join("cpuset.cpus").exists() {
            inherit(&group, "cpuset.cpus")?;
            inherit(&group, "cpuset.mems")?;
        }
    }
    Ok(())
}

/// Removes our groups with all that pods left in them; waits for those that are still ending.
pub(crate) fn remove(root: &Path, name: &str) -> Result<()> {
    for group in groups(root, name).into_iter().filter(|g| g.exists()) {
        retry(Duration::from_secs(20), || {
            remove_tree(&group)
                .with_context(|| format!("cannot remove the cgroup {}", group.display()))
        })?;
    }
    Ok(())
}

fn groups(root: &Path, name: &str) -> Vec<PathBuf> {
    if version(root) == Version::V2 {
        return vec![root.join(name)];
    }
    let Ok(entries) = fs::read_dir(root) else { return Vec::new() };
    let hierarchies = entries.filter_map(|e| Some(e.ok()?.path()));
    let mut groups: Vec<PathBuf> = hierarchies
        // Names like cpu,cpuacct have links from cpu and from cpuacct.
        .filter(|dir| dir.join("cgroup.procs").exists() && !dir.is_symlink())
        .map(|dir| dir.join(name))
        .collect();
    groups.sort();
    groups
}

/// A new cpuset is empty, and no process may enter it.
fn inherit(group: &Path, file: &str) -> Result<()> {
    let parent = group.parent().expect("a group lies in a hierarchy").join(file);
    let text =
        fs::read_to_string(&parent).with_context(|| format!("cannot read {}", parent.display()))?;
    fs::write(group.join(file), text.trim())
        .with_context(|| format!("cannot write {file} of {}", group.display()))
}

/// Below v2's root a group has the controllers that its parent gives; we do not change the parent.
fn delegate(group: &Path) -> Result<()> {
    let given = fs::read_to_string(group.join("cgroup.controllers"))?;
    let lacking: Vec<&str> =
        CONTROLLERS.into_iter().filter(|c| !given.split_whitespace().any(|g| g == *c)).collect();
    ensure!(
        lacking.is_empty(),
        "the machine's root cgroup does not delegate {}; write +{} into its cgroup.subtree_control",
        lacking.join(", "),
        lacking.join(" +")
    );
    let all: Vec<String> = given.split_whitespace().map(|c| format!("+{c}")).collect();
    fs::write(group.join("cgroup.subtree_control"), all.join(" "))
        .with_context(|| format!("cannot delegate to {}", group.display()))
}

/// Leaves first; the files in a group are not removed, they go with it.
fn remove_tree(group: &Path) -> std::io::Result<()> {
    let entries = match fs::read_dir(group) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_has_a_group_in_every_hierarchy() {
        let root = tempfile::tempdir().expect("a folder");
        for hierarchy in ["cpuset", "memory"] {
            fs::create_dir_all(root.path().join(hierarchy)).expect("makes");
            fs::write(root.path().join(hierarchy).join("cgroup.procs"), "").expect("writes");
        }
        fs::create_dir(root.path().join("no-hierarchy")).expect("makes");
        assert_eq!(version(root.path()), Version::V1);
        make(root.path(), "vgpu-cluster").expect("makes");
        assert_eq!(
            groups(root.path(), "vgpu-cluster"),
            [root.path().join("cpuset/vgpu-cluster"), root.path().join("memory/vgpu-cluster")]
        );
        fs::create_dir_all(root.path().join("memory/vgpu-cluster/kubepods/pod1")).expect("makes");
        remove(root.path(), "vgpu-cluster").expect("removes");
        assert!(groups(root.path(), "vgpu-cluster").iter().all(|g| !g.exists()));
    }

    #[test]
    fn each_folder_has_a_name_of_its_own() {
        let (one, other) = (name(Path::new("/var/tmp/a")), name(Path::new("/var/tmp/b")));
        assert_ne!(one, other);
        assert_eq!(one, name(Path::new("/var/tmp/a")));
        assert!(one.strip_prefix("vgpu-cluster-").is_some_and(|hash| hash.len() == 8));
    }

    #[test]
    fn v2_asks_for_what_is_not_delegated() {
        let root = tempfile::tempdir().expect("a folder");
        fs::write(root.path().join("cgroup.controllers"), "cpu memory\n").expect("writes");
        let group = root.path().join("vgpu-cluster");
        fs::create_dir(&group).expect("makes");
        fs::write(group.join("cgroup.controllers"), "cpu memory\n").expect("writes");
        let error = make(root.path(), "vgpu-cluster").expect_err("it lacks some").to_string();
        assert!(error.contains("+cpuset +pids"), "{error}");
    }
}
