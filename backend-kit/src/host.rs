//! The host's own files. No library is asked here.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

/// A host's files: `/`, or where somebody mounted or prepared a host's `/`.
#[derive(Debug, Clone)]
pub struct HostTree {
    root: PathBuf,
}

impl HostTree {
    /// The files below `root`, [`vgpu_core::Host::root`].
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Where the host's `/` is for this process.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Tells whether the tree is this process's own, so that the loader's search and variables apply to
    /// it.
    pub fn is_own(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where a path of the host is to be read by this process.
    pub fn read_at(&self, on_host: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative(on_host.as_ref()))
    }

    /// A file's text without the space around it.
    ///
    /// # Errors
    /// The host's.
    pub fn text(&self, on_host: impl AsRef<Path>) -> io::Result<String> {
        fs::read(self.read_at(on_host)).map(|b| String::from_utf8_lossy(&b).trim().to_owned())
    }

    /// A file with one decimal number; nothing where it is not there or says something else.
    pub fn number<T: FromStr>(&self, on_host: impl AsRef<Path>) -> Option<T> {
        self.text(on_host).ok()?.parse().ok()
    }

    /// A file with one number as `0x…`.
    pub fn hex(&self, on_host: impl AsRef<Path>) -> Option<u32> {
        let text = self.text(on_host).ok()?;
        u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
    }

    /// The names in a folder, sorted; none where there is no such folder.
    pub fn names(&self, on_host: impl AsRef<Path>) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.read_at(on_host)) else {
            return Vec::new();
        };
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// Tells whether a path of the host is there. A link is not followed: an absolute one leads
    /// elsewhere here than it does on the host.
    pub fn has(&self, on_host: impl AsRef<Path>) -> bool {
        fs::symlink_metadata(self.read_at(on_host)).is_ok()
    }

    /// Files of these names in these folders, folder by folder, as this process reads them; those that
    /// are there only.
    pub fn files<F: AsRef<Path>>(
        &self,
        folders: impl IntoIterator<Item = F>,
        names: &[&str],
    ) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for folder in folders {
            let paths = names.iter().map(|name| self.read_at(folder.as_ref().join(name)));
            found.extend(paths.filter(|path| path.is_file()));
        }
        found
    }

    /// The number (major, minor) of the character device at a path of the host.
    pub fn node_number(&self, on_host: impl AsRef<Path>) -> Option<(u32, u32)> {
        let metadata = fs::metadata(self.read_at(on_host)).ok()?;
        let number = metadata.rdev();
        metadata.file_type().is_char_device().then(|| (major(number), minor(number)))
    }

    /// The number (major, minor) in the `dev` file of a folder of sysfs.
    pub fn class_number(&self, folder: impl AsRef<Path>) -> Option<(u32, u32)> {
        let text = self.text(folder.as_ref().join("dev")).ok()?;
        let (major, minor) = text.split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    }
}

/// A path as it is below a root: without `/` before it, and without `..` that would lead out.
pub fn relative(path: &Path) -> PathBuf {
    path.components().filter(|c| matches!(c, Component::Normal(_))).collect()
}

/// Linux keeps 32 bits of each in a 64-bit number, in two pieces.
fn major(number: u64) -> u32 {
    low(((number >> 8) & 0xfff) | ((number >> 32) & 0xffff_f000))
}

fn minor(number: u64) -> u32 {
    low((number & 0xff) | ((number >> 12) & 0xffff_ff00))
}

fn low(number: u64) -> u32 {
    u32::try_from(number & 0xffff_ffff).expect("masked to 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_this_machine_s_nodes() {
        let tree = HostTree::new(Path::new("/"));
        assert!(tree.is_own());
        assert_eq!(tree.node_number("/dev/null"), Some((1, 3)));
        assert_eq!(tree.node_number("/proc/devices"), None);
        assert_eq!(tree.node_number("/dev/no-such-node"), None);
    }

    #[test]
    fn large_numbers_come_apart() {
        // As gnu_dev_makedev(0x12345, 0xabcde) lays them out.
        let number = (0x12_u64 << 44) | (0x345 << 8) | (0xabc << 20) | 0xde;
        assert_eq!((major(number), minor(number)), (0x12345, 0xabcde));
    }

    #[test]
    fn files_are_read_below_the_root_and_never_above_it() {
        let root = tempfile::tempdir().expect("a folder");
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("below the root")).expect("made");
            fs::write(path, text).expect("written");
        };
        put("sys/x/count", " 12\n");
        put("sys/x/id", "0x1d94\n");
        put("sys/x/dev", "226:128\n");
        put("opt/b/liba.so", "");
        put("opt/a/libb.so", "");
        let tree = HostTree::new(root.path());
        assert!(!tree.is_own());
        assert_eq!(tree.read_at("/../sys"), root.path().join("sys"));
        assert_eq!(tree.number("/sys/x/count"), Some(12_u8));
        assert_eq!(tree.number::<u8>("/sys/x/id"), None);
        assert_eq!(tree.hex("/sys/x/id"), Some(0x1d94));
        assert_eq!(tree.class_number("/sys/x"), Some((226, 128)));
        assert_eq!(tree.names("/sys/x"), ["count", "dev", "id"]);
        assert_eq!(tree.names("/sys/y"), [""; 0]);
        let files = tree.files(["/opt/a", "/opt/b"], &["liba.so", "libb.so"]);
        assert_eq!(files, [tree.read_at("/opt/a/libb.so"), tree.read_at("/opt/b/liba.so")]);
        std::os::unix::fs::symlink("/nonexistent", root.path().join("link")).expect("linked");
        assert!(tree.has("/link") && !tree.has("/no-link"));
    }
}
