//! What the host's files say of the PCI bus.

use std::path::{Path, PathBuf};

use crate::host::HostTree;

/// A function on the PCI bus, as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PciFunction {
    /// `dddd:bb:dd.f` in lower case.
    pub address: String,
    /// Class in bits 23 to 16, subclass in 15 to 8, interface in 7 to 0; `None` where it is not told.
    pub class: Option<u32>,
    /// Whether it is a virtual function, a piece of another.
    pub is_virtual: bool,
}

impl HostTree {
    /// Every function of a vendor's, sorted by address.
    pub fn pci_functions(&self, vendor: u32) -> Vec<PciFunction> {
        let all = self.names(BUS).into_iter();
        all.filter_map(|address| self.pci_function(vendor, &address)).collect()
    }

    /// The function at an address, if it is that vendor's.
    pub fn pci_function(&self, vendor: u32, address: &str) -> Option<PciFunction> {
        let folder = pci_folder(address);
        (self.hex(folder.join("vendor"))? == vendor).then(|| PciFunction {
            address: address.to_owned(),
            class: self.hex(folder.join("class")),
            is_virtual: self.has(folder.join("physfn")),
        })
    }

    /// The NUMA node of a function; the kernel says -1 where there is none.
    pub fn numa_node(&self, address: &str) -> Option<u32> {
        self.number(pci_folder(address).join("numa_node"))
    }

    /// Nodes below `/dev/dri` of a function with their numbers, sorted.
    pub fn dri_nodes(&self, address: &str) -> Vec<(PathBuf, Option<(u32, u32)>)> {
        let folder = pci_folder(address).join("drm");
        let names = self.names(&folder).into_iter();
        let nodes = names.filter(|name| name.starts_with("card") || name.starts_with("renderD"));
        nodes
            .map(|name| {
                let number = self.class_number(folder.join(&name));
                (Path::new("/dev/dri").join(name), number)
            })
            .collect()
    }
}

const BUS: &str = "/sys/bus/pci/devices";

/// A function's folder in sysfs, on the host.
pub fn pci_folder(address: &str) -> PathBuf {
    Path::new(BUS).join(address)
}

/// Tells whether a name is a PCI address; a driver's folder also holds `bind`, `uevent` and others.
pub fn is_pci_address(name: &str) -> bool {
    let pieces: Vec<&str> = name.split([':', '.']).collect();
    pieces.len() == 4
        && pieces.iter().all(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn functions_of_a_vendor_with_their_class() {
        let root = tempfile::tempdir().expect("a folder");
        let put = |address: &str, files: &[(&str, &str)]| {
            let folder = root.path().join("sys/bus/pci/devices").join(address);
            for (file, text) in files {
                let file = folder.join(file);
                fs::create_dir_all(file.parent().expect("below the root")).expect("made");
                fs::write(file, text).expect("written");
            }
        };
        put("0000:9f:00.0", &[("vendor", "0x1d94\n"), ("class", "0x120000\n"), ("physfn", "")]);
        put("0000:1b:00.0", &[("vendor", "0x1d94\n"), ("numa_node", "-1\n")]);
        put("0000:1b:00.0", &[("drm/renderD128/dev", "226:128\n"), ("drm/card0/uevent", "")]);
        put("0000:1c:00.0", &[("vendor", "0x10de\n"), ("numa_node", "1\n")]);
        let tree = HostTree::new(root.path());
        let found = tree.pci_functions(0x1d94);
        let said: Vec<_> =
            found.iter().map(|f| (f.address.as_str(), f.class, f.is_virtual)).collect();
        assert_eq!(said, [("0000:1b:00.0", None, false), ("0000:9f:00.0", Some(0x12_0000), true)]);
        assert_eq!(tree.pci_function(0x1d94, "0000:1c:00.0"), None);
        assert_eq!(
            (tree.numa_node("0000:1b:00.0"), tree.numa_node("0000:1c:00.0")),
            (None, Some(1))
        );
        let nodes = tree.dri_nodes("0000:1b:00.0");
        let said: Vec<_> = nodes.iter().map(|(path, number)| (path.to_str(), *number)).collect();
        assert_eq!(
            said,
            [(Some("/dev/dri/card0"), None), (Some("/dev/dri/renderD128"), Some((226, 128)))]
        );
    }

    #[test]
    fn an_address_has_four_numbers() {
        assert!(is_pci_address("0000:3b:00.0") && is_pci_address("10000:ff:1f.7"));
        for name in ["bind", "0000:3b:00", "0000:3b:00.", "0000:3g:00.0", ""] {
            assert!(!is_pci_address(name), "{name}");
        }
    }
}
