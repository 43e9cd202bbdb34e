//! The names of checks, and the table of the documentation.

use std::collections::BTreeSet;

use strum::IntoEnumIterator;

use crate::doctor::catalogue::Check;
use crate::doctor::finding::Topic;

fn all() -> Vec<Check> {
    let fine = Topic::iter().map(Check::Fine);
    fine.chain(Check::iter().filter(|check| !matches!(check, Check::Fine(_)))).collect()
}

#[test]
fn no_name_is_given_twice() {
    let ids: BTreeSet<&str> = all().iter().map(|check| check.row().id).collect();
    assert_eq!(ids.len(), all().len());
}

#[test]
fn the_documentation_has_each_check_with_its_severity() {
    let doc = include_str!("../../../../docs/doctor.md");
    let listed: BTreeSet<(String, String)> = doc
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `DOC-")?.split('|').map(str::trim);
            let id = format!("DOC-{}", cells.next()?.trim_end_matches('`'));
            Some((id, cells.next()?.to_owned()))
        })
        .collect();
    let ours: BTreeSet<(String, String)> = all()
        .iter()
        .map(|check| (check.row().id.to_owned(), check.row().severity.to_string()))
        .collect();
    assert_eq!(listed, ours);
}

/// Teeth: every check is expected by name in a test beside this one.
#[test]
fn each_check_has_a_test_that_sees_it() {
    let tests = [
        include_str!("../tests.rs"),
        include_str!("bytes.rs"),
        include_str!("cards.rs"),
        include_str!("claims.rs"),
        include_str!("facts.rs"),
        include_str!("host.rs"),
        include_str!("plugins.rs"),
        include_str!("runtimes.rs"),
    ]
    .concat();
    for check in all() {
        let id = check.row().id;
        assert!(tests.contains(&format!("\"{id}\"")), "no test expects {id}");
    }
}
