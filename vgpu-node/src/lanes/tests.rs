use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use vgpu_core::backend::BackendInfo;
use vgpu_core::wire::{Call, Remote, Reply, Transport};

use super::*;

/// A backend whose replies a test gives.
pub(crate) fn scripted(
    vendor: &Vendor,
    reply: impl Fn(&Call) -> Result<Reply> + Send + Sync + 'static,
) -> Arc<dyn Backend> {
    let info = BackendInfo {
        vendor: vendor.clone(),
        library: "built in".into(),
        driver: "1".into(),
        missing_symbols: Vec::new(),
    };
    let reply = move |call: &Call| match call {
        Call::Info => Ok(Reply::Info(info.clone())),
        call => reply(call),
    };
    Arc::new(Remote::connect(Script(Box::new(reply))).expect("answers info"))
}

type Answer = dyn Fn(&Call) -> Result<Reply> + Send + Sync;

struct Script(Box<Answer>);

impl Transport for Script {
    fn call(&self, call: &Call) -> Result<Reply> {
        (self.0)(call)
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Script")
    }
}

/// Long enough for any machine; only a test that hangs waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// For calls that never come back in time.
const HASTE: Duration = Duration::from_millis(30);

fn lanes() -> Arc<Lanes> {
    let backend = scripted(&Vendor::NVIDIA, |_| Ok(Reply::Done));
    Lanes::new(backend, LaneOptions { deadline: PATIENCE, ..LaneOptions::default() })
}

fn card(n: u32) -> DeviceId {
    DeviceId::new(format!("GPU-{n}")).expect("an id")
}

/// A call that hangs until the sender is dropped or sends.
fn hang() -> (Sender<()>, impl FnOnce(&dyn Backend) -> Result<u32> + Send + 'static) {
    let (release, released): (_, Receiver<()>) = channel();
    (release, move |_: &dyn Backend| {
        let _ = released.recv_timeout(PATIENCE);
        Ok(1)
    })
}

fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < until, "never: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn changes_of_one_card_never_overlap_and_cards_do_not_wait_for_each_other() {
    let lanes = lanes();
    let inside = Arc::new(AtomicUsize::new(0));
    let (release, hangs) = hang();
    thread::scope(|scope| {
        let other = scope.spawn(|| lanes.change(&card(9), "create", hangs));
        for _ in 0..16 {
            scope.spawn(|| {
                let inside = inside.clone();
                let done = lanes.change(&card(1), "create", move |_| {
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two at once");
                    thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                    Ok(())
                });
                done.expect("its turn comes");
            });
        }
        eventually("card 1 is served", || lanes.change(&card(1), "create", |_| Ok(())).is_ok());
        drop(release);
        assert_eq!(other.join().expect("no panic").expect("came back"), 1);
    });
}

#[test]
fn a_change_that_hangs_is_in_doubt_and_shuts_its_card_until_it_returns() {
    let lanes = lanes();
    let (told, tells) = channel();
    lanes.on_late({
        let again = Arc::downgrade(&lanes);
        move |device, operation| {
            let lanes = again.upgrade().expect("the test holds it");
            let shut = lanes.shut(device).is_some();
            told.send((device.clone(), operation, shut)).expect("the test listens");
        }
    });
    let (release, hangs) = hang();
    let e = lanes.within(HASTE).change(&card(1), "create", hangs).expect_err("it hangs");
    assert_eq!((e.kind, e.operation.as_deref()), (ErrorKind::InDoubt, Some("create")));
    assert!(e.to_string().contains("device=GPU-1"), "{e}");
    assert_eq!(lanes.stuck()[0].devices, [card(1)]);

    let e = lanes.change(&card(1), "destroy", |_| Ok(())).expect_err("shut");
    assert_eq!(e.kind, ErrorKind::Busy);
    assert!(e.message.contains("create"), "names what it waits for: {e}");
    lanes.change(&card(2), "create", |_| Ok(())).expect("another card");
    lanes.read_device(&card(1), "partitions", |_| Ok(())).expect("it can be read");

    drop(release);
    let late = tells.recv_timeout(PATIENCE).expect("told of it");
    assert_eq!(late, (card(1), "create", true), "told while the lane is shut");
    eventually("the lane opens", || lanes.change(&card(1), "create", |_| Ok(())).is_ok());
    assert_eq!(lanes.stuck(), []);
    assert!(tells.try_recv().is_err(), "told once");
}

#[test]
fn whoever_waits_behind_a_change_that_hangs_is_told_so_and_was_never_started() {
    let lanes = lanes();
    let (release, hangs) = hang();
    let started = Arc::new(AtomicBool::new(false));
    thread::scope(|scope| {
        let hasty = lanes.within(Duration::from_millis(300));
        let first = scope.spawn(move || hasty.change(&card(1), "create", hangs));
        let behind = scope.spawn(|| {
            let started = started.clone();
            eventually("the first has the turn", || {
                let lane = lanes.lane(&Key::Change(card(1)));
                lane.is_taken()
            });
            lanes.change(&card(1), "destroy", move |_| {
                started.store(true, Ordering::SeqCst);
                Ok(())
            })
        });
        let e = first.join().expect("no panic").expect_err("hangs");
        assert_eq!(e.kind, ErrorKind::InDoubt);
        let e = behind.join().expect("no panic").expect_err("shut");
        assert_eq!(e.kind, ErrorKind::Busy);
    });
    drop(release);
    eventually("it is over", || lanes.stuck().is_empty());
    assert!(!started.load(Ordering::SeqCst));
}

#[test]
fn a_caller_whose_turn_does_not_come_has_started_nothing() {
    let lanes = lanes();
    let (release, hangs) = hang();
    thread::scope(|scope| {
        let first = scope.spawn(|| lanes.change(&card(1), "create", hangs));
        eventually("it has the turn", || lanes.lane(&Key::Change(card(1))).is_taken());
        let hasty = lanes.within(HASTE);
        let e = hasty.change(&card(1), "destroy", |_| Ok(())).expect_err("no turn");
        assert_eq!(e.kind, ErrorKind::Busy);
        assert!(lanes.stuck().is_empty() && lanes.shut(&card(1)).is_none());
        drop(release);
        first.join().expect("no panic").expect("came back in time");
    });
    lanes.change(&card(1), "destroy", |_| Ok(())).expect("the queue is clean");
}

#[test]
fn a_reader_that_hangs_is_left_behind() {
    let lanes = lanes();
    let (release, hangs) = hang();
    let e = lanes.within(HASTE).read("scan", hangs).expect_err("hangs");
    assert_eq!(e.kind, ErrorKind::InDoubt);
    lanes.read("scan", |_| Ok(())).expect("on a new thread");
    let (release_2, hangs) = hang();
    lanes.within(HASTE).read_device(&card(1), "check", hangs).expect_err("hangs");
    lanes.read_device(&card(2), "check", |_| Ok(())).expect("another card");
    lanes.change(&card(1), "create", |_| Ok(())).expect("a reader shuts nothing");
    assert_eq!(lanes.stuck().len(), 2);
    drop((release, release_2));
    eventually("both come back", || lanes.stuck().is_empty());
}

#[test]
fn with_too_many_stuck_calls_everything_fails_at_once_until_one_returns() {
    let lanes = lanes();
    let mut releases = Vec::new();
    for n in 0..4 {
        let (release, hangs) = hang();
        releases.push(release);
        lanes.within(HASTE).change(&card(n), "create", hangs).expect_err("hangs");
    }
    assert!(lanes.broken());
    let e = lanes.read("scan", |_| Ok(())).expect_err("broken");
    assert_eq!(e.kind, ErrorKind::Busy);
    assert!(e.message.contains("create on GPU-2") && e.message.contains("nvidia"), "{e}");
    releases.pop();
    eventually("one came back", || !lanes.broken());
    lanes.read("scan", |_| Ok(())).expect("served again");
}

#[test]
fn a_panic_of_the_backend_is_an_error_and_the_lane_goes_on() {
    let lanes = lanes();
    let panics = |_: &dyn Backend| -> Result<()> { panic!("index 7") };
    let e = lanes.change(&card(1), "create", panics).expect_err("panics");
    assert_eq!((e.kind, e.operation.as_deref()), (ErrorKind::Vendor, Some("create")));
    assert!(e.message.contains("index 7") && e.message.contains("nvidia"), "{e}");
    lanes.change(&card(1), "create", |_| Ok(())).expect("goes on");
}

#[test]
fn a_reconciler_that_panics_does_not_keep_the_lane_shut() {
    let lanes = lanes();
    lanes.on_late(|_, _| panic!("a bug of ours"));
    let (release, hangs) = hang();
    lanes.within(HASTE).change(&card(1), "create", hangs).expect_err("hangs");
    drop(release);
    eventually("it opens", || lanes.shut(&card(1)).is_none() && lanes.stuck().is_empty());
    lanes.change(&card(1), "create", |_| Ok(())).expect("open");
}

#[test]
fn a_change_of_several_cards_has_its_turn_on_all_and_shuts_all() {
    let lanes = lanes();
    let (release, hangs) = hang();
    let both = [card(2), card(1), card(2)];
    let e = lanes.within(HASTE).change_all(&both, "set_mode", hangs).expect_err("hangs");
    assert!(e.to_string().contains("device=GPU-1+GPU-2"), "{e}");
    for n in [1, 2] {
        let e = lanes.change(&card(n), "create", |_| Ok(())).expect_err("shut");
        assert_eq!(e.kind, ErrorKind::Busy);
    }
    lanes.change(&card(3), "create", |_| Ok(())).expect("not affected");
    drop(release);
    eventually("both open", || lanes.change_all(&both, "set_mode", |_| Ok(())).is_ok());
    let e = lanes.change_all(&[], "set_mode", |_| Ok(())).expect_err("no card");
    assert_eq!(e.kind, ErrorKind::Invalid);
}

#[test]
fn changes_of_crossing_sets_of_cards_never_wait_for_each_other_in_a_circle() {
    let lanes = lanes();
    thread::scope(|scope| {
        for n in 0..12 {
            let lanes = &lanes;
            scope.spawn(move || {
                let set = if n % 2 == 0 { [card(1), card(2)] } else { [card(2), card(1)] };
                lanes.change_all(&set, "set_mode", |_| Ok(())).expect("its turn comes");
            });
        }
    });
}

#[test]
fn a_card_stays_shut_for_the_backend_that_takes_the_place_of_a_broken_one() {
    let first = lanes();
    let (release, hangs) = hang();
    first.within(HASTE).change(&card(1), "create", hangs).expect_err("hangs");
    let backend = scripted(&Vendor::NVIDIA, |_| Ok(Reply::Done));
    let options = LaneOptions { deadline: PATIENCE, ..LaneOptions::default() };
    let second = Lanes::after(Some(first.clone()), backend, Vendor::NVIDIA, options);
    assert!(!second.broken());
    let e = second.change(&card(1), "create", |_| Ok(())).expect_err("still shut");
    assert!(e.kind == ErrorKind::Busy && e.message.contains("create on GPU-1"), "{e}");
    second.change(&card(2), "create", |_| Ok(())).expect("another card");
    drop(release);
    eventually("it opens", || second.change(&card(1), "create", |_| Ok(())).is_ok());
}

#[test]
fn a_replaced_driver_is_noticed_wherever_it_is_said() {
    let lanes = lanes();
    let gone = || Error::new(ErrorKind::DriverReplaced, "the library is 1, the driver 2");
    lanes.change(&card(1), "create", |_| Ok(())).expect("works");
    assert!(!lanes.driver_replaced());
    lanes.read_device(&card(1), "check", move |_| Err::<(), _>(gone())).expect_err("gone");
    assert!(lanes.driver_replaced());

    let event = |_: &Call| {
        let subject = vgpu_core::health::Subject::Vendor;
        Ok(Reply::Events(vec![Event::now(subject, Meaning::DriverReplaced, "code 18")]))
    };
    let lanes = Lanes::new(scripted(&Vendor::NVIDIA, event), LaneOptions::default());
    assert_eq!(lanes.events(Duration::ZERO).expect("an event").len(), 1);
    assert!(lanes.driver_replaced());
}
