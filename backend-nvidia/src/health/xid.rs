//! What an XID means, as a table: number, name, what NVIDIA says to do, meaning.
//!
//! The driver writes an XID to the kernel log and raises it as an event. Source: the column "immediate
//! action" of NVIDIA's XID catalog (Ampere and newer; its unused rows are left out). A number that is
//! not here is [`Meaning::Suspect`]: what we do not know is watched, neither ignored nor fatal.

use vgpu_core::Meaning;

/// One kind of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Xid {
    /// Its number.
    pub number: u64,
    /// In words.
    pub name: &'static str,
    /// What NVIDIA's catalog says to do at once.
    pub action: Action,
    /// For the card; [`XID_RECOVERY_ACTION`] is decided by the action that the driver names.
    pub meaning: Meaning,
}

/// What NVIDIA's catalog says to do at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Read the recovery action: it depends.
    AskDriver,
    /// Look at cables and power.
    CheckHardware,
    /// Nothing.
    Ignore,
    /// Reset the card.
    ResetGpu,
    /// Start the tenant anew.
    RestartApp,
    /// Reboot the machine.
    RestartHost,
    /// Ask NVIDIA or the vendor of the machine.
    Support,
    /// Update driver or firmware.
    Update,
}

impl Action {
    /// In words, for the one who reads the cause.
    pub fn words(self) -> &'static str {
        match self {
            Self::AskDriver => "the driver's recovery action says what to do",
            Self::CheckHardware => "check power and cables",
            Self::Ignore => "nothing to do",
            Self::ResetGpu => "reset the card",
            Self::RestartApp => "start the application anew",
            Self::RestartHost => "reboot the machine",
            Self::Support => "contact support if it comes again",
            Self::Update => "update driver and firmware",
        }
    }
}

/// The XID that says "the recovery action changed": read which.
pub const XID_RECOVERY_ACTION: u64 = 154;

/// The row of a number.
pub fn xid(number: u64) -> Xid {
    let unknown = row(number, "unknown to this version", Action::Support, Meaning::Suspect);
    XIDS.iter().find(|row| row.number == number).copied().unwrap_or(unknown)
}

const fn row(number: u64, name: &'static str, action: Action, meaning: Meaning) -> Xid {
    Xid { number, name, action, meaning }
}

/// The table, by number.
pub const XIDS: &[Xid] = &[
    row(8, "engine does not come to an end", Action::RestartApp, Meaning::TenantFault),
    row(13, "graphics engine exception", Action::RestartApp, Meaning::TenantFault),
    row(25, "invalid push buffer", Action::RestartApp, Meaning::TenantFault),
    row(31, "memory page fault", Action::RestartApp, Meaning::TenantFault),
    row(32, "corrupted push buffer", Action::RestartApp, Meaning::TenantFault),
    row(37, "firmware method that is not there", Action::Ignore, Meaning::TenantFault),
    row(38, "firmware watchdog", Action::Ignore, Meaning::Suspect),
    row(39, "copy engine exception", Action::RestartApp, Meaning::TenantFault),
    row(40, "copy engine exception", Action::RestartApp, Meaning::TenantFault),
    row(41, "copy engine exception", Action::RestartApp, Meaning::TenantFault),
    row(43, "stopped processing", Action::Ignore, Meaning::TenantFault),
    row(44, "fault during a context switch", Action::Ignore, Meaning::TenantFault),
    row(45, "preemptive cleanup", Action::Ignore, Meaning::TenantFault),
    row(46, "GPU timed out", Action::ResetGpu, Meaning::NeedsReset),
    row(48, "double bit memory error", Action::ResetGpu, Meaning::NeedsReset),
    row(54, "auxiliary power is not connected", Action::CheckHardware, Meaning::Suspect),
    row(60, "security processor exception", Action::RestartApp, Meaning::TenantFault),
    row(62, "power controller halted", Action::ResetGpu, Meaning::NeedsReset),
    // What is left to do is read by `check`: the row that waits for a reset.
    row(63, "memory row or page to be replaced", Action::Ignore, Meaning::Suspect),
    row(64, "memory row or page could not be replaced", Action::ResetGpu, Meaning::NeedsReset),
    row(66, "illegal access by the driver", Action::Ignore, Meaning::Suspect),
    row(67, "illegal access by the driver", Action::Ignore, Meaning::Suspect),
    row(68, "video decoder exception", Action::RestartApp, Meaning::TenantFault),
    row(69, "graphics engine class error", Action::RestartApp, Meaning::TenantFault),
    row(70, "copy engine exception", Action::RestartApp, Meaning::TenantFault),
    row(71, "copy engine exception", Action::RestartApp, Meaning::TenantFault),
    row(72, "copy engine exception", Action::RestartApp, Meaning::TenantFault),
    row(74, "NVLink error", Action::ResetGpu, Meaning::NeedsReset),
    row(75, "copy engine exception", Action::RestartApp, Meaning::TenantFault),
    row(76, "copy engine exception", Action::RestartApp, Meaning::TenantFault),
    row(77, "copy engine exception", Action::RestartApp, Meaning::TenantFault),
    row(78, "vGPU does not start", Action::Update, Meaning::Suspect),
    row(79, "fell off the bus", Action::RestartHost, Meaning::Lost),
    row(80, "corrupted data was sent", Action::RestartApp, Meaning::TenantFault),
    row(82, "JPEG engine exception", Action::RestartApp, Meaning::TenantFault),
    row(83, "video decoder exception", Action::RestartApp, Meaning::TenantFault),
    row(84, "video decoder exception", Action::RestartApp, Meaning::TenantFault),
    row(85, "copy engine exception", Action::RestartApp, Meaning::TenantFault),
    row(86, "optical flow exception", Action::RestartApp, Meaning::TenantFault),
    row(88, "video decoder exception", Action::RestartApp, Meaning::TenantFault),
    row(89, "video decoder exception", Action::RestartApp, Meaning::TenantFault),
    row(92, "many single bit memory errors", Action::Ignore, Meaning::Suspect),
    row(93, "InfoROM written too often", Action::Ignore, Meaning::TenantFault),
    // The tenant whose memory it was must start anew, and did nothing wrong. The others go on; what
    // the card needs (a replaced row) `check` reads.
    row(94, "contained memory error", Action::RestartApp, Meaning::Suspect),
    row(95, "uncontained memory error", Action::ResetGpu, Meaning::NeedsReset),
    row(96, "video decoder exception", Action::RestartApp, Meaning::TenantFault),
    row(97, "video decoder exception", Action::RestartApp, Meaning::TenantFault),
    row(98, "video decoder exception", Action::RestartApp, Meaning::TenantFault),
    row(99, "JPEG engine exception", Action::RestartApp, Meaning::TenantFault),
    row(100, "JPEG engine exception", Action::RestartApp, Meaning::TenantFault),
    row(101, "JPEG engine exception", Action::RestartApp, Meaning::TenantFault),
    row(102, "JPEG engine exception", Action::RestartApp, Meaning::TenantFault),
    row(103, "JPEG engine exception", Action::RestartApp, Meaning::TenantFault),
    row(104, "JPEG engine exception", Action::RestartApp, Meaning::TenantFault),
    row(105, "JPEG engine exception", Action::RestartApp, Meaning::TenantFault),
    row(106, "test message", Action::Ignore, Meaning::TenantFault),
    row(107, "test message", Action::Ignore, Meaning::TenantFault),
    // The catalog asks for a reset; a tenant's endless kernel can bring it about too, so that the
    // recovery action that the driver names decides.
    row(109, "context switch timeout", Action::ResetGpu, Meaning::Suspect),
    row(110, "security fault", Action::ResetGpu, Meaning::NeedsReset),
    row(119, "GSP firmware does not answer", Action::ResetGpu, Meaning::NeedsReset),
    row(120, "GSP firmware error", Action::ResetGpu, Meaning::NeedsReset),
    row(121, "corrected errors on the link to the CPU", Action::Ignore, Meaning::TenantFault),
    row(126, "copy engine exception", Action::RestartApp, Meaning::TenantFault),
    row(127, "copy engine exception", Action::RestartApp, Meaning::TenantFault),
    row(128, "copy engine exception", Action::RestartApp, Meaning::TenantFault),
    row(129, "copy engine exception", Action::RestartApp, Meaning::TenantFault),
    row(130, "copy engine exception", Action::RestartApp, Meaning::TenantFault),
    row(131, "copy engine exception", Action::RestartApp, Meaning::TenantFault),
    row(132, "copy engine exception", Action::RestartApp, Meaning::TenantFault),
    row(133, "copy engine exception", Action::RestartApp, Meaning::TenantFault),
    row(134, "copy engine exception", Action::RestartApp, Meaning::TenantFault),
    row(135, "copy engine exception", Action::RestartApp, Meaning::TenantFault),
    row(136, "link training failed", Action::ResetGpu, Meaning::NeedsReset),
    row(137, "NVLink privilege error", Action::Ignore, Meaning::TenantFault),
    row(139, "optical flow exception", Action::RestartApp, Meaning::TenantFault),
    row(140, "unrecovered memory error", Action::ResetGpu, Meaning::NeedsReset),
    row(141, "fast path error", Action::Ignore, Meaning::TenantFault),
    row(142, "video encoder exception", Action::Support, Meaning::Suspect),
    row(143, "initialization error", Action::ResetGpu, Meaning::NeedsReset),
    // What to do depends on a word of the kernel log that no event carries.
    row(144, "NVLink 5 error", Action::AskDriver, Meaning::Suspect),
    row(145, "NVLink 5 error", Action::AskDriver, Meaning::Suspect),
    row(146, "NVLink 5 error", Action::AskDriver, Meaning::Suspect),
    row(147, "NVLink 5 error", Action::AskDriver, Meaning::Suspect),
    row(148, "NVLink 5 error", Action::AskDriver, Meaning::Suspect),
    row(149, "NVLink 5 error", Action::AskDriver, Meaning::Suspect),
    row(150, "NVLink 5 error", Action::AskDriver, Meaning::Suspect),
    row(151, "key rotation error", Action::RestartHost, Meaning::NeedsReboot),
    row(152, "deep learning accelerator error", Action::Ignore, Meaning::TenantFault),
    row(153, "deep learning accelerator error", Action::Ignore, Meaning::TenantFault),
    row(XID_RECOVERY_ACTION, "recovery action changed", Action::AskDriver, Meaning::Suspect),
    row(155, "NVLink went down", Action::ResetGpu, Meaning::NeedsReset),
    row(156, "a part of the chip is retired", Action::ResetGpu, Meaning::NeedsReset),
    row(157, "a part of the chip could not be retired", Action::Ignore, Meaning::Suspect),
    row(158, "fatal timeout", Action::ResetGpu, Meaning::NeedsReset),
    row(159, "error on the link to the CPU", Action::Support, Meaning::Suspect),
    row(160, "memory channel is retired", Action::Ignore, Meaning::Suspect),
    row(161, "memory channel could not be retired", Action::Ignore, Meaning::Suspect),
    row(167, "fatal PCIe timeout", Action::Support, Meaning::Suspect),
    row(168, "less memory than there should be", Action::Support, Meaning::Suspect),
    row(169, "security processor halted", Action::Support, Meaning::Suspect),
    row(171, "uncorrected memory error, in DRAM", Action::AskDriver, Meaning::Suspect),
    row(172, "uncorrected memory error, in SRAM", Action::AskDriver, Meaning::Suspect),
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

    #[test]
    fn no_row_is_milder_than_what_is_to_be_done() {
        for Xid { number, action, meaning, .. } in XIDS {
            let fits = match action {
                // A tenant that starts anew heals its own fault; a broken memory is watched besides.
                Action::Ignore | Action::RestartApp => *meaning <= Meaning::Suspect,
                Action::AskDriver | Action::CheckHardware | Action::Support | Action::Update => {
                    *meaning == Meaning::Suspect
                }
                Action::ResetGpu => *meaning == Meaning::NeedsReset || *number == 109,
                Action::RestartHost => *meaning >= Meaning::NeedsReboot,
            };
            assert!(fits, "xid {number}: {action:?} and {meaning}");
        }
    }
}
