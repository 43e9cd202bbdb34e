//! What runs inside a process with a machine.

use std::fs;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use vgpu_backend_cambricon::{CambriconFactory, CambriconOptions};
use vgpu_core::{
    Backend, BackendExt, BackendFactory, Bytes, ClaimId, ComputeShare, CreateOrder, Device,
    DeviceId, Error, ErrorKind, Grant, Host, LinkKind, Meaning, ModeOrder, Partition, Placement,
    Probe, Scheme, Shape, Size, Target,
};

use crate::built::built;
use crate::control::Control;

/// A backend on this process's machine.
struct Here {
    backend: Arc<dyn Backend>,
    control: Control,
    root: TempDir,
}

impl Here {
    fn new() -> Self {
        Self::with(CambriconOptions::default())
    }

    fn with(options: CambriconOptions) -> Self {
        let factory = CambriconFactory::new(options);
        let root = tempfile::tempdir().expect("a folder");
        let library = std::env::var("VGPU_TEST_LIBRARY").expect("a test was started by another");
        let host = Host { root: root.path().to_owned(), library: Some(built(&library)) };
        let scenario = PathBuf::from(std::env::var_os("FAKE_CNDEV").expect("a machine"));
        let control = Control::of(scenario.parent().expect("a folder"));
        let Probe::Ready(backend) = factory.probe(&host) else { panic!("it does not open") };
        Self { backend, control, root }
    }

    fn card(&self, index: usize) -> Device {
        self.backend.scan().expect("scans").devices.remove(index)
    }

    fn enter(&self, index: usize, scheme: Scheme) -> Device {
        let device = self.card(index).id;
        let order = ModeOrder {
            affected: vec![device.clone()],
            device: device.clone(),
            scheme: Some(scheme),
            domain: None,
        };
        self.backend.set_mode(&order).expect("the card is idle");
        self.backend.device(&device).expect("it answers")
    }

    fn make(&self, card: &Device, name: &str, size: Size) -> Result<Partition, Error> {
        let claim = ClaimId::new(name).expect("an id");
        let order =
            CreateOrder::admit(card, &Scheme::SMLU, Shape::Size(size), Placement::Driver, claim)?;
        self.backend.create(&order)
    }
}

fn size(percent: u32, mib: u64) -> Size {
    let of = NonZeroU32::new(100).expect("not 0");
    Size { compute: Some(ComputeShare { units: percent, of }), memory: Some(Bytes::mib(mib)) }
}

#[test]
#[ignore = "started by the test of the same name"]
fn a_driver_restart_keeps_instances() {
    let here = Here::new();
    let card = here.enter(0, Scheme::SMLU);
    let made = here.make(&card, "vgpu-one", size(10, 1024)).expect("made");
    assert!(here.backend.wait(Duration::from_millis(10)).expect("nothing").is_empty());

    here.control.restart_driver(None).expect("restarted");
    let listed = here.backend.partitions(&card.id).expect("the library is started anew");
    assert_eq!(listed, std::slice::from_ref(&made));
    // The set of events was of before: the wait fails once and is then good again.
    let _failed = here.backend.wait(Duration::from_millis(10));
    let event = json!({ "id": "one", "card": 0, "data": 77 });
    assert!(here.backend.wait(Duration::from_millis(10)).expect("watched again").is_empty());
    here.control.change(|s| s["events"] = json!([event])).expect("told");
    let events = here.backend.wait(Duration::from_secs(30)).expect("an event");
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(events[0].cause.contains("xid 77"), "{events:?}");

    // While it is not loaded, that is what is said; then all is as before.
    here.control.change(|s| s["down"] = json!(true)).expect("unloaded");
    let error = here.backend.scan().expect_err("no driver");
    assert_eq!(error.kind, ErrorKind::Io, "{error}");
    assert!(error.message.contains("load the kernel driver"), "{error}");
    here.control.change(|s| s["down"] = json!(false)).expect("loaded");
    here.control.restart_driver(None).expect("restarted");
    assert_eq!(here.backend.partitions(&card.id).expect("listed"), [made]);

    // Another version under the loaded library asks for a new process; the old one back is fine.
    here.control.restart_driver(Some([9, 0, 0])).expect("replaced");
    for _ in 0..2 {
        let error = here.backend.partitions(&card.id).expect_err("replaced");
        assert_eq!(error.kind, ErrorKind::DriverReplaced, "{error}");
        assert!(error.message.contains("9.0.0") && error.message.contains("6.2.11"), "{error}");
    }
    here.control.restart_driver(Some([6, 2, 11])).expect("put back");
    assert_eq!(here.backend.partitions(&card.id).expect("listed").len(), 1);
}

#[test]
#[ignore = "started by the test of the same name"]
fn a_killed_create_leaves_a_profile_that_is_swept() {
    let here = Here::new();
    let card = here.enter(0, Scheme::SMLU);
    here.control.set(0, "crash_after", json!(1)).expect("planned");
    here.make(&card, "vgpu-dies", size(7, 512)).expect_err("it seems to die");
    here.control.set(0, "crash_after", json!(null)).expect("over");
    assert!(here.backend.partitions(&card.id).expect("listed").is_empty());
    let swept = here.backend.sweep(&card.id, &[]).expect("swept");
    let [one] = swept.as_slice() else { panic!("{swept:?}") };
    assert!(one.what.contains("7p.512mb"), "{one:?}");
    assert!(here.backend.sweep(&card.id, &[]).expect("swept").is_empty(), "the driver's own stay");
}

#[test]
#[ignore = "started by the test of the same name"]
fn an_old_library_lacks_and_says_so() {
    let here = Here::new();
    let bus = here.root.path().join("sys/bus/pci/devices/0000:42:00.0");
    fs::create_dir_all(&bus).expect("made");
    fs::write(bus.join("vendor"), "0xcabc\n").expect("written");
    fs::write(bus.join("class"), "0x120000\n").expect("written");
    let info = here.backend.info();
    for lacking in
        ["cndevUpdateSMluInstanceQuotaByHandle", "cndevEventWait", "cndevGetMemoryUsageV2"]
    {
        assert!(info.missing_symbols.iter().any(|s| s == lacking), "{info:?}");
    }
    assert_eq!(info.driver, "5.10.27", "the first card told it");
    let second = here.card(1);
    assert_eq!(second.pci.as_deref(), Some("0000:42:00.0"), "found by its place on the bus");
    assert_eq!(second.memory, Bytes::gib(24), "by the older call");
    let card = here.enter(1, Scheme::SMLU);
    assert_eq!(card.scheme(&Scheme::SMLU).expect("it has it").resize, None);
    let part = here.make(&card, "vgpu-one", size(10, 1024)).expect("made");
    let error = here.backend.resize(&part.id, &size(20, 1024)).expect_err("it cannot");
    assert_eq!(error.kind, ErrorKind::Unsupported, "{error}");
    assert!(here.backend.wait(Duration::from_millis(5)).expect("no events").is_empty());
    // The card's number is in its instance's node, whatever the library lacks.
    let grant = Grant::Part(part.id);
    let target = Target { claim: ClaimId::new("vgpu-one").expect("an id"), grant };
    let nodes = here.backend.edits(&[target]).expect("shown").nodes;
    let paths: Vec<String> = nodes.iter().map(|n| n.path.display().to_string()).collect();
    assert_eq!(
        paths,
        ["/dev/cambricon_dev1", "/dev/cambricon_ipcm1", "/dev/cambricon-caps/cap_dev1_mi1"]
    );
}

#[test]
#[ignore = "started by the test of the same name"]
fn cards_that_start_are_lost_until_they_run() {
    let here = Here::new();
    let first = here.card(0).id;
    here.control.set(0, "driver_state", json!(2)).expect("booting");
    let scan = here.backend.scan().expect("scans");
    assert_eq!((scan.devices.len(), scan.lost.len()), (3, 1));
    assert_eq!(scan.lost[0].name, first.as_str());
    assert!(scan.lost[0].reason.message.contains("BOOTING"), "{:?}", scan.lost);
    let told = &here.backend.check(&first).expect("told")[0];
    assert_eq!(told.meaning, Meaning::Resetting, "{told:?}");
    here.control.set(0, "driver_state", json!(4)).expect("running");
    assert_eq!(here.backend.scan().expect("scans").devices.len(), 4);
}

#[test]
#[ignore = "started by the test of the same name"]
fn illness_is_told_with_its_text() {
    let options = CambriconOptions { heartbeat: Duration::from_nanos(1), ..Default::default() };
    let here = Here::with(options);
    let card = here.card(1).id;
    let told = |id: &DeviceId| here.backend.check(id).expect("told").remove(0);
    assert_eq!(told(&card).meaning, Meaning::Good);

    let incidents = json!([
        { "system": 0x20, "result": 10, "code": 5, "text": "too warm" },
        { "system": 0x10, "result": 20, "code": 9, "text": "row 7 is bad" },
    ]);
    here.control.set(1, "overall", json!(20)).expect("ill");
    here.control.set(1, "incidents", incidents).expect("ill");
    let ill = told(&card);
    assert_eq!(ill.meaning, Meaning::NeedsReset, "{ill:?}");
    for part in ["memory", "row 7 is bad", "too warm"] {
        assert!(ill.cause.contains(part), "{ill:?}");
    }
    here.control.set(1, "overall", json!(0)).expect("well");
    here.control.set(1, "incidents", json!([])).expect("well");
    for (key, value, meaning) in [
        ("prohibited", json!(true), Meaning::Resetting),
        ("repair_failed", json!(true), Meaning::NeedsReset),
        ("uncorrected", json!(3), Meaning::Suspect),
        ("ecc_exceeded", json!(true), Meaning::NeedsReset),
        ("good", json!(false), Meaning::NeedsReset),
        ("driver_state", json!(7), Meaning::NeedsReboot),
        ("driver_state", json!(42), Meaning::Suspect),
    ] {
        let before = here.control.change(|s| s["cards"][1][key].clone()).expect("read");
        here.control.set(1, key, value).expect("ill");
        assert_eq!(told(&card).meaning, meaning, "{key}");
        here.control.set(1, key, before).expect("well");
        assert_eq!(told(&card).meaning, Meaning::Good, "{key}");
    }
    // It was seen to move; now it stands still, for longer than a moment.
    here.control.set(1, "heart_stopped", json!(true)).expect("stopped");
    told(&card);
    std::thread::sleep(Duration::from_millis(2));
    let still = told(&card);
    assert_eq!(still.meaning, Meaning::Suspect, "{still:?}");
    assert!(still.cause.contains("heartbeat"), "{still:?}");
}

#[test]
#[ignore = "started by the test of the same name"]
fn links_and_boards_are_read() {
    let here = Here::new();
    let cards: Vec<DeviceId> =
        here.backend.scan().expect("scans").devices.into_iter().map(|d| d.id).collect();
    let links = here.backend.topology().expect("read");
    assert_eq!(links.len(), 8 * 7 / 2);
    let of = |a: usize, b: usize| {
        let ends = [&cards[a], &cards[b]];
        let found = links.iter().find(|l| ends.contains(&&l.a) && ends.contains(&&l.b));
        found.map(|l| (l.kind, l.lanes)).expect("a pair")
    };
    assert_eq!(of(0, 1), (LinkKind::Board, 2));
    assert_eq!(of(0, 2), (LinkKind::HostBridge, 1));
    assert_eq!(of(0, 3), (LinkKind::HostBridge, 0));
    assert_eq!(of(0, 5), (LinkKind::System, 0));
    assert_eq!(of(0, 6), (LinkKind::System, 1));
}

#[test]
#[ignore = "started by the test of the same name"]
fn nobody_but_the_host_s_root_may_create() {
    let here = Here::new();
    let card = here.enter(0, Scheme::SMLU);
    here.control.change(|s| s["permitted"] = json!(false)).expect("in a container");
    let error = here.make(&card, "vgpu-one", size(10, 1024)).expect_err("not permitted");
    assert_eq!(error.kind, ErrorKind::Permission, "{error}");
    assert!(error.to_string().contains("hostPID") && error.to_string().contains("= 13"), "{error}");
    here.control.change(|s| s["permitted"] = json!(true)).expect("on the host");
    assert!(here.backend.partitions(&card.id).expect("listed").is_empty());
}

#[test]
#[ignore = "started by the test of the same name"]
fn seventeen_sizes_are_one_too_many() {
    let here = Here::new();
    let card = here.enter(0, Scheme::SMLU);
    for n in 1..=16 {
        let made = here.make(&card, &format!("vgpu-{n}"), size(1, 256 * n));
        made.unwrap_or_else(|e| panic!("size {n}: {e}"));
    }
    let error = here.make(&card, "vgpu-17", size(1, 256 * 17)).expect_err("too many sizes");
    assert_eq!(error.kind, ErrorKind::Exhausted, "{error}");
    // By name: what lives, so that one of them can be asked for.
    assert!(error.to_string().contains("4Gi, compute 1/100"), "{error}");
    here.make(&card, "vgpu-18", size(1, 4096)).expect("a size that lives is no new one");
    let before = here.backend.partitions(&card.id).expect("listed");
    assert_eq!(before.len(), 17);

    // A resize is held to the same, and takes the place of a size that is gone.
    let first = before.iter().find(|p| p.size == size(1, 256)).expect("the first").id.clone();
    let last = before.iter().find(|p| p.size == size(1, 4096)).expect("of two").id.clone();
    let seventeenth = size(1, 256 * 17);
    let error = here.backend.resize(&last, &seventeenth).expect_err("too many sizes");
    assert_eq!(error.kind, ErrorKind::Exhausted, "{error}");
    assert!(error.to_string().contains("3840Mi, compute 1/100"), "{error}");
    assert_eq!(here.backend.partitions(&card.id).expect("listed"), before);
    here.backend.resize(&first, &size(1, 512)).expect("a size that lives");
    here.backend.resize(&last, &seventeenth).expect("the place of the first's");
}

#[test]
#[ignore = "started by the test of the same name"]
fn sixty_five_instances_are_one_too_many() {
    let here = Here::new();
    let card = here.enter(0, Scheme::SMLU);
    for n in 1..=64 {
        here.make(&card, &format!("vgpu-{n}"), size(1, 256)).expect("made");
    }
    let before = here.backend.partitions(&card.id).expect("listed");
    assert_eq!(before.len(), 64);
    let error = here.make(&card, "vgpu-65", size(1, 256)).expect_err("full");
    assert_eq!(error.kind, ErrorKind::Exhausted, "{error}");
    assert_eq!(here.backend.partitions(&card.id).expect("listed"), before);
}

#[test]
#[ignore = "started by the test of the same name"]
fn smlu_of_a_card_in_mim_mode_is_refused() {
    let here = Here::new();
    let as_smlu = here.enter(0, Scheme::SMLU);
    let as_mim = here.enter(0, Scheme::MIM);
    assert!(!as_mim.scheme(&Scheme::SMLU).expect("it has it").mode.active, "one mode at a time");
    let error = here.make(&as_mim, "vgpu-one", size(10, 1024)).expect_err("refused");
    assert_eq!(error.kind, ErrorKind::Invalid, "before any call: {error}");
    assert!(error.message.contains("mode"), "{error}");
    // By an order of before the switch.
    let error = here.make(&as_smlu, "vgpu-one", size(10, 1024)).expect_err("refused");
    assert!(error.message.contains("mode"), "{error}");
    assert_eq!(error.vendor.as_ref().map(|v| v.code), Some(10), "{error}");
    // Nor can it be had whole.
    let target = Target {
        claim: ClaimId::new("vgpu-one").expect("an id"),
        grant: Grant::Whole(as_mim.id.clone()),
    };
    let error = here.backend.edits(&[target]).expect_err("refused");
    assert!(error.message.contains("MIM mode"), "{error}");
}

#[test]
#[ignore = "started by the test of the same name"]
fn strings_without_end_and_absurd_counts_are_refused() {
    let here = Here::new();
    let card = here.enter(0, Scheme::SMLU);
    here.make(&card, "vgpu-one", size(10, 1024)).expect("made");
    here.control.set(0, "unterminated", json!(true)).expect("broken");
    let error = here.backend.partitions(&card.id).expect_err("no end");
    assert_eq!(error.kind, ErrorKind::Vendor, "{error}");
    assert!(error.message.contains("without an end within 100 bytes"), "{error}");
    here.control.set(0, "unterminated", json!(false)).expect("mended");
    here.control.set(0, "claimed_instances", json!(100_000)).expect("broken");
    let error = here.backend.partitions(&card.id).expect_err("absurd");
    assert_eq!(error.kind, ErrorKind::Vendor, "{error}");
    assert!(error.message.contains("100000 instances"), "{error}");
    // The others are served meanwhile.
    assert!(here.backend.partitions(&here.card(1).id).expect("listed").is_empty());
}

#[test]
#[ignore = "started by the test of the same name"]
fn units_that_are_no_sizes_are_refused() {
    let here = Here::new();
    let card = here.enter(0, Scheme::SMLU);
    let of = NonZeroU32::new(256).expect("not 0");
    for (what, bad) in [
        ("bytes that are MiB", Size { memory: Some(Bytes(4096)), ..size(10, 256) }),
        ("no step of 256 MiB", size(10, 300)),
        ("more than the card", size(10, 256 << 10)),
        ("no percent", size(0, 256)),
        ("more than all percents", size(101, 256)),
        (
            "steps as percent",
            Size { compute: Some(ComputeShare { units: 10, of }), ..size(1, 256) },
        ),
    ] {
        let error = here.make(&card, "vgpu-one", bad).expect_err(what);
        assert_eq!(error.kind, ErrorKind::Invalid, "{what}: {error}");
    }
    let part = here.make(&card, "vgpu-one", size(10, 1024)).expect("made");
    for bad in [size(10, 300), size(0, 1024), size(101, 1024)] {
        let error = here.backend.resize(&part.id, &bad).expect_err("no size");
        assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
    }
    assert_eq!(here.backend.partition(&part.id).expect("listed"), part);
}

#[test]
#[ignore = "started by the test of the same name"]
fn more_cards_than_any_machine_has_are_refused() {
    let library = std::env::var("VGPU_TEST_LIBRARY").expect("a library");
    let host = Host { library: Some(built(&library)), ..Host::default() };
    let Probe::Broken(error) = CambriconFactory::default().probe(&host) else {
        panic!("a library that counts 100000 cards is of no use");
    };
    assert!(error.message.contains("100000 cards"), "{error}");
}
