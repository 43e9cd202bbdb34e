//! From a host to the reason why it has no backend.

use vgpu_core::{BackendFactory, Error, ErrorKind, Host, Probe, Vendor};

use crate::pci;

/// Looks for Hygon cards on the PCI bus; nothing is loaded.
#[derive(Debug, Clone, Copy, Default)]
pub struct HygonFactory;

impl BackendFactory for HygonFactory {
    fn vendor(&self) -> Vendor {
        Vendor::HYGON
    }

    fn probe(&self, host: &Host) -> Probe {
        if let Some(library) = &host.library {
            let why = "a library of Hygon was named, and this version of vgpu loads none yet; \
                       leave it out";
            return Probe::Broken(unsupported(why).with("library", library.display()));
        }
        let cards = pci::cards(&host.root);
        if cards.is_empty() {
            let root = host.root.display();
            return Probe::Absent(format!("no Hygon card on the PCI bus below {root}"));
        }
        let why = "Hygon cards are there, and this version of vgpu cannot serve them yet; \
                   keep the vendor's own device plugin for them";
        Probe::Broken(unsupported(why).with("cards", cards.join(", ")))
    }
}

fn unsupported(why: &str) -> Error {
    Error::new(ErrorKind::Unsupported, why).during("probe")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn a_bus_without_a_card_is_absent_with_the_reason() {
        let root = tempfile::tempdir().expect("a folder");
        for prepared in [false, true] {
            if prepared {
                function(root.path(), "0000:00:00.0", "0x1d94", "0x060000");
                function(root.path(), "0000:3b:00.0", "0x10de", "0x030200");
            }
            match probe(root.path()) {
                Probe::Absent(why) => assert!(why.contains("no Hygon card"), "{why}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_card_is_told_with_its_address_and_not_as_absent() {
        let root = tempfile::tempdir().expect("a folder");
        function(root.path(), "0000:9f:00.0", "0x1d94", "0x120000");
        function(root.path(), "0000:33:00.0", "0x1d94", "0x0b4000");
        function(root.path(), "0000:34:00.0", "0x1d94", "0x038000");
        // A virtual function is a piece of a card, not a card.
        let piece = function(root.path(), "0000:99:00.1", "0x1d94", "0x120000");
        fs::write(piece.join("physfn"), "").expect("written");
        let Probe::Broken(error) = probe(root.path()) else {
            panic!("a card that cannot be served is not absent");
        };
        assert_eq!(error.kind, ErrorKind::Unsupported);
        assert_eq!(
            error.context,
            [("cards".to_owned(), "0000:33:00.0, 0000:34:00.0, 0000:9f:00.0".to_owned())]
        );
        assert!(error.message.contains("device plugin"), "it says what to do: {error}");
    }

    #[test]
    fn a_named_library_is_not_passed_over_in_silence() {
        let host = Host { library: Some("/opt/x.so".into()), ..Host::default() };
        let Probe::Broken(error) = HygonFactory.probe(&host) else {
            panic!("a named library that nobody loads is told");
        };
        assert!(error.to_string().contains("/opt/x.so"), "{error}");
    }

    fn probe(root: &Path) -> Probe {
        HygonFactory.probe(&Host { root: root.to_owned(), library: None })
    }

    fn function(root: &Path, address: &str, vendor: &str, class: &str) -> std::path::PathBuf {
        let folder = root.join("sys/bus/pci/devices").join(address);
        fs::create_dir_all(&folder).expect("made");
        fs::write(folder.join("vendor"), format!("{vendor}\n")).expect("written");
        fs::write(folder.join("class"), format!("{class}\n")).expect("written");
        folder
    }
}
