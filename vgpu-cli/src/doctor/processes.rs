//! The host's processes, as far as /proc shows them.

use std::path::Path;

use crate::doctor::reader::Reader;

/// A process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Its words, the program first; empty for the kernel's own.
    pub(crate) words: Vec<String>,
    /// Its environment, where this process may see it.
    pub(crate) env: Option<Vec<String>>,
}

impl Process {
    /// The program's file name. The kernel's own `comm` has 15 bytes, too few to tell MPS's daemon from its servers.
    pub(crate) fn program(&self) -> &str {
        let word = self.words.first().map_or("", String::as_str);
        word.rsplit('/').next().unwrap_or_default()
    }

    /// What stands behind a flag, `--flag VALUE` or `--flag=VALUE`.
    pub(crate) fn option(&self, flag: &str) -> Option<&str> {
        let mut words = self.words.iter();
        while let Some(word) = words.next() {
            match word.strip_prefix(flag) {
                Some("") => return words.next().map(String::as_str),
                Some(rest) if rest.starts_with('=') => return Some(&rest[1..]),
                _ => {}
            }
        }
        None
    }

    /// A variable of its environment.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        let env = self.env.as_ref()?;
        env.iter().find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }
}

/// The processes of the programs that matter here. One that ends meanwhile is gone, not unreadable.
pub(crate) fn read(reader: &mut Reader<'_>, programs: &[&str]) -> Vec<Process> {
    let mut found = Vec::new();
    for folder in reader.paths(Path::new("/proc")) {
        let Some(pid) = folder.file_name().and_then(|n| n.to_str()?.parse().ok()) else { continue };
        let Some(line) = words(reader.tree.bytes(&folder.join("cmdline"))) else { continue };
        let mut process = Process { pid, words: line, env: None };
        if programs.contains(&process.program()) {
            process.env = words(reader.tree.bytes(&folder.join("environ")));
            found.push(process);
        }
    }
    found.sort_by_key(|process| process.pid);
    found
}

fn words(read: std::io::Result<Option<Vec<u8>>>) -> Option<Vec<String>> {
    let bytes = read.ok()??;
    let words = bytes.split(|b| *b == 0).filter(|word| !word.is_empty());
    Some(words.map(|word| String::from_utf8_lossy(word).into_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_in_both_forms() {
        let words = |words: &[&str]| Process {
            words: words.iter().map(ToString::to_string).collect(),
            ..Process::default()
        };
        let process = words(&["/opt/vgpu/vgpu-plugin", "run", "--state-dir", "/a", "--cdi-dir=/b"]);
        assert_eq!(process.program(), "vgpu-plugin");
        assert_eq!(process.option("--state-dir"), Some("/a"));
        assert_eq!(process.option("--cdi-dir"), Some("/b"));
        assert_eq!(process.option("--cdi"), None);
        assert_eq!(words(&["x", "--state-dir"]).option("--state-dir"), None);
        assert_eq!(words(&[]).program(), "");
    }
}
