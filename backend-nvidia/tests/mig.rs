//! MIG on the fake library, from `dlopen` on: what a part is, what a crash leaves, whose an event is, which nodes a
//! container gets, and drivers that say what cannot be.
//!
//! A library reads its machine when it starts and is never unloaded, so each test plays its machine in a child.

#[path = "support/built.rs"]
mod built;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vgpu_backend_nvidia::NvidiaFactory;
use vgpu_core::ownership::Intent;
use vgpu_core::{
    Backend, BackendExt, BackendFactory, Change, ClaimId, CreateOrder, Device, ErrorKind, Event,
    Grant, Host, Meaning, ModeChange, ModeOrder, Ownership, Partition, PartitionState, Placement,
    Probe, ProfileId, Scheme, Shape, Slots, Subject, Target,
};

use crate::built::built;

#[test]
fn a_kill_between_gpu_and_compute_instance_leaves_a_half_that_sweep_removes() {
    let machine = Machine::new(
        "preset: a100-mig\nlatency_ms: {nvmlGpuInstanceCreateComputeInstance: 3600000}\n",
    );
    let mut doomed = machine.spawn("create");
    machine.until_slow("nvmlGpuInstanceCreateComputeInstance");
    doomed.kill().expect("kill -9");
    doomed.wait().expect("it is dead");
    machine.write("preset: a100-mig\n");
    machine.play("recover");
}

#[test]
fn parts_are_known_by_place_and_shown_by_number() {
    let machine = Machine::new("preset: h100-mig\n");
    machine.play("edits");
}

#[test]
fn an_event_is_about_the_instance_that_it_names() {
    Machine::new("preset: h100-mig\n").play("events");
}

#[test]
fn a_mode_is_entered_idle_or_waits_for_a_reset() {
    Machine::new("preset: driver-550\n").play("hopper");
    Machine::new("preset: a100x4\n").play("ampere");
}

#[test]
fn a_profile_of_tomorrow_is_one_like_any_other() {
    let new = "mig_profiles: [{nth: 20, id: 77, name: MIG 2g.20gb+new, slices: 2, \
               multiprocessors: 32, memory_mib: 20096, places: [[0, 2], [2, 2]]}]";
    Machine::new(&format!("preset: h100-mig\npatch: {{0: {{{new}}}}}\n")).play("unknown");
}

#[test]
fn an_old_driver_names_no_profile_and_they_are_the_same() {
    Machine::new("preset: driver-470\n").play("old");
}

#[test]
fn numbers_that_cannot_be_are_one_clear_error_of_one_card() {
    let row = |what: &str| {
        format!(
            "{{nth: 0, id: 19, name: MIG 1g.10gb, slices: 1, multiprocessors: 16, \
             memory_mib: 9856, places: [[0, 1]], {what}}}"
        )
    };
    let rows = [
        (row("claimed_places: 4000000000"), "4000000000 placements"),
        (row("unterminated: true"), "no end within 96 bytes"),
        (row("").replace("slices: 1", "slices: 0"), "0 slices"),
        (row("").replace("9856", "99999999"), "99999999 MiB"),
        (row("").replace("[0, 1]", "[4294967295, 2]"), "from 4294967295"),
        (row("").replace("multiprocessors: 16", "multiprocessors: 0"), "0 multiprocessors"),
    ];
    for (row, said) in rows {
        let row = row.replace(", }", "}");
        let machine =
            Machine::new(&format!("preset: h100-mig\npatch: {{0: {{mig_profiles: [{row}]}}}}\n"));
        machine.play_with("contradiction", said);
    }
}

#[test]
fn without_root_or_mig_a_card_is_not_split_by_it() {
    Machine::new("preset: h100x8\nprivileged: false\n").play("without");
    Machine::new("preset: t4x1\n").play("without");
}

/// The children.
#[test]
#[ignore = "run by the others, with a machine"]
fn child() {
    let part = std::env::var(INSIDE).expect("run by another test");
    match part.as_str() {
        "ampere" => ampere(),
        "contradiction" => contradiction(),
        "create" => drop(backend().create(&order(&card(0), "1g.5gb", 3))),
        "edits" => edits(),
        "events" => events(),
        "hopper" => hopper(),
        "old" => old(),
        "recover" => recover(),
        "unknown" => unknown(),
        "without" => without(),
        other => panic!("no part is called {other}"),
    }
}

fn recover() {
    let backend = backend();
    let device = card(0);
    let half = one(&backend, &device);
    assert_eq!(half.state, PartitionState::Half, "killed before the compute instance");
    let order = order(&device, "1g.5gb", 3);
    let intent = Intent { order, ownership: Ownership::Placement, seen: Vec::new() };
    let listed = backend.partitions(&device.id).expect("listed");
    assert_eq!(intent.recognise(&listed), Some(&half), "ours by its place");
    let target = Target { claim: claim(), grant: Grant::Part(half.id.clone()) };
    assert_eq!(backend.edits(&[target]).expect_err("not usable").kind, ErrorKind::NotFound);
    let swept = backend.sweep(&device.id, &[]).expect("swept");
    assert!(swept.len() == 1 && swept[0].what.contains("without compute instance"), "{swept:?}");
    assert_eq!(backend.partitions(&device.id), Ok(Vec::new()), "nothing leaked");
    let made = backend.create(&intent.order).expect("the same order succeeds");
    assert_eq!((made.state, &made.id), (PartitionState::Complete, &half.id));
    backend.destroy(&made.id).expect("destroyed");
    assert_eq!(backend.partitions(&device.id), Ok(Vec::new()));
}

fn edits() {
    let backend = backend();
    let device = card(0);
    let first = backend.create(&order(&device, "1g.10gb", 2)).expect("made");
    let second = backend.create(&order(&device, "3g.40gb", 4)).expect("made");
    assert_eq!(first.id.as_str(), format!("{}/mig/1g.10gb-2", device.id));
    let minors = |part: &Partition| -> Vec<(String, Option<(u32, u32)>)> {
        let target = Target { claim: claim(), grant: Grant::Part(part.id.clone()) };
        let edits = backend.edits(&[target]).expect("shown");
        let names = edits.nodes.iter().map(|n| (n.path.display().to_string(), n.number));
        names.filter(|(path, _)| path.contains("nvidia-cap") || path == "/dev/nvidia0").collect()
    };
    let node = |path: &str, major, minor| (path.to_owned(), Some((major, minor)));
    // The first two GPU instances; 9 numbers each, from 3.
    assert_eq!(
        minors(&first),
        [
            node("/dev/nvidia0", 195, 0),
            node("/dev/nvidia-caps/nvidia-cap12", 236, 12),
            node("/dev/nvidia-caps/nvidia-cap13", 236, 13),
        ]
    );
    assert_eq!(minors(&second)[1], node("/dev/nvidia-caps/nvidia-cap21", 236, 21));
    // Made anew it is the same part, under another UUID.
    backend.destroy(&first.id).expect("destroyed");
    let again = backend.create(&order(&device, "1g.10gb", 2)).expect("made again");
    assert_eq!((&again.id, again.handle == first.handle), (&first.id, false));
    // Where the driver keeps no file for an instance, its table of all has the number.
    let root = host().root;
    fs::remove_dir_all(root.join("proc/driver/nvidia/capabilities/gpu0")).expect("removed");
    let target = Target { claim: claim(), grant: Grant::Part(second.id.clone()) };
    let error = backend.edits(std::slice::from_ref(&target)).expect_err("no number");
    assert_eq!(error.kind, ErrorKind::Io);
    assert!(error.message.contains("gpu0/gi2/access"), "{error}");
    let caps = root.join("proc/driver/nvidia-caps");
    fs::create_dir_all(&caps).expect("made");
    let table = "config 1\nmonitor 2\ngpu0/gi2/access 21\ngpu0/gi2/ci0/access 22\n";
    fs::write(caps.join("mig-minors"), table).expect("written");
    assert_eq!(minors(&second)[2], node("/dev/nvidia-caps/nvidia-cap22", 236, 22));
}

fn events() {
    let backend = backend();
    let device = card(0);
    backend.wait(Duration::ZERO).expect("watched");
    let kept = backend.create(&order(&device, "1g.10gb", 0)).expect("made");
    let other = backend.create(&order(&device, "1g.10gb", 1)).expect("made");
    let changed = next(&backend);
    assert_eq!(changed.meaning, Meaning::Changed, "{changed:?}");
    assert_eq!(changed.subject, Subject::Device(device.id.clone()));
    while !backend.wait(Duration::from_millis(20)).expect("waited").is_empty() {}
    // The second instance has number 2.
    control("events: [{id: a, card: 0, type: 8, data: 43, gi: 2, ci: 0}]");
    let event = next(&backend);
    assert_eq!((event.meaning, &event.subject), (Meaning::TenantFault, &part(&other)));
    control("events: [{id: b, card: 0, type: 8, data: 94, gi: 1, ci: 0}]");
    let event = next(&backend);
    assert_eq!((event.meaning, &event.subject), (Meaning::Suspect, &part(&kept)));
    control("events: [{id: c, card: 0, type: 8, data: 95, gi: 1, ci: 0}]");
    let event = next(&backend);
    let whole = Subject::Device(device.id.clone());
    assert_eq!((event.meaning, event.subject), (Meaning::NeedsReset, whole), "it is the card's");
    // Another tool's instance is found by asking.
    control(
        "orders: [{id: d, do: make, card: 0, profile: 1g.20gb, slice: 4}]\n\
             events: [{id: e, card: 0, type: 8, data: 43, gi: 3, ci: 0}]",
    );
    let event = loop {
        let event = next(&backend);
        if event.meaning != Meaning::Changed {
            break event;
        }
    };
    let Subject::Part(id) = event.subject else { panic!("{event:?}") };
    assert_eq!(id.local(), "1g.20gb-4");
}

fn hopper() {
    let backend = backend();
    let device = card(0);
    let mode = |device: &Device| device.scheme(&Scheme::MIG).expect("declared").mode.clone();
    assert_eq!((mode(&device).active, mode(&device).enter), (false, Change::IdleDevice));
    let to = |scheme| ModeOrder {
        device: device.id.clone(),
        scheme,
        affected: vec![device.id.clone()],
        domain: None,
    };
    control("cards: {0: {processes: [{pid: 9, used_mib: 1}]}}");
    let error = backend.set_mode(&to(Some(Scheme::MIG))).expect_err("somebody is on it");
    assert_eq!(error.kind, ErrorKind::Busy);
    control("{}");
    assert_eq!(backend.set_mode(&to(Some(Scheme::MIG))), Ok(ModeChange::Done));
    let device = card(0);
    assert!(mode(&device).active && !device.scheme(&Scheme::WHOLE).expect("there").mode.active);
    let made = backend.create(&order(&device, "3g.40gb", 0)).expect("made");
    let error = backend.set_mode(&to(None)).expect_err("a part is on it");
    assert_eq!((error.kind, error.message.contains("3g.40gb-0")), (ErrorKind::Busy, true));
    backend.destroy(&made.id).expect("destroyed");
    assert_eq!(backend.set_mode(&to(None)), Ok(ModeChange::Done));
    assert!(!mode(&card(0)).active);
}

fn ampere() {
    let backend = backend();
    let device = card(0);
    let to = |scheme| ModeOrder {
        device: device.id.clone(),
        scheme,
        affected: vec![device.id.clone()],
        domain: None,
    };
    assert_eq!(backend.set_mode(&to(Some(Scheme::MIG))), Ok(ModeChange::AfterReset));
    assert!(!card(0).scheme(&Scheme::MIG).expect("declared").mode.active);
    control("orders: [{id: a, do: reset, card: 0}]");
    assert!(card(0).scheme(&Scheme::MIG).expect("declared").mode.active, "after the reset");
    assert_eq!(backend.set_mode(&to(None)), Ok(ModeChange::AfterReset));
    assert_eq!(backend.set_mode(&to(Some(Scheme::MIG))), Ok(ModeChange::Done), "taken back");
}

fn unknown() {
    let backend = backend();
    let device = card(0);
    let made = backend.create(&order(&device, "2g.20gb+new", 2)).expect("made");
    assert_eq!(made.id.local(), "2g.20gb+new-2");
    assert_eq!(one(&backend, &device), made);
    backend.destroy(&made.id).expect("destroyed");
}

fn old() {
    let backend = backend();
    let device = card(0);
    let missing = backend.info().missing_symbols;
    let expected = [
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetGpuInstanceProfileInfoV",
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetMemoryLimits_v1",
        "nvmlDeviceGetNumGpuCores",
        "nvmlDeviceSetMemoryLimits_v1",
    ];
    assert_eq!(missing, expected);
    let info = device.scheme(&Scheme::MIG).expect("declared");
    for profile in ["1g.5gb", "1g.5gb+me", "2g.10gb", "3g.20gb", "4g.20gb", "7g.40gb"] {
        let id = ProfileId::new(profile).expect("a word");
        assert!(info.profile(&id).is_some(), "{profile} in {:?}", info.sizing);
    }
    let made = backend.create(&order(&device, "7g.40gb", 0)).expect("made");
    assert_eq!(one(&backend, &device), made);
}

fn contradiction() {
    let said = std::env::var(SAID).expect("what is to be said");
    let scan = backend().scan().expect("the driver answers");
    let [lost] = scan.lost.as_slice() else { panic!("{scan:?}") };
    assert_eq!(lost.reason.kind, ErrorKind::Vendor, "{}", lost.reason);
    assert!(lost.reason.message.contains(&said), "{}", lost.reason);
    assert_eq!(scan.devices.len(), 1, "its neighbour is served");
}

fn without() {
    let backend = backend();
    let device = card(0);
    let error = device.scheme(&Scheme::MIG).expect_err("not declared");
    assert_eq!(error.kind, ErrorKind::Unsupported);
    assert!(error.message.contains("it has whole, time-slice"), "{error}");
    let order = ModeOrder {
        device: device.id.clone(),
        scheme: Some(Scheme::MIG),
        affected: vec![device.id.clone()],
        domain: None,
    };
    assert_eq!(backend.set_mode(&order).expect_err("no such mode").kind, ErrorKind::Unsupported);
    assert_eq!(backend.partitions(&device.id), Ok(Vec::new()));
}

fn next(backend: &Arc<dyn Backend>) -> Event {
    // A guard against waiting for good, not a measure.
    let until = Instant::now() + Duration::from_secs(60);
    while Instant::now() < until {
        let mut events = backend.wait(Duration::from_millis(50)).expect("waited");
        if !events.is_empty() {
            return events.remove(0);
        }
    }
    panic!("the event never came");
}

fn part(part: &Partition) -> Subject {
    Subject::Part(part.id.clone())
}

fn one(backend: &Arc<dyn Backend>, device: &Device) -> Partition {
    let mut listed = backend.partitions(&device.id).expect("listed");
    assert_eq!(listed.len(), 1, "{listed:?}");
    listed.remove(0)
}

fn card(nth: usize) -> Device {
    let id = backend().scan().expect("a scan").devices[nth].id.clone();
    backend().device(&id).expect("it answers")
}

fn order(device: &Device, profile: &str, start: u32) -> CreateOrder {
    let profile = ProfileId::new(profile).expect("a word");
    let info = device.scheme(&Scheme::MIG).expect("declared");
    let places = &info.profile(&profile).expect("a profile").placements;
    let len = places.iter().find(|s| s.start == start).expect("a place").len;
    let placement = Placement::Slots(Slots::new(start, len));
    CreateOrder::admit(device, &Scheme::MIG, Shape::Profile(profile), placement, claim())
        .expect("admitted")
}

fn claim() -> ClaimId {
    ClaimId::new("vgpu-test").expect("an id")
}

fn backend() -> Arc<dyn Backend> {
    match NvidiaFactory::default().probe(&host()) {
        Probe::Ready(backend) => backend,
        other => panic!("{other:?}"),
    }
}

fn host() -> Host {
    let scenario = PathBuf::from(std::env::var_os("FAKE_NVML").expect("a machine"));
    let root = scenario.with_file_name("host");
    Host { root, library: Some(built("libfake_nvml.so")) }
}

fn control(text: &str) {
    let scenario = PathBuf::from(std::env::var_os("FAKE_NVML").expect("a machine"));
    let new = scenario.with_file_name("control.new");
    fs::write(&new, text).expect("written");
    fs::rename(&new, scenario.with_file_name("control.yaml")).expect("put in place");
}

const INSIDE: &str = "VGPU_TEST_INSIDE";
const SAID: &str = "VGPU_TEST_SAID";

/// A machine whose MIG outlives the processes that play it.
struct Machine {
    folder: TempDir,
}

impl Machine {
    fn new(scenario: &str) -> Self {
        let machine = Self { folder: tempfile::tempdir().expect("a folder") };
        let host = machine.folder.path().join("host");
        let libraries = host.join("usr/lib/x86_64-linux-gnu");
        fs::create_dir_all(&libraries).expect("made");
        fs::write(libraries.join("libcuda.so.570.124.06"), "").expect("written");
        fs::create_dir_all(host.join("proc")).expect("made");
        let devices = "Character devices:\n195 nvidia\n236 nvidia-caps\n511 nvidia-uvm\n";
        fs::write(host.join("proc/devices"), devices).expect("written");
        machine.write(scenario);
        machine
    }

    fn write(&self, scenario: &str) {
        let at = |name: &str| self.folder.path().join(name).display().to_string();
        let text = format!(
            "{scenario}control: {}\nstate: {}\nhost_root: {}\n",
            at("control.yaml"),
            at("state.json"),
            at("host")
        );
        fs::write(self.folder.path().join("scenario.yaml"), text).expect("written");
    }

    fn play(&self, part: &str) {
        self.play_with(part, "");
    }

    fn play_with(&self, part: &str, said: &str) {
        let mut command = self.command(part);
        let output = command.env(SAID, said).output().expect("it starts");
        let [told, complained] =
            [output.stdout, output.stderr].map(|t| String::from_utf8_lossy(&t).into_owned());
        assert!(output.status.success(), "{part} {said}: {told}{complained}");
        assert!(told.contains("1 passed"), "nothing ran: {told}{complained}");
    }

    fn spawn(&self, part: &str) -> Child {
        let mut command = self.command(part);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts")
    }

    fn command(&self, part: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("a test knows its path"));
        command.args(["--exact", "child", "--ignored", "--nocapture"]);
        command.env(INSIDE, part).env("FAKE_NVML", self.folder.path().join("scenario.yaml"));
        command
    }

    /// Waits until a call is being slow; as long as any machine may need.
    fn until_slow(&self, call: &str) {
        let file = self.folder.path().join("control.slow");
        let until = Instant::now() + Duration::from_secs(60);
        let is_slow = |file: &Path| fs::read_to_string(file).unwrap_or_default().contains(call);
        while !is_slow(&file) {
            assert!(Instant::now() < until, "{call} is never called");
            thread::sleep(Duration::from_millis(5));
        }
    }
}
