//! What the driver's words mean for a card, as tables: number, name, meaning.
//!
//! Sources: the library's enumerations, and the vendor's own device plugin, which gives out no card that is "in
//! problem". A number that is not here is [`Meaning::Suspect`]: what we do not know is watched, neither ignored nor
//! fatal. What an XID means is not public.

use vgpu_core::Meaning;

/// A state of the driver for one card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DriverState {
    /// Its number.
    pub number: i32,
    /// As the library calls it.
    pub name: &'static str,
    /// For the card.
    pub meaning: Meaning,
}

/// A part of the card that an incident is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct System {
    /// The library's bit of it.
    pub bit: i32,
    /// In words.
    pub name: &'static str,
    /// What its failure means for the card.
    pub failed: Meaning,
}

/// The states, by number.
pub const DRIVER_STATES: &[DriverState] = &[
    state(0, "EARLY_INITED", Meaning::Resetting),
    state(1, "BRING_UP", Meaning::Resetting),
    state(2, "BOOTING", Meaning::Resetting),
    state(3, "LATEINIT", Meaning::Resetting),
    state(4, "RUNNING", Meaning::Good),
    state(5, "BOOT_ERROR", Meaning::NeedsReset),
    state(6, "RESET", Meaning::Resetting),
    state(7, "RESET_ERROR", Meaning::NeedsReboot),
    state(8, "UNKNOWN", Meaning::Unknown),
];

/// The parts of a card, by bit. Its links to other cards and its sensors may fail while it computes.
pub const SYSTEMS: &[System] = &[
    system(0x01, "PCIe", Meaning::NeedsReset),
    system(0x02, "MLU-Link", Meaning::Suspect),
    system(0x04, "power management unit", Meaning::Suspect),
    system(0x08, "microcontroller", Meaning::NeedsReset),
    system(0x10, "memory", Meaning::NeedsReset),
    system(0x20, "temperature", Meaning::Suspect),
    system(0x40, "power", Meaning::NeedsReset),
    system(0x80, "driver", Meaning::NeedsReset),
];

/// The row of a state.
pub(crate) fn driver_state(number: i32) -> DriverState {
    let unknown = state(number, "a state that this version does not know", Meaning::Suspect);
    DRIVER_STATES.iter().find(|row| row.number == number).copied().unwrap_or(unknown)
}

/// What an incident means: a warning is watched, a failure is the system's.
pub(crate) fn incident(system: i32, result: i32) -> (Meaning, &'static str) {
    let row = SYSTEMS.iter().find(|row| row.bit == system);
    let name = row.map_or("a part that this version does not know", |row| row.name);
    match result {
        PASS => (Meaning::Good, name),
        FAIL => (row.map_or(Meaning::Suspect, |row| row.failed), name),
        _ => (Meaning::Suspect, name),
    }
}

/// What the overall word means, where no incident says more.
pub(crate) fn overall(result: i32) -> Meaning {
    match result {
        PASS => Meaning::Good,
        FAIL => Meaning::NeedsReset,
        _ => Meaning::Suspect,
    }
}

const PASS: i32 = 0;
const FAIL: i32 = 20;

const fn state(number: i32, name: &'static str, meaning: Meaning) -> DriverState {
    DriverState { number, name, meaning }
}

const fn system(bit: i32, name: &'static str, failed: Meaning) -> System {
    System { bit, name, failed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_say_each_once_and_only_running_is_good() {
        assert!(DRIVER_STATES.windows(2).all(|pair| pair[0].number < pair[1].number));
        assert!(SYSTEMS.windows(2).all(|pair| pair[0].bit < pair[1].bit));
        let good: Vec<i32> =
            DRIVER_STATES.iter().filter(|s| s.meaning == Meaning::Good).map(|s| s.number).collect();
        assert_eq!(good, [4]);
        assert_eq!(driver_state(99).meaning, Meaning::Suspect);
        assert_eq!(incident(0x10, 20).0, Meaning::NeedsReset);
        assert_eq!(incident(0x20, 10).0, Meaning::Suspect);
        assert_eq!(incident(0x4000, 20).0, Meaning::Suspect);
        assert_eq!(incident(0x10, 0).0, Meaning::Good);
    }
}
