//! `vgpu plan`.

use serde_json::{Value, json};

use crate::devices::PRESETS;
use crate::schema;
use crate::support::{Said, vgpu, vgpu_reads};

#[test]
fn many_nodes_and_requests_have_their_places_or_every_reason() {
    let question = json!({
        "nodes": [
            {"name": "a", "preset": "mixed"},
            {"name": "b", "preset": "h200x8"},
            {"name": "c", "machine": {"cards": [{"model": "mlu370-x8", "mode": "smlu"}]}}
        ],
        "requests": [
            request("slice", json!({"at-least": {"memory": "20Gi"}}),
                json!({"minimum": {"memory": "hardware"}})),
            request("train", json!("whole"), json!({"count": 4, "selector": {"vendors": ["nvidia"]}})),
            request("dcu", json!({"at-least": {"memory": "10Gi", "compute": {"units": 1, "of": 4}}}),
                json!({"schemes": ["vdcu"]})),
            request("large", json!({"at-least": {"memory": "90Gi"}}),
                json!({"selector": {"vendors": ["cambricon"]}})),
            request("nothing", json!("whole"), json!({"count": 0}))
        ]
    });
    let said = ask(&question, &["--json"]);
    assert_eq!(said.code, 1, "two are refused: {said:?}");
    let answer = said.json();
    schema::check("plan-output", &answer);
    assert_eq!((&answer["placed"], &answer["refused"]), (&json!(3), &json!(2)));
    let answers = answer["answers"].as_array().expect("a list");
    assert_eq!(answers[0]["node"], "a");
    assert_eq!(answers[0]["grants"][0]["enforces"]["memory"]["level"], "hardware");
    assert_eq!(answers[1]["grants"].as_array().map(Vec::len), Some(4));
    assert_eq!(answers[1]["node"], "b");
    let shape = &answers[2]["grants"][0]["step"]["carve"]["shape"]["size"]["compute"];
    assert_eq!(*shape, json!({"units": 30, "of": 120}));
    let refusals = answers[3]["refusals"].as_array().expect("a list");
    let nodes: Vec<&str> = refusals.iter().filter_map(|r| r["node"].as_str()).collect();
    assert_eq!(nodes, ["a", "b", "c"], "every node says why");
    assert_eq!(refusals[1]["refusal"]["reasons"].as_array().map(Vec::len), Some(8));
    assert_eq!(answers[4]["refusals"].as_array().map(Vec::len), Some(1), "told once");

    let text = ask(&question, &[]).out;
    for words in
        ["large is refused", "  c: 0 of 1 cards fit", "on units 0-29", "3 placed, 2 refused"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn what_earlier_requests_took_is_gone_for_later_ones() {
    let whole = |n: usize| request(&format!("c{n}"), json!("whole"), json!({}));
    let machine = json!({"cards": [{"model": "k100-ai"}, {"model": "k100-ai"}]});
    let question = |policy: &str| {
        json!({
            "policy": policy,
            "nodes": [{"name": "a", "machine": machine}, {"name": "b", "machine": machine}],
            "requests": (0..5).map(whole).collect::<Vec<_>>()
        })
    };
    for (policy, order) in [("binpack", ["a", "a", "b", "b"]), ("spread", ["a", "b", "a", "b"])] {
        let said = ask(&question(policy), &["--json"]);
        assert_eq!(said.code, 1);
        let answer = said.json();
        let nodes: Vec<&str> =
            (0..4).filter_map(|n| answer["answers"][n]["node"].as_str()).collect();
        assert_eq!(nodes, order, "{policy}");
        assert_eq!(answer["answers"][4]["node"], Value::Null);
    }
}

#[test]
fn a_mode_that_one_request_enters_is_there_for_later_ones() {
    let seventh = |n: usize| {
        request(
            &format!("c{n}"),
            json!({"profile": "1g.10gb"}),
            json!({"schemes": ["mig"], "modes": "enter"}),
        )
    };
    let question = json!({
        "nodes": [{"name": "a", "machine": {"cards": [{"model": "h100-sxm80gb"}]}}],
        "requests": (0..8).map(seventh).collect::<Vec<_>>()
    });
    let answer = ask(&question, &["--json"]).json();
    assert_eq!((&answer["placed"], &answer["refused"]), (&json!(7), &json!(1)), "{answer}");
}

#[test]
fn what_devices_says_is_a_node_for_plan() {
    for preset in PRESETS.into_iter().filter(|preset| *preset != "empty") {
        let words = ["devices", "--backend", "mock", "--machine", preset, "--json"];
        let report = vgpu(&words).good().json();
        let cards = report["backends"][0]["devices"].clone();
        let links = report["backends"][0]["links"].clone();
        let id = cards[0]["id"].clone();
        let held = json!([{"device": id, "scheme": "whole", "size": {}, "placement": "driver"}]);
        let mut question = json!({
            "nodes": [
                {"name": "a", "report": report, "held": held},
                {"name": "b", "devices": cards, "links": links},
                {"name": "c", "preset": preset}
            ],
            "requests": [request("c", json!({"at-least": {}}), json!({"modes": "enter"}))]
        });
        schema::check("plan-input", &question);
        ask(&question, &["--json"]).good();
        // The taken card is told as taken.
        question["nodes"] = json!([question["nodes"][0]]);
        question["requests"][0]["selector"] = json!({"devices": [id]});
        let said = ask(&question, &["--json"]);
        assert_eq!(said.code, 1, "{preset}: {said:?}");
        let answer = said.json();
        schema::check("plan-output", &answer);
        let reasons = answer["answers"][0]["refusals"][0]["refusal"]["reasons"].clone();
        let why = &reasons[0]["why"];
        assert!(
            why["in-use"]["by"] == "whole" || why.get("wrong-mode").is_some(),
            "{preset}: {why}"
        );
    }
}

/// A request with what else it asks.
pub(crate) fn request(claim: &str, want: Value, more: Value) -> Value {
    let mut request = json!({"claim": claim, "want": want, "count": 1, "domain": "team-a"});
    for (key, value) in more.as_object().expect("fields") {
        request[key] = value.clone();
    }
    request
}

fn ask(question: &Value, more: &[&str]) -> Said {
    vgpu_reads(&[&["plan", "-"], more].concat(), question.to_string().as_bytes())
}
