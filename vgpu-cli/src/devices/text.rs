//! What was found, for people.

use std::fmt::Write as _;

use vgpu_core::{Device, Link};

use crate::devices::report::{Found, Report, State};
use crate::devices::{matrix, schemes};
use crate::table::table;

/// The whole answer.
pub(crate) fn of(report: &Report, topology: bool) -> String {
    let mut text = String::new();
    let rows: Vec<[String; 3]> = report.backends.iter().map(backend).collect();
    text.push_str(&table(["BACKEND", "STATE", ""], &rows));
    let devices: Vec<&Device> = report.devices().collect();
    if !devices.is_empty() {
        text.push('\n');
        text.push_str(&cards(report));
        text.push('\n');
        text.push_str(&schemes::of(&devices, |place| place.to_string()));
    }
    if topology && !devices.is_empty() {
        let links: Vec<&Link> = report.backends.iter().flat_map(|found| &found.links).collect();
        text.push('\n');
        text.push_str(&matrix::of(&devices, &links));
    }
    text.push_str(&troubles(report));
    text
}

fn backend(found: &Found) -> [String; 3] {
    let what = match (&found.reason, &found.info) {
        (Some(why), _) => why.split_whitespace().collect::<Vec<_>>().join(" "),
        (None, Some(info)) => {
            let mut what = format!("driver {}, library {}", info.driver, info.library.display());
            if !info.missing_symbols.is_empty() {
                what.push_str(&format!(", without {}", info.missing_symbols.join(" ")));
            }
            if found.devices.is_empty() && found.lost.is_empty() {
                what.push_str(", no card");
            }
            what
        }
        (None, None) => String::new(),
    };
    [found.backend.clone(), found.state.to_string(), what]
}

fn cards(report: &Report) -> String {
    let parts = |device: &Device| {
        let all = report.backends.iter().flat_map(|found| &found.partitions);
        all.filter(|part| part.device == device.id).count()
    };
    let row = |(place, device): (usize, &Device)| {
        let absent = || "-".to_owned();
        let mark = |active: bool| if active { "*" } else { "" };
        let ways: Vec<String> = device
            .schemes
            .iter()
            .map(|info| format!("{}{}", info.scheme, mark(info.mode.active)))
            .collect();
        [
            place.to_string(),
            device.id.to_string(),
            device.vendor.to_string(),
            device.model.clone(),
            device.memory.to_string(),
            device.compute_units.to_string(),
            device.numa.map_or_else(absent, |node| node.to_string()),
            device.pci.clone().unwrap_or_else(absent),
            parts(device).to_string(),
            ways.join(" "),
        ]
    };
    let rows: Vec<_> = report.devices().enumerate().map(row).collect();
    let head = ["#", "ID", "VENDOR", "MODEL", "MEMORY", "UNITS", "NUMA", "PCI", "PARTS", "SCHEMES"];
    table(head, &rows)
}

/// What is lost or could not be read, a line each.
fn troubles(report: &Report) -> String {
    let mut lines = String::new();
    for found in report.backends.iter().filter(|found| found.state == State::Ready) {
        for lost in &found.lost {
            let reason = crate::failure::told(&lost.reason);
            // Writing to a string cannot fail.
            let _ = writeln!(lines, "lost: {} ({}): {reason}", lost.name, found.backend);
        }
        for unread in &found.unread {
            let reason = crate::failure::told(&unread.error);
            let _ = writeln!(lines, "not read: {} ({}): {reason}", unread.what, found.backend);
        }
    }
    if lines.is_empty() { lines } else { format!("\n{lines}") }
}
