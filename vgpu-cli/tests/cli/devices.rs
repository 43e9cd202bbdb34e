//! `vgpu devices`.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::schema;
use crate::support::{Said, command, said, vgpu};

/// Every machine by name.
pub(crate) const PRESETS: [&str; 10] = [
    "a100x4-mig",
    "bw1000x4",
    "empty",
    "h100x8",
    "h200x8",
    "k100x4-library",
    "k100x8",
    "mixed",
    "mlu370x4-mim",
    "mlu370x8",
];

#[test]
fn every_preset_is_told_in_the_published_form() {
    for preset in PRESETS {
        let words = ["devices", "--backend", "mock", "--machine", preset];
        let json = vgpu(&[&words[..], &["--json"]].concat()).good().json();
        schema::check("devices", &json);
        let devices = json["backends"][0]["devices"].as_array().expect("a list").clone();
        assert_eq!(devices.is_empty(), preset == "empty", "{preset}");
        let text = vgpu(&[&words[..], &["--topology"]].concat()).good().out;
        for device in &devices {
            let id = device["id"].as_str().expect("an id");
            assert!(text.contains(id), "{preset} without {id}: {text}");
        }
    }
}

#[test]
fn a_mixed_node_shows_what_each_way_enforces() {
    let text = vgpu(&["devices", "--backend", "mock"]).good().out;
    let line = |words: &str| -> String {
        let found = text.lines().find(|line| line.split_whitespace().nth(1) == Some(words));
        found.unwrap_or_else(|| panic!("no {words}: {text}")).to_owned()
    };
    assert!(line("vdcu").contains("cooperative, partition"), "{text}");
    assert!(line("smlu").contains("driver, throttle"), "{text}");
    assert!(line("mig").contains("hardware, partition"), "{text}");
}

#[test]
fn a_machine_can_be_described_in_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("machine.json");
    fs::write(&file, r#"{"cards": [{"model": "mlu370-x8", "mode": "mim", "numa": 3}]}"#)
        .expect("written");
    let file = file.to_str().expect("UTF-8");
    let json = vgpu(&["devices", "--backend", "mock", "--machine", file, "--json"]).good().json();
    assert_eq!(json["backends"][0]["devices"][0]["numa"], 3);
}

#[test]
fn an_empty_host_has_a_reason_for_each_vendor_and_is_no_failure() {
    let root = tempfile::tempdir().expect("a folder");
    let json = on(root.path(), &["--json"]).good().json();
    schema::check("devices", &json);
    let backends = json["backends"].as_array().expect("a list");
    let names: Vec<&str> = backends.iter().filter_map(|b| b["backend"].as_str()).collect();
    assert_eq!(names, ["nvidia", "hygon", "cambricon"], "the mock is never shown by accident");
    for backend in backends {
        assert_eq!(backend["state"], "absent");
        assert!(backend["reason"].as_str().is_some_and(|why| why.contains("no ")), "{backend}");
    }
}

#[test]
fn an_empty_variable_names_no_library() {
    let root = tempfile::tempdir().expect("a folder");
    let mut command = command(&["devices", "--backend", "nvidia", "--host-root"]);
    let said = said(command.arg(root.path()).env("VGPU_NVML_LIBRARY", "")).good();
    assert!(said.out.contains("absent"), "{}", said.out);
    let said = self::said(command.env("VGPU_NVML_LIBRARY", "/no/such.so"));
    assert_eq!(said.code, 1, "one that names a file does: {said:?}");
    assert!(said.out.contains("/no/such.so"), "{}", said.out);
}

#[test]
fn a_card_that_cannot_be_served_is_broken_with_why_and_holds_up_nobody() {
    let root = tempfile::tempdir().expect("a folder");
    for (address, vendor, class) in [
        ("0000:33:00.0", "0x1d94", "0x0b4000"),
        ("0000:3b:00.0", "0x10de", "0x030200"),
        ("0000:9f:00.0", "0xcabc", "0x120000"),
    ] {
        let folder = root.path().join("sys/bus/pci/devices").join(address);
        fs::create_dir_all(&folder).expect("made");
        fs::write(folder.join("vendor"), vendor).expect("written");
        fs::write(folder.join("class"), class).expect("written");
    }
    let said = on(root.path(), &["--json"]);
    assert_eq!(said.code, 1, "{said:?}");
    schema::check("devices", &said.json());
    for (backend, address) in
        said.json()["backends"].as_array().expect("a list").iter().zip(["3b", "33", "9f"])
    {
        let backend: &Value = backend;
        assert_eq!(backend["state"], "broken");
        let why = backend["reason"].as_str().expect("a reason");
        assert!(why.contains(&format!("0000:{address}:00.0")), "{why}");
    }
    let one = on(root.path(), &["--backend", "mock", "--backend", "hygon"]);
    assert_eq!(one.code, 1);
    assert!(one.out.contains("K100-AI"), "the others are shown: {}", one.out);
}

fn on(root: &Path, more: &[&str]) -> Said {
    let root = root.to_str().expect("UTF-8");
    vgpu(&[&["devices", "--host-root", root], more].concat())
}
