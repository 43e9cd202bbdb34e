//! `vgpu doctor` on prepared hosts.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;

use serde_json::Value;

use crate::schema;
use crate::support::{Said, vgpu};

/// A node on which NVIDIA's plugin still runs. The listeners are who is behind its sockets.
fn node(root: &Path) -> Vec<UnixListener> {
    for (path, text) in [
        (
            "etc/containerd/config.toml",
            "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd]\ndefault_runtime_name = 'nvidia'\n",
        ),
        (
            "etc/cdi/nvidia.yaml",
            "kind: nvidia.com/gpu\ndevices:\n- name: all\n  containerEdits:\n    deviceNodes:\n    - path: /dev/nvidia0\n",
        ),
        ("etc/docker/daemon.json", "{"),
        ("proc/mounts", "proc /proc proc rw 0 0\n"),
        ("proc/sys/kernel/random/boot_id", "11b5c6e4\n"),
        ("sys/fs/cgroup/cgroup.controllers", "cpu memory misc\n"),
        ("var/run/cdi/readme.txt", "no spec"),
    ] {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("made");
        fs::write(path, text).expect("written");
    }
    let sockets = [
        "device-plugins/kubelet.sock",
        "device-plugins/nvidia-gpu.sock",
        "pod-resources/kubelet.sock",
    ];
    let listen = |name: &&str| {
        let path = root.join("k").join(name);
        fs::create_dir_all(path.parent().expect("below the root")).expect("made");
        UnixListener::bind(path).expect("bound")
    };
    sockets.iter().map(listen).collect()
}

fn on(root: &Path, more: &[&str]) -> Said {
    let root = root.to_str().expect("UTF-8");
    vgpu(&[&["doctor", "--host-root", root, "--kubelet-dir", "/k"], more].concat())
}

const GOLDEN: &str = include_str!("doctor.txt");

#[test]
fn people_read_it_by_topic() {
    let root = tempfile::tempdir().expect("a folder");
    let _sockets = node(root.path());
    let said = on(root.path(), &[]);
    assert_eq!(said.code, 1, "{said:?}");
    assert_eq!(said.err, "");
    assert_eq!(as_root(&said.out), GOLDEN, "{}", said.out);
    let doc = include_str!("../../../docs/cli.md");
    for line in GOLDEN.lines() {
        assert!(doc.contains(line), "docs/cli.md has another answer than: {line}");
    }
}

#[test]
fn data_is_in_the_published_form_and_says_the_same() {
    let root = tempfile::tempdir().expect("a folder");
    let _sockets = node(root.path());
    let said = on(root.path(), &["--json"]);
    assert_eq!(said.code, 1, "{said:?}");
    let json = said.json();
    schema::check("doctor", &json);
    let findings = json["findings"].as_array().expect("a list");
    let count = |severity: &str| findings.iter().filter(|f| f["severity"] == severity).count();
    for severity in ["error", "warning", "note", "ok"] {
        assert_eq!(json["summary"][severity], count(severity), "{json:#}");
    }
    let text = on(root.path(), &[]).out;
    for finding in findings {
        for field in ["id", "what", "where", "do"] {
            if let Some(words) = finding.get(field).and_then(Value::as_str) {
                assert!(text.contains(words), "no {words:?} in: {text}");
            }
        }
    }
}

#[test]
fn the_exit_code_is_about_errors_and_with_strict_about_warnings() {
    let root = tempfile::tempdir().expect("a folder");
    let _sockets = node(root.path());
    // Another vendor's plugin and runtime are no error where vgpu serves Cambricon's cards alone.
    let cambricon = ["--backend", "cambricon"];
    assert_eq!(on(root.path(), &cambricon).code, 0);
    assert_eq!(on(root.path(), &[&cambricon[..], &["--strict"]].concat()).code, 1);
    fs::remove_file(root.path().join("etc/docker/daemon.json")).expect("removed");
    let said = on(root.path(), &[&cambricon[..], &["--strict"]].concat());
    assert_eq!(said.code, 0, "{said:?}");
}

#[test]
fn backends_are_asked_and_a_broken_one_stops_nothing() {
    let root = tempfile::tempdir().expect("a folder");
    let _sockets = node(root.path());
    let said = on(
        root.path(),
        &["--backend", "mock", "--backend", "nvidia", "--nvml-library", "/no/such.so", "--json"],
    );
    assert_eq!(said.code, 1, "{said:?}");
    schema::check("doctor", &said.json());
    let findings = said.json()["findings"].clone();
    let ids: Vec<&str> =
        findings.as_array().expect("a list").iter().filter_map(|f| f["id"].as_str()).collect();
    assert!(ids.contains(&"DOC-CARD-1") && ids.contains(&"DOC-PLUG-1"), "{ids:?}");
}

/// What root reads: others are told that they are not, in a note more.
fn as_root(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    let Some(at) = lines.iter().position(|line| line.contains("DOC-HOST-12")) else {
        return text.to_owned();
    };
    drop(lines.drain(at..at + 2));
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    text.replace("4 notes\n", "3 notes\n")
}
