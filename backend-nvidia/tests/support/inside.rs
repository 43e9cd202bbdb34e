//! A test's own part in a process of its own: a library is loaded once and reads its machine when it starts.

#![allow(dead_code, reason = "each test file uses its own part of this module")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// What the child has to do, in its environment.
pub(crate) const INSIDE: &str = "VGPU_TEST_INSIDE";
const FOLDER: &str = "VGPU_TEST_FOLDER";

/// Runs `child` of this test program with a machine of the fake; `prepare` fills the folder that
/// [`folder`] names there, and `{folder}` in the scenario is its path.
pub(crate) fn inside(what: &str, scenario: &str, prepare: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("scenario.yaml");
    let control = folder.path().join("control.yaml");
    let scenario = scenario.replace("{folder}", &folder.path().to_string_lossy());
    fs::write(&file, format!("{scenario}\ncontrol: {}\n", control.display())).expect("written");
    prepare(folder.path());
    run(what, &file, &folder);
}

fn run(what: &str, scenario: &Path, folder: &TempDir) {
    let mut command = Command::new(std::env::current_exe().expect("a test knows its own path"));
    command.args(["--exact", "child", "--ignored", "--nocapture"]);
    command.env(INSIDE, what).env("FAKE_NVML", scenario).env(FOLDER, folder.path());
    let output = command.output().expect("it starts");
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{}", said.concat());
    assert!(said[0].contains("1 passed"), "nothing ran: {}", said.concat());
}

/// The folder that was prepared.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from(std::env::var_os(FOLDER).expect("a child has a folder"))
}

/// Changes the machine, all at once.
pub(crate) fn control(text: &str) {
    let path = folder().join("control.yaml");
    let new = path.with_extension("new");
    fs::write(&new, text).expect("written");
    fs::rename(&new, &path).expect("put in place");
}
