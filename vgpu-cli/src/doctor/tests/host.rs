//! The host itself.

use std::fs;
use std::os::unix::fs::symlink;

use crate::doctor::tests::{CLEAN, Prepared};

#[test]
fn cgroups_of_version_1_and_none() {
    let host = Prepared::clean();
    fs::remove_file(host.at("/sys/fs/cgroup/cgroup.controllers")).expect("removed");
    assert_eq!(host.ids(), ["DOC-HOST-3", "DOC-AGENT-1"]);
    fs::create_dir_all(host.at("/sys/fs/cgroup/memory")).expect("made");
    assert_eq!(host.ids(), ["DOC-HOST-1", "DOC-AGENT-1"]);
    assert!(host.finding("DOC-HOST-1").what.contains("has cgroup v1:"));
    host.write("/sys/fs/cgroup/unified/cgroup.controllers", "");
    assert!(host.finding("DOC-HOST-1").what.contains("empty v2"));
    host.write(
        "/proc/driver/nvidia/version",
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  614.9  x\n",
    );
    assert_eq!(host.ids(), ["DOC-HOST-1", "DOC-AGENT-1"]);
    host.write(
        "/proc/driver/nvidia/version",
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  615.43.02  x\n",
    );
    assert_eq!(host.ids(), ["DOC-HOST-2", "DOC-AGENT-1"], "this driver has the limits");
    host.write("/sys/fs/cgroup/cgroup.controllers", "cpu memory\n");
    assert_eq!(host.ids(), ["DOC-HOST-4", "DOC-AGENT-1"]);
    host.write("/sys/fs/cgroup/cgroup.controllers", "cpu memory dmem\n");
    assert_eq!(host.ids(), CLEAN);
}

#[test]
fn drivers_and_libraries_that_do_not_fit() {
    let host = Prepared::clean();
    let card = "/sys/bus/pci/devices/0000:1b:00.0";
    host.write(&format!("{card}/vendor"), "0x10de\n");
    host.write(&format!("{card}/class"), "0x040300\n");
    assert_eq!(host.ids(), CLEAN, "its sound card");
    host.write(&format!("{card}/class"), "0x030200\n");
    assert_eq!(host.ids(), ["DOC-HOST-7", "DOC-AGENT-1"]);
    symlink("../../../bus/pci/drivers/vfio-pci", host.at(card).join("driver")).expect("linked");
    assert_eq!(host.ids(), ["DOC-HOST-8", "DOC-AGENT-1"], "it is a guest's");
    fs::remove_file(host.at(card).join("driver")).expect("removed");
    symlink("../../../bus/pci/drivers/nvidia", host.at(card).join("driver")).expect("linked");
    assert_eq!(host.ids(), ["DOC-HOST-7", "DOC-AGENT-1"]);
    host.write("/dev/nvidia0", "");
    host.mode("/dev/nvidia0", 0o666);
    assert_eq!(host.ids(), ["DOC-HOST-5", "DOC-AGENT-1"]);
    host.write("/usr/lib64/libnvidia-ml.so.570.124.06", "");
    symlink("libnvidia-ml.so.570.124.06", host.at("/usr/lib64/libnvidia-ml.so.1")).expect("linked");
    assert_eq!(host.ids(), CLEAN);
    let version = |v: &str| {
        format!("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {v}  Release\n")
    };
    host.write("/proc/driver/nvidia/version", version("570.124.06"));
    assert_eq!(host.ids(), CLEAN);
    host.write("/proc/driver/nvidia/version", version("580.95.05"));
    assert_eq!(host.ids(), ["DOC-HOST-6", "DOC-AGENT-1"]);
    host.write("/proc/driver/nvidia/version", "something else\n");
    assert_eq!(host.ids(), ["DOC-READ-2", "DOC-AGENT-1"]);
}

#[test]
fn nodes_that_only_root_can_open() {
    let host = Prepared::clean();
    host.write("/dev/cambricon_dev0", "");
    host.write("/usr/lib64/libcndev.so", "");
    host.mode("/dev/cambricon_dev0", 0o666);
    assert_eq!(host.ids(), CLEAN);
    host.mode("/dev/cambricon_dev0", 0o660);
    assert_eq!(host.ids(), ["DOC-HOST-9", "DOC-AGENT-1"]);
    assert!(host.finding("DOC-HOST-9").what.contains("0660"));
}

#[test]
fn processes_and_boots_that_are_hidden() {
    let host = Prepared::clean();
    for (options, hidden) in [
        ("rw,hidepid=0", false),
        ("rw,hidepid=off", false),
        ("rw,hidepid=2,gid=9", true),
        ("hidepid=invisible", true),
    ] {
        host.write("/proc/mounts", format!("proc /proc proc {options} 0 0\n"));
        assert_eq!(host.ids().contains(&"DOC-HOST-10"), hidden, "{options}");
    }
    host.write("/proc/mounts", "proc /proc proc rw 0 0\n");
    host.write("/proc/sys/kernel/random/boot_id", "\n");
    assert_eq!(host.ids(), ["DOC-HOST-11", "DOC-AGENT-1"]);
    fs::remove_file(host.at("/proc/sys/kernel/random/boot_id")).expect("removed");
    assert_eq!(host.ids(), ["DOC-HOST-11", "DOC-AGENT-1"]);
}

#[test]
fn hook_programs() {
    let mut host = Prepared::clean();
    host.mode("/opt/vgpu/vgpu-hook", 0o644);
    assert_eq!(host.ids(), ["DOC-HOST-14", "DOC-AGENT-1"]);
    host.write("/opt/vgpu/vgpu-hook", "MZ");
    host.mode("/opt/vgpu/vgpu-hook", 0o755);
    assert_eq!(host.ids(), ["DOC-HOST-14", "DOC-AGENT-1"], "another system's program");
    let own = fs::read(std::env::current_exe().expect("a test knows its own path")).expect("read");
    host.write("/opt/vgpu/vgpu-hook", &own[..64 << 10]);
    if cfg!(target_env = "gnu") {
        assert_eq!(host.ids(), ["DOC-HOST-15", "DOC-AGENT-1"]);
    }
    fs::remove_file(host.at("/opt/vgpu/vgpu-hook")).expect("removed");
    assert_eq!(host.ids(), ["DOC-HOST-13", "DOC-AGENT-1"]);
    host.places.hook_dir = None;
    assert_eq!(host.ids(), ["DOC-HOST-16", "DOC-AGENT-1"]);
}

/// What is found of a script in the hook's place. That it is one is a finding too.
fn script(host: &Prepared, text: &str) -> Vec<&'static str> {
    host.write("/opt/vgpu/vgpu-hook", format!("#!/bin/sh\n{text}\n"));
    host.mode("/opt/vgpu/vgpu-hook", 0o755);
    host.ids().into_iter().filter(|id| !["DOC-HOST-15", "DOC-AGENT-1"].contains(id)).collect()
}

#[test]
fn hook_programs_are_run() {
    let mut host = Prepared::clean();
    let own = env!("CARGO_PKG_VERSION");
    let broken = "echo GLIBC_2.99 not found >&2; exit 1";
    assert!(script(&host, broken).is_empty(), "seen from a container it is not run");
    assert!(host.ids().contains(&"DOC-HOST-15"), "it needs its shell: {:?}", host.ids());
    host.places.on_host = true;
    assert!(script(&host, &format!("[ $1 = version ] && echo vgpu-hook {own}")).is_empty());
    assert_eq!(script(&host, broken), ["DOC-HOST-14"]);
    let finding = host.finding("DOC-HOST-14");
    assert!(finding.what.contains("GLIBC_2.99"), "{finding:?}");
    assert_eq!(finding.place.as_deref(), Some("/opt/vgpu/vgpu-hook"));
    assert_eq!(script(&host, "echo hello"), ["DOC-HOST-14"]);
    assert!(host.finding("DOC-HOST-14").what.contains("hello"));
    assert_eq!(script(&host, "echo vgpu-hook 0.0.1"), ["DOC-HOST-23"]);
    let what = host.finding("DOC-HOST-23").what;
    assert!(what.contains("is 0.0.1, this command's is"), "no agent says otherwise: {what}");
}

#[test]
fn the_kubelet_is_missed_piece_by_piece() {
    let mut host = Prepared::clean();
    fs::remove_file(host.at("/k/pod-resources/kubelet.sock")).expect("removed");
    assert_eq!(host.ids(), ["DOC-HOST-22", "DOC-AGENT-1"]);
    host.listen("/elsewhere/pod-resources/kubelet.sock");
    host.places.kubelet.pod_resources_socket = "/elsewhere/pod-resources/kubelet.sock".into();
    assert_eq!(host.ids(), CLEAN, "its --root-dir is another");
    fs::remove_file(host.at("/k/device-plugins/kubelet.sock")).expect("removed");
    assert_eq!(host.ids(), ["DOC-HOST-21", "DOC-AGENT-1"]);
    fs::remove_dir_all(host.at("/k/device-plugins")).expect("removed");
    assert_eq!(host.ids(), ["DOC-HOST-20", "DOC-AGENT-1"]);
}
