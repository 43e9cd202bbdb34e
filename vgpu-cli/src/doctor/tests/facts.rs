//! Judges of facts that no prepared folder can have.

use vgpu_plugin::hook::Answer;

use crate::doctor::finding::{Severity, Topic};
use crate::doctor::host::elf::Linking;
use crate::doctor::host::folders::{Facts, Folder, judge};
use crate::doctor::host::{hook, process_view};
use crate::doctor::reader::Reader;
use crate::doctor::tests::Prepared;

fn ids(state: Folder, cdi: Folder) -> Vec<&'static str> {
    judge(&Facts { state, cdi }).iter().map(|finding| finding.id).collect()
}

#[test]
fn folders_in_memory_read_only_or_full() {
    let good = || Folder { path: "/s".into(), free: Some(1 << 40), ..Folder::default() };
    assert!(ids(good(), good()).is_empty());
    let memory = || Folder { in_memory: true, ..good() };
    assert_eq!(ids(memory(), good()), ["DOC-HOST-17"]);
    assert!(ids(good(), memory()).is_empty(), "specs are to be lost at a reboot");
    let read_only = || Folder { read_only: true, ..good() };
    assert_eq!(ids(read_only(), read_only()), ["DOC-HOST-18", "DOC-HOST-18"]);
    let full = || Folder { free: Some(1 << 20), ..good() };
    assert_eq!(ids(full(), good()), ["DOC-HOST-19"]);
    assert!(ids(Folder { free: None, ..good() }, good()).is_empty(), "not told is not full");
}

#[test]
fn a_folder_that_is_not_made_yet_is_judged_by_the_one_above() {
    let mut host = Prepared::clean();
    host.places.state_dir = "/s/not/made/yet".into();
    let mut reader = Reader::new(&host.places.tree, Topic::Host);
    let facts = crate::doctor::host::folders::read(&mut reader, &host.places);
    assert!(facts.state.free.is_some_and(|free| free > 0));
    assert!(!facts.state.read_only);
    assert!(reader.troubles.is_empty());
}

#[test]
fn whoever_is_not_root_is_told_so() {
    let facts = |root| process_view::Facts { boot_id: Some("b".into()), root, options: Vec::new() };
    assert!(process_view::judge(&facts(true)).is_empty());
    let found = process_view::judge(&facts(false));
    assert_eq!((found[0].id, found[0].severity), ("DOC-HOST-12", Severity::Note));
}

#[test]
fn what_running_a_hook_comes_to() {
    let found = |ran| {
        let there = Some((0o755, Linking::Static));
        let program = hook::Program { path: "/h".into(), in_use: true, there, ran };
        let facts = hook::Facts { programs: vec![program], wanted: "1.2.3".into(), by_agent: true };
        hook::judge(&facts)
    };
    let ids = |ran| found(ran).iter().map(|finding| finding.id).collect::<Vec<_>>();
    let version = |v: &str| Some(Answer::Version(v.into()));
    assert!(ids(None).is_empty(), "it was not run");
    assert!(ids(version("1.2.3")).is_empty());
    assert_eq!(ids(version("2.3")), ["DOC-HOST-23"]);
    assert!(found(version("2.3"))[0].what.contains("is 2.3, the agent's is 1.2.3"));
    assert_eq!(ids(Some(Answer::Silent)), ["DOC-HOST-23"]);
    assert_eq!(ids(Some(Answer::Broken("x".into()))), ["DOC-HOST-14"]);
    assert_eq!(ids(Some(Answer::Other("x".into()))), ["DOC-HOST-14"]);
}
