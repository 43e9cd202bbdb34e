//! The backend on machines of the fake library: restarts, bad answers, limits. Each machine is in a process of its
//! own, since a library is never unloaded: a test starts this program again with the test of the same name inside.

#[path = "support/built.rs"]
mod built;
#[path = "support/control.rs"]
mod control;

mod inside;

use std::process::Command;

use crate::control::Control;

macro_rules! machines {
    ($($name:ident: $preset:literal, $library:literal;)*) => {$(
        #[test]
        fn $name() {
            run(stringify!($name), concat!("preset: ", $preset), $library);
        }
    )*};
}

const NEW: &str = "libfake_cndev.so";

machines! {
    a_driver_restart_keeps_instances: "mlu370x8", "libfake_cndev.so";
    a_killed_create_leaves_a_profile_that_is_swept: "mlu370x8", "libfake_cndev.so";
    an_old_library_lacks_and_says_so: "cndev-3.9", "libfake_cndev_old.so";
    cards_that_start_are_lost_until_they_run: "cndev-6.5", "libfake_cndev.so";
    illness_is_told_with_its_text: "cndev-6.5", "libfake_cndev.so";
    links_and_boards_are_read: "mlu370x8", "libfake_cndev.so";
    nobody_but_the_host_s_root_may_create: "cndev-4.0", "libfake_cndev.so";
    seventeen_sizes_are_one_too_many: "mlu370x8", "libfake_cndev.so";
    sixty_five_instances_are_one_too_many: "mlu370x8", "libfake_cndev.so";
    smlu_of_a_card_in_mim_mode_is_refused: "mlu370x8", "libfake_cndev.so";
    strings_without_end_and_absurd_counts_are_refused: "cndev-6.5", "libfake_cndev.so";
    units_that_are_no_sizes_are_refused: "cndev-4.0", "libfake_cndev.so";
}

#[test]
fn more_cards_than_any_machine_has_are_refused() {
    let scenario = "preset: cndev-6.5\ndevice_count: 100000";
    run("more_cards_than_any_machine_has_are_refused", scenario, NEW);
}

/// Runs the inner test of that name in a process that has the machine.
fn run(name: &str, scenario: &str, library: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, _) = Control::prepare(folder.path(), scenario);
    let own = std::env::current_exe().expect("a test knows its own path");
    let output = Command::new(own)
        .args(["--exact", &format!("inside::{name}"), "--ignored", "--nocapture"])
        .env("FAKE_CNDEV", path)
        .env("VGPU_TEST_LIBRARY", library)
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let passed = output.status.success() && said.contains("1 passed");
    assert!(passed, "{said}\n{}", String::from_utf8_lossy(&output.stderr));
}
