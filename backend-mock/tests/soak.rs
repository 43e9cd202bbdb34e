//! Whatever is ordered, crashed, resized and swept in whatever order: no card holds more than it
//! has, nothing overlaps, and nothing is left in the end. Seeded; the seed is printed.

use std::sync::Arc;

use vgpu_backend_mock::{Machine, MockFactory, Op, Preset};
use vgpu_core::{
    Backend, BackendFactory, Bytes, ClaimId, ComputeShare, CreateOrder, Device, ErrorKind, Host,
    Partition, PartitionState, PlacedBy, Placement, Probe, Shape, Size, Sizing,
};

/// splitmix64: the same numbers everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn pick<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        if list.is_empty() { None } else { list.get(self.roll(list.len() as u64) as usize) }
    }
}

/// Any order that the card's description admits.
fn any_order(dice: &mut Dice, device: &Device, n: u64) -> Option<CreateOrder> {
    let carved: Vec<_> = device
        .schemes
        .iter()
        .filter(|s| s.mode.active && s.form == vgpu_core::Form::Carved)
        .collect();
    let info = *dice.pick(&carved)?;
    let claim = ClaimId::new(format!("claim-{n}")).expect("a claim");
    let (shape, placement) = match &info.sizing {
        Sizing::Profiles(table) => {
            let profile = dice.pick(table)?;
            let slots = *dice.pick(&profile.placements)?;
            (Shape::Profile(profile.id.clone()), Placement::Slots(slots))
        }
        Sizing::Range(range) => {
            let compute = range.compute.map(|grid| {
                let units = 1 + dice.roll(u64::from(grid.of.get()) / 3) as u32;
                ComputeShare { units, of: grid.of }
            });
            let memory = range.memory.map(|grid| {
                Bytes(grid.step.0 * (1 + dice.roll(device.memory.0 / grid.step.0 / 3)))
            });
            let placement = match range.placed_by {
                PlacedBy::Driver => Placement::Driver,
                PlacedBy::Planner => {
                    let share = compute?;
                    let first = dice.roll(u64::from(share.of.get() - share.units) + 1) as u32;
                    let mut mask = vec![0_u64; 2];
                    for unit in first..first + share.units {
                        mask[(unit / 64) as usize] |= 1 << (unit % 64);
                    }
                    Placement::Units(mask)
                }
            };
            (Shape::Size(Size { compute, memory }), placement)
        }
        Sizing::Turns | Sizing::Whole => return None,
    };
    Some(CreateOrder::admit(device, &info.scheme, shape, placement, claim).expect("admitted"))
}

fn holds_together(device: &Device, parts: &[Partition]) {
    for (i, a) in parts.iter().enumerate() {
        for b in &parts[i + 1..] {
            assert_ne!(a.id, b.id);
            assert!(!a.placement.overlaps(&b.placement), "{} and {}", a.id, b.id);
        }
    }
    let memory: u64 = parts.iter().filter_map(|p| p.size.memory).map(|m| m.0).sum();
    assert!(memory <= device.memory.0, "{} of {}", Bytes(memory), device.memory);
    for share in parts.iter().filter_map(|p| p.size.compute) {
        let units: u32 = parts.iter().filter_map(|p| p.size.compute).map(|c| c.units).sum();
        assert!(units <= share.of.get(), "{units} of {}", share.of);
    }
}

fn soak(preset: Preset, seed: u64) {
    let mut dice = Dice(seed);
    let machine: Arc<Machine> = Machine::new(preset).expect("a machine");
    let Probe::Ready(backend) = MockFactory::combined(&machine).probe(&Host::default()) else {
        panic!("the machine has cards");
    };
    let backend: Arc<dyn Backend> = backend;
    let devices = backend.scan().expect("a scan").devices;
    for n in 0..400 {
        let device = dice.pick(&devices).expect("a card");
        let parts = backend.partitions(&device.id).expect("parts");
        match dice.roll(8) {
            0..4 => {
                let Some(order) = any_order(&mut dice, device, n) else { continue };
                let crash = dice.roll(5) == 0;
                if crash {
                    let after = 1 + dice.roll(2) as u32;
                    machine.faults().crash(Op::Create, &device.id, after).expect("a rule");
                }
                match backend.create(&order) {
                    Ok(_) => {}
                    Err(e) if e.kind == ErrorKind::Exhausted => {}
                    Err(e) if crash && e.kind == ErrorKind::InDoubt => {}
                    Err(e) => panic!("{order:?}: {e}"),
                }
                machine.faults().take_all_back().expect("a machine");
            }
            4..6 => {
                if let Some(part) = dice.pick(&parts) {
                    backend.destroy(&part.id).expect("nobody holds it");
                }
            }
            6 => {
                let complete = parts.iter().filter(|p| p.state == PartitionState::Complete).count();
                backend.sweep(&device.id, &[]).expect("a sweep");
                let left = backend.partitions(&device.id).expect("parts");
                assert_eq!(left.len(), complete, "a sweep takes halves and only those");
            }
            _ => {
                let Some(part) = dice.pick(&parts) else { continue };
                let half = part.size.memory.map(|m| Bytes((m.0 / 2).next_multiple_of(1 << 28)));
                let size = Size { memory: half, ..part.size };
                match backend.resize(&part.id, &size) {
                    Ok(_) => {}
                    Err(e) if matches!(e.kind, ErrorKind::Exhausted | ErrorKind::Unsupported) => {}
                    Err(e) => panic!("{} to {size}: {e}", part.id),
                }
            }
        }
        holds_together(device, &backend.partitions(&device.id).expect("parts"));
    }
    for device in &devices {
        for part in backend.partitions(&device.id).expect("parts") {
            backend.destroy(&part.id).expect("nobody holds it");
        }
        backend.sweep(&device.id, &[]).expect("a sweep");
        assert_eq!(backend.sweep(&device.id, &[]).expect("a sweep"), [], "nothing is left");
    }
    assert_eq!(machine.all_parts().expect("parts"), []);
}

#[test]
fn cards_never_hold_more_than_they_have() {
    use strum::IntoEnumIterator;
    for preset in Preset::iter().filter(|p| *p != Preset::Empty) {
        for seed in 1..=3 {
            println!("{preset}, seed {seed}");
            soak(preset, seed);
        }
    }
}
