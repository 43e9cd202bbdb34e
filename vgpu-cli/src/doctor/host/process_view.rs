//! What of the host's processes and identity can be seen.

use std::path::Path;

use crate::doctor::catalogue::Check;
use crate::doctor::finding::Finding;
use crate::doctor::reader::Reader;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What can be seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Options of the mount of /proc.
    pub(crate) options: Vec<String>,
    /// The id of this boot.
    pub(crate) boot_id: Option<String>,
    /// Whether this process is root.
    pub(crate) root: bool,
}

/// Looks at /proc.
pub(crate) fn read(reader: &mut Reader<'_>) -> Facts {
    let mounts = reader.text(Path::new("/proc/mounts")).unwrap_or_default();
    // A later mount covers an earlier one.
    let proc = mounts.lines().rev().find(|line| line.split(' ').nth(1) == Some("/proc"));
    let options = proc.and_then(|line| line.split(' ').nth(3)).unwrap_or_default();
    Facts {
        options: options.split(',').map(str::to_owned).collect(),
        boot_id: reader.text(Path::new(BOOT_ID)).map(|id| id.trim().to_owned()),
        root: rustix::process::geteuid().is_root(),
    }
}

/// What is hidden.
pub(crate) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    let hides = |option: &&String| {
        let value = option.strip_prefix("hidepid=");
        value.is_some_and(|value| value != "0" && value != "off")
    };
    if let Some(option) = facts.options.iter().find(hides) {
        let what = format!(
            "/proc is mounted with {option}: an agent that is not root sees no holder of a card, and may \
                            take one for idle"
        );
        let remedy = "run the agent as root in the host's PID namespace, or mount /proc without it";
        found.push(Finding::new(Check::HidePid, what).at("/proc").so(remedy));
    }
    if facts.boot_id.as_ref().is_none_or(String::is_empty) {
        let what = "the id of this boot cannot be read: the agent cannot tell that parts are gone after a reboot";
        let remedy = "with --host-root, mount the host's /proc below it too";
        found.push(Finding::new(Check::NoBootId, what).at(BOOT_ID).so(remedy));
    }
    if !facts.root {
        let what =
            "`vgpu doctor` does not run as root: it may not see all processes, files and cards";
        found.push(Finding::new(Check::NotRoot, what).so("run it as root"));
    }
    found
}
