//! Whatever the disk does, and whenever it ends: what was acknowledged is there.

use proptest::prelude::*;

use super::memory::{Faults, Memory};
use super::*;

type Map = BTreeMap<String, Record>;

#[derive(Debug, Clone)]
enum Op {
    Boot(u8),
    Forget(u8),
    Put(u8, u32),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        1 => any::<u8>().prop_map(Op::Boot),
        3 => (0u8..6).prop_map(Op::Forget),
        6 => (0u8..6, any::<u32>()).prop_map(|(k, n)| Op::Put(k, n)),
    ]
}

/// What must be there, and what the changes since then that failed may have made of it.
#[derive(Debug, Default)]
struct Model {
    acknowledged: (Map, Option<String>),
    possible: Vec<(Map, Option<String>)>,
}

impl Model {
    fn run(&mut self, ledger: &mut Ledger<Record>, op: &Op) {
        let mut next = self.acknowledged.clone();
        let done = match op {
            Op::Boot(id) => {
                next.1 = Some(format!("boot-{id}"));
                ledger.set_boot_id(&format!("boot-{id}"))
            }
            Op::Forget(key) => {
                next.0.remove(&key.to_string());
                ledger.forget(&key.to_string())
            }
            Op::Put(key, n) => {
                next.0.insert(key.to_string(), record(*n));
                ledger.put(key.to_string(), &record(*n))
            }
        };
        match done {
            Ok(()) => *self = Self { acknowledged: next, possible: Vec::new() },
            Err(e) => {
                assert_eq!(e.kind, ErrorKind::Io, "{e}");
                self.possible.push(next);
            }
        }
        assert_eq!(seen(ledger), self.acknowledged, "a change that failed is not seen");
    }
}

fn seen(ledger: &Ledger<Record>) -> (Map, Option<String>) {
    (ledger.records().clone(), ledger.boot_id().map(str::to_owned))
}

fn open(disk: &Memory) -> Result<(Ledger<Record>, Recovery)> {
    Ledger::on(Box::new(disk.clone()), &options("unused"))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1500,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_was_acknowledged_survives_faults_and_power_cuts(
        ops in prop::collection::vec(op(), 0..40),
        fail in prop::collection::vec(0usize..160, 0..6),
        dies in prop::option::of(0usize..160),
        picks in prop::collection::vec(any::<u16>(), 12),
        more in prop::collection::vec(op(), 0..20),
    ) {
        let disk = Memory::new(Faults { fail, dies, room: None });
        let mut model = Model::default();
        if let Ok((mut ledger, recovery)) = open(&disk) {
            prop_assert!(recovery.fresh);
            for op in &ops {
                model.run(&mut ledger, op);
            }
        }
        let mut picks = picks.into_iter().cycle();
        let left = disk.after_crash(|n| usize::from(picks.next().expect("cycles")) % n);

        let (mut ledger, recovery) = open(&left).expect("opens on what a crash leaves");
        let found = seen(&ledger);
        prop_assert!(
            found == model.acknowledged || model.possible.contains(&found),
            "found {found:?}, acknowledged {:?}, possible {:?}", model.acknowledged, model.possible
        );
        prop_assert!(recovery.unreadable.is_empty());
        prop_assert!(!matches!(recovery.tail, Tail::Damaged { lost: 1.., .. }), "{recovery:?}");

        // What was found is sound: it can be written on, and is durable by now.
        let mut model = Model { acknowledged: found, possible: Vec::new() };
        for op in &more {
            model.run(&mut ledger, op);
        }
        let left = left.after_crash(|_| 0);
        prop_assert_eq!(seen(&open(&left).expect("opens").0), model.acknowledged);
    }
}

#[test]
fn a_full_disk_refuses_new_records_and_still_releases() {
    let room = (64 << 10) + 6000;
    let disk = Memory::new(Faults { room: Some(room), ..Faults::default() });
    let mut ledger = open(&disk).expect("opens").0;
    let mut keys = 0;
    let refused = loop {
        match ledger.put(keys.to_string(), &record(39)) {
            Ok(()) => keys += 1,
            Err(e) => break e,
        }
        assert!(keys < 1000, "the disk never gets full");
    };
    assert_eq!(refused.kind, ErrorKind::Io);
    assert!(refused.is_retryable() && refused.message.contains("disk is full"), "{refused}");
    assert!(keys > 20);

    for key in 0..keys {
        ledger.put_last(&key.to_string(), &record(39)).expect("there is room to say that it ends");
        ledger.forget(&key.to_string()).expect("there is room to release");
    }
    assert!(ledger.records().is_empty());
    ledger.put("new", &record(1)).expect("there is room again");
    let left = disk.after_crash(|_| 0);
    let found = open(&left).expect("opens").0;
    assert_eq!(found.records().keys().collect::<Vec<_>>(), ["new"]);
}

#[test]
fn a_full_disk_at_start_is_no_reason_not_to_release() {
    let room = (64 << 10) + 2000;
    let disk = Memory::new(Faults { room: Some(room), ..Faults::default() });
    let mut ledger = open(&disk).expect("opens").0;
    let mut keys = 0;
    while ledger.put(keys.to_string(), &record(39)).is_ok() {
        keys += 1;
    }
    drop(ledger);
    let mut ledger = open(&disk).expect("opens on a full disk").0;
    assert_eq!(ledger.records().len(), keys);
    for key in 0..keys {
        ledger.forget(&key.to_string()).expect("there is room to release");
    }
}

#[test]
fn a_disk_that_heals_is_used_again() {
    let disk = Memory::new(Faults { fail: (8..40).collect(), ..Faults::default() });
    let mut ledger = open(&disk).expect("opens").0;
    let mut model = Model::default();
    for n in 0..10 {
        model.run(&mut ledger, &Op::Put(n, 7));
    }
    assert!(!model.possible.is_empty(), "the disk failed");
    disk.heal();
    model.run(&mut ledger, &Op::Put(99, 7));
    assert!(model.possible.is_empty(), "the disk works");
    let left = disk.after_crash(|_| 0);
    assert_eq!(seen(&open(&left).expect("opens").0), model.acknowledged);
}

#[test]
fn the_journal_does_not_grow_for_ever() {
    let disk = Memory::new(Faults::default());
    let mut ledger = open(&disk).expect("opens").0;
    for n in 0..2000 {
        ledger.put("key", &record(n)).expect("works");
        ledger.put((n % 5).to_string(), &record(n)).expect("works");
        ledger.forget(&(n % 5).to_string()).expect("works");
    }
    assert!(disk.length("journal") < 1000, "{} bytes", disk.length("journal"));
    assert_eq!(open(&disk).expect("opens").0.get("key"), Some(&record(1999)));
}
