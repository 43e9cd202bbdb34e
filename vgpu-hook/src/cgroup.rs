//! Where a process is: its cgroup, as a folder on this host, and its PID namespace.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use crate::Outcome;
use crate::state::bounded;

/// The tables in `/proc` that are read here are short, except where hundreds of containers are mounted.
const MAX_TABLE: u64 = 16 << 20;

/// The folder of a process's cgroup: on cgroup v1 that of the memory or else the devices controller.
pub(crate) fn folder(proc: &Path, pid: u32) -> Outcome<PathBuf> {
    let path = proc.join(pid.to_string()).join("cgroup");
    let (hierarchy, within) = choose(&read(&path)?)
        .ok_or_else(|| format!("{} has no cgroup that is used here", path.display()))?;
    let table = proc.join("self/mountinfo");
    on_host(&hierarchy, &within, mounts(&table)?).ok_or_else(|| {
        format!(
            "the {hierarchy} cgroup {within} of process {pid} lies under no mount of {}; is the hook in a cgroup or \
             mount namespace of its own?",
            table.display()
        )
    })
}

/// The inode of a process's PID namespace.
pub(crate) fn pid_namespace(proc: &Path, pid: u32) -> Outcome<u64> {
    let path = proc.join(pid.to_string()).join("ns/pid");
    let text = fs::read_link(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    let inode = text.to_str().and_then(|text| text.strip_prefix("pid:[")?.strip_suffix(']'));
    inode
        .and_then(|inode| inode.parse().ok())
        .ok_or_else(|| format!("{} is {}, not pid:[number]", path.display(), text.display()))
}

/// The hierarchy (`unified`, or a controller of v1) and the path in it.
fn choose(table: &str) -> Option<(String, String)> {
    let find = |controller: &str| {
        table.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            controllers.split(',').any(|name| name == controller).then(|| path.to_owned())
        })
    };
    // A hybrid host has both; its limits are set in v1.
    ["memory", "devices"]
        .into_iter()
        .find_map(|name| Some((name.to_owned(), find(name)?)))
        .or_else(|| Some(("unified".to_owned(), find("")?)))
}

/// The folder on this host by the lines of the mount table, which are
/// `id parent dev root point options… - type source superoptions`. The hierarchies are mounted before any container,
/// so the many lines of containers are not read.
fn on_host(
    hierarchy: &str,
    within: &str,
    mut mounts: impl Iterator<Item = String>,
) -> Option<PathBuf> {
    // A path with `..` starts above the cgroup namespace that this process sees.
    if !within.starts_with('/') || within.split('/').any(|part| part == "..") {
        return None;
    }
    mounts.find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, point) = (unescaped(mount.next()?), unescaped(mount.next()?));
        let mut filesystem = filesystem.split(' ');
        let kind = filesystem.next()?;
        let is_it = match hierarchy {
            "unified" => kind == "cgroup2",
            controller => {
                kind == "cgroup" && filesystem.nth(1)?.split(',').any(|option| option == controller)
            }
        };
        let below = Path::new(within).strip_prefix(root).ok().filter(|_| is_it)?;
        // Joining an empty rest would leave a slash at the end.
        Some(if below.as_os_str().is_empty() {
            point.into()
        } else {
            Path::new(&point).join(below)
        })
    })
}

/// Spaces and the like are written as `\040` there.
fn unescaped(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .into_iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (code, meaning)| text.replace(code, meaning))
}

/// The lines of a mount table, each as it is asked for: the kernel writes them then. One that is not UTF-8 is somebody's
/// folder, and left out.
fn mounts(path: &Path) -> Outcome<impl Iterator<Item = String>> {
    let table = File::open(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    let lines = BufReader::new(table.take(MAX_TABLE)).split(b'\n').map_while(Result::ok);
    Ok(lines.filter_map(|line| String::from_utf8(line).ok()))
}

fn read(path: &Path) -> Outcome<String> {
    File::open(path)
        .and_then(|file| bounded(file, MAX_TABLE))
        .map_err(|e| format!("cannot read {}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "24 30 0:22 / /sys rw - sysfs sysfs rw\n\
                      31 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "31 24 0:26 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n\
                      32 24 0:27 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n\
                      33 24 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";

    fn found(table: &str, mounts: &str) -> Option<String> {
        let (hierarchy, within) = choose(table)?;
        let mounts = mounts.lines().map(str::to_owned);
        Some(on_host(&hierarchy, &within, mounts)?.to_str().expect("UTF-8").to_owned())
    }

    #[test]
    fn v2_has_one_hierarchy() {
        let found = found("0::/kubepods.slice/pod1/cri-containerd-abc.scope\n", V2);
        let expected = "/sys/fs/cgroup/kubepods.slice/pod1/cri-containerd-abc.scope";
        assert_eq!(found.as_deref(), Some(expected));
    }

    #[test]
    fn v1_has_many() {
        let table =
            "12:devices:/kubepods/d\n9:cpu,cpuacct:/kubepods/c\n7:memory:/kubepods/m:1\n0::/\n";
        assert_eq!(found(table, V1).as_deref(), Some("/sys/fs/cgroup/memory/kubepods/m:1"));
        let no_memory = "12:devices:/kubepods/d\n0::/\n";
        assert_eq!(found(no_memory, V1).as_deref(), Some("/sys/fs/cgroup/devices/kubepods/d"));
    }

    #[test]
    fn the_root_cgroup_has_no_slash_at_its_end() {
        assert_eq!(found("0::/\n", V2).as_deref(), Some("/sys/fs/cgroup"));
    }

    #[test]
    fn mounts_of_a_part_are_understood() {
        let part = "31 24 0:26 /kubepods /mnt/a\\040b rw - cgroup2 none rw\n";
        assert_eq!(found("0::/kubepods/x\n", part).as_deref(), Some("/mnt/a b/x"));
        assert_eq!(found("0::/system/x\n", part), None);
    }

    #[test]
    fn a_mount_that_is_no_text_is_passed_over() {
        let dir = tempfile::tempdir().expect("a folder");
        let table = dir.path().join("mountinfo");
        let mut text = b"20 1 0:9 / /mnt/\xff rw - tmpfs none rw\n".to_vec();
        text.extend_from_slice(V2.as_bytes());
        fs::write(&table, text).expect("a table");
        assert_eq!(mounts(&table).expect("it is read").count(), 2);
    }

    #[test]
    fn outside_the_namespace_is_nowhere() {
        assert_eq!(found("0::/../kubepods/x\n", V2), None);
        assert_eq!(found("1:cpu:/x\n", V2), None);
        assert_eq!(found("", V2), None);
    }
}
