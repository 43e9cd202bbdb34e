//! Children that were well, and what becomes of calls and of the next child.

use std::io::{BufRead as _, BufReader};
use std::num::NonZeroU32;
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use vgpu_backend_child::{ChildFactory, ChildOptions, Replaced};
use vgpu_backend_mock::{Action, At, Op, Rule};
use vgpu_core::{
    Backend, BackendExt as _, BackendFactory as _, Bytes, ClaimId, ComputeShare, CreateOrder,
    DeviceId, ErrorKind, Host, Partition, PartitionId, Placement, Probe, Result, Scheme, Shape,
    Size, Subject, Vendor,
};

use crate::children::{MACHINE, MODE};
use crate::world::{GUARD, World, belongings, eventually, holds, runs, signal};

pub(crate) const ALL: &[(&str, fn())] = &[
    ("lives::killed_while_idle_it_comes_back", killed_idle),
    ("lives::killed_in_a_change_the_change_is_in_doubt_and_a_read_is_not", killed_in_calls),
    ("lives::one_that_dies_by_its_own_call_comes_back_with_what_was_made", dies_in_create),
    ("lives::a_call_that_never_returns_holds_up_no_other_and_is_ended", call_hangs),
    ("lives::a_stopped_process_is_ended", stopped),
    ("lives::garbage_after_hello_ends_it", garbage),
    ("lives::a_replaced_driver_is_a_new_process", replaced),
    ("lives::told_of_a_replaced_driver_it_stays", replaced_and_told),
    ("lives::a_new_probe_ends_the_child_before", one_at_a_time),
    ("lives::ended_for_good_it_stays_so", ended),
    ("lives::so_many_calls_and_no_more", bounded),
    ("lives::it_ends_with_its_parent", parent_dies),
    ("lives::nothing_is_left_of_many", leaves_nothing),
];

fn killed_idle() {
    let world = World::new();
    let (factory, backend) = world.good(world.options("good"));
    let cards = backend.scan().expect("it scans");
    for _ in 0..3 {
        let pid = factory.process_id().expect("it runs");
        signal(pid, Signal::KILL);
        holds("its end to be noticed", || factory.process_id() != Some(pid));
        let again = eventually("it to come back", || backend.scan());
        assert_eq!(again, cards);
        assert_ne!(factory.process_id(), Some(pid));
    }
}

fn killed_in_calls() {
    let world = World::new();
    let hour = Duration::from_secs(3_600);
    let (factory, backend) =
        world.good(ChildOptions { pause: (hour, hour), ..world.options("good") });
    let card = world.card();
    let faults = world.machine.faults();
    let rules = [Op::Create, Op::Usage].map(|op| faults.hang(op, &card).expect("a rule"));
    let (create, usage) = (spawn(&backend, &card, make), spawn(&backend, &card, usage));
    for rule in rules {
        holds("the call to hang", || faults.has_hit(rule).expect("a machine"));
    }
    signal(factory.process_id().expect("it runs"), Signal::KILL);
    let create = create.join().expect("no panic").expect_err("its process is gone");
    assert_eq!(create.kind, ErrorKind::InDoubt, "{create}");
    assert!(create.message.contains("signal 9"), "{create}");
    assert!(create.message.contains("whether the create was carried out"), "{create}");
    let usage = usage.join().expect("no panic").expect_err("its process is gone");
    assert_eq!(usage.kind, ErrorKind::Io, "{usage}");
    // Nothing is started before the pause is over, and changes that were not sent are no doubt.
    let refused = backend.destroy(&PartitionId::of(&card, &Scheme::SMLU, "1").expect("an id"));
    let refused = refused.expect_err("its process is gone");
    assert_eq!(refused.kind, ErrorKind::Io, "{refused}");
    assert!(refused.message.contains("signal 9"), "with the reason: {refused}");
    assert_eq!(factory.process_id(), None);
}

fn dies_in_create() {
    let world = World::new();
    let (_factory, backend) = world.good(world.options("good"));
    let card = world.card();
    let before = world.machine.truth(&card).expect("parts").len();
    for (action, made) in [(Action::AbortBefore, 0), (Action::AbortAfter, 1)] {
        let calls = Rule::new(At::CallsOf(Op::Create), action).on(&card);
        world.machine.faults().add(calls).expect("a rule");
        let error = make(&*backend, &card).expect_err("it dies");
        assert_eq!(error.kind, ErrorKind::InDoubt, "{error}");
        let listed = eventually("it to come back", || backend.partitions(&card));
        assert!(listed.len() <= before + made, "{listed:?}");
        eventually("the sweep", || backend.sweep(&card, &[]).map(drop));
    }
    // The same order is carried out now.
    let made = make(&*backend, &card).expect("a part");
    assert!(world.machine.truth(&card).expect("parts").iter().any(|p| p.id == made.id));
}

fn call_hangs() {
    let world = World::new();
    let (factory, backend) =
        world.good(ChildOptions { call: Duration::from_secs(5), ..world.options("good") });
    let card = world.card();
    let other = world.machine.devices().expect("cards").remove(1);
    let pid = factory.process_id();
    let rule = world.machine.faults().hang(Op::Usage, &card).expect("a rule");
    let stuck = spawn(&backend, &card, usage);
    holds("the call to hang", || world.machine.faults().has_hit(rule).expect("a machine"));
    // The others go on in the same process.
    backend.partitions(&other).expect("the neighbour answers");
    backend.check(&card).expect("other calls of the card do");
    assert_eq!(factory.process_id(), pid);
    let error = stuck.join().expect("no panic").expect_err("it was overdue");
    assert!(error.message.contains("its usage did not return in time"), "{error}");
    world.machine.faults().take_all_back().expect("a machine");
    eventually("it to come back", || usage(&*backend, &card));
    assert_ne!(factory.process_id(), pid);
}

fn stopped() {
    let world = World::new();
    let (factory, backend) =
        world.good(ChildOptions { call: Duration::from_secs(3), ..world.options("good") });
    let pid = factory.process_id().expect("it runs");
    signal(pid, Signal::STOP);
    let error = backend.scan().expect_err("it is stopped");
    assert!(error.message.contains("its scan did not return in time"), "{error}");
    assert!(!runs(pid));
    eventually("it to come back", || backend.scan());
}

fn garbage() {
    let world = World::new();
    // Hello, probe and info are well.
    let (_factory, backend) = world.good(world.options("late garbage"));
    let card = world.card();
    let error = backend.partitions(&card).expect_err("no message");
    assert_eq!(error.kind, ErrorKind::Io);
    assert!(error.message.contains("Segmentation fault (not really)"), "{error}");
    // Each child has one good call; then it ends again, and another comes.
    eventually("it to come back", || backend.partitions(&card));
}

fn replaced() {
    let world = World::new();
    let (factory, backend) = world.good(world.options("good"));
    let pid = factory.process_id();
    world.machine.faults().replace_driver().expect("replaced");
    let error = backend.scan().expect_err("the library is too old");
    assert_eq!(error.kind, ErrorKind::Io, "{error}");
    assert!(error.message.contains("driver of mock was replaced"), "{error}");
    eventually("it to come back", || backend.scan());
    assert_ne!(factory.process_id(), pid);
}

fn replaced_and_told() {
    let world = World::new();
    let options = ChildOptions { replaced: Replaced::Tell, ..world.options("good") };
    let (factory, backend) = world.good(options);
    let pid = factory.process_id();
    world.machine.faults().replace_driver().expect("replaced");
    for _ in 0..2 {
        let error = backend.scan().expect_err("the library is too old");
        assert_eq!(error.kind, ErrorKind::DriverReplaced, "{error}");
    }
    assert_eq!(factory.process_id(), pid);
}

fn one_at_a_time() {
    let world = World::new();
    let (factory, old) = world.good(world.options("good"));
    let pid = factory.process_id().expect("it runs");
    let Probe::Ready(new) = factory.probe(&Host::default()) else { panic!("not ready") };
    assert!(!runs(pid));
    new.scan().expect("it scans");
    let error = old.scan().expect_err("its time is over");
    assert!(error.message.contains("another takes its place"), "{error}");
    // One that finds nothing is kept and asked again.
    let factory = ChildFactory::new(Vendor::new("mock"), world.options("look"));
    let Probe::Absent(_) = factory.probe(&Host::default()) else { panic!("not absent") };
    let pid = factory.process_id().expect("it is kept");
    let Probe::Absent(_) = factory.probe(&Host::default()) else { panic!("not absent") };
    assert_eq!(factory.process_id(), Some(pid));
    drop(factory);
    assert!(!runs(pid));
}

fn ended() {
    let world = World::new();
    let (factory, backend) = world.good(world.options("good"));
    let pid = factory.process_id().expect("it runs");
    factory.end();
    assert!(!runs(pid));
    let error = backend.scan().expect_err("it has ended");
    assert!(error.message.contains("the agent ends"), "{error}");
    let Probe::Broken(error) = factory.probe(&Host::default()) else { panic!("it starts again") };
    assert!(error.message.contains("the agent ends"), "{error}");
}

fn bounded() {
    let world = World::new();
    let (_factory, backend) = world.good(world.options("good"));
    let card = world.card();
    let faults = world.machine.faults();
    let rule = Rule::new(At::Start(Op::Usage), Action::Hang).on(&card).times(None);
    faults.add(rule).expect("a rule");
    let stuck: Vec<_> = (0..64).map(|_| spawn(&backend, &card, usage)).collect();
    // One more has no room, whenever the others have come to hang.
    let (tell, told) = mpsc::channel();
    for _ in 0..65 {
        let (backend, card, tell) = (backend.clone(), card.clone(), tell.clone());
        thread::spawn(move || tell.send(usage(&*backend, &card)));
    }
    let refused = told.recv_timeout(GUARD).expect("one is refused");
    let refused = refused.expect_err("nothing returns yet");
    assert_eq!(refused.kind, ErrorKind::Busy, "{refused}");
    faults.take_all_back().expect("a machine");
    let ended: Vec<_> = stuck.into_iter().map(|call| call.join().expect("no panic")).collect();
    for error in ended.into_iter().filter_map(Result::err) {
        assert_eq!(error.kind, ErrorKind::Busy, "{error}");
    }
    usage(&*backend, &card).expect("there is room again");
}

fn parent_dies() {
    let world = World::new();
    for stopped in [false, true] {
        let mut agent = Command::new("/proc/self/exe")
            .env(MODE, "agent")
            .env(MACHINE, &world.file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        let stdout = agent.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let child: u32 = line.trim().parse().expect("a number");
        assert!(runs(child));
        if stopped {
            signal(child, Signal::STOP);
        }
        agent.kill().expect("it runs");
        agent.wait().expect("it ends");
        holds("the child to end", || !runs(child));
    }
}

fn leaves_nothing() {
    let world = World::new();
    let run = |times: u32| {
        let (factory, backend) = world.good(world.options("good"));
        for _ in 0..times {
            let pid = factory.process_id().expect("it runs");
            signal(pid, Signal::KILL);
            holds("its end to be noticed", || factory.process_id() != Some(pid));
            eventually("it to come back", || backend.scan().map(drop));
        }
        for mode in ["abort", "early garbage", "exit"] {
            World::broken(world.options(mode));
        }
    };
    run(1);
    // Other tests of this process may be at work: it is enough that it comes back to few at all.
    holds("descriptors and children to be given back", || {
        run(10);
        belongings().0 < 64 && belongings().1 <= 16
    });
}

fn spawn<T: Send + 'static>(
    backend: &Arc<dyn Backend>,
    card: &DeviceId,
    call: fn(&dyn Backend, &DeviceId) -> Result<T>,
) -> thread::JoinHandle<Result<T>> {
    let (backend, card) = (backend.clone(), card.clone());
    thread::spawn(move || call(&*backend, &card))
}

fn usage(backend: &dyn Backend, card: &DeviceId) -> Result<()> {
    backend.usage(&Subject::Device(card.clone())).map(drop)
}

/// Makes the same small part each time it is asked.
fn make(backend: &dyn Backend, card: &DeviceId) -> Result<Partition> {
    let card = backend.device(card)?;
    let of = NonZeroU32::new(100).expect("not 0");
    let compute = Some(ComputeShare { units: 1, of });
    let shape = Shape::Size(Size { compute, memory: Some(Bytes::mib(256)) });
    let claim = ClaimId::new("claim-1")?;
    let order = CreateOrder::admit(&card, &Scheme::SMLU, shape, Placement::Driver, claim)?;
    backend.create(&order)
}
