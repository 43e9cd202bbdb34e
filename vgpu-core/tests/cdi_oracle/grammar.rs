//! Names, annotations and versions: we and the oracle draw every line at the same place.

use proptest::prelude::*;
use serde_json::{Value, json};
use strum::IntoEnumIterator;
use vgpu_core::cdi::{self, Spec, Version};

use super::{load, ours};

proptest! {
    #[test]
    fn kinds(kind in "[a-zA-Z0-9_.:/é -]{0,4}/?[a-zA-Z0-9_.:= -]{0,3}") {
        agree(&with("/kind", json!(kind)))?;
    }

    #[test]
    fn device_names(name in "[a-zA-Z0-9_.:/=é -]{0,5}") {
        agree(&with("/devices/0/name", json!(name)))?;
    }

    #[test]
    fn annotation_keys(key in "([a-zA-Z0-9._é-]{0,3}/)?[a-zA-Z0-9_.: /-]{0,4}") {
        agree(&with("/annotations", json!({key: "x"})))?;
    }

    #[test]
    fn environment(variable in "[A-Z=é]{0,3}") {
        agree(&with("/devices/0/containerEdits/env", json!([variable])))?;
    }

    #[test]
    fn permissions(text in "[rwmx]{0,3}|none|non") {
        let nodes = json!([{"path": "/dev/null", "permissions": text}]);
        agree(&with("/devices/0/containerEdits/deviceNodes", nodes))?;
    }
}

#[test]
fn every_feature_needs_its_version() {
    let edits = |edits: Value| with("/devices/0/containerEdits", edits);
    let table = [
        (base(), Version::V0_3),
        (edits(json!({"mounts": [{"hostPath": "/a", "containerPath": "/b"}]})), Version::V0_3),
        (
            edits(json!({"mounts": [{"hostPath": "/a", "containerPath": "/b", "type": "bind"}]})),
            Version::V0_4,
        ),
        (edits(json!({"deviceNodes": [{"path": "/dev/a", "hostPath": "/dev/b"}]})), Version::V0_5),
        (with("/devices/0/name", json!("0")), Version::V0_5),
        (with("/kind", json!("v/c.d")), Version::V0_6),
        (with("/kind", json!("v.w/c")), Version::V0_3),
        (with("/annotations", json!({"a": "b"})), Version::V0_6),
        (with("/devices/0/annotations", json!({"a": "b"})), Version::V0_6),
        (edits(json!({"additionalGids": [1]})), Version::V0_7),
        (edits(json!({"intelRdt": {"closID": "a"}})), Version::V0_7),
        (with("/containerEdits", json!({"additionalGids": [1]})), Version::V0_7),
        (edits(json!({"intelRdt": {"schemata": ["L3:0=f"]}})), Version::V1_1),
        (edits(json!({"intelRdt": {"enableMonitoring": true}})), Version::V1_1),
        (edits(json!({"netDevices": [{"hostInterfaceName": "a", "name": "b"}]})), Version::V1_1),
    ];
    for (mut value, needed) in table {
        let spec: Spec = serde_json::from_value(value.clone()).expect("parses");
        assert_eq!(cdi::minimum(&spec), needed, "{value}");
        for declared in Version::iter() {
            value["cdiVersion"] = json!(declared.as_str());
            let text = value.to_string();
            assert_eq!(ours(&text).is_ok(), declared >= needed, "{text}");
            assert_eq!(load(&text).is_ok(), declared >= needed, "{text}");
        }
    }
}

fn agree(value: &Value) -> Result<(), TestCaseError> {
    let mut value = value.clone();
    value["cdiVersion"] = json!("1.1.0");
    let text = value.to_string();
    let (we, they) = (ours(&text), load(&text).map(drop));
    prop_assert_eq!(we.is_ok(), they.is_ok(), "{:?} against {:?}", we, they);
    Ok(())
}

fn with(pointer: &str, new: Value) -> Value {
    let mut spec = base();
    let (parent, last) = pointer.rsplit_once('/').expect("a pointer");
    spec.pointer_mut(parent).expect("the parent is there")[last] = new;
    spec
}

fn base() -> Value {
    json!({
        "cdiVersion": "0.3.0",
        "kind": "v/c",
        "devices": [{"name": "d", "containerEdits": {"env": ["A=b"]}}]
    })
}
