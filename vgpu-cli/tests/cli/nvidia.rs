//! `--backend nvidia` on a stand-in for NVML, from `dlopen` on.

use std::fs;

use serde_json::Value;

use crate::schema;
use crate::support::{Said, command, fake_nvml, said, vgpu};

#[test]
fn a_node_of_eight_is_told_with_numa_and_topology() {
    let Some(json) = devices("h200x8", &["--json"]).map(Said::good) else { return };
    let json = json.json();
    schema::check("devices", &json);
    let found = &json["backends"][0];
    let numa: Vec<u64> = found["devices"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|d| d["numa"].as_u64())
        .collect();
    assert_eq!(numa, [0, 0, 0, 0, 1, 1, 1, 1]);
    let links = found["links"].as_array().expect("a list");
    assert_eq!(links.len(), 28, "every pair of eight");
    assert!(links.iter().all(|link| link["lanes"] == 18), "{links:?}");
    let text = devices("h200x8", &["--topology"]).expect("it was there").good().out;
    assert!(text.contains("PIX+18") && text.contains("SYS+18"), "{text}");
}

#[test]
fn a_lost_card_is_told_beside_those_that_answer() {
    let Some(said) = devices("lost-one", &[]) else { return };
    let said = said.good();
    assert!(said.out.contains("\nlost: "), "{}", said.out);
    assert!(said.out.contains("GPU is lost"), "{}", said.out);
    let json = devices("lost-one", &["--json"]).expect("it was there").json();
    schema::check("devices", &json);
    assert_eq!(json["backends"][0]["lost"].as_array().map(Vec::len), Some(1));
    assert_eq!(json["backends"][0]["devices"].as_array().map(Vec::len), Some(3));
}

#[test]
fn a_driver_that_does_not_start_is_broken() {
    let Some(said) = devices("no-driver", &["--json"]) else { return };
    assert_eq!(said.code, 1, "{said:?}");
    schema::check("devices", &said.json());
    assert_eq!(said.json()["backends"][0]["error"]["vendor"]["code"], 9);
}

#[test]
fn a_call_that_does_not_return_makes_its_vendor_broken_and_holds_up_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("slow.yaml");
    fs::write(&file, "preset: t4x1\nlatency_ms: {nvmlDeviceGetUUID: 86400000}\n").expect("written");
    let more = ["--json", "--timeout", "2", "--backend", "mock"];
    let Some(said) = devices(file.to_str().expect("UTF-8"), &more) else { return };
    assert_eq!(said.code, 1, "{said:?}");
    let json = said.json();
    schema::check("devices", &json);
    assert_eq!(json["backends"][0]["error"]["kind"], "in-doubt");
    assert_eq!(json["backends"][1]["state"], "ready");
}

#[test]
fn a_file_that_is_no_nvml_is_broken_with_its_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("text.so");
    fs::write(&file, "no library").expect("written");
    let name = file.to_str().expect("UTF-8");
    let said = vgpu(&["devices", "--backend", "nvidia", "--nvml-library", name, "--json"]);
    assert_eq!(said.code, 1, "{said:?}");
    let why: Value = said.json()["backends"][0]["reason"].clone();
    assert!(why.as_str().is_some_and(|why| why.contains(name)), "{why}");
}

#[test]
fn a_whole_card_has_its_nodes() {
    let root = tempfile::tempdir().expect("a folder");
    let root = root.path().to_str().expect("UTF-8");
    let words = ["edits", "--backend", "nvidia", "--whole", "--host-root", root];
    let Some(said) = on("h200x2", &words) else { return };
    let spec = said.good().json();
    let nodes = spec["devices"][0]["containerEdits"]["deviceNodes"].as_array().expect("a list");
    let paths: Vec<&str> = nodes.iter().filter_map(|node| node["path"].as_str()).collect();
    assert!(paths.contains(&"/dev/nvidiactl") && paths.contains(&"/dev/nvidia0"), "{paths:?}");
    assert!(!paths.contains(&"/dev/nvidia1"), "only its own card: {paths:?}");
}

#[test]
fn the_suite_reads_a_real_backend_and_plays_nothing() {
    let words = ["conformance", "run", "--backend", "nvidia", "--format", "json"];
    let Some(said) = on("h200x2", &words) else { return };
    let said = said.good();
    schema::check("conformance-report", &said.json());
    assert!(said.json()["counts"]["passed"].as_u64().is_some_and(|n| n > 10), "{}", said.out);
}

fn devices(scenario: &str, more: &[&str]) -> Option<Said> {
    on(scenario, &[&["devices", "--backend", "nvidia"], more].concat())
}

fn on(scenario: &str, words: &[&str]) -> Option<Said> {
    let library = fake_nvml()?;
    let library = library.to_str().expect("UTF-8");
    let words = [words, &["--nvml-library", library]].concat();
    Some(said(command(&words).env("FAKE_NVML", scenario)))
}
