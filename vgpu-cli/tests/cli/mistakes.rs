//! Every mistake is one line that says what, where and what to do, and nothing else is said.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::plan::request;
use crate::support::{Said, command, vgpu, vgpu_reads};

/// The mistake's own words, its place, and what to do.
type Words = [&'static str; 3];

#[test]
fn in_the_call() {
    let mixed = ["conformance", "run", "--backend", "mock"];
    let cases: &[(&[&str], Words)] = &[
        (&["device"], ["unrecognized subcommand", "'device'", "vgpu help"]),
        (&["devices", "--backend", "amd"], ["invalid value 'amd'", "--backend", "nvidia"]),
        (&["devices", "--backend", "mock", "--backend", "mock"], ["twice", "--backend", "once"]),
        (&["devices", "--machine", "mixed"], ["scripted machine", "--machine", "--backend mock"]),
        (
            &["devices", "--backend", "mock", "--machine-state", "/none/there"],
            ["no such state", "/none/there", "the agent was given"],
        ),
        (&["devices", "--host-root", "/no/such"], ["no folder", "/no/such", "name the folder"]),
        (
            &["devices", "--backend", "mock", "--machine", "h300"],
            ["no such machine", "h300", "h200x8"],
        ),
        (&["doctor", "--backend", "mock", "--backend", "mock"], ["twice", "--backend", "once"]),
        (&["doctor", "--host-root", "/no/such"], ["no folder", "/no/such", "name the folder"]),
        (&["devices", "--timeout", "soon"], ["invalid", "--timeout", "vgpu help"]),
        (&["plan", "/no/such"], ["cannot read", "/no/such", "name a file"]),
        (&["edits", "--backend", "mock"], ["not provided", "--whole", "vgpu help"]),
        (&["edits", "--whole"], ["not provided", "--backend", "vgpu help"]),
        (&edits(&["--memory", "10"]), ["no unit", "--memory", "10Gi"]),
        (&edits(&["--compute", "25"]), ["of what", "--compute", "25%"]),
        (&edits(&["--compute", "150%"]), ["at most the card", "--compute", "25%"]),
        (&edits(&["--whole", "--memory", "1Gi"]), ["cannot be used with", "--whole", "vgpu help"]),
        (&edits(&["--whole", "--count", "0"]), ["no card is asked for", "--count 0", "at least 1"]),
        (&edits(&["--whole", "--claim", "a/b"]), ["not a claim id", "--claim", "only letters"]),
        (&edits(&["--whole", "--kind", "gpu"]), ["no /", "--kind", "vgpu help"]),
        (&edits(&["--scheme", "MIG"]), ["small letters", "--scheme", "vgpu devices"]),
        (&[&mixed[..], &["--defect", "PART-99"]].concat(), ["no such clause", "--defect", "list"]),
        (&[&mixed[..], &["--defect", "part-7"]].concat(), ["capitals", "--defect", "PART-7"]),
        (&[&mixed[..], &["--format", "xml"]].concat(), ["neither", "--format", "json"]),
        (&[&mixed[..], &["--filter", "zzz"]].concat(), ["no case", "zzz", "list them"]),
        (
            &[&mixed[..], &["--report", "/no/such/r.json"]].concat(),
            ["not there", "/no/such", "make it"],
        ),
        (
            &["conformance", "run", "--backend", "nvidia", "--defect", "PART-7"],
            ["scripted machine only", "--defect", "--backend mock"],
        ),
        (&["conformance", "run"], ["not provided", "--backend", "vgpu help"]),
    ];
    for (words, told) in cases {
        refused(&format!("{words:?}"), &vgpu(words), 2, told);
    }
}

#[test]
fn in_a_question() {
    let good = json!({
        "nodes": [{"name": "a", "preset": "mixed"}],
        "requests": [request("c", json!("whole"), json!({}))]
    });
    let ask = |question: &str| vgpu_reads(&["plan"], question.as_bytes());
    assert_eq!(ask(&good.to_string()).code, 0);
    let size = "/requests/0/want";
    let cases: &[(&str, Value, Words)] = &[
        (
            size,
            json!({"at-least": {"memory": 10}}),
            ["integer `10`", "requests[0].want.at-least.memory", "10Gi"],
        ),
        (
            size,
            json!({"at-least": {"memory": "10"}}),
            ["no unit", "requests[0].want.at-least.memory", "10Gi"],
        ),
        (
            size,
            json!({"at-least": {"memroy": "1Gi"}}),
            ["unknown field", "requests[0].want.at-least", "memory"],
        ),
        (size, json!({"at-most": {}}), ["unknown variant", "requests[0].want", "at-least"]),
        (size, json!({"at-least": {"compute": {"units": 1, "of": 0}}}), ["zero", "of", "line 1"]),
        (
            "/requests/0/claim",
            json!("a b"),
            ["not a claim id", "requests[0].claim", "only letters"],
        ),
        ("/requests/0/count", json!(-1), ["-1", "requests[0].count", "usize"]),
        ("/requests/0/cuont", json!(1), ["unknown field `cuont`", "requests[0]", "count"]),
        ("/requests", json!([]), ["nothing is asked for", "requests", "add a request"]),
        ("/nodes", json!([]), ["no node", "nodes", "add one"]),
        ("/nodes/0/preset", json!("h300"), ["no machine", "nodes[0].preset", "h200x8"]),
        ("/nodes/0/links", json!([]), ["without devices", "nodes[0].links", "list the devices"]),
        ("/nodes/0/devices", json!([]), ["exactly one of", "nodes[0]", "keep the one"]),
        ("/nodes/0/colour", json!(1), ["unknown field `colour`", "nodes[0]", "name"]),
        (
            "/nodes/1",
            json!({"name": "a", "preset": "mixed"}),
            ["named \"a\" too", "nodes[1].name", "its own"],
        ),
        (
            "/nodes/0",
            json!({"name": "a", "machine": {"cards": [{"model": "h300"}]}}),
            ["h300", "nodes[0].machine.cards[0].model", "h200-sxm141gb"],
        ),
        (
            "/nodes/0",
            json!({"name": "a", "machine": {"cards": [{"model": "k100-ai", "mode": "mig"}]}}),
            ["mig", "nodes[0].machine", "correct"],
        ),
        (
            "/nodes/0/held",
            json!([{"device": "X", "scheme": "whole", "size": {}, "placement": "driver"}]),
            ["no card X", "nodes[0].held[0].device", "name one of"],
        ),
        (
            "/nodes/0/held",
            json!([{"device": "0000:25:00.0", "scheme": "whole", "size": {}, "placement": "driver", "sice": 1}]),
            ["unknown field", "nodes[0].held[0].sice", "leave it out"],
        ),
        (
            "/requests/1",
            request("c", json!("whole"), json!({})),
            ["request before", "requests[1].claim", "its own"],
        ),
        ("/policy", json!("random"), ["unknown variant", "policy", "binpack"]),
    ];
    for (at, value, told) in cases {
        let mut question = good.clone();
        put(&mut question, at, value.clone());
        refused(&format!("{at} = {value}"), &ask(&question.to_string()), 2, told);
    }
    refused("half a file", &ask("{\"nodes\": ["), 2, &["EOF", "stdin", "whole file"]);
    refused("no JSON", &ask("nodes: []"), 2, &["expected", "stdin, line 1", "JSON"]);
    refused("no UTF-8", &vgpu_reads(&["plan"], b"\xff"), 2, &["not UTF-8", "stdin", "UTF-8"]);
    let huge = vec![b' '; (64 << 20) + 1];
    refused(
        "too large",
        &vgpu_reads(&["plan"], &huge),
        2,
        &["larger than 64 MiB", "stdin", "less"],
    );
}

#[test]
fn a_reader_that_wants_no_more_is_no_mistake() {
    let mut command = command(&["devices", "--backend", "mock"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn help_is_for_everything() {
    for words in
        [&["--help"][..], &["devices", "--help"], &["plan", "--help"], &["edits", "--help"]]
    {
        let said = vgpu(words);
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{words:?}");
        assert!(said.out.contains("Usage: vgpu"), "{}", said.out);
    }
    let alone = vgpu(&[]);
    assert_eq!(alone.code, 2);
    assert!(alone.err.contains("Usage: vgpu"), "{}", alone.err);
}

fn edits<'w>(words: &[&'w str]) -> Vec<&'w str> {
    [&["edits", "--backend", "mock"], words].concat()
}

fn refused(what: &str, said: &Said, code: i32, told: &Words) {
    assert_eq!((said.code, said.out.as_str()), (code, ""), "{what}: {said:?}");
    assert_eq!(said.err.lines().count(), 1, "{what}: {}", said.err);
    assert!(said.err.starts_with("vgpu: "), "{what}: {}", said.err);
    for words in told {
        assert!(said.err.contains(words), "{what}: no {words:?} in: {}", said.err);
    }
}

/// Puts a value at a JSON pointer, at the end of a list too.
fn put(document: &mut Value, at: &str, value: Value) {
    let (parent, last) = at.rsplit_once('/').expect("a pointer");
    match document.pointer_mut(parent).expect("it is there") {
        Value::Array(list) => {
            let n: usize = last.parse().expect("an index");
            if n == list.len() { list.push(value) } else { list[n] = value }
        }
        Value::Object(fields) => {
            fields.insert(last.to_owned(), value);
        }
        other => panic!("{other} has nothing inside"),
    }
}
