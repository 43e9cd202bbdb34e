//! Cards and parts, as the backends tell them.

use std::collections::BTreeSet;

use vgpu_core::{BackendFactory, Event, Host, Meaning, Partition, Probe, Subject};
use vgpu_node::claim::PREFIX;

use crate::backends::Name;
use crate::devices::{Found, State, look};
use crate::doctor::catalogue::Check;
use crate::doctor::finding::{Finding, Topic};
use crate::doctor::record::Known;
use crate::failure::told;

/// What a vendor's backend tells.
#[derive(Debug, Clone)]
pub(crate) struct Vendor {
    /// Its cards and parts.
    pub(crate) found: Found,
    /// How the cards are now.
    pub(crate) health: Vec<Event>,
}

/// Asks one backend; reads only.
pub(crate) fn ask(name: Name, factory: &dyn BackendFactory, host: &Host) -> Vendor {
    let backend = match factory.probe(host) {
        Probe::Absent(why) => return Vendor::of(Found::absent(name.to_string(), why)),
        Probe::Broken(error) => return Vendor::of(Found::broken(name.to_string(), error)),
        Probe::Ready(backend) => backend,
    };
    let found = look::scanned(name, &backend);
    // One that cannot be told is lost by then, and the next look says so.
    let health = found.devices.iter().filter_map(|d| backend.check(&d.id).ok()).flatten().collect();
    Vendor { found, health }
}

impl Vendor {
    pub(crate) fn of(found: Found) -> Self {
        Self { found, health: Vec::new() }
    }
}

/// What is wrong with cards, and which parts are nobody's of ours.
pub(crate) fn judge(vendors: &[Vendor], known: &Known) -> Vec<Finding> {
    let mut found = Vec::new();
    for vendor in vendors {
        found.extend(troubles(&vendor.found));
        found.extend(vendor.health.iter().filter_map(of_event));
        found.extend(vendor.found.partitions.iter().filter_map(|part| of_part(part, known)));
    }
    if found.is_empty() {
        let cards: usize = vendors.iter().map(|v| v.found.devices.len()).sum();
        let what = match cards {
            0 => "no card of a vendor that is looked for is there".to_owned(),
            1 => "the card answers and has no part of others".to_owned(),
            n => format!("all {n} cards answer and have no part of others"),
        };
        found.push(Finding::new(Check::Fine(Topic::Cards), what));
    }
    found
}

fn troubles(found: &Found) -> Vec<Finding> {
    let mut findings = Vec::new();
    if found.state == State::Broken {
        let why = found.reason.as_deref().unwrap_or("it does not say why");
        let what = format!("{} cards cannot be served: {why}", found.backend);
        findings.push(Finding::new(Check::VendorBroken, what).so("`vgpu devices` tells more"));
    }
    findings.extend(found.lost.iter().map(|lost| {
        let what = format!("a card is lost: {}", told(&lost.reason));
        let remedy = "look into the kernel's log; the card needs a reset, or the node a reboot";
        Finding::new(Check::CardLost, what).at(&lost.name).so(remedy)
    }));
    findings.extend(found.unread.iter().map(|unread| {
        let what = format!("the {} cannot be read: {}", unread.what, told(&unread.error));
        Finding::new(Check::CardUnread, what).so("run as root; else look into the kernel's log")
    }));
    findings
}

fn of_event(event: &Event) -> Option<Finding> {
    let card = match &event.subject {
        Subject::Device(device) | Subject::Cgroup(device, _) => device.to_string(),
        Subject::Part(part) => part.to_string(),
        Subject::Vendor => "the driver".to_owned(),
    };
    let (check, what, remedy) = match event.meaning {
        Meaning::Good | Meaning::TenantFault | Meaning::Changed => return None,
        Meaning::NeedsReset => {
            (Check::CardUnfit, "it needs a reset", "drain the card and reset it")
        }
        Meaning::NeedsReboot => {
            (Check::CardUnfit, "it needs the node to reboot", "drain the node and reboot it")
        }
        Meaning::Lost => {
            (Check::CardUnfit, "it is lost", "look into the kernel's log; reset it or reboot")
        }
        Meaning::DriverReplaced => {
            (Check::CardUnfit, "the driver was replaced under its library", "restart the agent")
        }
        Meaning::Resetting => {
            (Check::CardDoubtful, "it is being reset and takes no work", "look again")
        }
        Meaning::Unknown => (
            Check::CardDoubtful,
            "how it is cannot be read",
            "run as root; else look into the kernel's log",
        ),
        _ => (Check::CardDoubtful, "it is suspect", "look into the kernel's log"),
    };
    Some(Finding::new(check, format!("{what}: {}", event.cause)).at(card).so(remedy))
}

fn of_part(part: &Partition, known: &Known) -> Option<Finding> {
    let id = part.id.to_string();
    let held_by = |names: &BTreeSet<String>, name: &str| names.contains(name);
    if held_by(&known.parts, &id) {
        return None;
    }
    if let Some(tag) = &part.tag
        && tag.as_str().starts_with(PREFIX)
    {
        let claimed = known.claims.as_ref().is_some_and(|claims| claims.contains_key(tag.as_str()));
        if claimed || held_by(&known.tags, tag.as_str()) {
            return None;
        }
        let what = format!("a part of ours ({}) is of no claim that is known here", part.size);
        let remedy = "start the agent with its state folder: it takes such parts up again or removes them; or another \
                      agent made it";
        return Some(Finding::new(Check::OrphanPart, what).at(id).so(remedy));
    }
    let what = format!(
        "a part ({}) was made by another tool, or by an agent whose ledger is lost",
        part.size
    );
    let remedy = "vgpu leaves it alone and gives out the rest; remove it with the tool that made it when it is idle";
    Some(Finding::new(Check::ForeignPart, what).at(id).so(remedy))
}
