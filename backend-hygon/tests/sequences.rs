//! Random creates, resizes and destroys on cards of every count of units, by file and by library; with
//! restarts between, and with processes that are killed in the middle.

mod support;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use vgpu_core::{Backend, BackendExt, Bytes, ComputeShare, DeviceId, ErrorKind, Partition, Size};

use crate::support::{
    CardSpec, FakeHost, by_file, by_library, card, inside, machine, make, mask, put, ready,
};

/// Model and units of the cards that are tried, and how many sequences on each.
const CARDS: [(u32, u32); 4] = [(0x54b7, 60), (0x6370, 80), (0x6210, 120), (0x6211, 128)];
const SEQUENCES: u64 = 250;

fn one(device: u32, units: u32) -> Vec<CardSpec> {
    vec![card(0, device, units, 16_368, false)]
}

#[test]
fn a_thousand_random_sequences_by_file() {
    for (device, units) in CARDS {
        let (_folder, fake) = machine(one(device, units));
        let open = || Arc::new(by_file(&fake)) as Arc<dyn Backend>;
        (0..SEQUENCES).for_each(|seed| sequence(&fake, &open, seed));
    }
}

// A thousand by library, in four processes: the fake reads its machine from the environment.
macro_rules! by_library {
    ($($name:ident: $device:literal, $units:literal;)*) => {$(
        #[test]
        fn $name() {
            inside(stringify!($name), one($device, $units), |fake| {
                let (factory, host) = by_library(fake);
                let open = || ready(&factory, &host);
                (0..SEQUENCES).for_each(|seed| sequence(fake, &open, seed));
            });
        }
    )*};
}
by_library! {
    random_sequences_by_library_on_60_units: 0x54b7, 60;
    random_sequences_by_library_on_80_units: 0x6370, 80;
    random_sequences_by_library_on_120_units: 0x6210, 120;
    random_sequences_by_library_on_128_units: 0x6211, 128;
}

#[test]
fn killed_at_any_moment_by_file_and_nothing_overlaps_or_is_left() {
    let (_folder, fake) = machine(one(0x6210, 120));
    for round in 0..20 {
        kill_after(&fake, "file", round, 3 + round % 7);
        settled(&fake, &(Arc::new(by_file(&fake)) as Arc<dyn Backend>));
    }
}

#[test]
fn killed_in_the_middle_of_a_call_by_library_and_nothing_overlaps_or_is_left() {
    inside(
        "killed_in_the_middle_of_a_call_by_library_and_nothing_overlaps_or_is_left",
        one(0x6210, 120),
        |fake| {
            let (factory, host) = by_library(fake);
            for round in 0..10 {
                // Once from outside, once by the library itself after its nth change.
                let control = format!("{{\"kill_after\": {}}}", 1 + round % 5);
                put(&fake.control_file(), if round % 2 == 0 { "{}" } else { &control })
                    .expect("told");
                kill_after(fake, "library", round, if round % 2 == 0 { 4 } else { u64::MAX });
                put(&fake.control_file(), "{}").expect("told");
                settled(fake, &ready(&factory, &host));
            }
        },
    );
}

/// The process that is killed: it makes and unmakes until then, one line for each step.
#[test]
fn churn() {
    let Some(root) = std::env::var_os("VGPU_TEST_CHURN") else { return };
    let way = std::env::var("VGPU_TEST_WAY").expect("set beside it");
    let seed = std::env::var("VGPU_TEST_SEED").expect("set beside it").parse().expect("a number");
    let fake = FakeHost { root: PathBuf::from(root), cards: one(0x6210, 120) };
    let backend = match way.as_str() {
        "file" => Arc::new(by_file(&fake)) as Arc<dyn Backend>,
        _ => {
            let (factory, host) = by_library(&fake);
            ready(&factory, &host)
        }
    };
    let mut random = Random(seed);
    loop {
        step(&fake, &*backend, &mut random);
        println!("step");
    }
}

/// Starts the churn and kills it after so many steps; `u64::MAX` waits until it is killed by itself.
fn kill_after(fake: &FakeHost, way: &str, seed: u64, steps: u64) {
    let own = std::env::current_exe().expect("a test knows its own path");
    let mut child = Command::new(own)
        .args(["churn", "--exact", "--nocapture"])
        .env("VGPU_TEST_CHURN", &fake.root)
        .env("VGPU_TEST_WAY", way)
        .env("VGPU_TEST_SEED", seed.to_string())
        .env("FAKE_HYDMI", fake.scenario_file())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut seen = 0;
    for line in lines.map_while(Result::ok) {
        seen += u64::from(line.ends_with("step"));
        if seen >= steps {
            break;
        }
    }
    child.kill().expect("killed, or ended by itself");
    let ended = child.wait().expect("waited");
    assert!(!ended.success() && (seen >= steps || steps == u64::MAX), "it ended early: {ended}");
}

/// What a killed process left is sound, and can be taken down to nothing.
fn settled(fake: &FakeHost, backend: &Arc<dyn Backend>) {
    let id = fake.id(0);
    sound(fake, &**backend);
    let before = backend.partitions(&id).expect("listed");
    backend.sweep(&id, &[]).expect("swept");
    let after = backend.partitions(&id).expect("listed");
    let whole = |p: &&Partition| p.state == vgpu_core::PartitionState::Complete;
    assert!(before.iter().filter(whole).eq(after.iter()), "{before:?} {after:?}");
    for part in after {
        backend.destroy(&part.id).expect("destroyed");
    }
    let left: Vec<_> =
        std::fs::read_dir(fake.at("etc/vdev")).into_iter().flatten().flatten().collect();
    let ours = left.iter().filter(|e| !e.file_name().to_string_lossy().ends_with(".daemon"));
    assert_eq!(ours.count(), 0, "{left:?}");
}

fn sequence(fake: &FakeHost, open: &dyn Fn() -> Arc<dyn Backend>, seed: u64) {
    let mut random = Random(seed);
    let mut backend = open();
    let id = fake.id(0);
    for _ in 0..8 {
        step(fake, &*backend, &mut random);
        sound(fake, &*backend);
        if random.below(4) == 0 {
            let before = backend.partitions(&id).expect("listed");
            backend = open();
            assert_eq!(backend.partitions(&id).expect("listed"), before, "seed {seed}");
        }
    }
    for part in backend.partitions(&id).expect("listed") {
        backend.destroy(&part.id).expect("destroyed");
    }
    assert_eq!(fake.confs(), [], "seed {seed}");
}

/// One random change; what is refused is refused for want of room.
fn step(fake: &FakeHost, backend: &dyn Backend, random: &mut Random) {
    let id = fake.id(0);
    let total = u64::from(fake.cards[0].units);
    let parts = backend.partitions(&id).expect("listed");
    let some = parts.get(random.below(parts.len().max(1) as u64) as usize);
    match (random.below(5), some) {
        (0, Some(part)) => backend.destroy(&part.id).expect("destroyed"),
        (1, Some(part)) => resize(backend, &id, part, random),
        _ => {
            let units = 1 + random.below(total / 2);
            let memory = 1 + random.below(fake.cards[0].memory_mib / 2);
            let units = u32::try_from(units).expect("few");
            match make(backend, &id, Some(units), Some(memory)) {
                Ok(part) => assert_eq!(mask(&part).count_ones(), units),
                Err(e) => assert_eq!(e.kind, ErrorKind::Exhausted, "{e}"),
            }
        }
    }
}

fn resize(backend: &dyn Backend, id: &DeviceId, part: &Partition, random: &mut Random) {
    let card = backend.device(id).expect("there");
    let info = card.scheme(&vgpu_core::Scheme::VDCU).expect("declared");
    let memory = Some(Bytes::mib(1 + random.below(card.memory.0 >> 21)));
    let by_library = info.ownership == vgpu_core::Ownership::Difference;
    let compute = match by_library {
        true => {
            let units = 1 + random.below(u64::from(card.compute_units.get()) / 2);
            Some(ComputeShare { units: u32::try_from(units).expect("few"), of: card.compute_units })
        }
        false => part.size.compute,
    };
    let size = Size { compute, memory };
    match backend.resize(&part.id, &size) {
        Ok(changed) => {
            assert_eq!((&changed.id, changed.size), (&part.id, size));
            assert_eq!(backend.partition(&part.id).expect("listed"), changed);
        }
        Err(e) => {
            assert_eq!(e.kind, ErrorKind::Exhausted, "{e}");
            assert_eq!(backend.partition(&part.id).expect("listed"), *part, "as it was");
        }
    }
}

/// Masks are disjoint and within the card, memory is within the card, and no more than four are there.
fn sound(fake: &FakeHost, backend: &dyn Backend) {
    let parts = backend.partitions(&fake.id(0)).expect("listed");
    let parts: Vec<_> =
        parts.iter().filter(|p| p.state == vgpu_core::PartitionState::Complete).collect();
    let units = fake.cards[0].units;
    let mut taken = 0_u128;
    for part in &parts {
        let mask = mask(part);
        assert_eq!(mask & taken, 0, "{parts:?}");
        assert!(units == 128 || mask >> units == 0, "{mask:x} of {units}");
        taken |= mask;
    }
    let memory: u64 = parts.iter().filter_map(|p| p.size.memory).map(|m| m.0 >> 20).sum();
    assert!(memory <= fake.cards[0].memory_mib && parts.len() <= 4, "{parts:?}");
}

/// A small generator of numbers; the seed is in every message.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end.max(1)
    }
}
