//! The answers, for people.

use vgpu_core::plan::{Step, Why};
use vgpu_core::{ComputeKind, CreateOrder, Grant, Placement, Shape, Size};

use crate::devices::axis;
use crate::plan::outcome::{Answer, Granted, Outcome};
use crate::table::table;

/// A table of what has a place, and the reasons for what has none.
pub(crate) fn of(outcome: &Outcome) -> String {
    let rows: Vec<[String; 8]> = outcome.answers.iter().flat_map(rows).collect();
    let mut text = String::new();
    if !rows.is_empty() {
        let head = ["CLAIM", "NODE", "CARD", "SCHEME", "GETS", "MEMORY", "COMPUTE", "FAULTS"];
        text.push_str(&table(head, &rows));
        text.push('\n');
    }
    for answer in outcome.answers.iter().filter(|answer| answer.node.is_none()) {
        text.push_str(&refusal(answer));
    }
    text.push_str(&format!("{} placed, {} refused\n", outcome.placed, outcome.refused));
    text
}

fn rows(answer: &Answer) -> Vec<[String; 8]> {
    let node = answer.node.clone().unwrap_or_default();
    let row = |granted: &Granted| {
        let Granted { assignment, enforces } = granted;
        let (scheme, mut gets) = gets(&assignment.step);
        if assignment.mode.is_some() {
            gets.push_str(&format!(", after entering {scheme} mode"));
        }
        let mut compute = axis(&enforces.compute);
        if enforces.compute_kind != ComputeKind::Unlimited {
            compute.push_str(&format!(", {}", enforces.compute_kind));
        }
        [
            answer.claim.to_string(),
            node.clone(),
            assignment.device.to_string(),
            scheme,
            gets,
            axis(&enforces.memory),
            compute,
            axis(&enforces.faults),
        ]
    };
    answer.grants.iter().map(row).collect()
}

fn refusal(answer: &Answer) -> String {
    let mut text = format!("{} is refused\n", answer.claim);
    for told in &answer.refusals {
        if told.refusal.request.is_some() {
            text.push_str(&format!("  {}\n", told.message));
            continue;
        }
        let (found, asked) = (told.refusal.found, told.refusal.asked);
        text.push_str(&format!("  {}: {found} of {asked} cards fit\n", told.node));
        let (left_out, looked_at): (Vec<_>, Vec<_>) =
            told.refusal.reasons.iter().partition(|reason| reason.why == Why::NotSelected);
        for reason in looked_at {
            text.push_str(&format!("    {}: {}\n", reason.device, reason.why));
        }
        if !left_out.is_empty() {
            text.push_str(&format!("    {} cards are not selected\n", left_out.len()));
        }
    }
    text.push('\n');
    text
}

/// The scheme, and what is had under it.
fn gets(step: &Step) -> (String, String) {
    match step {
        Step::Carve(order) => (order.scheme().to_string(), carved(order)),
        Step::Share(target) => {
            let what = match &target.grant {
                Grant::Part(part) => part.to_string(),
                Grant::Shared { size, .. } if *size == Size::ANY => "a turn".to_owned(),
                Grant::Shared { size, .. } => size.to_string(),
                Grant::Whole(_) => "the card".to_owned(),
            };
            (target.grant.scheme().to_string(), what)
        }
    }
}

/// A part in a few words, `1g.18gb at slots 4+1`.
pub(crate) fn carved(order: &CreateOrder) -> String {
    let what = match order.shape() {
        Shape::Profile(profile) => profile.to_string(),
        Shape::Size(size) => size.to_string(),
    };
    match order.placement() {
        Placement::Driver => what,
        Placement::Slots(slots) => format!("{what} at slots {slots}"),
        Placement::Units(mask) => format!("{what} on units {}", units(mask)),
    }
}

/// `0-29,60`.
fn units(mask: &[u64]) -> String {
    let is_set = |unit: usize| mask.get(unit / 64).is_some_and(|word| word >> (unit % 64) & 1 == 1);
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for unit in (0..mask.len() * 64).filter(|&unit| is_set(unit)) {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == unit => *last = unit,
            _ => runs.push((unit, unit)),
        }
    }
    let text = |&(first, last): &(usize, usize)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    let runs: Vec<String> = runs.iter().map(text).collect();
    if runs.is_empty() { "none".to_owned() } else { runs.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_told_as_ranges() {
        assert_eq!(units(&[0b1011, 1 << 63]), "0-1,3,127");
        assert_eq!(units(&[]), "none");
    }
}
