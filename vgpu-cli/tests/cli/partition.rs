//! `vgpu partition`, on a stand-in for libcndev whose instances outlive a command.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Said, command, example, said};

const CARD: &str = "MLU-37080000-6d6c-7500-a000-000000000000";

/// A machine whose first card has two instances: an agent's and somebody else's.
fn machine(folder: &Path) {
    let text = format!("preset: mlu370x8\nstate: {}\n", folder.join("state.json").display());
    fs::write(folder.join("machine.yaml"), text).expect("written");
    let instance = |id: u32, name: &str| json!({ "id": id, "name": name, "profile": 0 });
    let profile = json!({ "id": 0, "percent": 10, "memory": 1_u64 << 30 });
    let card = json!({
        "mode": "smlu",
        "profiles": [profile],
        "instances": [instance(1, "vgpu-0123"), instance(2, "other-tool")],
    });
    let state = json!({ "driver": [6, 2, 11], "cards": [card] });
    fs::write(folder.join("state.json"), state.to_string()).expect("written");
}

fn on(folder: &Path, words: &[&str]) -> Option<Said> {
    let library = example("libfake_cndev.so")?;
    let mut command = command(words);
    command.env("FAKE_CNDEV", folder.join("machine.yaml")).env("VGPU_CNDEV_LIBRARY", library);
    Some(said(&mut command))
}

#[test]
fn a_living_instance_is_resized_by_the_driver_where_no_agent_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    machine(folder);
    let list = ["partition", "list", "--backend", "cambricon", "--json"];
    let Some(listed) = on(folder, &list) else { return };
    let parts: Value = listed.good().json();
    assert_eq!(parts.as_array().map(Vec::len), Some(2), "{parts}");

    let state_dir = folder.to_str().expect("UTF-8");
    let resize = |part: &str, more: &[&str]| {
        let words = ["partition", "resize", part, "--memory", "4Gi", "--state-dir", state_dir];
        on(folder, &[&words, more].concat()).expect("it was there")
    };
    let direct = ["--without-agent", "--backend", "cambricon"];
    let theirs = format!("{CARD}/smlu/other-tool");
    let away = resize(&theirs, &[]);
    assert_eq!(away.code, 1);
    assert!(away.err.contains("agent does not answer"), "{}", away.err);
    let done = resize(&theirs, &direct).good();
    assert!(done.out.contains("4Gi, compute 10/100"), "{}", done.out);
    let ours = resize(&format!("{CARD}/smlu/vgpu-0123"), &direct);
    assert_eq!(ours.code, 1);
    assert!(ours.err.contains("an agent made the part"), "{}", ours.err);
    let text = on(folder, &["partition", "list", "--backend", "cambricon"]).expect("it was there");
    let text = text.good().out;
    let row = |name: &str| text.lines().find(|l| l.contains(name)).expect("listed").to_owned();
    assert!(row("other-tool").contains("4Gi"), "{text}");
    assert!(row("vgpu-0123").contains("1Gi"), "{text}");
}

#[test]
fn a_size_without_a_unit_is_a_mistake() {
    let folder = tempfile::tempdir().expect("a folder");
    machine(folder.path());
    let part = format!("{CARD}/smlu/other-tool");
    for bad in [["--memory", "16"], ["--memory", "10%"], ["--compute", "25"], ["--compute", "0%"]] {
        let words = [&["partition", "resize", part.as_str()][..], &bad].concat();
        let said = said(&mut command(&words));
        assert_eq!(said.code, 2, "{bad:?}: {}", said.err);
    }
}

#[test]
fn an_old_library_s_missing_functions_are_named() {
    let Some(library) = example("libfake_cndev_old.so") else { return };
    let mut command = command(&["conformance", "probe", "--backend", "cambricon"]);
    let said =
        said(command.env("FAKE_CNDEV", "cndev-3.9").env("VGPU_CNDEV_LIBRARY", library)).good();
    assert!(said.out.contains("cndevUpdateSMluInstanceQuotaByHandle"), "{}", said.out);
}
