//! Machines by name.

use crate::scenario::{Card, Era, MimRow, Scenario};

pub(crate) const NAMES: &[&str] = &["cndev-3.9", "cndev-4.0", "cndev-6.5", "mlu370x8"];

pub(crate) fn of(name: &str) -> Option<Scenario> {
    match name {
        "cndev-3.9" => Some(machine(Era::V3_9, [5, 10, 27], 2, "MLU370-S4", 24, 0)),
        "cndev-4.0" => Some(machine(Era::V4_0, [6, 2, 2], 4, "MLU370-X4", 24, 256)),
        "cndev-6.5" => Some(newest()),
        "mlu370x8" => Some(mlu370x8()),
        _ => None,
    }
}

/// One machine of plain cards, whose handles are their indices.
fn machine(
    era: Era,
    driver: [u32; 3],
    cards: u32,
    name: &str,
    gib: u64,
    reserved: u64,
) -> Scenario {
    let card = |index: u32| Card {
        name: name.to_owned(),
        uuid: uuid(0x3900, index),
        pci: format!("0000:{:02x}:00.0", 0x41 + index),
        pci_device_id: 0x370,
        handle: index.cast_signed(),
        minor: index,
        memory_mib: gib << 10,
        reserved_mib: reserved,
        cores: 16,
        numa: Some(0),
        board: None,
        links: Vec::new(),
        smlu: true,
        mim: Vec::new(),
        mim_only_in_mode: false,
        // As old libraries do.
        unterminated: era == Era::V3_9,
    };
    Scenario { era, driver, cards: (0..cards).map(card).collect(), state: None, device_count: None }
}

/// A new library on cards whose model it does not know, one of them without sMLU and MIM.
fn newest() -> Scenario {
    let mut scenario = machine(Era::V6_5, [6, 5, 24], 4, "MLU590-H8", 80, 1024);
    for card in &mut scenario.cards {
        card.mim = table(80, true);
        card.cores = 48;
        card.uuid.replace_range(0..4, "6524");
    }
    scenario.cards[2].name = String::new();
    scenario.cards[2].numa = Some(-1);
    scenario.cards[3].smlu = false;
    scenario.cards[3].mim = Vec::new();
    scenario
}

/// Four boards of two chips, linked in pairs and in a ring; nothing is numbered alike.
fn mlu370x8() -> Scenario {
    let mut scenario = machine(Era::V6_5, [6, 2, 11], 8, "MLU370-X8", 48, 512);
    let uuids: Vec<String> = (0..8).map(|index| uuid(0x3708, index)).collect();
    for (index, card) in scenario.cards.iter_mut().enumerate() {
        let n = u32::try_from(index).unwrap_or_default();
        card.uuid.clone_from(&uuids[index]);
        card.pci = format!("0000:{:02x}:00.{}", 0x10 + n / 2 * 0x10, n % 2);
        card.handle = 0x100 + n.cast_signed() * 3;
        card.minor = n ^ 1;
        card.cores = 24;
        card.numa = Some((n / 4).cast_signed());
        card.board = Some(n / 2);
        card.mim = table(48, false);
        let (other, next) = (index ^ 1, (index + 2) % 8);
        card.links = vec![uuids[other].clone(), uuids[other].clone(), uuids[next].clone()];
    }
    scenario
}

/// Six slices; the library gives memory in GiB or in MiB.
fn table(gib: i32, in_mib: bool) -> Vec<MimRow> {
    let row = |number: i32, slices: i32, starts: &[i32]| {
        let part = gib / 6 * slices;
        MimRow {
            number,
            id: 16 + number,
            name: format!("{slices}m.{part}gb"),
            cores: slices * 4,
            memory: if in_mib { part << 10 } else { part },
            starts: starts.to_vec(),
            len: slices,
        }
    };
    vec![row(0, 1, &[0, 1, 2, 3, 4, 5]), row(2, 2, &[0, 2, 4]), row(4, 3, &[0, 3]), row(7, 6, &[0])]
}

fn uuid(model: u32, index: u32) -> String {
    format!("{model:04x}{index:04x}-6d6c-7500-a000-00000000{index:04x}")
}
