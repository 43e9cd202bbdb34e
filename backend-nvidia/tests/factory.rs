//! From a host to a backend, over the fake library: each machine in a process of its own, since a
//! library is never unloaded.

#[path = "support/built.rs"]
mod built;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;
use vgpu_backend_nvidia::{NvidiaFactory, NvidiaOptions};
use vgpu_core::{
    Backend, BackendFactory, DeviceId, Error, ErrorKind, Grant, Host, Meaning, Probe, Target,
};

use crate::built::built;

#[test]
fn a_host_without_card_and_library_is_absent() {
    let root = tempfile::tempdir().expect("a folder");
    let factory = NvidiaFactory::default();
    for _ in 0..2 {
        match factory.probe(&host(root.path(), None)) {
            Probe::Absent(why) => {
                assert!(why.contains("no NVIDIA card") && why.contains("libnvidia-ml"), "{why}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(factory.vendor().as_str(), "nvidia");
}

#[test]
fn a_card_without_library_is_broken() {
    let root = tempfile::tempdir().expect("a folder");
    let function = root.path().join("sys/bus/pci/devices/0000:3b:00.0");
    fs::create_dir_all(&function).expect("made");
    fs::write(function.join("vendor"), "0x10de\n").expect("written");
    fs::write(function.join("class"), "0x030200\n").expect("written");
    let error = broken(&NvidiaFactory::default(), &host(root.path(), None));
    assert_eq!((error.kind, error.operation.as_deref()), (ErrorKind::NotFound, Some("probe")));
    let said = error.to_string();
    assert!(said.contains("0000:3b:00.0") && said.contains("install the driver"), "{said}");
}

#[test]
fn a_named_library_that_is_none_is_broken() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = folder.path().join("libnvidia-ml.so.1");
    fs::write(&text, "not a library").expect("written");
    let factory = NvidiaFactory::default();
    for (library, kind) in [
        (text.as_path(), ErrorKind::Io),
        (Path::new("/nonexistent/libnvidia-ml.so.1"), ErrorKind::NotFound),
        (Path::new("libc.so.6"), ErrorKind::Invalid),
    ] {
        let error = broken(&factory, &host(folder.path(), Some(library)));
        assert_eq!(error.kind, kind, "{error}");
        let loader_says = kind == ErrorKind::Invalid || error.message.contains("file");
        assert!(loader_says, "the loader's own words are lost: {error}");
        assert!(error.message.contains(&*library.to_string_lossy()), "{error}");
    }
    // One that was found and not named is told just so.
    let found = folder.path().join("usr/lib64");
    fs::create_dir_all(&found).expect("made");
    fs::copy(&text, found.join("libnvidia-ml.so.1")).expect("copied");
    assert_eq!(broken(&factory, &host(folder.path(), None)).kind, ErrorKind::Io);
}

#[test]
fn a_driver_root_that_is_not_there_is_told() {
    let root = tempfile::tempdir().expect("a folder");
    let factory = || {
        NvidiaFactory::new(NvidiaOptions {
            driver_root: "/run/nvidia/driver".into(),
            ..NvidiaOptions::default()
        })
    };
    let there = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("made");
        fs::write(path, text).expect("written");
    };
    match factory().probe(&host(root.path(), None)) {
        Probe::Absent(why) => assert!(why.contains("/run/nvidia/driver"), "{why}"),
        other => panic!("{other:?}"),
    }
    there("sys/bus/pci/devices/0000:3b:00.0/vendor", "0x10de\n");
    there("sys/bus/pci/devices/0000:3b:00.0/class", "0x030200\n");
    let error = broken(&factory(), &host(root.path(), None));
    assert_eq!(error.kind, ErrorKind::NotFound);
    let said = error.to_string();
    assert!(said.contains("/run/nvidia/driver is not there") && said.contains("0000:3b"), "{said}");
}

#[test]
fn a_library_of_another_machine_is_told() {
    let root = tempfile::tempdir().expect("a folder");
    let folder = root.path().join("usr/lib64");
    fs::create_dir_all(&folder).expect("made");
    let mut foreign = fs::read(built("libfake_nvml.so")).expect("the fake");
    // The machine that its header names: none that there is.
    foreign[18..20].copy_from_slice(&[0x34, 0x12]);
    fs::write(folder.join("libnvidia-ml.so.1"), foreign).expect("written");
    let error = broken(&NvidiaFactory::default(), &host(root.path(), None));
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(error.message.contains("machine 4660"), "{error}");
}

#[test]
fn eight_cards_with_numa_and_topology() {
    inside("eight_cards", "h200x8");
}

#[test]
fn a_library_below_the_root_is_found() {
    inside("found_below_root", "h200x2");
}

#[test]
fn a_driver_that_is_not_loaded_is_broken() {
    inside("no_driver", "no-driver");
}

#[test]
fn a_driver_of_another_version_than_the_library_is_replaced() {
    inside_scenario("mismatch", "preset: h200x2\ninit: 18\n");
}

#[test]
fn a_start_that_failed_once_is_tried_again() {
    inside_scenario(
        "second_start",
        "preset: h200x2\nfail:\n  - { function: nvmlInitWithFlags, nth: 1, code: 9 }\n  \
         - { function: nvmlInit_v2, nth: 1, code: 9 }",
    );
}

#[test]
fn a_card_lost_from_the_start_leaves_the_others() {
    inside("lost_one", "lost-one");
}

#[test]
fn a_card_that_fell_off_is_remembered_by_the_next_backend() {
    inside_scenario("remembered", "preset: a100x4\n");
}

#[test]
fn an_old_library_has_cards_and_says_what_it_lacks() {
    inside("old_library", "a100x4");
}

/// What runs in a process whose environment names the machine; does nothing otherwise.
#[test]
#[ignore = "is started by the other tests, with a machine"]
fn child() {
    let Ok(what) = std::env::var(INSIDE) else { return };
    match what.as_str() {
        "eight_cards" => eight_cards(),
        "found_below_root" => found_below_root(),
        "lost_one" => lost_one(),
        "mismatch" => mismatch(),
        "no_driver" => no_driver(),
        "old_library" => old_library(),
        "remembered" => remembered(),
        "second_start" => second_start(),
        other => panic!("nothing is called {other}"),
    }
}

fn eight_cards() {
    let factory = NvidiaFactory::default();
    let (root, host) = fake("libfake_nvml.so");
    let backend = ready(&factory, &host);
    let scan = backend.scan().expect("a scan");
    assert_eq!((scan.devices.len(), scan.lost.len()), (8, 0));
    let numa: Vec<Option<u32>> = scan.devices.iter().map(|d| d.numa).collect();
    assert_eq!(numa, [0, 0, 0, 0, 1, 1, 1, 1].map(Some));
    assert!(scan.devices.iter().all(|d| d.model == "NVIDIA H200" && d.compute_units.get() == 132));
    let links = backend.topology().expect("links");
    assert_eq!(links.len(), 28);
    assert!(links.iter().all(|l| l.lanes == 18), "{links:?}");
    let info = backend.info();
    assert_eq!((&*info.driver, info.missing_symbols.len()), ("570.124.06", 0));
    assert_eq!(info.library, built("libfake_nvml.so"));
    // No driver below the root: a stand-in is shown by nodes.
    let edits = backend.edits(&[whole(&scan.devices[3].id)]).expect("edits");
    assert!(edits.nodes.iter().any(|n| n.path == Path::new("/dev/nvidia3")), "{edits:?}");
    let again = ready(&factory, &host);
    assert_eq!(again.scan().expect("a scan"), scan);
    drop(root);
}

fn found_below_root() {
    let root = tempfile::tempdir().expect("a folder");
    let folder = root.path().join("usr/lib/x86_64-linux-gnu");
    fs::create_dir_all(&folder).expect("made");
    fs::copy(built("libfake_nvml.so"), folder.join("libnvidia-ml.so.1")).expect("copied");
    let backend = ready(&NvidiaFactory::default(), &host(root.path(), None));
    let scan = backend.scan().expect("a scan");
    assert_eq!(scan.devices.len(), 2);
    // It was not named, so it is no stand-in: the driver's files are missed.
    let error = backend.edits(&[whole(&scan.devices[0].id)]).expect_err("no driver to show");
    assert_eq!(error.kind, ErrorKind::Io);
}

fn no_driver() {
    let (_root, host) = fake("libfake_nvml.so");
    let error = broken(&NvidiaFactory::default(), &host);
    assert_eq!((error.kind, error.vendor.as_ref().map(|v| v.code)), (ErrorKind::Io, Some(9)));
    assert!(error.message.contains("modprobe nvidia"), "{error}");
}

fn mismatch() {
    let (_root, host) = fake("libfake_nvml.so");
    let error = broken(&NvidiaFactory::default(), &host);
    let code = error.vendor.as_ref().map(|v| v.code);
    assert_eq!((error.kind, code), (ErrorKind::DriverReplaced, Some(18)));
}

fn second_start() {
    let (_root, host) = fake("libfake_nvml.so");
    let factory = NvidiaFactory::default();
    broken(&factory, &host);
    assert_eq!(ready(&factory, &host).scan().expect("a scan").devices.len(), 2);
}

fn lost_one() {
    let (_root, host) = fake("libfake_nvml.so");
    let backend = ready(&NvidiaFactory::default(), &host);
    let scan = backend.scan().expect("a scan");
    assert_eq!((scan.devices.len(), scan.lost.len()), (3, 1));
    assert_eq!(scan.lost[0].reason.kind, ErrorKind::Lost);
    for device in &scan.devices {
        assert_eq!(backend.check(&device.id).expect("checked")[0].meaning, Meaning::Good);
    }
    assert_eq!(backend.topology().expect("links").len(), 3);
}

fn remembered() {
    let (_root, host) = fake("libfake_nvml.so");
    let factory = NvidiaFactory::default();
    let first = ready(&factory, &host).scan().expect("a scan").devices.remove(1);
    control("cards: { 1: { state: lost } }\n");
    let backend = ready(&factory, &host);
    let scan = backend.scan().expect("a scan");
    assert_eq!((scan.devices.len(), &*scan.lost[0].name), (3, first.id.as_str()));
    assert_eq!(backend.check(&first.id).expect("checked")[0].meaning, Meaning::Lost);
    control("");
    assert_eq!(backend.check(&first.id).expect("checked")[0].meaning, Meaning::Good);
    assert_eq!(backend.scan().expect("a scan").devices[1], first);
}

fn old_library() {
    let (_root, host) = fake("libfake_nvml_old.so");
    let backend = ready(&NvidiaFactory::default(), &host);
    let missing = backend.info().missing_symbols;
    assert!(missing.is_sorted() && missing.contains(&"nvmlDeviceGetRemappedRows".to_owned()));
    let scan = backend.scan().expect("a scan");
    // It tells no cores; its largest profile tells the multiprocessors that can be handed out.
    assert_eq!((scan.devices.len(), scan.devices[0].compute_units.get()), (4, 98));
    assert_eq!(backend.check(&scan.devices[0].id).expect("checked")[0].meaning, Meaning::Good);
    let links = backend.topology().expect("links");
    assert!(links.iter().all(|l| l.lanes == 4), "{links:?}");
}

const INSIDE: &str = "VGPU_TEST_INSIDE";
const CONTROL: &str = "VGPU_TEST_CONTROL";

/// A scenario file with a control file beside it.
fn inside_scenario(what: &str, scenario: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("scenario.yaml");
    let control = folder.path().join("control.yaml");
    fs::write(&file, format!("{scenario}\ncontrol: {}\n", control.display())).expect("written");
    inside(what, &file.to_string_lossy());
}

fn inside(what: &str, scenario: &str) {
    let mut command = Command::new(std::env::current_exe().expect("a test knows its own path"));
    command.args(["--exact", "child", "--ignored", "--nocapture"]);
    command.env(INSIDE, what).env("FAKE_NVML", scenario);
    command.env(CONTROL, Path::new(scenario).with_file_name("control.yaml"));
    let output = command.output().expect("it starts");
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{}", said.concat());
    assert!(said[0].contains("1 passed"), "nothing ran: {}", said.concat());
}

fn control(text: &str) {
    let path = PathBuf::from(std::env::var_os(CONTROL).expect("a machine with a control file"));
    let new = path.with_extension("new");
    fs::write(&new, text).expect("written");
    fs::rename(&new, &path).expect("put in place");
}

fn host(root: &Path, library: Option<&Path>) -> Host {
    Host { root: root.to_owned(), library: library.map(Path::to_owned) }
}

/// The fake, named, on a host without any file.
fn fake(library: &str) -> (TempDir, Host) {
    let root = tempfile::tempdir().expect("a folder");
    let host = host(root.path(), Some(&built(library)));
    (root, host)
}

fn ready(factory: &NvidiaFactory, host: &Host) -> Arc<dyn Backend> {
    match factory.probe(host) {
        Probe::Ready(backend) => backend,
        other => panic!("{other:?}"),
    }
}

fn broken(factory: &NvidiaFactory, host: &Host) -> Error {
    match factory.probe(host) {
        Probe::Broken(error) => error,
        other => panic!("{other:?}"),
    }
}

fn whole(device: &DeviceId) -> Target {
    let claim = vgpu_core::ClaimId::new("claim-1").expect("an id");
    Target { claim, grant: Grant::Whole(device.clone()) }
}
