//! `link` in roots that are friendly, odd and hostile.

use std::os::unix::fs::symlink;

use crate::support::{Bundle, call};

#[expect(dead_code, reason = "each test file uses a part of it")]
mod support;

#[test]
fn links_are_made_with_the_folders_above() {
    let bundle = Bundle::new();
    bundle.call(&["link", "libcuda.so.1::/usr/lib64/libcuda.so", "/opt/x::/a/b/c"]).succeeded();
    assert_eq!(bundle.readlink("rootfs/usr/lib64/libcuda.so"), "libcuda.so.1");
    assert_eq!(bundle.readlink("rootfs/a/b/c"), "/opt/x");
}

#[test]
fn again_is_fine_and_another_target_replaces() {
    let bundle = Bundle::new();
    for target in ["one", "one", "two"] {
        bundle.call(&["link", &format!("{target}::/lib/x.so")]).succeeded();
        assert_eq!(bundle.readlink("rootfs/lib/x.so"), target);
    }
    let left: Vec<_> = std::fs::read_dir(bundle.root().join("lib")).expect("lib").collect();
    assert_eq!(left.len(), 1, "nothing temporary is left");
}

#[test]
fn an_images_own_file_stays() {
    let bundle = Bundle::new();
    bundle.write("rootfs/lib/x.so", "own");
    bundle.call(&["link", "y::/lib/x.so"]).failed_with("the image has a file or folder there");
    assert_eq!(bundle.read("rootfs/lib/x.so"), "own");
    bundle.call(&["link", "y::/lib"]).failed_with("the image has a file or folder there");
}

#[test]
fn links_inside_the_root_are_followed() {
    let bundle = Bundle::new();
    bundle.write("rootfs/usr/lib/keep", "");
    bundle.symlink("usr/lib", "rootfs/lib");
    bundle.symlink("/usr/lib", "rootfs/lib64");
    bundle.symlink("../lib64", "rootfs/usr/lib64");
    for (n, folder) in ["lib", "lib64", "usr/lib64"].into_iter().enumerate() {
        bundle.call(&["link", &format!("t{n}::/{folder}/x{n}.so")]).succeeded();
        assert_eq!(bundle.readlink(&format!("rootfs/usr/lib/x{n}.so")), format!("t{n}"));
    }
}

/// Each way out of the root ends at the root, as it does for the container's own processes.
#[test]
fn no_link_leads_out() {
    let elsewhere = tempfile::tempdir().expect("a folder");
    let elsewhere_path = elsewhere.path().to_string_lossy().into_owned();
    for (n, target) in
        ["..", "../..", "../../../../../../..", "/", "/..", "a/../../..", &elsewhere_path]
            .into_iter()
            .enumerate()
    {
        let bundle = Bundle::new();
        bundle.write("rootfs/a/keep", "");
        bundle.symlink(target, "rootfs/out");
        let before = bundle.outside();
        let ended = bundle.call(&["link", &format!("t::/out/escaped{n}")]);
        assert_eq!(bundle.outside(), before, "{target}: {}", ended.stderr);
        assert!(!std::path::Path::new(&format!("/escaped{n}")).is_symlink(), "{target}");
        assert_eq!(std::fs::read_dir(&elsewhere).expect("it").count(), 0, "{target}");
        ended.succeeded();
        // A path of the host means the same path below the root, which is made.
        let below = if target == elsewhere_path { target } else { "" };
        assert_eq!(bundle.readlink(&format!("rootfs{below}/escaped{n}")), "t", "{target}");
    }
}

#[test]
fn a_link_at_the_end_is_replaced_and_not_followed() {
    let bundle = Bundle::new();
    bundle.write("victim", "precious");
    bundle.symlink("../../victim", "rootfs/lib/x.so");
    bundle.call(&["link", "y::/lib/x.so"]).succeeded();
    assert_eq!(bundle.read("victim"), "precious");
    assert_eq!(bundle.readlink("rootfs/lib/x.so"), "y");
}

#[test]
fn circles_and_files_in_the_way_are_told() {
    let bundle = Bundle::new();
    bundle.symlink("b", "rootfs/a");
    bundle.symlink("a", "rootfs/b");
    bundle.write("rootfs/file", "");
    bundle.call(&["link", "t::/a/x"]).failed_with("cannot make the link /a/x");
    bundle.call(&["link", "t::/file/x"]).failed_with("cannot make the link /file/x");
}

#[test]
fn a_root_may_be_absolute() {
    let bundle = Bundle::new();
    let root = tempfile::tempdir().expect("a folder");
    let config = serde_json::json!({ "root": { "path": root.path() } }).to_string();
    bundle.write("config.json", &config);
    bundle.call(&["link", "t::/x"]).succeeded();
    assert!(root.path().join("x").is_symlink());
}

#[test]
fn bad_input_is_told() {
    let bundle = Bundle::new();
    bundle.call(&["link"]).failed_with("which links?");
    bundle.call(&["link", "a"]).failed_with("is not TARGET::LINK");
    bundle.call(&["link", "a::/x/../../y"]).failed_with("is not an absolute path");
    call(&["link", "a::/x"], "[").failed_with("stdin is not a container's state");
    call(&["link", "a::/x"], r#"{"bundle":"/nonexistent"}"#)
        .failed_with("/nonexistent/config.json");
    bundle.write("config.json", "{");
    bundle.call(&["link", "a::/x"]).failed_with("is no JSON");
    bundle.write("config.json", "{}");
    bundle.call(&["link", "a::/x"]).failed_with("names no root.path");
    bundle.write("config.json", r#"{"root":{"path":"gone"}}"#);
    bundle.call(&["link", "a::/x"]).failed_with("cannot open the container's root");
    std::fs::remove_file(bundle.path().join("config.json")).expect("it was there");
    symlink("config.json", bundle.path().join("config.json")).expect("a circle");
    bundle.call(&["link", "a::/x"]).failed_with("cannot read the container's configuration");
}
