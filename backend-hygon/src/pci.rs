//! What the PCI bus shows of Hygon's cards.

use std::fs;
use std::path::Path;

/// PCI addresses of Hygon's cards below `root`, sorted; the virtual functions of a card are none.
pub(crate) fn cards(root: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(root.join("sys/bus/pci/devices")) else {
        return Vec::new();
    };
    let mut found: Vec<String> = entries
        .filter_map(Result::ok)
        .filter(|entry| is_card(&entry.path()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    found.sort();
    found
}

/// The vendor also makes processors, whose bridges and controllers are on the same bus, so that the
/// class decides: a display controller, a co-processor or a processing accelerator.
fn is_card(function: &Path) -> bool {
    let vendor = hex(&function.join("vendor"));
    let class = hex(&function.join("class")).map(|class| class >> 8);
    vendor == Some(0x1d94)
        && class.is_some_and(|class| matches!(class >> 8, 0x03 | 0x12) || class == 0x0b40)
        && fs::symlink_metadata(function.join("physfn")).is_err()
}

fn hex(file: &Path) -> Option<u32> {
    let text = fs::read_to_string(file).ok()?;
    u32::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
}
