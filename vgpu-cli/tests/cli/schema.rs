//! The published schemas.

use std::path::Path;

use jsonschema::Registry;
use serde_json::{Value, json};

/// Panics unless the document is in the form of that schema.
pub(crate) fn check(name: &str, document: &Value) {
    let wrong = errors(name, document);
    assert!(wrong.is_empty(), "{name}: {wrong:#?}\n{document:#}");
}

/// What is wrong with a document, by that schema.
pub(crate) fn errors(name: &str, document: &Value) -> Vec<String> {
    let mut registry = Registry::new();
    for other in ["core", "devices"] {
        let schema = schema(other);
        let id = schema["$id"].as_str().expect("a schema has an $id").to_owned();
        registry = registry.add(id, schema).expect("its $id is a URI");
    }
    let registry = registry.prepare().expect("all references are there");
    let schema = schema(name);
    let validator =
        jsonschema::options().with_registry(&registry).build(&schema).expect("a schema");
    validator
        .iter_errors(document)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

fn schema(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schemas");
    let text = std::fs::read_to_string(folder.join(format!("{name}.json"))).expect("a schema");
    serde_json::from_str(&text).expect("a schema is JSON")
}

#[test]
fn schemas_refuse_what_is_wrong() {
    for (name, document) in [
        ("devices", json!({})),
        ("devices", json!({"version": 2, "backends": []})),
        ("devices", json!({"version": 1, "backends": [{"backend": "x"}]})),
        ("devices", json!({"version": 1, "backends": [], "more": 1})),
        ("doctor", json!({"version": 1, "findings": []})),
        ("plan-input", json!({"nodes": [], "requests": []})),
        ("plan-output", json!({"version": 1, "placed": 0, "refused": 0})),
        ("conformance-report", json!({"suite": "1", "runs": []})),
    ] {
        assert!(!errors(name, &document).is_empty(), "{name} takes {document}");
    }
}
