//! The suite has teeth: each clause is passed by the sound mock and failed by the mock with that
//! clause's defect.

use std::time::Duration;

use strum::IntoEnumIterator;
use vgpu_backend_mock::{Defect, MockFixture};
use vgpu_conformance::{Fixture, Report, Select, Verdict, cli, run};

/// Every preset, with a defect or without.
fn fixtures(defect: Option<Defect>, patience: Duration) -> Vec<Box<dyn Fixture>> {
    let all = MockFixture::all().expect("presets are machines").into_iter();
    all.map(|fixture| {
        let fixture = fixture.with_patience(patience);
        let fixture = match defect {
            Some(defect) => fixture.with_defect(defect),
            None => fixture,
        };
        Box::new(fixture) as Box<dyn Fixture>
    })
    .collect()
}

/// Only the cases of one clause; the space keeps `PART-1` from meaning `PART-10`.
fn of_clause(id: &str) -> Select {
    Select { filter: Some(format!("::{id} ")), ..Select::default() }
}

fn failures(report: &Report) -> Vec<(&str, &str)> {
    let entries = report.runs.iter().flat_map(|run| &run.entries);
    entries
        .filter_map(|entry| match &entry.verdict {
            Verdict::Fail { message } => Some((entry.clause.as_str(), message.as_str())),
            _ => None,
        })
        .collect()
}

#[test]
fn each_defect_is_caught_by_its_clause() {
    // A defect that hangs is meant to run out of patience, so a short one tells nothing new.
    let patience = Duration::from_secs(1);
    for defect in Defect::iter() {
        let clause = defect.clause().id;
        // By the command's own way; one machine that shows it is enough.
        let caught = fixtures(Some(defect), patience).into_iter().any(|fixture| {
            let options = cli::RunOptions {
                format: cli::Format::Json,
                select: of_clause(clause),
                ..cli::RunOptions::default()
            };
            // A machine may have no card that the clause is about.
            let Ok(answer) = cli::run(&[fixture], &options) else { return false };
            let report: Report = serde_json::from_str(&answer.text).expect("a report");
            let failures = failures(&report);
            println!("{clause}: {failures:?}");
            assert!(failures.iter().all(|(id, _)| *id == clause));
            assert_eq!(answer.exit_code, u8::from(!failures.is_empty()));
            !failures.is_empty()
        });
        assert!(caught, "the suite does not notice the defect of {clause}");
    }
}

#[test]
fn the_sound_mock_passes_every_clause() {
    for defect in Defect::iter() {
        let clause = defect.clause().id;
        let report = run(&fixtures(None, Duration::from_secs(60)), &of_clause(clause));
        assert_eq!(failures(&report), [], "{clause}");
        assert!(report.counts.passed > 0, "{clause} is passed nowhere");
        assert_eq!(report.exit_code(), 0);
    }
}

#[test]
fn the_command_says_which_clause_failed_and_writes_the_report() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("report.json");
    let options = cli::RunOptions {
        report: Some(path.clone()),
        select: of_clause("PART-7"),
        ..cli::RunOptions::default()
    };
    let fixtures = fixtures(Some(Defect::Part7), Duration::from_secs(60));
    let answer = cli::run(&fixtures, &options).expect("it runs");
    assert_eq!(answer.exit_code, 1);
    assert!(answer.text.contains("FAIL  PART-7"), "{}", answer.text);
    let text = std::fs::read_to_string(path).expect("a report");
    let report: Report = serde_json::from_str(&text).expect("the report is what it says");
    assert!(report.counts.failed > 0);

    let nothing = Select { filter: Some("no such case".into()), ..Select::default() };
    let options = cli::RunOptions { select: nothing, ..cli::RunOptions::default() };
    assert!(cli::run(&fixtures, &options).is_err());
}

#[test]
fn without_permission_nothing_is_changed_and_what_was_not_tried_is_unproven() {
    let fixtures: Vec<Box<dyn Fixture>> = vec![Box::new(
        MockFixture::preset(vgpu_backend_mock::Preset::Mixed)
            .expect("a machine")
            .permitting(vgpu_conformance::Permission::ReadOnly),
    )];
    let report = run(&fixtures, &Select::default());
    assert_eq!(failures(&report), []);
    let unproven: Vec<&str> = report.runs[0].unproven.iter().map(|c| c.scheme.as_str()).collect();
    assert!(unproven.contains(&"smlu"), "{unproven:?}");
    assert!(!unproven.contains(&"whole"), "{unproven:?}");
    assert!(report.to_string().contains("unproven  MLU-"), "{report}");
    assert_eq!(report.exit_code(), 0);
}
