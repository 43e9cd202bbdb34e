//! From the question as it is written to nodes with cards.

use std::collections::HashSet;

use vgpu_backend_mock::{Machine, MachineSpec, MockFactory, Preset};
use vgpu_core::plan::{Held, Inventory, Policy, Request};
use vgpu_core::{BackendFactory, Error, ErrorKind, Host, Probe};

use crate::backends::presets;
use crate::devices::Report;
use crate::failure::Failure;
use crate::plan::form;

/// A question that makes sense.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) policy: Policy,
    pub(crate) nodes: Vec<Node>,
    pub(crate) requests: Vec<Request>,
}

/// A node with its cards.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) inventory: Inventory,
    pub(crate) held: Vec<Held>,
}

/// Refuses what contradicts itself, with its place.
pub(crate) fn resolve(question: form::Question, file: &str) -> Result<Question, Failure> {
    let file = if file == "-" { "stdin" } else { file };
    let place = |failure: Failure, path: String| failure.at(format!("{file}, {path}"));
    if question.nodes.is_empty() {
        let none = Failure::input("there is no node to plan on")
            .so(r#"add one: {"name": "a", "preset": "mixed"}"#);
        return Err(place(none, "nodes".into()));
    }
    if question.requests.is_empty() {
        let none = Failure::input("nothing is asked for").so("add a request");
        return Err(place(none, "requests".into()));
    }
    let mut names = HashSet::new();
    let mut nodes = Vec::new();
    for (n, written) in question.nodes.into_iter().enumerate() {
        if !names.insert(written.name.clone()) {
            let twice = Failure::input(format!("a node before is named {:?} too", written.name))
                .so("give each node a name of its own");
            return Err(place(twice, format!("nodes[{n}].name")));
        }
        nodes.push(
            node(written).map_err(|(failure, at)| place(failure, format!("nodes[{n}]{at}")))?,
        );
    }
    let mut claims = HashSet::new();
    for (n, request) in question.requests.iter().enumerate() {
        if !claims.insert(&request.claim) {
            let twice =
                Failure::input(format!("{} is the claim of a request before", request.claim))
                    .so("give each request a claim of its own");
            return Err(place(twice, format!("requests[{n}].claim")));
        }
    }
    Ok(Question { policy: question.policy, nodes, requests: question.requests })
}

/// A mistake, and where in the node.
type Misplaced = (Failure, String);

fn node(written: form::Node) -> Result<Node, Misplaced> {
    let form::Node { name, devices, links, machine, preset, report, held: more } = written;
    if links.is_some() && devices.is_none() {
        let alone = Failure::input("links without devices")
            .so("list the devices too; a preset, a machine and a report bring their own links");
        return Err((alone, ".links".into()));
    }
    let (inventory, mut held) = match (devices, machine, preset, report) {
        (Some(devices), None, None, None) => {
            (Inventory { devices, links: links.unwrap_or_default() }, Vec::new())
        }
        (None, Some(spec), None, None) => {
            (scripted(spec).map_err(|f| (f, ".machine".to_owned()))?, Vec::new())
        }
        (None, None, Some(name), None) => {
            (by_name(&name).map_err(|f| (f, ".preset".to_owned()))?, Vec::new())
        }
        (None, None, None, Some(report)) => of_report(report),
        _ => {
            let one =
                Failure::input("a node has exactly one of devices, machine, preset and report")
                    .so("keep the one that says what is in the node");
            return Err((one, String::new()));
        }
    };
    let mut ids = HashSet::new();
    if let Some(twice) = inventory.devices.iter().find(|device| !ids.insert(&device.id)) {
        let failure = Failure::input(format!("two cards are {}", twice.id))
            .so("a card is on a node once; leave one out");
        return Err((failure, String::new()));
    }
    if let Some(n) = more.iter().position(|held| !ids.contains(&held.device)) {
        let has: Vec<&str> = inventory.devices.iter().map(|device| device.id.as_str()).collect();
        let failure = Failure::input(format!("the node has no card {}", more[n].device))
            .so(format!("name one of {}", has.join(", ")));
        return Err((failure, format!(".held[{n}].device")));
    }
    held.extend(more);
    Ok(Node { name, inventory, held })
}

fn by_name(name: &str) -> Result<Inventory, Failure> {
    match name.parse::<Preset>() {
        Ok(preset) => scripted(preset.spec()),
        Err(_unknown) => Err(Failure::input(format!("there is no machine {name:?}"))
            .so(format!("name one of {}", presets()))),
    }
}

/// The cards of a scripted machine, as its backend tells them.
fn scripted(spec: MachineSpec) -> Result<Inventory, Failure> {
    let wrong = |error: Error| Failure::input(error.to_string()).so("correct the machine");
    if spec.cards.is_empty() {
        return Ok(Inventory::default());
    }
    let machine = Machine::new(spec).map_err(wrong)?;
    let backend = match MockFactory::combined(&machine).probe(&Host::default()) {
        Probe::Ready(backend) => backend,
        Probe::Absent(why) => return Err(wrong(Error::new(ErrorKind::NotFound, why))),
        Probe::Broken(error) => return Err(wrong(error)),
    };
    let devices = backend.scan().map_err(wrong)?.devices;
    let links = backend.topology().map_err(wrong)?;
    Ok(Inventory { devices, links })
}

/// Cards and links of all backends; the parts that are there are taken, by whom is not known.
fn of_report(report: Report) -> (Inventory, Vec<Held>) {
    let mut inventory = Inventory::default();
    let mut held = Vec::new();
    for found in report.backends {
        inventory.devices.extend(found.devices);
        inventory.links.extend(found.links);
        held.extend(found.partitions.iter().map(|part| Held::of_part(part, None)));
    }
    (inventory, held)
}
