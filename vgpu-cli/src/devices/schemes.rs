//! The ways to split cards, one row for cards that are alike.

use vgpu_core::scheme::{ComputeGrid, MemoryGrid};
use vgpu_core::{
    Axis, ComputeKind, Device, Guarantees, Per, Proof, Range, SchemeInfo, Sizing, Vendor,
};

use crate::table::table;

/// A table of every way to split the cards; `label` names a card by its place.
pub(crate) fn of(devices: &[&Device], label: impl Fn(usize) -> String) -> String {
    let mut rows = Vec::new();
    for (first, cards) in kinds(devices) {
        let cards = ranges(&cards, &label);
        for info in &devices[first].schemes {
            rows.push(row(&cards, info));
        }
    }
    table(["CARDS", "SCHEME", "MODE", "SIZES", "MEMORY", "COMPUTE", "FAULTS", "MOST"], &rows)
}

fn row(cards: &str, info: &SchemeInfo) -> [String; 8] {
    let Guarantees { memory, compute, compute_kind, faults } = &info.guarantees;
    let mut of_compute = axis(compute);
    if *compute_kind != ComputeKind::Unlimited {
        of_compute.push_str(&format!(", {compute_kind}"));
    }
    let mode = match (info.mode.active, info.mode.affects.len()) {
        (true, _) => "on".to_owned(),
        (false, 0 | 1) => format!("needs {}", info.mode.enter),
        (false, n) => format!("needs {}, {n} cards", info.mode.enter),
    };
    [
        cards.to_owned(),
        info.scheme.to_string(),
        mode,
        sizes(&info.sizing),
        axis(memory),
        of_compute,
        axis(faults),
        info.max.map_or("-".to_owned(), |max| max.to_string()),
    ]
}

/// A level with all that weakens or strengthens it.
pub(crate) fn axis(axis: &Axis) -> String {
    let mut text = axis.level.to_string();
    if axis.per == Per::Process {
        text.push_str(" per process");
    }
    if let Proof::Measured(_) = axis.proof {
        text.push_str(" (measured)");
    }
    text
}

fn sizes(sizing: &Sizing) -> String {
    match sizing {
        Sizing::Profiles(table) => {
            let names: Vec<&str> = table.iter().map(|p| p.id.as_str()).collect();
            match names.as_slice() {
                [first, _, .., last] if names.len() > 2 => {
                    format!("{first} … {last} ({} profiles)", names.len())
                }
                [] => "no profile".to_owned(),
                few => few.join(", "),
            }
        }
        Sizing::Range(range) => grid(range),
        Sizing::Turns => "turns".to_owned(),
        Sizing::Whole => "the card".to_owned(),
    }
}

fn grid(range: &Range) -> String {
    let memory = |MemoryGrid { min, step }: &MemoryGrid| match min == step {
        true => format!("{step} steps"),
        false => format!("{step} steps from {min}"),
    };
    let compute = |ComputeGrid { min, step, of }: &ComputeGrid| match min == &step.get() {
        true => format!("compute {step}/{of}"),
        false => format!("compute {step}/{of} from {min}"),
    };
    let pieces: Vec<String> =
        [range.memory.as_ref().map(memory), range.compute.as_ref().map(compute)]
            .into_iter()
            .flatten()
            .collect();
    if pieces.is_empty() { "no size".to_owned() } else { pieces.join(", ") }
}

/// What makes cards alike here: the ways to split them.
type Kind = (Vendor, Vec<SchemeInfo>);

/// Cards that are alike: the place of the first, and of all.
fn kinds(devices: &[&Device]) -> Vec<(usize, Vec<usize>)> {
    let kind = |device: &Device| -> Kind {
        let alike = |info: &SchemeInfo| {
            let mut info = info.clone();
            if let [only] = info.mode.affects.as_slice()
                && *only == device.id
            {
                info.mode.affects.clear();
            }
            info
        };
        let schemes = device.schemes.iter().map(alike).collect();
        (device.vendor.clone(), schemes)
    };
    let mut found: Vec<(Kind, Vec<usize>)> = Vec::new();
    for (place, device) in devices.iter().enumerate() {
        let kind = kind(device);
        match found.iter_mut().find(|(other, _)| *other == kind) {
            Some((_, places)) => places.push(place),
            None => found.push((kind, vec![place])),
        }
    }
    found.into_iter().map(|(_, places)| (places[0], places)).collect()
}

/// `0-3,6`.
fn ranges(places: &[usize], label: impl Fn(usize) -> String) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &place in places {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == place => *last = place,
            _ => runs.push((place, place)),
        }
    }
    let text = |(first, last): &(usize, usize)| match first == last {
        true => label(*first),
        false => format!("{}-{}", label(*first), label(*last)),
    };
    runs.iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_told_as_a_range() {
        assert_eq!(ranges(&[0, 1, 2, 4, 6, 7], |n| n.to_string()), "0-2,4,6-7");
    }
}
