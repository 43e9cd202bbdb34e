//! One good spec, damaged in every way we know: we refuse each, and the oracle agrees.

use container_device_interface::cache::Cache;
use container_device_interface::spec_dirs::with_spec_dirs;
use serde_json::{Value, json};
use vgpu_core::cdi;

use super::{load, options, ours};

/// Who refuses the damage.
#[derive(PartialEq)]
enum Refused {
    /// We and the loader.
    Both,
    /// We only: the loader takes it, and the runtime fails later.
    Ours,
}
use Refused::{Both, Ours};

#[test]
fn the_undamaged_spec_is_fine() {
    let text = good().to_string();
    assert_eq!(ours(&text), Ok(()));
    assert!(load(&text).is_ok());
}

#[test]
fn a_file_that_is_half_written_under_its_temporary_name_is_not_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = cdi::file_name(&options().kind, &options().name).expect("short enough");
    std::fs::write(dir.path().join(cdi::temp_name(&file)), "{\"cdiVer").expect("written");
    let mut cache = Cache::default();
    with_spec_dirs(&[dir.path().to_str().expect("UTF-8")])(&mut cache);
    assert!(cache.refresh().is_ok());
    assert!(cache.specs.is_empty());
    std::fs::write(dir.path().join(file), "{\"cdiVer").expect("written");
    assert!(cache.refresh().is_err(), "under its own name it is");
}

#[test]
fn every_damage_is_refused_and_named() {
    for (pointer, value, refused, word) in damages() {
        let text = damaged(pointer, value.clone()).to_string();
        let what = format!("{pointer} = {value}");
        let why = ours(&text).expect_err(&what);
        assert!(why.contains(word), "{what}: {why}");
        assert_eq!(load(&text).is_err(), refused == Both, "{what}");
    }
}

#[test]
fn what_is_missing_is_refused() {
    let paths = [
        ("", "cdiVersion"),
        ("", "kind"),
        ("", "devices"),
        ("/devices/0", "name"),
        ("/devices/0", "containerEdits"),
        ("/devices/0/containerEdits/deviceNodes/0", "path"),
        ("/devices/0/containerEdits/hooks/0", "hookName"),
        ("/devices/0/containerEdits/hooks/0", "path"),
        ("/devices/0/containerEdits/mounts/0", "hostPath"),
        ("/devices/0/containerEdits/mounts/0", "containerPath"),
    ];
    for (parent, field) in paths {
        let mut spec = good();
        let object = spec.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object");
        assert!(object.remove(field).is_some(), "{parent}/{field}");
        assert!(ours(&spec.to_string()).is_err(), "{parent}/{field}");
        assert!(load(&spec.to_string()).is_err(), "{parent}/{field}");
    }
}

#[test]
fn unknown_fields_are_refused_at_every_depth() {
    for parent in [
        "",
        "/devices/0",
        "/devices/0/containerEdits",
        "/devices/0/containerEdits/deviceNodes/0",
        "/devices/0/containerEdits/hooks/0",
        "/devices/0/containerEdits/mounts/0",
        "/devices/0/containerEdits/netDevices/0",
        "/devices/0/containerEdits/intelRdt",
    ] {
        let text = damaged(&format!("{parent}/surprise"), json!(1)).to_string();
        assert!(ours(&text).expect_err(parent).contains("surprise"));
        assert!(load(&text).is_err(), "{parent}");
    }
}

/// Where, what is put there, who refuses it, and a word of our reason.
fn damages() -> Vec<(&'static str, Value, Refused, &'static str)> {
    let edits = "/devices/0/containerEdits";
    let at = |rest: &str| -> &'static str { format!("{edits}{rest}").leak() };
    let net = |host: &str, name: &str| json!({"hostInterfaceName": host, "name": name});
    vec![
        ("/cdiVersion", json!(""), Both, "cdiVersion"),
        ("/cdiVersion", json!("9.9.9"), Both, "cdiVersion"),
        ("/cdiVersion", json!("1.0.0"), Both, "needs 1.1.0"),
        ("/cdiVersion", json!("0.5.0"), Both, "needs 1.1.0"),
        ("/kind", json!("vgpu.dev"), Both, "kind"),
        ("/kind", json!("/claim"), Both, "vendor"),
        ("/kind", json!("vgpu.dev/"), Both, "class"),
        ("/kind", json!("vgpu.dev/a/b"), Both, "class"),
        ("/kind", json!("1gpu/claim"), Both, "vendor"),
        ("/kind", json!("vgpu dev/claim"), Both, "vendor"),
        ("/annotations", json!({"bad key": "x"}), Both, "annotations"),
        ("/annotations", json!({"k": "x".repeat(262_144)}), Both, "262144"),
        ("/containerEdits", json!({"env": ["X"]}), Both, "containerEdits.env[0]"),
        ("/devices", json!([]), Both, "devices"),
        ("/devices/0/name", json!(""), Both, "devices[0].name"),
        ("/devices/0/name", json!("-a"), Both, "devices[0].name"),
        ("/devices/0/name", json!("a/b"), Both, "devices[0].name"),
        ("/devices/0/name", json!("second"), Both, "second"),
        ("/devices/0/annotations", json!({"a/b/c": ""}), Both, "devices[0].annotations"),
        (edits, json!({}), Both, "devices[0].containerEdits"),
        (edits, json!({"env": [], "mounts": []}), Both, "changes nothing"),
        (at("/env/0"), json!("NOVALUE"), Both, "env[0]"),
        (at("/env/0"), json!("=x"), Both, "env[0]"),
        (at("/deviceNodes/0/path"), json!(""), Both, "deviceNodes[0].path"),
        (at("/deviceNodes/0/path"), json!("dev/x"), Ours, "deviceNodes[0].path"),
        (at("/deviceNodes/0/hostPath"), json!("x"), Ours, "deviceNodes[0].hostPath"),
        (at("/deviceNodes/0/type"), json!("char"), Both, "deviceNodes[0].type"),
        (at("/deviceNodes/0/permissions"), json!("rwx"), Both, "permissions"),
        (at("/deviceNodes/0/major"), json!("195"), Both, "195"),
        (at("/hooks/0/hookName"), json!("createruntime"), Both, "hooks[0].hookName"),
        (at("/hooks/0/path"), json!(""), Both, "hooks[0].path"),
        (at("/hooks/0/path"), json!("bin/x"), Ours, "hooks[0].path"),
        (at("/hooks/0/env"), json!(["X"]), Both, "hooks[0].env[0]"),
        (at("/hooks/0/timeout"), json!(-1), Both, "hooks[0].timeout"),
        (at("/hooks/0/timeout"), json!(0), Ours, "hooks[0].timeout"),
        (at("/hooks/0/timeout"), json!(4_294_967_296_i64), Both, "hooks[0].timeout"),
        (at("/mounts/0/hostPath"), json!(""), Both, "mounts[0].hostPath"),
        (at("/mounts/0/hostPath"), json!("usr"), Ours, "mounts[0].hostPath"),
        (at("/mounts/0/containerPath"), json!(""), Both, "mounts[0].containerPath"),
        (at("/mounts/0/containerPath"), json!("usr"), Ours, "mounts[0].containerPath"),
        (at("/mounts/0/options"), json!("ro"), Both, "ro"),
        (at("/netDevices/0"), net("", "eth0"), Both, "netDevices[0]"),
        (at("/netDevices/0"), net("ens1", ""), Both, "netDevices[0]"),
        (at("/netDevices/0"), net("ens2", "eth0"), Both, "netDevices[1]"),
        (at("/netDevices/0"), net("ens1", "eth1"), Both, "netDevices[1]"),
        (at("/intelRdt/closID"), json!("a/b"), Both, "closID"),
        (at("/intelRdt/closID"), json!(".."), Both, "closID"),
        (at("/intelRdt/enableCMT"), json!(true), Both, "enableCMT"),
        (at("/intelRdt/enableMBM"), json!(true), Both, "enableMBM"),
        (at("/additionalGids"), json!([-1]), Both, "-1"),
    ]
}

/// A spec with one of everything.
fn good() -> Value {
    json!({
        "cdiVersion": "1.1.0",
        "kind": "vgpu.dev/claim",
        "annotations": {"vgpu.dev/level": "driver"},
        "devices": [
            {
                "name": "first",
                "annotations": {"note": "x"},
                "containerEdits": {
                    "env": ["CARD=0"],
                    "deviceNodes": [{"path": "/dev/x", "hostPath": "/dev/y", "type": "c",
                                     "major": 195, "minor": 0, "permissions": "rw"}],
                    "netDevices": [{"hostInterfaceName": "ens1", "name": "eth0"},
                                   {"hostInterfaceName": "ens2", "name": "eth1"}],
                    "hooks": [{"hookName": "createRuntime", "path": "/bin/x", "args": ["x"],
                               "env": ["A=b"], "timeout": 5}],
                    "mounts": [{"hostPath": "/usr", "containerPath": "/usr", "type": "bind",
                                "options": ["ro", "rbind"]}],
                    "intelRdt": {"closID": "c", "schemata": ["L3:0=f"], "enableMonitoring": false},
                    "additionalGids": [44]
                }
            },
            {"name": "second", "containerEdits": {"env": ["CARD=1"]}}
        ],
        "containerEdits": {"env": ["ALL=1"]}
    })
}

fn damaged(pointer: &str, value: Value) -> Value {
    let mut spec = good();
    let (parent, last) = pointer.rsplit_once('/').expect("a pointer");
    match spec.pointer_mut(parent).expect("the parent is there") {
        Value::Object(object) => drop(object.insert(last.to_owned(), value)),
        Value::Array(array) => array[last.parse::<usize>().expect("an index")] = value,
        other => panic!("{other} has no {last}"),
    }
    spec
}
