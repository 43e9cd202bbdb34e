//! Scenarios that are wrong are found to be wrong, with file, step, what was expected and what was seen.

use std::time::Duration;

use libtest_mimic::Trial;
use vgpu_scenarios::{Scenario, play};

use crate::on_fake::OnFake;

/// For amounts that never come: how long they are waited for does not matter.
const SHORT: Duration = Duration::from_millis(100);

/// Name, steps, and words of the report.
const WRONG: [(&str, &str, &[&str]); 7] = [
    (
        "allocatable",
        r#"[{"allocatable": {"vgpu.dev/gpu": 3}}]"#,
        &["step 1 (allocatable)", r#"expected {"vgpu.dev/gpu": 3}, seen {"vgpu.dev/gpu": 1}"#],
    ),
    (
        "scheme",
        r#"[{"allocatable": {"vgpu.dev/gpu": 1}},
            {"run": {"pod": {"name": "p", "containers": {"c": {"vgpu.dev/dcu": 1}}},
                     "sees": {"c": {"scheme": "mig"}}}}]"#,
        &["step 2 (run p)", "container c", r#"expected grants by mig, seen ["vdcu"]"#],
    ),
    (
        "nodes",
        r#"[{"run": {"pod": {"name": "p", "containers": {"c": {"vgpu.dev/gpu": 1}}},
                     "sees": {"c": {"nodes": {"/dev/nvidia1": 1}}}}}]"#,
        &["step 1 (run p)", "expected 1 of the node /dev/nvidia1", "/dev/nvidia0"],
    ),
    (
        "refused",
        r#"[{"refused": {"pod": {"name": "p", "containers": {"c": {"vgpu.dev/mlu-memory": 16}}},
                         "because": "16"}}]"#,
        &["step 1 (refused p)", "expected a refusal, seen admitted"],
    ),
    (
        "because",
        r#"[{"refused": {"pod": {"name": "p", "containers": {"c": {"vgpu.dev/mlu-memory": 17}}},
                         "because": "nonsense"}}]"#,
        &["step 1 (refused p)", "expected a refusal with \"nonsense\"", "it allows 1 to 16"],
    ),
    (
        "run",
        r#"[{"run": {"pod": {"name": "p", "containers": {"c": {"vgpu.dev/mlu-memory": 17}}}}}]"#,
        &["step 1 (run p)", "expected to run, seen refused", "it allows 1 to 16"],
    ),
    (
        "unchanged",
        r#"[{"run": {"pod": {"name": "p", "containers": {"c": {"vgpu.dev/gpu": 1}}}}},
            {"kill": "agent"}, {"unchanged": ["p"]}]"#,
        &["step 3 (unchanged p)", "the agent"],
    ),
];

pub(crate) fn trials() -> impl Iterator<Item = Trial> {
    WRONG.into_iter().map(|(name, steps, words)| {
        Trial::test(format!("teeth::{name}"), move || {
            let text = format!(r#"{{"about": "wrong on purpose", "steps": {steps}}}"#);
            let scenario = Scenario::parse(name, &text).map_err(|e| format!("{e:#}"))?;
            let mut bench = OnFake::new(SHORT);
            let Err(error) = play(&scenario, &mut bench) else {
                return Err("it was not found to be wrong".into());
            };
            let told = format!("{error:#}");
            let missing: Vec<&&str> = words.iter().filter(|w| !told.contains(**w)).collect();
            match told.contains(&format!("{name}.json")) && missing.is_empty() {
                true => Ok(()),
                false => Err(format!("the report lacks {missing:?}: {told}").into()),
            }
        })
    })
}
