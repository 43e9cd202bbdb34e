//! Machines by name.

use crate::mig_tables::Model;
use crate::scenario::{
    Card, Event, LinkKind, MemorySpec, Mig, NvLink, Process, Rows, Scenario, State,
};

/// Every preset, as it is named in `FAKE_NVML`.
pub(crate) const NAMES: &[&str] = &[
    "a100-mig",
    "a100x4",
    "ampere-events",
    "driver-470",
    "driver-535",
    "driver-550",
    "driver-580",
    "driver-615",
    "h100-mig",
    "h100x8",
    "h200x2",
    "h200x8",
    "lost-one",
    "mixed-models",
    "no-cards",
    "no-driver",
    "old-driver",
    "t4x1",
];

/// Single and double bit errors, critical XIDs, MIG changes.
const AMPERE_EVENTS: u64 = 0x1 | 0x2 | 0x8 | 0x100;
/// Those, "unavailable" and "recovery action".
const HOPPER_EVENTS: u64 = AMPERE_EVENTS | 0x4000 | 0x8000;

/// Functions newer than driver 450.
const SINCE_450: &[&str] = &[
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetNumGpuCores",
    "nvmlDeviceGetNvLinkRemoteDeviceType",
    "nvmlDeviceGetRemappedRows",
];

/// Functions that driver 510 (CUDA 11.6) brought.
const SINCE_510: &[&str] = &[
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetGpuInstanceProfileInfoV",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetNumGpuCores",
];

/// Functions that driver 615 brought.
const SINCE_615: &[&str] = &["nvmlDeviceGetMemoryLimits_v1", "nvmlDeviceSetMemoryLimits_v1"];

pub(crate) fn find(name: &str) -> Option<Scenario> {
    let machine = match name {
        "a100-mig" => Scenario { cards: in_mig_mode(a100s(2)), ..empty() },
        "a100x4" => Scenario { cards: a100s(4), ..empty() },
        "ampere-events" => ampere_events(),
        "driver-470" => driver_470(),
        "driver-535" => {
            let a100 = in_mig_mode(vec![a100(0)]).remove(0);
            driver("535.183.06", 12_020, vec![a100, h100(1), l40s(2), t4(3)])
        }
        "driver-550" => driver("550.144.03", 12_040, vec![h100(0), h200(1), l40s(2), t4(3)]),
        "driver-580" => driver("580.95.05", 13_000, vec![h200(0), b200(1), h100(2), t4(3)]),
        "driver-615" => driver("615.32.01", 13_030, vec![h200(0), b200(1), l40s(2)]),
        "h100-mig" => Scenario { cards: in_mig_mode(h100s(2)), ..empty() },
        "h100x8" => Scenario { cards: h100s(8), ..empty() },
        "h200x2" => Scenario { cards: h200s(2), ..empty() },
        "h200x8" => Scenario { cards: h200s(8), ..empty() },
        "lost-one" => lost_one(),
        "mixed-models" => mixed_models(),
        "no-cards" => empty(),
        "no-driver" => Scenario { init: crate::abi::DRIVER_NOT_LOADED, ..empty() },
        "old-driver" => old_driver(),
        "t4x1" => Scenario { cards: vec![t4(0)], ..empty() },
        _ => return None,
    };
    Some(machine)
}

/// A driver without cards.
pub(crate) fn empty() -> Scenario {
    Scenario {
        driver_version: "570.124.06".to_owned(),
        cuda_version: 12_080,
        privileged: true,
        ..Scenario::default()
    }
}

fn ampere_events() -> Scenario {
    let mut cards = a100s(2);
    cards[0].mig = Some(Mig { current: 1, pending: 1 });
    let event = |wait, card, event_type, data| Event {
        id: String::new(),
        card,
        event_type,
        data,
        gi: None,
        ci: None,
        after_ms: None,
        on_wait: Some(wait),
    };
    let events = vec![
        event(1, 0, 0x8, 43),
        Event { gi: Some(3), ci: Some(0), ..event(2, 0, 0x8, 94) },
        event(3, 1, 0x8, 48),
        event(4, 1, 0x2, 0),
    ];
    Scenario { cards, events, ..empty() }
}

fn lost_one() -> Scenario {
    let mut cards = a100s(4);
    cards[2].state = State::Lost;
    Scenario { cards, ..empty() }
}

fn mixed_models() -> Scenario {
    let mut h200 = h200(0);
    h200.nvlinks.clear();
    let mut a100 = a100(1);
    a100.processes.push(Process {
        pid: 4242,
        used_mib: Some(1024),
        gi: None,
        ci: None,
        slice: None,
    });
    a100.memory.used_mib = 1024;
    Scenario { cards: vec![h200, a100, t4(2), l40s(3)], ..empty() }
}

/// The functions are there and answer that the driver has none such; for a library without them see `old.rs`.
fn old_driver() -> Scenario {
    let lacks = SINCE_450.iter().map(|name| (*name).to_owned()).collect();
    let mut cards = a100s(2);
    for card in &mut cards {
        card.recovery_action = None;
        card.supported_events = 0x1 | 0x2 | 0x8;
    }
    Scenario {
        driver_version: "450.248.02".to_owned(),
        cuda_version: 11_000,
        cards,
        lacks,

        ..empty()
    }
}

/// Cards of which MIG mode was on when the driver was loaded.
fn in_mig_mode(mut cards: Vec<Card>) -> Vec<Card> {
    for card in &mut cards {
        card.mig = Some(Mig { current: 1, pending: 1 });
    }
    cards
}

/// A driver of this version with cards that it knew. What it has no field or event for, its cards do not tell.
fn driver(version: &str, cuda_version: i32, mut cards: Vec<Card>) -> Scenario {
    let major: u32 = version.split('.').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    if major < 570 {
        for card in &mut cards {
            card.recovery_action = None;
            card.supported_events &= !0xc000;
        }
    }
    let hidden = SINCE_615.iter().filter(|_| major < 615).map(|name| (*name).to_owned()).collect();
    Scenario { driver_version: version.to_owned(), cuda_version, cards, hidden, ..empty() }
}

/// The symbols that came after are not there at all.
fn driver_470() -> Scenario {
    let mut cards = in_mig_mode(vec![a100(0)]);
    cards.extend([a100(1), t4(2)]);
    let mut scenario = driver("470.256.02", 11_040, cards);
    scenario.hidden.extend(SINCE_510.iter().map(|name| (*name).to_owned()));
    scenario
}

fn h100s(count: u32) -> Vec<Card> {
    (0..count).map(h100).collect()
}

fn h200s(count: u32) -> Vec<Card> {
    (0..count).map(h200).collect()
}

/// Four cards, each with four direct links to every other.
fn a100s(count: u32) -> Vec<Card> {
    let mut cards: Vec<Card> = (0..count).map(a100).collect();
    let addresses: Vec<String> = cards.iter().map(|card| card.pci.clone()).collect();
    for card in &mut cards {
        for remote in addresses.iter().filter(|address| **address != card.pci) {
            let link = NvLink { remote: remote.clone(), kind: LinkKind::Gpu, active: true };
            card.nvlinks.extend(std::iter::repeat_n(link, 4));
        }
    }
    cards
}

fn h100(index: u32) -> Card {
    Card {
        nvlinks: h200(index).nvlinks,
        compute_capability: Some([9, 0]),
        mig: Some(Mig { current: 0, pending: 0 }),
        mig_table: Some(Model::H100),
        supported_events: HOPPER_EVENTS,
        ..card(index, "NVIDIA H100 80GB HBM3", 0x2330, 81_559, 16_896)
    }
}

fn b200(index: u32) -> Card {
    Card {
        compute_capability: Some([10, 0]),
        mig: Some(Mig { current: 0, pending: 0 }),
        mig_table: Some(Model::B200),
        supported_events: HOPPER_EVENTS,
        ..card(index, "NVIDIA B200", 0x2901, 183_359, 18_944)
    }
}

/// 18 links over four switches, so that every card reaches every other.
fn h200(index: u32) -> Card {
    let switches = [(0x05_u32, 5), (0x06, 4), (0x07, 4), (0x08, 5)];
    let link = |bus: u32| NvLink {
        remote: format!("0000:{bus:02x}:00.0"),
        kind: LinkKind::Switch,
        active: true,
    };
    Card {
        nvlinks: switches.iter().flat_map(|(bus, n)| std::iter::repeat_n(link(*bus), *n)).collect(),
        compute_capability: Some([9, 0]),
        mig: Some(Mig { current: 0, pending: 0 }),
        mig_table: Some(Model::H200),
        supported_events: HOPPER_EVENTS,
        ..card(index, "NVIDIA H200", 0x2335, 143_771, 16_896)
    }
}

fn a100(index: u32) -> Card {
    Card {
        compute_capability: Some([8, 0]),
        mig: Some(Mig { current: 0, pending: 0 }),
        mig_table: Some(Model::A100),
        supported_events: AMPERE_EVENTS,
        ..card(index, "NVIDIA A100-SXM4-40GB", 0x20b0, 40_960, 6_912)
    }
}

fn t4(index: u32) -> Card {
    Card {
        compute_capability: Some([7, 5]),
        supported_events: 0x1 | 0x2 | 0x8,
        recovery_action: None,
        remapped_rows: None,
        retired_pending: Some(false),
        ..card(index, "Tesla T4", 0x1eb8, 15_360, 2_560)
    }
}

fn l40s(index: u32) -> Card {
    Card {
        compute_capability: Some([8, 9]),
        supported_events: 0x1 | 0x2 | 0x8,
        ..card(index, "NVIDIA L40S", 0x26b9, 46_068, 18_176)
    }
}

/// What every card has: two cards to a PCI switch, four to a NUMA node.
fn card(index: u32, name: &str, device: u32, total_mib: u64, cores: u32) -> Card {
    const BUSES: [u32; 8] = [0x1b, 0x43, 0x52, 0x61, 0x9d, 0xc3, 0xd1, 0xdf];
    let bus = usize::try_from(index).ok().and_then(|index| BUSES.get(index)).copied();
    Card {
        name: name.to_owned(),
        uuid: format!("GPU-{device:08x}-0000-4000-8000-{index:012x}"),
        pci: format!("0000:{:02x}:00.0", bus.unwrap_or(0xe0 + index)),
        minor: index,
        memory: MemorySpec { total_mib, reserved_mib: 512, used_mib: 0 },
        pci_device_id: device << 16 | 0x10de,
        pci_subsystem_id: 0x16c1_10de,
        cores: Some(cores),
        compute_capability: None,
        numa: Some(index / 4),
        pci_switch: Some(index / 2),
        mig: None,
        mig_table: None,
        mig_profiles: Vec::new(),
        nvlinks: Vec::new(),
        processes: Vec::new(),
        claimed_processes: None,
        state: State::Ok,
        handle_code: 0,
        supported_events: 0,
        recovery_action: Some(0),
        remapped_rows: Some(Rows { corrected: 0, uncorrected: 0, pending: false, failed: false }),
        retired_pending: None,
        ecc_uncorrected: Some(0),
        temperature: Some(34),
        shutdown_temperature: Some(92),
        slowdown_temperature: Some(89),
        unterminated: Vec::new(),
        name_bytes: None,
    }
}
