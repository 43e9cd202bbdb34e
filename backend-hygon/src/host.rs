//! What the host's own files say: the PCI bus, the driver's module, device nodes. No library is asked.

use vgpu_backend_kit::{HostTree, PciFunction, is_pci_address};

/// Hygon on the PCI bus.
const VENDOR: u32 = 0x1d94;

/// The kernel module's names, new and old.
pub(crate) const MODULES: [&str; 2] = ["hycu", "hydcu"];

/// PCI addresses of Hygon's cards, sorted: by their class, since the vendor also makes processors
/// whose bridges are on the same bus, or because the driver holds them. The virtual functions of a
/// card are none.
pub(crate) fn cards(tree: &HostTree) -> Vec<String> {
    let all = tree.pci_functions(VENDOR).into_iter();
    let mut found: Vec<String> = all.filter(is_card).map(|f| f.address).collect();
    for module in MODULES {
        let bound = tree.names(format!("/sys/module/{module}/drivers/pci:{module}")).into_iter();
        found.extend(bound.filter(|a| is_pci_address(a) && function(tree, a).is_some()));
    }
    found.sort();
    found.dedup();
    found
}

/// Whether one of those cards is at an address.
pub(crate) fn has_card(tree: &HostTree, address: &str) -> bool {
    let is_bound = |m: &str| tree.has(format!("/sys/module/{m}/drivers/pci:{m}/{address}"));
    is_pci_address(address)
        && function(tree, address).is_some_and(|f| is_card(&f) || MODULES.into_iter().any(is_bound))
}

/// The module's version; `None` while no module is loaded that says one.
pub(crate) fn driver_version(tree: &HostTree) -> Option<String> {
    let mut versions =
        MODULES.iter().filter_map(|m| tree.text(format!("/sys/module/{m}/version")).ok());
    versions.find(|version| !version.is_empty())
}

/// A function of Hygon's that is no piece of another.
fn function(tree: &HostTree, address: &str) -> Option<PciFunction> {
    tree.pci_function(VENDOR, address).filter(|f| !f.is_virtual)
}

fn is_card(function: &PciFunction) -> bool {
    let computes = |class: u32| matches!(class >> 16, 0x03 | 0x12) || class >> 8 == 0x0b40;
    !function.is_virtual && function.class.is_some_and(computes)
}

#[cfg(test)]
mod tests {
    use std::fs;

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
        assert_eq!(cards(&tree), ["0000:33:00.0", "0000:34:00.0", "0000:9f:00.0", "0000:a0:00.0"]);
        assert_eq!(driver_version(&tree), None);
        fs::write(root.path().join("sys/module/hydcu/version"), "6.3.8\n").expect("written");
        assert_eq!(driver_version(&tree).as_deref(), Some("6.3.8"));
    }
}
