//! `vgpu conformance`. The whole loop over the defects is the mock's own test.

use crate::schema;
use crate::support::vgpu;

#[test]
fn the_mock_keeps_every_promise_and_the_report_has_its_published_form() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("report.json");
    let path = file.to_str().expect("UTF-8");
    let said = vgpu(&["conformance", "run", "--backend", "mock", "--report", path]).good();
    assert!(said.out.contains(" 0 failed"), "{}", said.out);
    let text = std::fs::read_to_string(&file).expect("the report");
    schema::check("conformance-report", &serde_json::from_str(&text).expect("JSON"));
}

#[test]
fn a_broken_promise_is_named_and_the_exit_code_is_1() {
    for clause in ["DISC-1", "PART-9", "PART-14", "ISO-4", "HLTH-3", "BACK-7", "BACK-10"] {
        let words = ["conformance", "run", "--backend", "mock", "--machine", "mixed"];
        let said = vgpu(&[&words[..], &["--defect", clause]].concat());
        assert_eq!(said.code, 1, "{clause}: {said:?}");
        let named = format!("FAIL  {clause} ");
        assert!(said.out.contains(&named), "{clause} is not named: {}", said.out);
        let json = vgpu(&[&words[..], &["--defect", clause, "--format", "json"]].concat());
        assert_eq!(json.code, 1);
        schema::check("conformance-report", &json.json());
    }
}

#[test]
fn clauses_are_listed_for_scripts_and_cases_for_people() {
    let clauses = vgpu(&["conformance", "list", "--clauses"]).good().out;
    let ids: Vec<&str> = vgpu_core::clause::CLAUSES.iter().map(|c| c.id).collect();
    assert_eq!(clauses.lines().collect::<Vec<_>>(), ids);
    let cases = vgpu(&["conformance", "list"]).good().out;
    assert!(cases.contains("parts never overlap"), "{cases}");
}

#[test]
fn a_probe_shows_cards_without_trying_anything() {
    let said = vgpu(&["conformance", "probe", "--backend", "mock", "--machine", "mixed"]).good();
    assert!(said.out.contains("mock-mixed") && said.out.contains("MLU370-X8"), "{}", said.out);
}

#[test]
fn a_vendor_that_is_not_there_is_no_pass() {
    let root = tempfile::tempdir().expect("a folder");
    let root = root.path().to_str().expect("UTF-8");
    let said = vgpu(&["conformance", "run", "--backend", "cambricon", "--host-root", root]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.out.contains("nothing could be tried"), "{}", said.out);
}
