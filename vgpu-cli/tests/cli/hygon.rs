//! `--backend hygon` on a prepared host with stand-ins for its libraries; beside NVIDIA's.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::schema;
use crate::support::{Said, command, example, fake_nvml, said};

#[test]
fn cards_are_found_without_any_library() {
    let Some(host) = host("mixed") else { return };
    let said = on(host.path(), &["devices", "--backend", "hygon", "--json"]).good();
    schema::check("devices", &said.json());
    let found = &said.json()["backends"][0];
    let models: Vec<&str> = found["devices"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|d| d["model"].as_str())
        .collect();
    assert_eq!(models, ["K100_AI", "Hygon 1d94:7abc", "K100_AI"], "another vendor's is none");
}

#[test]
fn a_library_is_called_in_a_child_and_what_it_does_there_is_told() {
    let Some(host) = host("k100-ai-x4") else { return };
    let Some(library) = example("libfake_hydmi.so") else { return };
    let library = library.to_str().expect("UTF-8");
    let words = ["devices", "--backend", "hygon", "--json", "--hydmi-library", library];
    let info = on(host.path(), &words).good().json()["backends"][0].to_string();
    assert!(info.contains("libfake_hydmi.so"), "{info}");
    on(host.path(), &[&words[..], &["--hydmi-here"]].concat()).good();
    // A library that ends its process, as the real one does without /etc/passwd.
    let mine = ["--backend", "mock"];
    let words = [&words[..], &mine[..]].concat();
    fs::write(host.path().join("control.json"), r#"{"crash_in": "dmiGetDeviceCount"}"#)
        .expect("told");
    let said = on(host.path(), &words);
    assert_eq!(said.code, 1, "{said:?}");
    let json = said.json();
    assert!(json["backends"][0]["error"].is_object(), "{json}");
    assert_eq!(json["backends"][1]["state"], "ready", "the others are served");
    // One that hangs when it starts.
    let hangs = r#"{"latency_ms": {"dmiGetDeviceCount": 86400000}}"#;
    fs::write(host.path().join("control.json"), hangs).expect("told");
    let json = on(host.path(), &[&words[..], &["--timeout", "2"]].concat()).json();
    assert_eq!(json["backends"][0]["error"]["kind"], "in-doubt", "{json}");
    assert_eq!(json["backends"][1]["state"], "ready", "the others are served");
    // And it comes back by itself.
    fs::write(host.path().join("control.json"), "{}").expect("told");
    on(host.path(), &words).good();
}

/// Both libraries export NVML's names, with other structs behind them: a call that went to the other
/// one would be answered with garbage, and is written down.
#[test]
fn neither_vendor_ever_calls_the_other_s_nvml() {
    let Some(host) = host("bw100-x4") else { return };
    let (Some(nvml), Some(hydmi)) = (fake_nvml(), example("libfake_hydmi.so")) else { return };
    let (nvml, hydmi) = (nvml.to_str().expect("UTF-8"), hydmi.to_str().expect("UTF-8"));
    let libraries = ["--nvml-library", nvml, "--hydmi-library", hydmi, "--hydmi-here", "--json"];
    for order in [["nvidia", "hygon"], ["hygon", "nvidia"]] {
        let calls = host.path().join("calls");
        let _none = fs::remove_file(&calls);
        let backends = ["devices", "--backend", order[0], "--backend", order[1]];
        let mut command = to(host.path(), &[&backends[..], &libraries].concat());
        command.env("FAKE_NVML", "a100x4").env("FAKE_HYDMI_CALLS", &calls);
        let json = said(&mut command).good().json();
        let of = |vendor: &str| {
            let all = json["backends"].as_array().expect("a list").iter();
            let mut ours = all.filter(|b| b["name"] == vendor || b["backend"] == vendor);
            ours.next().unwrap_or_else(|| panic!("no {vendor}: {json}"))["devices"].clone()
        };
        let models = |devices: &Value| -> Vec<String> {
            let all = devices.as_array().expect("a list").iter();
            all.map(|d| d["model"].as_str().unwrap_or_default().to_owned()).collect()
        };
        let (nvidia, hygon) = (of("nvidia"), of("hygon"));
        assert!(models(&nvidia).iter().all(|m| m.contains("A100")), "{nvidia}");
        assert_eq!(models(&hygon), ["BW100"; 4]);
        let schemes = hygon[0]["schemes"].to_string();
        assert!(schemes.contains("hcu-mig") && schemes.contains("2g.15gb"), "{schemes}");
        // What Hygon's library was asked, and that NVIDIA's part asked it nothing.
        let calls = fs::read_to_string(&calls).expect("it was called");
        for ours in ["nvmlGetSystemMigMode", "nvmlDeviceGetGpuInstanceProfileInfo"] {
            assert!(calls.lines().any(|call| call == ours), "{calls}");
        }
        for theirs in ["nvmlInit_v2", "nvmlDeviceGetCount_v2", "nvmlDeviceGetUUID"] {
            assert!(calls.lines().all(|call| call != theirs), "{calls}");
        }
    }
}

/// A host with the cards of a preset, if what prepares one is built.
fn host(preset: &str) -> Option<TempDir> {
    let folder = tempfile::tempdir().expect("a folder");
    let made = Command::new(example("fake_hygon_host")?).arg(preset).arg(folder.path()).status();
    assert!(made.expect("it starts").success());
    Some(folder)
}

fn on(host: &Path, words: &[&str]) -> Said {
    said(&mut to(host, words))
}

fn to(host: &Path, words: &[&str]) -> Command {
    let root = host.to_str().expect("UTF-8");
    let mut command = command(&[words, &["--host-root", root]].concat());
    command.env("FAKE_HYDMI", host.join("scenario.json"));
    command
}
