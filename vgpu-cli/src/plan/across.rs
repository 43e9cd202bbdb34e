//! One decision over many nodes: the planner decides on each, and the policy between them.

use vgpu_core::plan::{Assignment, Held, Policy, Refusal, Request, plan};
use vgpu_core::{Device, Guarantees, Scheme};

use crate::plan::nodes::{Node, Question};
use crate::plan::outcome::{Answer, Granted, NodeRefusal, Outcome};

/// Decides the requests in order; a refused one takes nothing and stops no other.
pub(crate) fn decide(question: &Question) -> Outcome {
    let mut nodes = question.nodes.clone();
    let answers =
        question.requests.iter().map(|request| one(&mut nodes, request, question.policy)).collect();
    Outcome::of(answers)
}

fn one(nodes: &mut [Node], request: &Request, policy: Policy) -> Answer {
    let claim = request.claim.clone();
    let mut fits: Vec<(usize, Vec<Assignment>)> = Vec::new();
    let mut refusals: Vec<NodeRefusal> = Vec::new();
    for (n, node) in nodes.iter().enumerate() {
        match plan(&node.inventory, &node.held, request, policy) {
            Ok(assignments) => fits.push((n, assignments)),
            Err(refusal) => refusals.push(NodeRefusal::of(&node.name, refusal)),
        }
    }
    let full = |n: usize| fullness(&nodes[n]);
    // Of nodes that are equally full the first, under either policy.
    let best = match policy {
        Policy::Binpack => fits.into_iter().rev().max_by_key(|(n, _)| full(*n)),
        Policy::Spread => fits.into_iter().min_by_key(|(n, _)| full(*n)),
    };
    let Some((n, assignments)) = best else {
        return Answer { claim, node: None, grants: Vec::new(), refusals: once(refusals) };
    };
    let node = &mut nodes[n];
    let mut grants = Vec::new();
    for assignment in assignments {
        let device = node.inventory.devices.iter().find(|d| d.id == assignment.device);
        let device = device.expect("the planner chooses among the node's cards");
        node.held.extend(Held::of(device, &assignment.step, &request.domain));
        let enforces = enforced(device, &assignment);
        if let Some(order) = &assignment.mode {
            node.inventory.enter(order);
        }
        grants.push(Granted { assignment, enforces });
    }
    Answer { claim, node: Some(node.name.clone()), grants, refusals: Vec::new() }
}

/// What is wrong with the request itself is told once, whatever the nodes.
fn once(mut refusals: Vec<NodeRefusal>) -> Vec<NodeRefusal> {
    let of_request = |refusal: &Refusal| refusal.request.is_some();
    if refusals.iter().all(|told| of_request(&told.refusal)) {
        refusals.truncate(1);
    }
    refusals
}

fn enforced(device: &Device, assignment: &Assignment) -> Guarantees {
    let scheme: Scheme = match &assignment.step {
        vgpu_core::plan::Step::Carve(order) => order.scheme().clone(),
        vgpu_core::plan::Step::Share(target) => target.grant.scheme(),
    };
    let info = device.scheme(&scheme).expect("the planner chooses among the card's schemes");
    info.guarantees.clone()
}

/// How full a node is, in parts per million of the memory of its cards.
fn fullness(node: &Node) -> u128 {
    let devices = &node.inventory.devices;
    let total: u128 = devices.iter().map(|device| u128::from(device.memory.0)).sum();
    let taken = |held: &Held| {
        let device = devices.iter().find(|device| device.id == held.device);
        device.map_or(0, |device| u128::from(held.memory_on(device).0))
    };
    node.held.iter().map(taken).sum::<u128>() * 1_000_000 / total.max(1)
}
