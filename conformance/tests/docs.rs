//! `docs/contract.md` is kept by hand; it must say what the code says. And no page has a link to
//! nowhere.

use std::fs;
use std::path::{Path, PathBuf};

use vgpu_conformance::{Scope, cases};
use vgpu_core::clause::CLAUSES;

/// One row of the page.
#[derive(Debug)]
struct Row {
    clause: String,
    promise: String,
    bound_to: Link,
    case: Link,
    run_on: String,
}

/// `` [`name`](target) ``.
#[derive(Debug)]
struct Link {
    name: String,
    target: PathBuf,
}

#[test]
fn the_page_has_every_clause_in_order_with_its_title() {
    let page: Vec<(String, String)> = rows().into_iter().map(|r| (r.clause, r.promise)).collect();
    let list: Vec<(String, String)> =
        CLAUSES.iter().map(|c| (c.id.to_owned(), c.title.to_owned())).collect();
    assert_eq!(page, list, "correct docs/contract.md, or CLAUSES");
}

#[test]
fn each_clause_stands_in_the_docs_of_what_the_page_names() {
    for Row { clause, bound_to, .. } in rows() {
        let text = read(&bound_to.target);
        let found = bound_by(&text, &clause);
        assert_eq!(found.as_deref(), Some(bound_to.name.as_str()), "{clause}");
    }
}

#[test]
fn each_case_is_the_function_that_the_page_names() {
    let table = read(&docs().join("../conformance/src/case.rs"));
    for Row { clause, case, .. } in rows() {
        let (module, function) = case.name.split_once("::").expect("module::function");
        let listed = table.lines().any(|line| {
            line.contains(&format!("case(\"{clause}\", "))
                && line.contains(&format!(", {})", case.name))
        });
        assert!(listed, "{clause} is not proved by {} in conformance/src/case.rs", case.name);
        assert_eq!(case.target.file_stem().and_then(|s| s.to_str()), Some(module), "{clause}");
        let there = read(&case.target).contains(&format!("fn {function}("));
        assert!(there, "{clause}: no {function} in {}", case.target.display());
    }
}

#[test]
fn each_case_is_run_on_what_the_page_says() {
    for (row, case) in rows().into_iter().zip(cases()) {
        let scope = match case.scope {
            Scope::Backend => "once",
            Scope::Carved => "each carved scheme",
            Scope::Device => "each card",
            Scope::Scheme => "each scheme",
        };
        assert_eq!(row.run_on, scope, "{}", row.clause);
    }
}

#[test]
fn every_relative_link_leads_to_a_file() {
    let mut broken = Vec::new();
    let pages = pages();
    assert!(pages.iter().any(|page| page.ends_with("docs/contract.md")), "{pages:?}");
    for page in pages {
        let folder = page.parent().expect("a page lies in a folder").to_owned();
        for target in targets(&read(&page)) {
            if !folder.join(&target).exists() {
                broken.push(format!("{} -> {target}", page.display()));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}

fn rows() -> Vec<Row> {
    let page = read(&docs().join("contract.md"));
    let rows: Vec<Row> = page.lines().filter_map(row).collect();
    assert!(!rows.is_empty(), "the page has no table any more");
    rows
}

/// A line of a table of clauses; headings and other tables are none.
fn row(line: &str) -> Option<Row> {
    let cells: Vec<&str> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').collect();
    let [clause, promise, bound_to, case, run_on] = cells.as_slice() else { return None };
    let (group, number) = clause.trim().split_once('-')?;
    if group.is_empty() || number.parse::<u32>().is_err() {
        return None;
    }
    Some(Row {
        clause: clause.trim().to_owned(),
        promise: promise.trim().to_owned(),
        bound_to: link(bound_to.trim()),
        case: link(case.trim()),
        run_on: run_on.trim().to_owned(),
    })
}

fn link(text: &str) -> Link {
    let inner = text.strip_prefix("[`").and_then(|t| t.strip_suffix(')'));
    let (name, target) =
        inner.and_then(|t| t.split_once("`](")).unwrap_or_else(|| panic!("{text} is no link"));
    Link { name: name.to_owned(), target: docs().join(target) }
}

/// The trait, or the method of one, whose docs have the clause.
fn bound_by(text: &str, clause: &str) -> Option<String> {
    let mut lines = text.lines().map(str::trim);
    let mut owner = None;
    let is_clause = |line: &str| line.starts_with(&format!("/// - `{clause}`: "));
    for line in lines.by_ref() {
        owner = word_after(line, "pub trait ").or(owner);
        if is_clause(line) {
            break;
        }
    }
    for line in lines {
        if let Some(named) = word_after(line, "pub trait ") {
            return Some(named);
        }
        if let Some(method) = word_after(line, "fn ") {
            return owner.map(|owner| format!("{owner}::{method}"));
        }
    }
    None
}

fn word_after(line: &str, keyword: &str) -> Option<String> {
    let rest = line.strip_prefix(keyword)?;
    Some(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
}

/// Every page of the repository: at its root, under `docs`, and each crate's own.
fn pages() -> Vec<PathBuf> {
    let root = docs().join("..");
    let folders = entries(&root).into_iter().filter(|path| path.is_dir());
    let crates = folders.filter(|path| path.join("Cargo.toml").is_file());
    [root.clone(), docs(), docs().join("adr")]
        .into_iter()
        .chain(crates)
        .flat_map(|folder| entries(&folder))
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|e| panic!("cannot list {}: {e}", folder.display()));
    entries.map(|entry| entry.expect("an entry of a folder that is there").path()).collect()
}

/// Where a page's links lead, addresses and places within the page left out.
fn targets(text: &str) -> Vec<String> {
    let after = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files = after.filter_map(|target| target.split('#').next());
    files.filter(|t| !t.is_empty() && !t.contains("://")).map(str::to_owned).collect()
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()))
}
