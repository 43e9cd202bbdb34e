//! The host's files, below its root, within bounds.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};

/// As many links as the kernel follows.
const MOST_LINKS: usize = 40;

/// What is larger is no file of settings.
const MOST_BYTES: u64 = 16 << 20;

/// The host's `/`. Paths are those of the host, also where it is mounted elsewhere.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    root: PathBuf,
}

impl Tree {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Where this process finds a path of the host. Links are followed within the host's root: its
    /// `/var/run` leads to its own `/run`, and not to ours.
    pub(crate) fn find(&self, path: &Path) -> PathBuf {
        let mut links = 0;
        self.walk(path, &mut links).unwrap_or_else(|| self.root.join(relative(path)))
    }

    /// The path on the host that links lead to.
    pub(crate) fn real(&self, path: &Path) -> PathBuf {
        let found = self.find(path);
        Path::new("/")
            .join(found.strip_prefix(&self.root).map_or_else(|_| relative(path), Into::into))
    }

    /// A file's bytes; nothing where there is no such file.
    pub(crate) fn bytes(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        self.beginning(path, MOST_BYTES).and_then(|read| match read {
            Some(bytes) if bytes.len() as u64 > MOST_BYTES => {
                Err(io::Error::other(format!("it is larger than {} MiB", MOST_BYTES >> 20)))
            }
            read => Ok(read),
        })
    }

    /// A file's first bytes, one more than `most` where it has more.
    pub(crate) fn beginning(&self, path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
        let found = self.find(path);
        let read = || {
            // Opening a pipe would wait for a writer.
            if !fs::metadata(&found)?.is_file() {
                return Err(io::Error::other("it is no file"));
            }
            let mut bytes = Vec::new();
            File::open(&found)?.take(most + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        there(read())
    }

    /// The names in a folder, sorted; none where there is no such folder.
    pub(crate) fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        let Some(entries) = there(fs::read_dir(self.find(folder)))? else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    /// What is known of a path without opening it; links followed.
    pub(crate) fn metadata(&self, path: &Path) -> io::Result<Option<fs::Metadata>> {
        there(fs::metadata(self.find(path)))
    }

    /// Whether something is there.
    pub(crate) fn has(&self, path: &Path) -> bool {
        matches!(self.metadata(path), Ok(Some(_)))
    }

    fn walk(&self, path: &Path, links: &mut usize) -> Option<PathBuf> {
        let mut at = self.root.clone();
        for piece in path.components() {
            match piece {
                Component::ParentDir if at != self.root => drop(at.pop()),
                Component::Normal(name) => {
                    let next = at.join(name);
                    at = match fs::read_link(&next) {
                        Ok(link) => {
                            *links += 1;
                            if *links > MOST_LINKS {
                                return None;
                            }
                            let from = at.strip_prefix(&self.root).unwrap_or(Path::new(""));
                            let whole = if link.is_absolute() { link } else { from.join(link) };
                            self.walk(&whole, links)?
                        }
                        Err(_) => next,
                    };
                }
                _ => {}
            }
        }
        Some(at)
    }
}

/// Nothing, where nothing is there.
fn there<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

fn relative(path: &Path) -> PathBuf {
    path.components().filter(|piece| matches!(piece, Component::Normal(_))).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_stay_below_the_root() {
        let root = tempfile::tempdir().expect("a folder");
        let tree = Tree::new(root.path());
        fs::create_dir_all(root.path().join("run/cdi")).expect("made");
        fs::create_dir_all(root.path().join("var")).expect("made");
        fs::write(root.path().join("run/cdi/a.json"), "x").expect("written");
        symlink("/run", root.path().join("var/run")).expect("linked");
        symlink("../../../../run/cdi", root.path().join("up")).expect("linked");
        symlink("loop", root.path().join("loop")).expect("linked");
        for path in ["/var/run/cdi/a.json", "/up/a.json", "var/run/../run/cdi/a.json"] {
            assert_eq!(tree.bytes(Path::new(path)).expect("read"), Some(b"x".to_vec()), "{path}");
        }
        assert_eq!(tree.real(Path::new("/var/run/cdi")), Path::new("/run/cdi"));
        assert_eq!(tree.bytes(Path::new("/none")).expect("absent"), None);
        assert_eq!(tree.bytes(Path::new("/run/cdi/a.json/b")).expect("absent"), None);
        assert!(tree.bytes(Path::new("/loop")).is_err(), "a loop is no file and not absent");
        assert!(tree.bytes(Path::new("/run")).is_err(), "a folder is no file and not absent");
    }
}
