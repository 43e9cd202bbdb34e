//! Memory limits of a container's cgroup (r615), on prepared cgroup trees and the fake library.
//!
//! The trees are folders and plain files: what a kernel does with a limit is not shown here, what we
//! ask of the driver, on which cgroup, and what we make of its answers is.

#[path = "support/built.rs"]
mod built;
#[path = "support/inside.rs"]
mod inside;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vgpu_backend_nvidia::{LoadedNvml, NvidiaFactory, NvmlApi};
use vgpu_core::edits::{HookAction, HookStage};
use vgpu_core::{
    Backend, BackendFactory, Bytes, ClaimId, Confinement, Container, Device, Enforcement, Error,
    ErrorKind, Grant, Host, Probe, Scheme, Size, Sizing, Subject, Target, TrustDomain,
};

use crate::built::built;
use crate::inside::{INSIDE, control, folder, inside};

const R615: &str = "preset: h200x2\ndriver_version: \"615.36.01\"\n";
const POD: &str = "/sys/fs/cgroup/kubepods.slice/kubepods-pod1.slice";

#[test]
fn a_limit_is_set_on_the_leaf_and_read_back() {
    for backend in ["misc", "dmem"] {
        for unset in [6, 3] {
            let way = format!("cgroup_limits: {{backend: {backend}, unset: {unset}}}");
            let users = "patch: {0: {processes: [{pid: 11, used_mib: 300}, {pid: 12, used_mib: 200}, \
                         {pid: 99, used_mib: 50}]}}";
            inside("whole_life", &format!("{R615}{way}\n{users}"), v2);
        }
    }
}

#[test]
fn a_limit_that_vanished_or_differs_is_set_again() {
    inside("repaired", R615, v2);
}

#[test]
fn without_it_a_turn_has_no_size() {
    for (what, scenario) in [
        ("driver before r615", "preset: h200x2\ndriver_version: \"580.95.05\"\n".to_owned()),
        ("switched off", format!("{R615}cgroup_limits: {{backend: off}}")),
        // What it says of a cgroup without a limit could also mean that it has none, and only root
        // can find out.
        ("in doubt", format!("{R615}cgroup_limits: {{unset: 3, privileged: false}}")),
    ] {
        eprintln!("{what}");
        inside("without", &scenario, v2);
    }
    eprintln!("cgroup v1");
    inside("without", R615, v1);
    eprintln!("a library before r615");
    inside("old_library", R615, v2);
    inside("mig_has_none", &format!("{R615}patch: {{0: {{mig: {{current: 1, pending: 1}}}}}}"), v2);
}

#[test]
fn what_cannot_be_limited_is_refused() {
    inside("wrong_cgroups", &format!("{R615}cgroup_limits: {{backend: dmem}}"), v2);
    inside("unprivileged", &format!("{R615}cgroup_limits: {{privileged: false}}"), v2);
    inside("read_back_differs", &format!("{R615}cgroup_limits: {{error: 4096}}"), v2);
}

#[test]
fn a_cgroup_that_went_needs_no_clean_up() {
    inside("gone", R615, v2);
}

#[test]
fn the_soft_limit_is_taken_back_before_the_cgroup_goes() {
    inside("soft", &format!("{R615}cgroup_limits: {{backend: dmem}}"), v2);
}

/// What runs in a process whose environment names the machine; does nothing otherwise.
#[test]
#[ignore = "is started by the other tests, with a machine"]
fn child() {
    let Ok(what) = std::env::var(INSIDE) else { return };
    match what.as_str() {
        "gone" => gone(),
        "mig_has_none" => mig_has_none(),
        "old_library" => old_library(),
        "read_back_differs" => read_back_differs(),
        "repaired" => repaired(),
        "soft" => soft(),
        "unprivileged" => unprivileged(),
        "whole_life" => whole_life(),
        "without" => without(),
        "wrong_cgroups" => wrong_cgroups(),
        other => panic!("nothing is called {other}"),
    }
}

fn whole_life() {
    let backend = backend();
    let card = card(&*backend, 0);
    let info = card.scheme(&Scheme::TIME_SLICE).expect("turns");
    assert!(matches!(info.sizing, Sizing::Range(_)), "{info:?}");
    assert_eq!(info.guarantees.memory.effective(), Enforcement::Driver);
    assert_eq!(info.guarantees.compute.effective(), Enforcement::None);
    let (target, container) = (turn(&card, Bytes::gib(20)), leaf("a.scope"));
    let edits = backend.edits(std::slice::from_ref(&target)).expect("edits");
    let confines = edits.hooks.iter().filter(|hook| {
        hook.stage == HookStage::CreateRuntime && hook.action == HookAction::Confine(claim())
    });
    assert_eq!(confines.count(), 1, "{edits:?}");
    assert_eq!(limit(&*backend, &card, "a.scope"), None);
    for _ in 0..2 {
        assert_eq!(backend.confine(&target, &container), Ok(Confinement::Set));
        assert_eq!(limit(&*backend, &card, "a.scope"), Some(Bytes::gib(20)));
    }
    // 11 in the container's own cgroup, 12 in one that the container made below; not 99.
    let used = usage(&*backend, &card, "a.scope").expect("counted").memory;
    assert_eq!(used, Some(Bytes::mib(500)));
    assert_eq!(limit(&*backend, &card, "b.scope"), None, "a neighbour in the same pod");
    let other = self::card(&*backend, 1);
    assert_eq!(limit(&*backend, &other, "a.scope"), None, "another card");
    for _ in 0..2 {
        assert_eq!(backend.unconfine(&target, &container), Ok(()));
        assert_eq!(limit(&*backend, &card, "a.scope"), None);
    }
    let free = Target { claim: claim(), grant: Grant::Whole(card.id.clone()) };
    assert_eq!(backend.confine(&free, &container), Ok(Confinement::NotNeeded));
}

fn repaired() {
    let backend = backend();
    let card = card(&*backend, 0);
    let (target, container) = (turn(&card, Bytes::gib(8)), leaf("a.scope"));
    let outside = |hard: &str| {
        let cgroup = on_disk("a.scope");
        control(&format!("cgroup_limits: [{{card: 0, cgroup: {}{hard}}}]", cgroup.display()));
    };
    backend.confine(&target, &container).expect("set");
    outside(", hard_mib: 100000");
    assert_eq!(limit(&*backend, &card, "a.scope"), Some(Bytes::mib(100_000)));
    backend.confine(&target, &container).expect("set again");
    assert_eq!(limit(&*backend, &card, "a.scope"), Some(Bytes::gib(8)));
    outside("");
    assert_eq!(limit(&*backend, &card, "a.scope"), None);
    backend.confine(&target, &container).expect("set again");
    assert_eq!(limit(&*backend, &card, "a.scope"), Some(Bytes::gib(8)));
    // The container was started anew: another cgroup, of the same path or not.
    fs::remove_dir_all(on_disk("a.scope")).expect("gone");
    cgroup(&on_disk("a.scope"), "");
    assert_eq!(limit(&*backend, &card, "a.scope"), None);
    backend.confine(&target, &container).expect("set on the new one");
    assert_eq!(limit(&*backend, &card, "a.scope"), Some(Bytes::gib(8)));
}

fn without() {
    let backend = backend();
    let card = card(&*backend, 0);
    let info = card.scheme(&Scheme::TIME_SLICE).expect("turns");
    assert_eq!(info.sizing, Sizing::Turns);
    assert_eq!(info.guarantees.memory.effective(), Enforcement::None);
    let target = turn(&card, Bytes::gib(8));
    let error = backend.edits(std::slice::from_ref(&target)).expect_err("no limit to be had");
    assert_eq!(error.kind, ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("615"), "{error}");
    let error = backend.confine(&target, &leaf("a.scope")).expect_err("nor here");
    assert_eq!(error.kind, ErrorKind::Unsupported, "{error}");
    assert_eq!(limit(&*backend, &card, "a.scope"), None);
    // It went with the driver that had it.
    assert_eq!(backend.unconfine(&target, &leaf("a.scope")), Ok(()));
}

fn old_library() {
    let backend = open("libfake_nvml_old.so");
    let missing = backend.info().missing_symbols;
    assert!(missing.contains(&"nvmlDeviceSetMemoryLimits_v1".to_owned()), "{missing:?}");
    let info = card(&*backend, 0);
    assert_eq!(info.scheme(&Scheme::TIME_SLICE).expect("turns").sizing, Sizing::Turns);
}

fn mig_has_none() {
    let backend = backend();
    let sizing =
        |at| card(&*backend, at).scheme(&Scheme::TIME_SLICE).expect("turns").sizing.clone();
    assert_eq!(sizing(0), Sizing::Turns);
    assert!(matches!(sizing(1), Sizing::Range(_)), "its neighbour is not in MIG mode");
}

fn wrong_cgroups() {
    let backend = backend();
    let card = card(&*backend, 0);
    let target = turn(&card, Bytes::gib(8));
    let refused = |cgroup: &str| {
        let container = Container { cgroup: cgroup.into(), pid: 1, pid_namespace: 1 };
        let error = backend.confine(&target, &container).expect_err(cgroup);
        assert_eq!(error.operation.as_deref(), Some("confine"));
        error
    };
    for everybodys in ["/", "/sys/fs/cgroup", "/etc", "relative"] {
        assert_eq!(refused(everybodys).kind, ErrorKind::Invalid, "{everybodys}");
    }
    let ended = refused(&format!("{POD}/no-such.scope"));
    assert_eq!(ended.kind, ErrorKind::NotFound, "{ended}");
    // The pod passes the controller on to a.scope, and not to this one.
    cgroup(&on_disk("without-dmem.scope"), "");
    fs::remove_file(on_disk("without-dmem.scope").join("dmem.max")).expect("taken away");
    let error = refused(&format!("{POD}/without-dmem.scope"));
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(error.message.contains("+dmem"), "{error}");
    fs::remove_file(on_disk("a.scope").join("cgroup.controllers")).expect("taken away");
    let old = refused(&format!("{POD}/a.scope"));
    assert_eq!(old.kind, ErrorKind::Unsupported, "{old}");
    let odd = turn(&card, Bytes(123_456_789));
    let error = backend.confine(&odd, &leaf("b.scope")).expect_err("off the grid");
    assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
    assert_eq!(limit(&*backend, &card, "b.scope"), None);
}

fn unprivileged() {
    let backend = backend();
    let card = card(&*backend, 0);
    let error = backend.confine(&turn(&card, Bytes::gib(8)), &leaf("a.scope")).expect_err("root");
    assert_eq!(error.kind, ErrorKind::Permission, "{error}");
    assert!(error.message.contains("run as root"), "{error}");
}

fn read_back_differs() {
    let backend = backend();
    let card = card(&*backend, 0);
    let error = backend.confine(&turn(&card, Bytes::gib(8)), &leaf("a.scope")).expect_err("wrong");
    assert_eq!(error.kind, ErrorKind::Vendor);
    assert!(error.message.contains("8Gi") && error.message.contains("in force"), "{error}");
}

fn gone() {
    let backend = backend();
    let card = card(&*backend, 0);
    let target = turn(&card, Bytes::gib(8));
    for scope in ["a.scope", "b.scope"] {
        backend.confine(&target, &leaf(scope)).expect("set");
    }
    control("cards: {0: {state: lost}}");
    let error: Error = backend.unconfine(&target, &leaf("a.scope")).expect_err("not now");
    assert_eq!(error.kind, ErrorKind::Lost, "{error}");
    fs::remove_dir_all(on_disk("b.scope")).expect("gone");
    assert_eq!(backend.unconfine(&target, &leaf("b.scope")), Ok(()));
    control("");
    assert_eq!(backend.unconfine(&target, &leaf("a.scope")), Ok(()));
    assert_eq!(limit(&*backend, &card, "a.scope"), None);
}

/// The driver's own behaviour, as far as the field notes tell it: ancestors keep what is not taken back.
fn soft() {
    let nvml = LoadedNvml::load(built("libfake_nvml.so")).expect("loaded");
    let reserved = |path: &str| {
        let text = fs::read_to_string(root().join(&path[1..]).join("dmem.min")).expect("a file");
        text.trim().parse::<u64>().expect("a number")
    };
    let (a, b) = (on_disk("a.scope"), on_disk("b.scope"));
    nvml.set_memory_limits(0, &a, 1 << 30, Some(1 << 30)).expect("set");
    nvml.set_memory_limits(0, &b, 2 << 30, Some(2 << 30)).expect("set");
    assert_eq!(reserved(POD), 3 << 30);
    nvml.set_memory_limits(0, &a, 0, None).expect("taken back");
    fs::remove_dir_all(&a).expect("gone");
    assert_eq!(reserved(POD), 2 << 30);
    fs::remove_dir_all(&b).expect("gone, and nobody told the driver");
    assert_eq!(reserved(POD), 2 << 30, "stays for ever");
    // What this backend sets for turns has none, so that nothing can stay.
    let backend = backend();
    let card = card(&*backend, 0);
    cgroup(&a, "11");
    backend.confine(&turn(&card, Bytes::gib(8)), &leaf("a.scope")).expect("set");
    assert_eq!(reserved(POD), 2 << 30);
}

fn backend() -> Arc<dyn Backend> {
    open("libfake_nvml.so")
}

fn open(library: &str) -> Arc<dyn Backend> {
    let host = Host { root: root(), library: Some(built(library)) };
    match NvidiaFactory::default().probe(&host) {
        Probe::Ready(backend) => backend,
        other => panic!("{other:?}"),
    }
}

fn card(backend: &dyn Backend, at: usize) -> Device {
    backend.scan().expect("a scan").devices.remove(at)
}

fn claim() -> ClaimId {
    ClaimId::new("claim-1").expect("an id")
}

fn turn(card: &Device, memory: Bytes) -> Target {
    let grant = Grant::Shared {
        device: card.id.clone(),
        scheme: Scheme::TIME_SLICE,
        size: Size { memory: Some(memory), compute: None },
        domain: TrustDomain::new("team").expect("a domain"),
    };
    Target { claim: claim(), grant }
}

fn leaf(scope: &str) -> Container {
    Container { cgroup: Path::new(POD).join(scope), pid: 11, pid_namespace: 4_026_531_999 }
}

fn usage(backend: &dyn Backend, card: &Device, scope: &str) -> Option<vgpu_core::Usage> {
    let subject = Subject::Cgroup(card.id.clone(), Path::new(POD).join(scope));
    match backend.usage(&subject) {
        Ok(usage) => Some(usage),
        Err(error) if error.kind == ErrorKind::NotFound => None,
        Err(error) => panic!("{error}"),
    }
}

fn limit(backend: &dyn Backend, card: &Device, scope: &str) -> Option<Bytes> {
    usage(backend, card, scope)?.limit
}

fn root() -> PathBuf {
    folder().join("root")
}

fn on_disk(scope: &str) -> PathBuf {
    root().join(&POD[1..]).join(scope)
}

/// A host of cgroup v2 with two containers in one pod, one with a cgroup of its own below.
fn v2(folder: &Path) {
    tree(folder, cgroup);
}

/// The same under version 1's memory controller, which has no `cgroup.controllers`.
fn v1(folder: &Path) {
    tree(folder, |path, pids| {
        fs::create_dir_all(path).expect("made");
        fs::write(path.join("cgroup.procs"), pids).expect("written");
    });
}

fn tree(folder: &Path, cgroup: impl Fn(&Path, &str)) {
    let top = folder.join("root/sys/fs/cgroup");
    cgroup(&top, "1\n");
    for (path, pids) in [
        ("kubepods.slice", ""),
        ("kubepods.slice/kubepods-pod1.slice", ""),
        ("kubepods.slice/kubepods-pod1.slice/a.scope", "11\n"),
        ("kubepods.slice/kubepods-pod1.slice/a.scope/nested", "12\n"),
        ("kubepods.slice/kubepods-pod1.slice/b.scope", "99\n"),
    ] {
        cgroup(&top.join(path), pids);
    }
    for root_only in ["dmem.max", "dmem.min"] {
        // The root of the hierarchy has no limits of its own.
        let _ = fs::remove_file(top.join(root_only));
    }
}

fn cgroup(path: &Path, pids: &str) {
    fs::create_dir_all(path).expect("made");
    for (file, text) in [
        ("cgroup.procs", pids),
        ("cgroup.controllers", "cpu memory dmem\n"),
        ("dmem.max", "max\n"),
        ("dmem.min", "0\n"),
    ] {
        fs::write(path.join(file), text).expect("written");
    }
}
