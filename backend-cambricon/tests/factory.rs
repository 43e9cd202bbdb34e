//! From a host to a backend, where there is no library or a wrong one.

use std::fs;
use std::path::Path;

use vgpu_backend_cambricon::CambriconFactory;
use vgpu_core::{BackendFactory, Error, ErrorKind, Host, Probe};

#[test]
fn a_bus_without_a_card_is_absent_with_the_reason() {
    let root = tempfile::tempdir().expect("a folder");
    for prepared in [false, true] {
        if prepared {
            function(root.path(), "0000:00:00.0", "0xcabc", "0x060400");
            function(root.path(), "0000:3b:00.0", "0x10de", "0x120000");
        }
        match probe(root.path(), None) {
            Probe::Absent(why) => {
                assert!(why.contains("no Cambricon card") && why.contains("libcndev"), "{why}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_card_without_library_is_told_with_its_address_and_not_as_absent() {
    let root = tempfile::tempdir().expect("a folder");
    function(root.path(), "0000:9f:00.0", "0xcabc", "0x120000");
    function(root.path(), "0000:33:00.0", "0xcabc", "0x120000");
    // A virtual function is a piece of a card, not a card.
    function(root.path(), "0000:99:00.1", "0xcabc", "0x120000");
    fs::write(root.path().join("sys/bus/pci/devices/0000:99:00.1/physfn"), "").expect("written");
    let error = broken(root.path(), None);
    assert_eq!((error.kind, error.operation.as_deref()), (ErrorKind::NotFound, Some("probe")));
    assert!(error.message.contains("0000:33:00.0, 0000:9f:00.0"), "{error}");
    assert!(error.message.contains("driver's package"), "it says what to do: {error}");
}

#[test]
fn a_named_library_that_is_none_is_broken() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = folder.path().join("libcndev.so");
    fs::write(&text, "not a library").expect("written");
    for (library, kind) in [
        (text.as_path(), ErrorKind::Io),
        (Path::new("/nonexistent/libcndev.so"), ErrorKind::NotFound),
        (Path::new("libc.so.6"), ErrorKind::Invalid),
    ] {
        let error = broken(folder.path(), Some(library));
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(&*library.to_string_lossy()), "{error}");
    }
    // One that was found and not named is told just so.
    let found = folder.path().join("usr/local/neuware/lib64");
    fs::create_dir_all(&found).expect("made");
    fs::copy(&text, found.join("libcndev.so")).expect("copied");
    assert_eq!(broken(folder.path(), None).kind, ErrorKind::Io);
}

fn probe(root: &Path, library: Option<&Path>) -> Probe {
    let host = Host { root: root.to_owned(), library: library.map(Path::to_owned) };
    CambriconFactory::default().probe(&host)
}

fn broken(root: &Path, library: Option<&Path>) -> Error {
    match probe(root, library) {
        Probe::Broken(error) => error,
        other => panic!("{other:?}"),
    }
}

fn function(root: &Path, address: &str, vendor: &str, class: &str) {
    let folder = root.join("sys/bus/pci/devices").join(address);
    fs::create_dir_all(&folder).expect("made");
    fs::write(folder.join("vendor"), format!("{vendor}\n")).expect("written");
    fs::write(folder.join("class"), format!("{class}\n")).expect("written");
}
