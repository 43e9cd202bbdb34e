//! `--child`: backends in processes of their own, which are this command again.

use std::fs;

use crate::schema;
use crate::support::{command, fake_nvml, said, vgpu};

#[test]
fn a_child_tells_what_this_process_would() {
    let machine = ["devices", "--backend", "mock", "--machine", "a100x4-mig", "--json"];
    let own = vgpu(&machine).good();
    let child = vgpu(&[&machine[..], &["--child"]].concat()).good();
    assert_eq!(child.json(), own.json());
    // A description is found from the child's folder too.
    let folder = tempfile::tempdir().expect("a folder");
    let text = r#"{"cards": [{"model": "h200-sxm141gb"}]}"#;
    fs::write(folder.path().join("machine.json"), text).expect("written");
    let words = ["devices", "--backend", "mock", "--machine", "machine.json", "--json", "--child"];
    let told = said(command(&words).current_dir(folder.path())).good();
    schema::check("devices", &told.json());
    assert_eq!(told.json()["backends"][0]["devices"].as_array().map(Vec::len), Some(1));
}

#[test]
fn the_suite_runs_through_the_pipe() {
    let words = ["conformance", "run", "--backend", "mock", "--machine", "mixed", "--child"];
    for clause in ["::BACK-6 ", "::BACK-10 ", "::DISC-1 ", "::PART-7 ", "::HLTH-6 "] {
        let said = vgpu(&[&words[..], &["--filter", clause]].concat()).good();
        assert!(said.out.contains("mock-mixed-child"), "{}", said.out);
        assert!(said.out.contains(" 0 failed") && !said.out.contains("\n0 passed"), "{}", said.out);
    }
    let said = vgpu(&[&words[..], &["--defect", "DISC-1"]].concat());
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.err.contains("leave one of the two out"), "{}", said.err);
}

#[test]
fn a_library_of_nvidia_is_loaded_in_the_child() {
    let Some(library) = fake_nvml() else { return };
    let library = library.to_str().expect("UTF-8");
    let on = |scenario: &str, more: &[&str]| {
        let words = ["devices", "--backend", "nvidia", "--nvml-library", library, "--json"];
        said(command(&[&words[..], more].concat()).env("FAKE_NVML", scenario))
    };
    assert_eq!(on("h200x2", &["--child"]).good().json(), on("h200x2", &[]).good().json());
    let broken = on("no-driver", &["--child"]);
    assert_eq!(broken.code, 1, "{broken:?}");
    assert_eq!(broken.json()["backends"][0]["error"]["vendor"]["code"], 9, "as it was told");
}

#[test]
fn the_hidden_word_is_not_for_people() {
    let help = vgpu(&["--help"]).good();
    assert!(!help.out.contains("backend  "), "{}", help.out);
    // Without an agent there is no hello, and it says so.
    let said = crate::support::vgpu_reads(&["backend", "mock"], b"\0\0\0\x02{}");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("no hello"), "{}", said.err);
    assert_eq!(said.out, "");
}
