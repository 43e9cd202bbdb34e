//! On a real folder.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;

use super::*;

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn open(dir: &Path) -> (Ledger<Record>, Recovery) {
    Ledger::open(options(dir)).expect("opens")
}

fn names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).expect("a folder");
    let mut names: Vec<String> =
        names.map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

#[test]
fn records_are_there_after_a_restart() {
    let dir = folder();
    let deep = dir.path().join("a/b");
    let (mut ledger, recovery) = open(&deep);
    assert!(recovery.fresh);
    ledger.set_boot_id("boot-1").expect("works");
    ledger.put("a", &record(1)).expect("works");
    ledger.put("b", &record(2)).expect("works");
    ledger.put("a", &record(3)).expect("works");
    ledger.forget("b").expect("works");
    ledger.forget("never there").expect("nothing to do");
    drop(ledger);
    let (ledger, recovery) = open(&deep);
    assert_eq!(recovery, Recovery { fresh: false, tail: Tail::Clean, unreadable: vec![] });
    assert_eq!(ledger.boot_id(), Some("boot-1"));
    assert_eq!(ledger.records(), &BTreeMap::from([("a".to_owned(), record(3))]));
}

#[test]
fn a_second_agent_is_told_so_and_may_wait() {
    let dir = folder();
    let (ledger, _) = open(dir.path());
    let e = Ledger::<Record>::open(options(dir.path())).expect_err("taken");
    assert_eq!(e.kind, ErrorKind::Busy);
    assert!(e.message.contains(&*dir.path().to_string_lossy()), "{e}");
    std::thread::scope(|scope| {
        let waits = LedgerOptions { wait: Duration::from_secs(60), ..options(dir.path()) };
        let second = scope.spawn(|| Ledger::<Record>::open(waits));
        std::thread::sleep(Duration::from_millis(30));
        drop(ledger);
        second.join().expect("no panic").expect("its turn comes");
    });
}

#[test]
fn a_cut_at_every_byte_keeps_what_was_before_it() {
    let dir = folder();
    let path = dir.path().join(JOURNAL);
    let (mut ledger, _) = Ledger::<Record>::open(LedgerOptions::new(dir.path())).expect("opens");
    let mut states = vec![(0, BTreeMap::new())];
    for n in 0..12 {
        match n % 3 {
            2 => ledger.forget(&(n - 1).to_string()).expect("works"),
            _ => ledger.put(n.to_string(), &record(n)).expect("works"),
        }
        let length = fs::metadata(&path).expect("a journal").len() as usize;
        states.push((length, ledger.records().clone()));
    }
    drop(ledger);
    let bytes = fs::read(&path).expect("a journal");
    assert_eq!(states.last().map(|s| s.0), Some(bytes.len()));
    for at in 0..=bytes.len() {
        fs::write(&path, &bytes[..at]).expect("writes");
        let (ledger, recovery) = open(dir.path());
        let (whole, state) = states.iter().rfind(|s| s.0 <= at).expect("0 at least");
        assert_eq!(ledger.records(), state, "cut at {at}");
        let half = (at - whole) as u64;
        let tail = if half == 0 { Tail::Clean } else { Tail::HalfWritten { bytes: half } };
        assert_eq!(recovery.tail, tail);
    }
    assert!(!names(dir.path()).iter().any(|n| n.contains("damaged")), "a crash is no damage");
}

#[test]
fn damage_in_the_middle_is_put_aside_and_told() {
    let dir = folder();
    let path = dir.path().join(JOURNAL);
    let (mut ledger, _) = open(dir.path());
    let mut ends = Vec::new();
    for n in 0..4 {
        ledger.put(n.to_string(), &record(n)).expect("works");
        ends.push(fs::metadata(&path).expect("a journal").len() as usize);
    }
    drop(ledger);
    let mut bytes = fs::read(&path).expect("a journal");
    bytes[ends[0] + 20] ^= 0x20;
    for n in 1..3 {
        fs::write(&path, &bytes).expect("writes");
        let (mut ledger, recovery) = open(dir.path());
        let kept = dir.path().join("journal.damaged-1");
        let bytes_kept = (bytes.len() - ends[0]) as u64;
        assert_eq!(
            recovery.tail,
            Tail::Damaged { kept: kept.clone(), bytes: bytes_kept, lost: 2 },
            "time {n}: the same damage is kept once"
        );
        assert_eq!(fs::read(kept).expect("put aside"), bytes[ends[0]..]);
        assert_eq!(ledger.records().len(), 1);
        ledger.put("new", &record(9)).expect("works");
        drop(ledger);
        let (ledger, recovery) = open(dir.path());
        assert_eq!((recovery.tail, ledger.records().len()), (Tail::Clean, 2));
    }
    bytes[ends[1] + 20] ^= 0x20;
    fs::write(&path, &bytes).expect("writes");
    let Tail::Damaged { kept, lost, .. } = open(dir.path()).1.tail else { panic!("damaged") };
    assert!(kept.ends_with("journal.damaged-2") && lost == 1);
}

#[test]
fn a_newer_agents_folder_is_refused_and_left_alone() {
    let dir = folder();
    let newer = LedgerOptions { format: 9, min_reader: 5, ..options(dir.path()) };
    let mut ledger = Ledger::open(newer.clone()).expect("opens").0;
    ledger.put("a", &record(1)).expect("works");
    drop(ledger);
    let path = dir.path().join(JOURNAL);
    // Also where its end is damaged: nothing may be cut off.
    let bytes = [&fs::read(&path).expect("a journal")[..], b"garbage\n"].concat();
    fs::write(&path, &bytes).expect("writes");
    let before = names(dir.path());
    let e = Ledger::<Record>::open(options(dir.path())).expect_err("newer");
    assert_eq!(e.kind, ErrorKind::Unsupported);
    assert!(e.message.contains("format 9") && e.message.contains("format 5"), "{e}");
    assert_eq!((fs::read(&path).expect("a journal"), names(dir.path())), (bytes, before));

    let as_old = LedgerOptions { format: 5, ..newer };
    assert_eq!(Ledger::<Record>::open(as_old).expect("may read").0.records().len(), 1);
}

#[test]
fn what_this_agent_does_not_know_stays_as_it_is() {
    #[derive(Debug, Clone, Serialize, Deserialize)]
    struct Newer {
        n: u32,
        text: String,
        more: String,
    }
    let dir = folder();
    let newer = LedgerOptions { format: 3, min_reader: 2, ..options(dir.path()) };
    let mut ledger = Ledger::open(newer.clone()).expect("opens").0;
    let with_more = Newer { n: 1, text: "t".into(), more: "kept".into() };
    ledger.put("a", &with_more).expect("works");
    drop(ledger);

    let (mut ledger, _) = open(dir.path());
    assert_eq!(ledger.get("a").map(|r| r.n), Some(1), "unknown fields are passed over");
    for n in 0..100 {
        ledger.put("busy", &record(n)).expect("works");
    }
    drop(ledger);
    let journal = fs::read_to_string(dir.path().join(JOURNAL)).expect("a journal");
    assert!(journal.lines().count() < 30, "it was rewritten");
    let ledger = Ledger::<Newer>::open(newer).expect("opens").0;
    assert_eq!(ledger.get("a").map(|r| &*r.more), Some("kept"));
}

#[test]
fn a_record_that_cannot_be_read_is_told_and_kept() {
    let dir = folder();
    let mut ledger = Ledger::open(options(dir.path())).expect("opens").0;
    ledger.put("a", &"not a record".to_owned()).expect("works");
    ledger.put("b", &"nor this".to_owned()).expect("works");
    drop(ledger);
    let (mut ledger, recovery) = open(dir.path());
    let keys: Vec<&str> = recovery.unreadable.iter().map(|(key, _)| &**key).collect();
    assert_eq!((keys, ledger.records().len()), (vec!["a", "b"], 0));
    ledger.forget("b").expect("works");
    for n in 0..100 {
        ledger.put("busy", &record(n)).expect("works");
    }
    drop(ledger);
    let recovery = open(dir.path()).1;
    assert_eq!(recovery.unreadable.len(), 1, "a is still there, b is not: {recovery:?}");
}

/// Ends the agent at every place in turn, and starts it anew on what is left.
#[test]
fn an_agent_that_dies_at_any_place_loses_nothing() {
    let mut died = 0;
    for n in 0.. {
        let dir = folder();
        let acknowledged = Mutex::new(BTreeMap::new());
        let left = AtomicUsize::new(n);
        let left = Arc::new(left);
        let points = FaultPoints::new({
            let left = left.clone();
            move |name| {
                if left.fetch_sub(1, Ordering::SeqCst) == 0 {
                    // Not `panic!`, which would print each of them.
                    std::panic::resume_unwind(Box::new(name));
                }
            }
        });
        let options = LedgerOptions { points, ..options(dir.path()) };
        let run = catch_unwind(AssertUnwindSafe(|| {
            let mut ledger = Ledger::open(options).expect("opens").0;
            for n in 0..9 {
                let key = (n % 3).to_string();
                ledger.put(&*key, &record(30 + n)).expect("works");
                acknowledged.lock().expect("not poisoned").insert(key, record(30 + n));
            }
        }));
        let (ledger, recovery) = open(dir.path());
        let acknowledged = acknowledged.into_inner().expect("not poisoned");
        for (key, record) in &acknowledged {
            let found = ledger.get(key).expect("acknowledged");
            assert!(found.n == record.n || found.n == record.n + 3, "{n}: {found:?}");
        }
        assert_eq!(recovery.tail, Tail::Clean, "a process that dies tears nothing");
        if run.is_ok() {
            break;
        }
        died += 1;
    }
    assert!(died > 40, "it died at {died} places only");
}
