//! Edits on whole prepared hosts, word for word, as another loader of CDI injects them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use vgpu_backend_nvidia::{Capability, Delivery, NvidiaBackend, NvidiaOptions, NvmlApi};
use vgpu_core::edits::ContainerEdits;
use vgpu_core::{DeviceId, ErrorKind, Grant, Host, Isolation, Scheme, Size, Target, TrustDomain};

use crate::golden::{claim, golden, spec};
use crate::nvml::{Scripted, address};
use crate::{id, options};

const VERSION: &str = "570.124.06";
const DEBIAN: &str = "/usr/lib/x86_64-linux-gnu";

/// A host with two cards; the driver is added by [`driver`].
fn host() -> TempDir {
    let root = tempfile::tempdir().expect("a folder");
    let devices = "Character devices:\n  1 mem\n195 nvidia\n195 nvidia-modeset\n195 nvidiactl\n\
                   235 nvidia-caps\n511 nvidia-uvm\n\nBlock devices:\n  7 loop\n";
    write(&root, "/proc/devices", devices.as_bytes());
    write(&root, "/proc/sys/kernel/osrelease", b"6.8.0-45-generic\n");
    for card in [0, 1] {
        let drm = format!("/sys/bus/pci/devices/{}/drm", address(card));
        write(
            &root,
            &format!("{drm}/card{}/dev", card + 1),
            format!("226:{}\n", card + 1).as_bytes(),
        );
        let render = 128 + card;
        write(&root, &format!("{drm}/renderD{render}/dev"), format!("226:{render}\n").as_bytes());
    }
    root
}

/// A driver as an installer leaves it below `at`, its libraries in `folder`.
fn driver(root: &TempDir, at: &str, folder: &str, version: &str) {
    let libraries = format!("{at}{folder}");
    for (name, links) in [
        ("libcuda", &["libcuda.so.1", "libcuda.so"][..]),
        ("libnvidia-ml", &["libnvidia-ml.so.1"]),
        ("libnvidia-ptxjitcompiler", &["libnvidia-ptxjitcompiler.so.1"]),
        ("libnvidia-allocator", &["libnvidia-allocator.so.1"]),
        ("libnvidia-gpucomp", &[]),
        ("libEGL_nvidia", &["libEGL_nvidia.so.0"]),
        ("libGLX_nvidia", &["libGLX_nvidia.so.0"]),
        ("libnvidia-glcore", &[]),
        ("vdpau/libvdpau_nvidia", &[]),
    ] {
        let file = format!("{name}.so.{version}");
        write(root, &format!("{libraries}/{file}"), &elf(64, here()));
        let mut target = file;
        for link in links {
            let path = below(root, &format!("{libraries}/{link}"));
            let _ = fs::remove_file(&path);
            symlink(&target, path).expect("linked");
            target = (*link).to_owned();
        }
    }
    for file in [
        "/usr/bin/nvidia-smi",
        "/usr/bin/nvidia-cuda-mps-control",
        "/usr/bin/nvidia-cuda-mps-server",
        "/etc/OpenCL/vendors/nvidia.icd",
        "/usr/share/glvnd/egl_vendor.d/10_nvidia.json",
        "/usr/share/vulkan/icd.d/nvidia_icd.json",
        "/usr/share/nvidia/nvoptix.bin",
    ] {
        write(root, &format!("{at}{file}"), b"");
    }
    for firmware in ["gsp_ga10x.bin", "gsp_tu10x.bin"] {
        write(root, &format!("{at}/lib/firmware/nvidia/{version}/{firmware}"), b"");
    }
    write(root, "/run/nvidia-persistenced/socket", b"");
}

/// The first bytes of a library.
fn elf(bits: u8, machine: u16) -> Vec<u8> {
    let mut head = vec![0; 64];
    head[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', if bits == 64 { 2 } else { 1 }, 1]);
    head[18..20].copy_from_slice(&machine.to_le_bytes());
    head
}

/// The number of this machine, and of another one.
fn here() -> u16 {
    if cfg!(target_arch = "aarch64") { 183 } else { 62 }
}

fn elsewhere() -> u16 {
    if cfg!(target_arch = "aarch64") { 62 } else { 183 }
}

fn below(root: &TempDir, path: &str) -> PathBuf {
    root.path().join(path.trim_start_matches('/'))
}

fn write(root: &TempDir, path: &str, bytes: &[u8]) {
    let path = below(root, path);
    fs::create_dir_all(path.parent().expect("a file in a folder")).expect("made");
    fs::write(path, bytes).expect("written");
}

fn backend(root: &TempDir, options: NvidiaOptions) -> NvidiaBackend {
    let api: Arc<dyn NvmlApi> = Scripted::with(2) as _;
    let host = Host { root: root.path().to_owned(), library: None };
    NvidiaBackend::over(api, &host, options).expect("a driver with a version")
}

fn with(sets: &[Capability]) -> NvidiaOptions {
    NvidiaOptions { capabilities: sets.iter().copied().collect(), ..options() }
}

fn whole(card: u32) -> Target {
    Target { claim: claim(), grant: Grant::Whole(id(card)) }
}

fn turn(device: DeviceId) -> Target {
    let domain = TrustDomain::new("team").expect("a domain");
    let grant = Grant::Shared { device, scheme: Scheme::TIME_SLICE, size: Size::ANY, domain };
    Target { claim: claim(), grant }
}

fn nodes(edits: &ContainerEdits) -> Vec<String> {
    edits.nodes.iter().map(|node| node.path.display().to_string()).collect()
}

fn mounted(edits: &ContainerEdits) -> Vec<String> {
    edits.mounts.iter().map(|mount| mount.container.display().to_string()).collect()
}

#[test]
fn bare_metal() {
    let root = host();
    driver(&root, "", DEBIAN, VERSION);
    golden(&backend(&root, options()).edits(&[whole(0)]).expect("edits"), "bare-metal.json");
}

#[test]
fn bare_metal_that_draws() {
    let root = host();
    driver(&root, "", DEBIAN, VERSION);
    use Capability::{Compute, Graphics, Utility};
    let backend = backend(&root, with(&[Compute, Graphics, Utility]));
    golden(&backend.edits(&[whole(0)]).expect("edits"), "graphics.json");
    let shared = backend.edits(&[turn(id(1))]).expect("edits");
    let drawn = ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia1", "/dev/dri/renderD129"];
    assert_eq!(nodes(&shared), drawn, "its own card's node for rendering, and no display");
    let all = serde_json::to_string(&spec(&shared)).expect("serializes");
    for never in ["uvm-tools", "modeset", "nvidia-cap", "mps", "fabricmanager", "dri/card"] {
        assert!(!all.contains(never), "{never} in {all}");
    }
}

#[test]
fn each_set_has_its_own_files() {
    let root = host();
    driver(&root, "", DEBIAN, VERSION);
    let shown = |set| mounted(&backend(&root, with(&[set])).edits(&[turn(id(0))]).expect("edits"));
    let has = |mounts: &[String], name: &str| mounts.iter().any(|m| m.contains(name));
    let compute = shown(Capability::Compute);
    for (name, expected) in [
        ("libcuda.so", true),
        ("nvidia.icd", true),
        ("gsp_ga10x.bin", true),
        ("libnvidia-gpucomp", true),
        ("libnvidia-ml", false),
        ("nvidia-smi", false),
        ("libnvidia-glcore", false),
    ] {
        assert_eq!(has(&compute, name), expected, "compute and {name}: {compute:?}");
    }
    let utility = shown(Capability::Utility);
    for (name, expected) in [("libnvidia-ml", true), ("nvidia-smi", true), ("libcuda", false)] {
        assert_eq!(has(&utility, name), expected, "utility and {name}: {utility:?}");
    }
    let graphics = shown(Capability::Graphics);
    for (name, expected) in [
        ("libEGL_nvidia", true),
        ("libvdpau_nvidia", true),
        ("10_nvidia.json", true),
        ("nvoptix.bin", true),
        ("libnvidia-allocator", true),
        ("libcuda", false),
        ("libnvidia-ml", false),
    ] {
        assert_eq!(has(&graphics, name), expected, "graphics and {name}: {graphics:?}");
    }
}

#[test]
fn a_driver_container_s_root() {
    let root = host();
    driver(&root, "/run/nvidia/driver", "/usr/lib64", VERSION);
    // It tells the kernel where its firmware lies, and brings no modules for display.
    let told = b"/run/nvidia/driver/lib/firmware\n";
    write(&root, "/sys/module/firmware_class/parameters/path", told);
    let options = NvidiaOptions { driver_root: "/run/nvidia/driver".into(), ..options() };
    let edits = backend(&root, options).edits(&[whole(1)]).expect("edits");
    golden(&edits, "driver-container.json");
    let outside: Vec<_> = edits
        .mounts
        .iter()
        .filter(|mount| !mount.host.starts_with("/run/nvidia/driver"))
        .map(|mount| mount.host.display().to_string())
        .collect();
    assert_eq!(outside, ["/run/nvidia-persistenced/socket"], "whose daemon runs on the host");
}

#[test]
fn without_modeset() {
    let root = host();
    driver(&root, "", DEBIAN, VERSION);
    let devices = fs::read_to_string(below(&root, "/proc/devices")).expect("there");
    let devices = devices.replace("195 nvidia-modeset\n", "");
    write(&root, "/proc/devices", devices.as_bytes());
    fs::remove_dir_all(below(&root, &format!("/sys/bus/pci/devices/{}/drm", address(0)))).unwrap();
    let edits = backend(&root, options()).edits(&[whole(0)]).expect("edits");
    let compute = ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia0"];
    assert_eq!(nodes(&edits), compute);
    golden(&edits, "no-modeset.json");
}

#[test]
fn without_hooks() {
    let root = host();
    driver(&root, "", DEBIAN, VERSION);
    let options = NvidiaOptions { delivery: Delivery::Hookless, ..options() };
    let edits = backend(&root, options).edits(&[whole(0)]).expect("edits");
    assert_eq!(edits.hooks, Vec::new());
    golden(&edits, "hookless.json");
    // Every name by which a program may ask for CUDA is the same file.
    let of = |name: &str| {
        let container = Path::new("/usr/local/nvidia/lib64").join(name);
        let mount = edits.mounts.iter().find(|mount| mount.container == container);
        mount.unwrap_or_else(|| panic!("no {name}")).host.clone()
    };
    let file = format!("libcuda.so.{VERSION}");
    assert_eq!((of("libcuda.so"), of("libcuda.so.1")), (of(&file), of(&file)));
}

#[test]
fn of_two_versions_the_kernel_s_is_shown() {
    let root = host();
    driver(&root, "", DEBIAN, "550.54.14");
    driver(&root, "", DEBIAN, VERSION);
    // Left by another way of installing, in a folder that is looked at first.
    driver(&root, "", "/usr/lib64", "535.183.01");
    let edits = backend(&root, options()).edits(&[whole(0)]).expect("edits");
    golden(&edits, "two-versions.json");
    let all = serde_json::to_string(&spec(&edits)).expect("serializes");
    assert!(!all.contains("550.54.14") && !all.contains("535.183.01"), "{all}");
}

#[test]
fn libraries_of_another_machine_are_not_shown() {
    let root = host();
    driver(&root, "", "/usr/lib64", VERSION);
    // 32-bit ones beside them are usual, and left out.
    let small = format!("/usr/lib/libnvidia-fatbinaryloader.so.{VERSION}");
    write(&root, &small, &elf(32, 3));
    let edits = backend(&root, options()).edits(&[whole(0)]).expect("edits");
    assert!(!mounted(&edits).iter().any(|mount| mount.contains("fatbinaryloader")));

    let cuda = format!("/usr/lib64/libcuda.so.{VERSION}");
    write(&root, &cuda, &elf(64, elsewhere()));
    let error = backend(&root, options()).edits(&[whole(0)]).expect_err("no CUDA");
    assert_eq!(error.kind, ErrorKind::Io);
    let said = error.to_string();
    assert!(said.contains(&cuda) && said.contains("is for"), "{said}");
}

#[test]
fn a_driver_root_that_is_not_there_is_named() {
    let root = host();
    let options = NvidiaOptions { driver_root: "/run/nvidia/driver".into(), ..options() };
    let error = backend(&root, options).edits(&[whole(0)]).expect_err("nothing to show");
    assert_eq!(error.kind, ErrorKind::NotFound);
    let said = error.to_string();
    assert!(said.contains("/run/nvidia/driver") && said.contains("driverRoot"), "{said}");
}

#[test]
fn what_draws_needs_its_libraries() {
    let root = host();
    driver(&root, "", DEBIAN, VERSION);
    fs::remove_file(below(&root, &format!("{DEBIAN}/libnvidia-glcore.so.{VERSION}"))).unwrap();
    backend(&root, options()).edits(&[whole(0)]).expect("computing is not concerned");
    let error = backend(&root, with(&[Capability::Graphics])).edits(&[whole(0)]).unwrap_err();
    assert!(error.to_string().contains("libnvidia-glcore"), "{error}");
}
