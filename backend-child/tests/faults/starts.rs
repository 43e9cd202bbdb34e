//! Children that do not start as they should: one clear error each.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use vgpu_backend_child::ChildOptions;
use vgpu_core::{Bytes, Error, ErrorKind, Probe};

use crate::world::{World, holds, runs};

pub(crate) const ALL: &[(&str, fn())] = &[
    ("starts::a_program_that_cannot_be_started_is_told", programs),
    ("starts::a_child_that_breaks_the_protocol_is_told", protocol),
    ("starts::a_child_that_dies_in_init_is_told", deaths),
    ("starts::a_child_that_is_silent_or_hangs_in_init_is_ended", hangs),
    ("starts::its_memory_is_bounded", memory),
    ("starts::a_library_may_print_and_flood", chatter),
    ("starts::what_it_started_ends_with_it", offspring),
    ("starts::it_inherits_nothing", surroundings),
];

fn programs() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = |name: &str, bytes: &[u8], mode: u32| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
        path
    };
    // The head of a program for a machine that is not this one: EM_S390 is 22.
    let mut foreign = [0_u8; 64];
    foreign[..20].copy_from_slice(b"\x7fELF\x02\x02\x01\0\0\0\0\0\0\0\0\0\0\x02\0\x16");
    let missing = dir.path().join("missing");
    for (path, kind, word) in [
        (missing, ErrorKind::NotFound, "there is no program"),
        (file("data", b"", 0o644), ErrorKind::Permission, "make it an executable file"),
        (file("foreign", &foreign, 0o755), ErrorKind::Invalid, "no program for this machine"),
        (file("text", b"just text", 0o755), ErrorKind::Invalid, "no program for this machine"),
        (file("script", b"#!/no/such/shell\n", 0o755), ErrorKind::NotFound, "loader is missing"),
    ] {
        let error = World::broken(ChildOptions::new(&path));
        assert_eq!(error.kind, kind, "{error}");
        tells(&error, &[word, path.to_str().expect("UTF-8")]);
    }
    // One that knows nothing of the protocol.
    let error = World::broken(ChildOptions::new("/bin/echo").arguments(["hello"]));
    tells(&error, &["no message", "hell"]);
}

fn protocol() {
    let world = World::new();
    for (mode, kind, words) in [
        ("early garbage", ErrorKind::Io, &["no message", "liba"][..]),
        ("other version", ErrorKind::Invalid, &["version 2", "version 1", "belong together"]),
        ("other vendor", ErrorKind::Invalid, &["backend of acme, not of mock"]),
        ("answer to nobody", ErrorKind::Io, &["call 77, which nobody made"]),
        ("endless frame", ErrorKind::Io, &["4294967295 bytes"]),
        ("huge frame", ErrorKind::Io, &["no message", "[[[["]),
        ("half a frame", ErrorKind::Io, &["ended by itself with exit code 0"]),
        ("closed output", ErrorKind::Io, &["closed its output"]),
    ] {
        let error = World::broken(world.options(mode));
        assert_eq!(error.kind, kind, "{mode}: {error}");
        tells(&error, words);
    }
}

fn deaths() {
    let world = World::new();
    for (mode, words) in [
        ("abort", &["signal 6 (aborted)"][..]),
        ("segfault", &["signal 11 (segmentation fault)", "said last: acme: dereferencing"]),
        ("exit", &["exit code 3", "said last: acme: no licence"]),
        ("panic", &["panicked"]),
    ] {
        tells(&World::broken(world.options(mode)), words);
    }
}

fn hangs() {
    let world = World::new();
    let soon = Duration::from_millis(300);
    let error = World::broken(ChildOptions { hello: soon, ..world.options("silent") });
    tells(&error, &["its hello did not return in time"]);
    let error = World::broken(ChildOptions { call: soon, ..world.options("hang") });
    tells(&error, &["its probe did not return in time"]);
}

fn memory() {
    let world = World::new();
    let limited = |mode| ChildOptions { memory: Some(Bytes::mib(256)), ..world.options(mode) };
    tells(&World::broken(limited("memory")), &["signal 6 (aborted)"]);
    // Enough for one that behaves.
    let (_factory, backend) = world.good(limited("good"));
    assert!(!backend.scan().expect("it scans").devices.is_empty());
}

fn chatter() {
    let world = World::new();
    for mode in ["print", "flood"] {
        let (factory, backend) = world.good(world.options(mode));
        let pid = factory.process_id();
        for _ in 0..50 {
            assert!(!backend.scan().expect("it scans").devices.is_empty(), "{mode}");
        }
        assert_eq!(factory.process_id(), pid, "{mode}: it was not started anew");
    }
}

fn offspring() {
    let world = World::new();
    let error = World::broken(world.options("offspring"));
    tells(&error, &["signal 6 (aborted)", "started "]);
    let pid = error.message.rsplit("started ").next().expect("a word");
    let pid: u32 = pid.parse().expect("a number");
    holds("its offspring to end", || !runs(pid));
}

fn surroundings() {
    // What whoever started the tests left open is not ours to judge; this file is.
    let ours = tempfile::NamedTempFile::new().expect("a file");
    let world = World::new();
    let name = ours.path().to_str().expect("UTF-8");
    let Probe::Absent(seen) = World::probe(world.options("look")) else { panic!("it looks") };
    assert!(!seen.contains(name), "{seen}");
    assert!(seen.contains("/dev/null") && seen.contains("pipe:"), "it has looked: {seen}");
    assert!(seen.contains("SigBlk:\t0000000000000000"), "{seen}");
    assert!(seen.ends_with("| /"), "{seen}");
}

fn tells(error: &Error, words: &[&str]) {
    for word in words {
        assert!(error.message.contains(word), "{word:?} is not in: {error}");
    }
}
