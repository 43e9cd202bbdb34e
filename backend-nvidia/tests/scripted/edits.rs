//! Edits on prepared hosts, word for word.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use std::sync::Arc;

use tempfile::TempDir;
use vgpu_backend_nvidia::{MigMode, NvidiaBackend, NvidiaOptions, NvmlApi};
use vgpu_core::cdi::{Kind, RenderOptions, Spec, audit, render, validate};
use vgpu_core::edits::{ContainerEdits, HookAction};
use vgpu_core::{
    Bytes, ClaimId, ComputeShare, Confinement, Container, ErrorKind, Grant, Host, Isolation,
    PartitionId, Scheme, Size, Target, TrustDomain,
};

use crate::nvml::{Scripted, address};
use crate::{backend_at, id, options};

const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// A host with two cards and a driver as a distribution installs it.
fn host() -> TempDir {
    let root = tempfile::tempdir().expect("a folder");
    let lib = root.path().join(LIBRARIES);
    write(&root, "proc/devices", DEVICES);
    for name in ["libcuda", "libnvidia-ml", "libnvidia-ptxjitcompiler", "libGLX_nvidia"] {
        write(&root, &format!("{LIBRARIES}/{name}.so.570.124.06"), "");
        symlink(format!("{name}.so.570.124.06"), lib.join(format!("{name}.so.1"))).expect("linked");
    }
    symlink("libcuda.so.1", lib.join("libcuda.so")).expect("linked");
    symlink("libc.so.6", lib.join("libc.so")).expect("linked");
    write(&root, &format!("{LIBRARIES}/libcuda.so.550.54.14"), "left over from an upgrade");
    // A merged /usr shows the same files twice.
    symlink("usr/lib", root.path().join("lib")).expect("linked");
    for program in ["nvidia-smi", "nvidia-cuda-mps-server"] {
        write(&root, &format!("usr/bin/{program}"), "");
    }
    write(&root, "run/nvidia-persistenced/socket", "");
    write(&root, "run/nvidia-fabricmanager/socket", "");
    for (card, (primary, render)) in [(0, (1, 128)), (1, (2, 129))] {
        let drm = format!("sys/bus/pci/devices/{}/drm", address(card));
        write(&root, &format!("{drm}/card{primary}/dev"), &format!("226:{primary}\n"));
        write(&root, &format!("{drm}/renderD{render}/dev"), &format!("226:{render}\n"));
    }
    root
}

const DEVICES: &str = "Character devices:
  1 mem
195 nvidia
195 nvidia-modeset
195 nvidiactl
235 nvidia-caps
511 nvidia-uvm

Block devices:
  7 loop
";

fn write(root: &TempDir, path: &str, text: &str) {
    let path = root.path().join(path);
    fs::create_dir_all(path.parent().expect("a file in a folder")).expect("made");
    fs::write(path, text).expect("written");
}

fn whole(card: u32) -> Target {
    Target { claim: claim(), grant: Grant::Whole(id(card)) }
}

fn turn(card: u32) -> Target {
    let grant = Grant::Shared {
        device: id(card),
        scheme: Scheme::TIME_SLICE,
        size: Size::ANY,
        domain: TrustDomain::new("team").expect("a domain"),
    };
    Target { claim: claim(), grant }
}

fn claim() -> ClaimId {
    ClaimId::new("claim-1").expect("an id")
}

/// The edits as a loader gets them, after everything that a loader checks.
fn spec(edits: &ContainerEdits) -> Spec {
    let options = RenderOptions {
        kind: "vgpu.dev/claim".parse::<Kind>().expect("a kind"),
        name: claim(),
        hook: Some(PathBuf::from("/opt/vgpu/vgpu-hook")),
        socket: PathBuf::from("/run/vgpu/agent.sock"),
        claim_dir: PathBuf::from("/var/lib/vgpu/claims/claim-1"),
        annotations: Default::default(),
    };
    let spec = render(edits, &options).expect("edits render");
    validate(&spec).expect("a loader takes it");
    assert_eq!(audit(&spec), Vec::<String>::new(), "it gives nothing more than is needed");
    spec
}

fn golden(spec: &Spec, file: &str) {
    let text = serde_json::to_string_pretty(spec).expect("serializes") + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripted").join(file);
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &text).expect("blessed");
    }
    let expected = fs::read_to_string(&path).expect("run with BLESS=1 to write it");
    assert_eq!(text, expected, "{file} differs; if that is right, run with BLESS=1");
}

fn nodes(edits: &ContainerEdits) -> Vec<String> {
    edits.nodes.iter().map(|node| node.path.display().to_string()).collect()
}

#[test]
fn a_whole_card() {
    let root = host();
    let backend = backend_at(&Scripted::with(2), root.path());
    let edits = backend.edits(&[whole(1)]).expect("edits");
    assert_eq!(backend.edits(&[whole(1)]).expect("edits"), edits);
    golden(&spec(&edits), "whole.json");
}

#[test]
fn a_turn_shows_less() {
    let root = host();
    let backend = backend_at(&Scripted::with(2), root.path());
    let edits = backend.edits(&[turn(0)]).expect("edits");
    golden(&spec(&edits), "turn.json");
    assert_eq!(nodes(&edits), ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia0"]);
    let all = serde_json::to_string(&edits).expect("serializes");
    for never in ["uvm-tools", "modeset", "nvidia-caps", "mps", "fabricmanager", "/dev/dri"] {
        assert!(!all.contains(never), "{never} in {all}");
    }
}

#[test]
fn grants_of_one_container_are_merged_and_a_turn_among_them_decides() {
    let root = host();
    let backend = backend_at(&Scripted::with(2), root.path());
    let both = backend.edits(&[whole(0), whole(1)]).expect("edits");
    spec(&both);
    for node in ["/dev/nvidia0", "/dev/nvidia1", "/dev/nvidia-uvm-tools", "/dev/dri/renderD129"] {
        assert_eq!(nodes(&both).iter().filter(|n| *n == node).count(), 1, "{node}");
    }
    let mixed = backend.edits(&[whole(0), turn(1)]).expect("edits");
    spec(&mixed);
    assert!(nodes(&mixed).contains(&"/dev/dri/card1".to_owned()), "its own card's");
    assert!(!nodes(&mixed).iter().any(|n| n.contains("tools") || n.contains("dri/card2")));
    assert_eq!(backend.edits(&[]), Ok(ContainerEdits::default()));
}

#[test]
fn what_the_container_s_loader_needs() {
    let root = host();
    let edits = backend_at(&Scripted::with(1), root.path()).edits(&[turn(0)]).expect("edits");
    let links: Vec<String> = edits
        .hooks
        .iter()
        .filter_map(|hook| match &hook.action {
            HookAction::Link(links) => Some(links),
            _ => None,
        })
        .flatten()
        .map(|l| format!("{} -> {}", l.link.display(), l.target.display()))
        .collect();
    assert_eq!(
        links,
        [
            format!("/{LIBRARIES}/libcuda.so -> libcuda.so.1"),
            format!("/{LIBRARIES}/libcuda.so.1 -> libcuda.so.570.124.06"),
            format!("/{LIBRARIES}/libnvidia-ml.so.1 -> libnvidia-ml.so.570.124.06"),
            format!(
                "/{LIBRARIES}/libnvidia-ptxjitcompiler.so.1 -> libnvidia-ptxjitcompiler.so.570.124.06"
            ),
        ]
    );
    // An installer that made no links.
    for name in ["libcuda.so", "libcuda.so.1", "libnvidia-ml.so.1"] {
        fs::remove_file(root.path().join(LIBRARIES).join(name)).expect("removed");
    }
    let edits = backend_at(&Scripted::with(1), root.path()).edits(&[turn(0)]).expect("edits");
    let text = serde_json::to_string(&edits).expect("serializes");
    assert!(text.contains("libcuda.so.1\"") && text.contains("/libcuda.so\""), "{text}");
}

#[test]
fn a_driver_container_s_files_are_named_as_on_the_host() {
    let root = tempfile::tempdir().expect("a folder");
    write(&root, "proc/devices", DEVICES);
    let driver = "run/nvidia/driver";
    write(&root, &format!("{driver}/{LIBRARIES}/libcuda.so.570.124.06"), "");
    write(&root, &format!("{driver}/usr/bin/nvidia-smi"), "");
    let nvml = Scripted::with(1);
    let api: Arc<dyn NvmlApi> = Arc::clone(&nvml) as _;
    let host = Host { root: root.path().to_owned(), library: None };
    let options = NvidiaOptions { driver_root: "/run/nvidia/driver".into(), ..options() };
    let backend = NvidiaBackend::over(api, &host, options).expect("a driver with a version");
    let edits = backend.edits(&[whole(0)]).expect("edits");
    spec(&edits);
    let mounts: Vec<(String, String)> = edits
        .mounts
        .iter()
        .map(|m| (m.host.display().to_string(), m.container.display().to_string()))
        .collect();
    assert_eq!(
        mounts,
        [
            (
                format!("/{driver}/{LIBRARIES}/libcuda.so.570.124.06"),
                format!("/{LIBRARIES}/libcuda.so.570.124.06")
            ),
            (format!("/{driver}/usr/bin/nvidia-smi"), "/usr/bin/nvidia-smi".into()),
        ]
    );
}

#[test]
fn a_host_that_lacks_what_is_needed_is_told_what_to_do() {
    let nvml = Scripted::with(1);
    let refused = |root: &TempDir| {
        let error = backend_at(&nvml, root.path()).edits(&[whole(0)]).expect_err("not whole");
        assert_eq!((error.kind, error.operation.as_deref()), (ErrorKind::Io, Some("edits")));
        error.to_string()
    };
    let root = host();
    write(&root, "proc/devices", &DEVICES.replace("511 nvidia-uvm\n", ""));
    let said = refused(&root);
    assert!(said.contains("/dev/nvidia-uvm") && said.contains("nvidia-modprobe -u"), "{said}");

    let root = host();
    let cuda = root.path().join(LIBRARIES).join("libcuda.so.570.124.06");
    fs::remove_file(&cuda).expect("removed");
    let said = refused(&root);
    assert!(said.contains("libcuda.so.570.124.06"), "{said}");
    assert!(said.contains("libcuda.so.550.54.14") && said.contains("reboot"), "{said}");

    let said = refused(&tempfile::tempdir().expect("a folder"));
    assert!(said.contains("install the driver"), "{said}");
}

#[test]
fn a_stand_in_for_the_library_is_shown_by_nodes_alone() {
    let root = tempfile::tempdir().expect("a folder");
    let nvml = Scripted::with(2);
    let named = |root: &Path| {
        let api: Arc<dyn NvmlApi> = Arc::clone(&nvml) as _;
        let library = Some(PathBuf::from("/lib/libscripted.so.1"));
        let host = Host { root: root.to_owned(), library };
        NvidiaBackend::over(api, &host, options()).expect("a driver with a version")
    };
    let edits = named(root.path()).edits(&[turn(1)]).expect("edits");
    spec(&edits);
    assert_eq!(nodes(&edits), ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia1"]);
    assert_eq!(edits.nodes[2].number, Some((195, 1)));
    assert_eq!((edits.mounts.len(), edits.hooks.len()), (0, 0));
    // The kernel has the driver, so that a library that was named is held to the same as any.
    write(&root, "proc/devices", DEVICES);
    assert_eq!(named(root.path()).edits(&[turn(1)]).unwrap_err().kind, ErrorKind::Io);
}

#[test]
fn what_was_never_granted_is_never_shown() {
    let root = host();
    let nvml = Scripted::with(2);
    let backend = backend_at(&nvml, root.path());
    let refused = |target: Target| backend.edits(&[whole(0), target]).expect_err("refused").kind;
    let part = PartitionId::of(&id(0), &Scheme::MIG, "0+4").expect("an id");
    assert_eq!(refused(Target { claim: claim(), grant: Grant::Part(part) }), ErrorKind::NotFound);
    assert_eq!(refused(whole(8)), ErrorKind::NotFound);
    let shared = |scheme, size| {
        let domain = TrustDomain::new("team").expect("a domain");
        Target { claim: claim(), grant: Grant::Shared { device: id(1), scheme, size, domain } }
    };
    assert_eq!(refused(shared(Scheme::MPS, Size::ANY)), ErrorKind::Unsupported);
    let sized = Size { memory: Some(Bytes::gib(1)), compute: None };
    assert_eq!(refused(shared(Scheme::TIME_SLICE, sized)), ErrorKind::Unsupported);
    let tenth = ComputeShare { units: 1, of: 10.try_into().expect("not 0") };
    let sized = Size { memory: None, compute: Some(tenth) };
    assert_eq!(refused(shared(Scheme::TIME_SLICE, sized)), ErrorKind::Invalid);
    nvml.state().cards[1].mig = Some(MigMode { current: true, pending: true });
    assert_eq!(refused(turn(1)), ErrorKind::Invalid);
    nvml.lose(1);
    assert_eq!(refused(turn(1)), ErrorKind::Lost);
    backend.edits(&[whole(0)]).expect("its neighbour is served");
}

#[test]
fn nothing_is_limited_on_a_living_container() {
    let nvml = Scripted::with(1);
    let backend = backend_at(&nvml, Path::new("/nonexistent-root-of-tests"));
    let container = Container { cgroup: "/sys/fs/cgroup/x".into(), pid: 1, pid_namespace: 1 };
    for target in [whole(0), turn(0)] {
        assert_eq!(backend.confine(&target, &container), Ok(Confinement::NotNeeded));
        assert_eq!(backend.confine(&target, &container), Ok(Confinement::NotNeeded));
        assert_eq!(backend.unconfine(&target, &container), Ok(()));
    }
    assert_eq!(backend.confine(&whole(4), &container).unwrap_err().kind, ErrorKind::NotFound);
    nvml.lose(0);
    assert_eq!(backend.unconfine(&whole(0), &container), Ok(()), "a lost card blocks no clean-up");
}
