//! The vendor's causes, and what each means.

use vgpu_core::health::Meaning;

/// An event of ROCm SMI, by its number.
pub(crate) fn event(kind: u32) -> (Meaning, String) {
    let row = EVENTS.iter().find(|(number, _, _)| *number == kind);
    match row {
        Some((_, meaning, words)) => (*meaning, format!("smi event {kind}: {words}")),
        None => (Meaning::Suspect, format!("smi event {kind}: one this version does not know")),
    }
}

const EVENTS: &[(u32, Meaning, &str)] = &[
    (1, Meaning::TenantFault, "page fault of a process"),
    (2, Meaning::Suspect, "throttled for heat"),
    (3, Meaning::Resetting, "the card is about to be reset"),
    (4, Meaning::Changed, "the card was reset"),
];

/// Uncorrected errors of the card's memory since the driver took it: what they were in is lost, and more
/// are to come until a reset replaces the pages.
pub(crate) fn uncorrected(count: u64) -> (Meaning, String) {
    (Meaning::NeedsReset, format!("{count} uncorrected memory errors since the driver was loaded"))
}
