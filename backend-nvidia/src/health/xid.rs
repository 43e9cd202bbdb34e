//! What an XID means, as a table: number, name, meaning.
//!
//! The driver writes an XID to the kernel log and raises it as an event. Sources: NVIDIA's XID
//! catalog, and the list of application faults that NVIDIA's own device plugin ignores. A number
//! that is not here is [`Meaning::Suspect`]: what we do not know is watched, neither ignored nor
//! fatal.

use vgpu_core::Meaning;

/// One kind of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Xid {
    /// Its number.
    pub number: u64,
    /// In words.
    pub name: &'static str,
    /// For the card; [`XID_RECOVERY_ACTION`] is decided by the action that the driver names.
    pub meaning: Meaning,
}

/// The XID that says "the recovery action changed": read which.
pub const XID_RECOVERY_ACTION: u64 = 154;

/// The row of a number.
pub fn xid(number: u64) -> Xid {
    let unknown = Xid { number, name: "unknown to this version", meaning: Meaning::Suspect };
    XIDS.iter().find(|row| row.number == number).copied().unwrap_or(unknown)
}

const fn row(number: u64, name: &'static str, meaning: Meaning) -> Xid {
    Xid { number, name, meaning }
}

/// The table, by number.
pub const XIDS: &[Xid] = &[
    row(13, "graphics engine exception", Meaning::TenantFault),
    row(31, "memory page fault", Meaning::TenantFault),
    row(43, "stopped processing", Meaning::TenantFault),
    row(45, "preemptive cleanup", Meaning::TenantFault),
    row(48, "double bit memory error", Meaning::NeedsReset),
    row(63, "memory row or page to be replaced", Meaning::NeedsReset),
    row(64, "memory row or page could not be replaced", Meaning::NeedsReset),
    row(68, "video decoder exception", Meaning::TenantFault),
    row(74, "NVLink error", Meaning::NeedsReset),
    row(79, "fell off the bus", Meaning::Lost),
    row(92, "many single bit memory errors", Meaning::Suspect),
    // The tenant whose memory it was must start anew, and did nothing wrong. The others go on; what
    // the card needs (a replaced row) `check` reads.
    row(94, "contained memory error", Meaning::Suspect),
    row(95, "uncontained memory error", Meaning::NeedsReset),
    row(109, "context switch timeout", Meaning::TenantFault),
    row(119, "GSP firmware does not answer", Meaning::NeedsReset),
    row(120, "GSP firmware error", Meaning::NeedsReset),
    row(140, "unrecovered memory error", Meaning::NeedsReset),
    row(143, "initialization error", Meaning::NeedsReset),
    row(XID_RECOVERY_ACTION, "recovery action changed", Meaning::Suspect),
];

/// What the driver says would bring a card back (field 230).
pub(crate) fn recovery_action(action: u64) -> (Meaning, &'static str) {
    match action {
        0 => (Meaning::Good, "no recovery needed"),
        1 => (Meaning::NeedsReset, "reset needed"),
        2 => (Meaning::NeedsReboot, "reboot needed"),
        3 => (Meaning::Suspect, "peer-to-peer work is to be drained"),
        4 => (Meaning::NeedsReset, "work is to be drained, then reset needed"),
        5 => (Meaning::Suspect, "IMEX is to be recovered"),
        _ => (Meaning::Suspect, "a recovery that this version does not know"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_says_each_once() {
        assert!(XIDS.windows(2).all(|pair| pair[0].number < pair[1].number));
        assert_eq!(xid(79).meaning, Meaning::Lost);
        assert_eq!(xid(31).meaning, Meaning::TenantFault);
        assert_eq!((xid(4711).number, xid(4711).meaning), (4711, Meaning::Suspect));
    }
}
