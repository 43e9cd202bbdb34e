//! `loader-cache` in glibc, musl, bare and hostile roots.

use std::os::unix::fs::PermissionsExt;

use crate::support::Bundle;

#[expect(dead_code, reason = "each test file uses a part of it")]
mod support;

const OURS: &str = "rootfs/etc/ld.so.conf.d/00-vgpu.conf";

/// A stand-in for the host's ldconfig that notes its arguments.
fn ldconfig(bundle: &Bundle, ending: &str) -> String {
    let path = bundle.path().join("ldconfig");
    let script =
        format!("#!/bin/sh\necho \"$@\" >> {}/called\n{ending}\n", bundle.path().display());
    std::fs::write(&path, script).expect("a script");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("executable");
    path.to_string_lossy().into_owned()
}

#[test]
fn a_bare_root_gets_all_it_needs() {
    let bundle = Bundle::new();
    let program = ldconfig(&bundle, "exit 0");
    bundle.call(&["loader-cache", "--ldconfig", &program, "/usr/lib64", "/opt/vgpu"]).succeeded();
    assert_eq!(bundle.read(OURS), "/usr/lib64\n/opt/vgpu\n");
    assert_eq!(bundle.read("rootfs/etc/ld.so.conf"), "include /etc/ld.so.conf.d/*.conf\n");
    let root = bundle.root();
    let expected = format!("-r {} -f /etc/ld.so.conf -C /etc/ld.so.cache\n", root.display());
    assert_eq!(bundle.read("called"), expected);
}

#[test]
fn an_images_configuration_stays() {
    let bundle = Bundle::new();
    let program = ldconfig(&bundle, "exit 0");
    bundle.write("rootfs/etc/ld.so.conf", "/opt/own\n");
    let call = ["loader-cache", "--ldconfig", &program, "/a"];
    bundle.call(&call).succeeded();
    let expected = "include /etc/ld.so.conf.d/00-vgpu.conf\n/opt/own\n";
    assert_eq!(bundle.read("rootfs/etc/ld.so.conf"), expected);
    bundle.call(&call).succeeded();
    assert_eq!(bundle.read("rootfs/etc/ld.so.conf"), expected, "twice is once");
}

#[test]
fn two_vendors_share_a_container() {
    let bundle = Bundle::new();
    let program = ldconfig(&bundle, "exit 0");
    bundle.call(&["loader-cache", "--ldconfig", &program, "/nvidia"]).succeeded();
    bundle.call(&["loader-cache", "--ldconfig", &program, "/hygon", "/nvidia"]).succeeded();
    assert_eq!(bundle.read(OURS), "/nvidia\n/hygon\n");
}

#[test]
fn musl_has_a_list_of_its_own() {
    let bundle = Bundle::new();
    let program = ldconfig(&bundle, "exit 0");
    bundle.write("rootfs/lib/ld-musl-x86_64.so.1", "");
    bundle.call(&["loader-cache", "--ldconfig", &program, "/a"]).succeeded();
    let list = "rootfs/etc/ld-musl-x86_64.path";
    assert_eq!(bundle.read(list), "/lib\n/usr/local/lib\n/usr/lib\n/a\n");
    assert!(!bundle.path().join("called").exists(), "no glibc, no cache");
    assert!(!bundle.path().join(OURS).exists());
    bundle.write(list, "/own:/lib\n");
    bundle.call(&["loader-cache", "--ldconfig", &program, "/a"]).succeeded();
    assert_eq!(bundle.read(list), "/own\n/lib\n/a\n");
}

#[test]
fn a_root_with_both_loaders_gets_both() {
    let bundle = Bundle::new();
    let program = ldconfig(&bundle, "exit 0");
    bundle.write("rootfs/usr/lib/ld-musl-x86_64.so.1", "");
    bundle.symlink("usr/lib", "rootfs/lib");
    bundle.write("rootfs/lib64/ld-linux-x86-64.so.2", "");
    bundle.call(&["loader-cache", "--ldconfig", &program, "/a"]).succeeded();
    assert!(bundle.read("rootfs/etc/ld-musl-x86_64.path").ends_with("/a\n"));
    assert_eq!(bundle.read(OURS), "/a\n");
    assert!(bundle.path().join("called").exists());
}

#[test]
fn nothing_is_written_outside() {
    let bundle = Bundle::new();
    let program = ldconfig(&bundle, "exit 0");
    bundle.write("etc/ld.so.conf.d/host.conf", "host");
    bundle.symlink("../etc", "rootfs/etc");
    let ended = bundle.call(&["loader-cache", "--ldconfig", &program, "/a"]);
    // `../etc` is `/etc` in there, which is itself.
    ended.failed_with("cannot read /etc/ld.so.conf.d/00-vgpu.conf");
    let outside = std::fs::read_dir(bundle.path().join("etc/ld.so.conf.d")).expect("it");
    assert_eq!(outside.count(), 1);

    let bundle = Bundle::new();
    let program = ldconfig(&bundle, "exit 0");
    bundle.write("victim", "precious");
    bundle.symlink("../../../victim", OURS);
    bundle.symlink("../../victim", "rootfs/etc/ld.so.conf");
    bundle.call(&["loader-cache", "--ldconfig", &program, "/a"]).succeeded();
    assert_eq!(bundle.read("victim"), "precious");
    assert!(bundle.root().join("victim").exists(), "the link's end within the root");
}

#[test]
fn a_pipe_in_place_of_a_file_does_not_hold_it_up() {
    let bundle = Bundle::new();
    let program = ldconfig(&bundle, "exit 0");
    std::fs::create_dir_all(bundle.root().join("etc")).expect("etc");
    let made =
        std::process::Command::new("mkfifo").arg(bundle.root().join("etc/ld.so.conf")).status();
    assert!(made.expect("mkfifo runs").success());
    let ended = bundle.call(&["loader-cache", "--ldconfig", &program, "/a"]);
    ended.failed_with("cannot read /etc/ld.so.conf");
}

#[test]
fn a_failing_ldconfig_is_told() {
    let bundle = Bundle::new();
    let program = ldconfig(&bundle, "echo cannot do it >&2; exit 3");
    let ended = bundle.call(&["loader-cache", "--ldconfig", &program, "/a"]);
    ended.failed_with("cannot do it");
    let ended = bundle.call(&["loader-cache", "--ldconfig", "/nonexistent/ldconfig", "/a"]);
    ended.failed_with("cannot run /nonexistent/ldconfig");
}

#[test]
fn the_hosts_ldconfig_makes_a_cache() {
    let bundle = Bundle::new();
    let ended = bundle.call(&["loader-cache", "/usr/lib/vgpu"]);
    assert!(ended.ok, "{}", ended.stderr);
    // On a host without one there is a word instead.
    if ended.stderr.is_empty() {
        assert!(bundle.root().join("etc/ld.so.cache").exists());
    } else {
        assert!(ended.stderr.contains("this host has no ldconfig"), "{}", ended.stderr);
    }
}

#[test]
fn bad_input_is_told() {
    let bundle = Bundle::new();
    bundle.call(&["loader-cache"]).failed_with("which folders?");
    bundle.call(&["loader-cache", "lib"]).failed_with("folder \"lib\" is not");
    bundle.call(&["loader-cache", "/a\n/b"]).failed_with("is not an absolute path");
    bundle.call(&["loader-cache", "--frob"]).failed_with("unknown option --frob");
}
