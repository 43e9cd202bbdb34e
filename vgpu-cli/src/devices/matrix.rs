//! How near cards are to one another, as a matrix.

use vgpu_core::{Device, Link, LinkKind};

/// A row and a column for each card, named by its place.
pub(crate) fn of(devices: &[&Device], links: &[&Link]) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let head = std::iter::once(String::new()).chain((0..devices.len()).map(|n| n.to_string()));
    rows.push(head.collect());
    for (n, a) in devices.iter().enumerate() {
        let cells = devices.iter().map(|b| cell(a, b, links));
        rows.push(std::iter::once(n.to_string()).chain(cells).collect());
    }
    let width = rows.iter().flatten().map(|cell| cell.chars().count()).max().unwrap_or(0);
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().map(|cell| format!("{cell:<width$}")).collect();
        cells.join(" ").trim_end().to_owned() + "\n"
    };
    let text: String = rows.iter().map(line).collect();
    text + LEGEND
}

const LEGEND: &str = "\
BRD one board, PIX one PCI switch, PXB several switches, PHB host bridge, NODE one NUMA node, \
SYS across nodes, ? unknown; +N direct links\n";

fn cell(a: &Device, b: &Device, links: &[&Link]) -> String {
    if a.id == b.id {
        return "-".to_owned();
    }
    let joins = |l: &&&Link| (l.a == a.id && l.b == b.id) || (l.a == b.id && l.b == a.id);
    let Some(link) = links.iter().find(joins) else {
        return "?".to_owned();
    };
    let path = match link.kind {
        LinkKind::Board => "BRD",
        LinkKind::HostBridge => "PHB",
        LinkKind::ManySwitches => "PXB",
        LinkKind::Node => "NODE",
        LinkKind::OneSwitch => "PIX",
        LinkKind::System => "SYS",
    };
    if link.lanes == 0 { path.to_owned() } else { format!("{path}+{}", link.lanes) }
}
