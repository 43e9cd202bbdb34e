//! What the host's own files say: the PCI bus, the driver's module, device nodes. No library is asked.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

/// Hygon on the PCI bus.
pub(crate) const VENDOR: u32 = 0x1d94;

/// The kernel module's names, new and old.
pub(crate) const MODULES: [&str; 2] = ["hycu", "hydcu"];

/// A host's files: `/`, or where somebody mounted or prepared a host's `/`.
#[derive(Debug, Clone)]
pub(crate) struct HostTree {
    root: PathBuf,
}

impl HostTree {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where a path of the host is to be read by this process.
    pub(crate) fn read_at(&self, on_host: impl AsRef<Path>) -> PathBuf {
        let normal = |c: &Component<'_>| matches!(c, Component::Normal(_));
        self.root.join(on_host.as_ref().components().filter(normal).collect::<PathBuf>())
    }

    /// A file's text without the space around it.
    pub(crate) fn text(&self, on_host: impl AsRef<Path>) -> io::Result<String> {
        fs::read(self.read_at(on_host)).map(|b| String::from_utf8_lossy(&b).trim().to_owned())
    }

    /// A file with one decimal number; nothing where it is not there or says something else.
    pub(crate) fn number<T: std::str::FromStr>(&self, on_host: impl AsRef<Path>) -> Option<T> {
        self.text(on_host).ok()?.parse().ok()
    }

    /// A file with one number as `0x…`.
    pub(crate) fn hex(&self, on_host: impl AsRef<Path>) -> Option<u32> {
        let text = self.text(on_host).ok()?;
        u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
    }

    /// The names in a folder, sorted; none where there is no such folder.
    pub(crate) fn names(&self, on_host: impl AsRef<Path>) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.read_at(on_host)) else {
            return Vec::new();
        };
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// Whether a path of the host is there; a link is not followed, it may lead elsewhere here.
    pub(crate) fn has(&self, on_host: impl AsRef<Path>) -> bool {
        fs::symlink_metadata(self.read_at(on_host)).is_ok()
    }

    /// PCI addresses of Hygon's cards, sorted: by their class, since the vendor also makes processors
    /// whose bridges are on the same bus, or because the driver holds them. The virtual functions of a
    /// card are none.
    pub(crate) fn cards(&self) -> Vec<String> {
        let mut found: Vec<String> =
            self.names(BUS).into_iter().filter(|a| self.is_card(a)).collect();
        for module in MODULES {
            let bound = self.names(format!("/sys/module/{module}/drivers/pci:{module}"));
            found.extend(bound.into_iter().filter(|a| is_address(a) && self.is_function(a)));
        }
        found.sort();
        found.dedup();
        found
    }

    /// Whether one of those cards is at an address.
    pub(crate) fn has_card(&self, address: &str) -> bool {
        let bound = |m: &str| self.has(format!("/sys/module/{m}/drivers/pci:{m}/{address}"));
        is_address(address)
            && (self.is_card(address)
                || (MODULES.into_iter().any(bound) && self.is_function(address)))
    }

    /// The module's version; `None` while no module is loaded that says one.
    pub(crate) fn driver_version(&self) -> Option<String> {
        let mut versions =
            MODULES.iter().filter_map(|m| self.text(format!("/sys/module/{m}/version")).ok());
        versions.find(|version| !version.is_empty())
    }

    /// Nodes below `/dev/dri` of a card with their numbers, sorted.
    pub(crate) fn dri_nodes(&self, address: &str) -> Vec<(PathBuf, Option<(u32, u32)>)> {
        let folder = of_card(address).join("drm");
        let names = self.names(&folder).into_iter();
        let ours = names.filter(|name| name.starts_with("card") || name.starts_with("renderD"));
        ours.map(|name| {
            let number = self.class_number(&folder.join(&name));
            (Path::new("/dev/dri").join(name), number)
        })
        .collect()
    }

    /// The number in the `dev` file of a folder of sysfs.
    pub(crate) fn class_number(&self, folder: &Path) -> Option<(u32, u32)> {
        let text = self.text(folder.join("dev")).ok()?;
        let (major, minor) = text.split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    }

    /// The number of the character device at a path of the host.
    pub(crate) fn node_number(&self, on_host: &str) -> Option<(u32, u32)> {
        let metadata = fs::metadata(self.read_at(on_host)).ok()?;
        let number = metadata.rdev();
        let major = ((number >> 8) & 0xfff) | ((number >> 32) & 0xffff_f000);
        let minor = (number & 0xff) | ((number >> 12) & 0xffff_ff00);
        let low = |n: u64| u32::try_from(n & 0xffff_ffff).expect("masked to 32 bits");
        metadata.file_type().is_char_device().then(|| (low(major), low(minor)))
    }

    fn is_card(&self, address: &str) -> bool {
        let class = self.hex(of_card(address).join("class")).map(|class| class >> 8);
        let computes =
            class.is_some_and(|class| matches!(class >> 8, 0x03 | 0x12) || class == 0x0b40);
        computes && self.is_function(address)
    }

    fn is_function(&self, address: &str) -> bool {
        let folder = of_card(address);
        self.hex(folder.join("vendor")) == Some(VENDOR) && !self.has(folder.join("physfn"))
    }
}

const BUS: &str = "/sys/bus/pci/devices";

/// A card's folder in sysfs.
pub(crate) fn of_card(address: &str) -> PathBuf {
    Path::new(BUS).join(address)
}

/// Whether a name is a PCI address; a driver's folder also holds `bind`, `uevent` and others.
fn is_address(name: &str) -> bool {
    let pieces: Vec<&str> = name.split([':', '.']).collect();
    pieces.len() == 4
        && pieces.iter().all(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_by_class_or_by_their_driver_and_no_pieces_of_cards() {
        let root = tempfile::tempdir().expect("a folder");
        let function = |address: &str, vendor: &str, class: &str| {
            let folder = root.path().join("sys/bus/pci/devices").join(address);
            fs::create_dir_all(&folder).expect("made");
            fs::write(folder.join("vendor"), format!("{vendor}\n")).expect("written");
            fs::write(folder.join("class"), format!("{class}\n")).expect("written");
            folder
        };
        function("0000:00:00.0", "0x1d94", "0x060000");
        function("0000:3b:00.0", "0x10de", "0x030200");
        function("0000:9f:00.0", "0x1d94", "0x120000");
        function("0000:33:00.0", "0x1d94", "0x0b4000");
        function("0000:34:00.0", "0x1d94", "0x038000");
        let piece = function("0000:99:00.1", "0x1d94", "0x120000");
        fs::write(piece.join("physfn"), "").expect("written");
        // Of a class that nobody knows, and the driver has it.
        function("0000:a0:00.0", "0x1d94", "0xff0000");
        for (module, address) in [("hycu", "0000:a0:00.0"), ("hydcu", "0000:33:00.0")] {
            let driver = root.path().join(format!("sys/module/{module}/drivers/pci:{module}"));
            fs::create_dir_all(driver.join(address)).expect("made");
            fs::write(driver.join("bind"), "").expect("written");
        }
        let tree = HostTree::new(root.path());
        assert_eq!(tree.cards(), ["0000:33:00.0", "0000:34:00.0", "0000:9f:00.0", "0000:a0:00.0"]);
        assert_eq!(tree.driver_version(), None);
        fs::write(root.path().join("sys/module/hydcu/version"), "6.3.8\n").expect("written");
        assert_eq!(tree.driver_version().as_deref(), Some("6.3.8"));
    }

    #[test]
    fn numbers_of_this_machine_s_nodes() {
        let tree = HostTree::new(Path::new("/"));
        assert_eq!(tree.node_number("/dev/null"), Some((1, 3)));
        assert_eq!(tree.node_number("/proc/devices"), None);
    }
}
