//! The settings of the whole machine that a kubelet changes, kept and put back.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// What kubelet sets at its start (`protectKernelDefaults: false`); none of them has a namespace.
const CHANGED: [&str; 5] = [
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/overcommit_memory",
];

/// Keeps what they are now, unless a node that did not end well has kept them already.
pub(crate) fn save(proc_sys: &Path, file: &Path) -> Result<()> {
    if file.exists() {
        return Ok(());
    }
    let mut now = BTreeMap::new();
    for name in CHANGED {
        // A kernel without one has nothing to put back.
        if let Ok(value) = fs::read_to_string(proc_sys.join(name)) {
            now.insert(name, value.trim().to_owned());
        }
    }
    fs::write(file, serde_json::to_string(&now)?)
        .with_context(|| format!("cannot write {}", file.display()))
}

/// Puts back what was kept.
pub(crate) fn restore(proc_sys: &Path, file: &Path) -> Result<()> {
    let text = match fs::read_to_string(file) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        text => text.with_context(|| format!("cannot read {}", file.display()))?,
    };
    let kept: BTreeMap<PathBuf, String> =
        serde_json::from_str(&text).with_context(|| format!("{} is damaged", file.display()))?;
    for (name, value) in kept {
        let path = proc_sys.join(name);
        if fs::read_to_string(&path)?.trim() != value {
            fs::write(&path, &value)
                .with_context(|| format!("cannot put {value} back into {}", path.display()))?;
        }
    }
    fs::remove_file(file).with_context(|| format!("cannot remove {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_is_put_back() {
        let dir = tempfile::tempdir().expect("a folder");
        let (sys, file) = (dir.path().join("sys"), dir.path().join("kept"));
        fs::create_dir_all(sys.join("kernel")).expect("makes");
        fs::write(sys.join("kernel/panic"), "0\n").expect("writes");
        save(&sys, &file).expect("saves");
        fs::write(sys.join("kernel/panic"), "10\n").expect("writes");
        save(&sys, &file).expect("a second node must not keep what the first one set");
        restore(&sys, &file).expect("restores");
        assert_eq!(fs::read_to_string(sys.join("kernel/panic")).expect("reads"), "0");
        restore(&sys, &file).expect("nothing is kept any more");
    }
}
