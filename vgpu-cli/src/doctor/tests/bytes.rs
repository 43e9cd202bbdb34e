//! Arbitrary bytes in every file that is read.

use std::fs;

use proptest::prelude::*;

use crate::doctor::finding::Severity;
use crate::doctor::tests::Prepared;

/// Every file that is read as a whole, and what makes it read.
const FILES: &[&str] = &[
    "/k/device-plugins/kubelet_internal_checkpoint",
    "/etc/containerd/config.toml",
    "/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
    "/etc/crio/crio.conf",
    "/etc/crio/crio.conf.d/10-x.conf",
    "/etc/nvidia-container-runtime/config.toml",
    "/etc/docker/daemon.json",
    "/etc/cdi/a.json",
    "/etc/cdi/b.yaml",
    "/run/cdi/vgpu.dev-claim_vgpu-1.json",
    "/etc/ld.so.preload",
    "/sys/fs/cgroup/cgroup.controllers",
    "/proc/mounts",
    "/proc/driver/nvidia/version",
    "/proc/sys/kernel/random/boot_id",
    "/sys/bus/pci/devices/0000:01:00.0/vendor",
];

/// Files whose bytes mean something by themselves, or are passed over by rule.
const BINARY: &[&str] =
    &["/opt/vgpu/vgpu-hook", "/proc/9/cmdline", "/proc/9/environ", "/s/journal"];

#[test]
fn what_is_no_text_is_told_with_its_path() {
    for file in FILES {
        let host = Prepared::clean();
        host.write(file, b"\xff\xfe\x00");
        let shown = file.replace("/run/cdi", "/var/run/cdi");
        let told = host
            .findings()
            .into_iter()
            .any(|finding| finding.id == "DOC-READ-2" && finding.place.as_deref() == Some(&*shown));
        assert!(told, "{file}: {:#?}", host.findings());
        let host = Prepared::clean();
        let _there = fs::remove_file(host.at(file));
        fs::create_dir_all(host.at(file)).expect("made");
        let told = host.findings().into_iter().any(|finding| {
            finding.id.starts_with("DOC-READ-")
                && finding
                    .place
                    .as_deref()
                    .is_some_and(|place| place.ends_with(file.rsplit('/').next().expect("a name")))
        });
        assert!(told, "a folder in the place of {file}: {:#?}", host.findings());
    }
    let host = Prepared::clean();
    fs::remove_file(host.at("/etc/containerd/config.toml")).expect("removed");
    fs::create_dir(host.at("/etc/containerd/config.toml")).expect("made");
    assert!(host.ids().contains(&"DOC-READ-1"), "there, and no file");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_stop_it(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in ".{0,80}") {
        let host = Prepared::clean();
        for (n, file) in FILES.iter().chain(BINARY).enumerate() {
            host.write(file, if n % 2 == 0 { &bytes[..] } else { text.as_bytes() });
        }
        prop_assert!(!host.findings().is_empty());
        for file in FILES.iter().chain(BINARY) {
            host.write(file, &bytes);
        }
        let findings = host.findings();
        if std::str::from_utf8(&bytes).is_err() {
            let told = findings.iter().filter(|f| f.id.starts_with("DOC-READ-")).count();
            prop_assert!(told >= FILES.len(), "{told} of {}: {findings:#?}", FILES.len());
        }
        for finding in findings {
            prop_assert!(!finding.what.contains('\n'), "{finding:?}");
            prop_assert!(finding.severity != Severity::Error || finding.remedy.is_some(), "{finding:?}");
        }
    }
}
