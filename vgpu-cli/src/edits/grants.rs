//! From what is asked to grants, and to their edits.

use vgpu_core::plan::{Held, Inventory, Modes, Policy, Request, Selector, Step, Want, plan};
use vgpu_core::{
    Backend, BackendExt, ContainerEdits, CreateOrder, Error, Grant, Minimum, PartitionId,
    PartitionState, Size, Target,
};

use crate::backends::Name;
use crate::edits::Args;
use crate::failure::Failure;
use crate::plan::carved;

/// The edits of what is asked; what is made for it is unmade again.
pub(super) fn edits(args: &Args, backend: &dyn Backend) -> Result<ContainerEdits, Failure> {
    if let Some(part) = &args.partition {
        return of_part(args, backend, part);
    }
    let (targets, orders) = planned(args, backend)?;
    if orders.is_empty() {
        return Ok(backend.edits(&targets)?);
    }
    if args.backend != Name::Mock {
        return Err(would_make(backend, &orders)?);
    }
    let mut made = Made { backend, parts: Vec::new() };
    let mut targets = targets;
    for order in &orders {
        let part = backend.create(order)?;
        made.parts.push(part.id.clone());
        targets.push(Target { claim: args.claim.clone(), grant: Grant::Part(part.id) });
    }
    let edits = backend.edits(&targets);
    drop(made);
    Ok(edits?)
}

fn of_part(
    args: &Args,
    backend: &dyn Backend,
    part: &PartitionId,
) -> Result<ContainerEdits, Failure> {
    let listed = backend.partition(part).map_err(|error| not_there(args, error))?;
    if listed.state != PartitionState::Complete {
        return Err(Failure::broken(format!("{part} cannot be used: it is {:?}", listed.state))
            .so("name another part"));
    }
    let grant = Grant::Part(part.clone());
    Ok(backend.edits(&[Target { claim: args.claim.clone(), grant }])?)
}

/// What the planner decides over the cards and parts that are there now.
fn planned(args: &Args, backend: &dyn Backend) -> Result<(Vec<Target>, Vec<CreateOrder>), Failure> {
    if let Some(device) = &args.device {
        // A card that is lost or not there has its own error, better than "not selected".
        backend.device(device).map_err(|error| not_there(args, error))?;
    }
    let scan = backend.scan()?;
    let inventory = Inventory { devices: scan.devices, links: backend.topology()? };
    let mut held = Vec::new();
    for device in &inventory.devices {
        held.extend(backend.partitions(&device.id)?.iter().map(|part| Held::of_part(part, None)));
    }
    let request = request(args);
    let decided = plan(&inventory, &held, &request, Policy::default()).map_err(|refusal| {
        Failure::broken(refusal.to_string())
            .so(format!("`vgpu devices --backend {}` shows what each card can do", args.backend))
    })?;
    let mut targets = Vec::new();
    let mut orders = Vec::new();
    for assignment in decided {
        match assignment.step {
            Step::Carve(order) => orders.push(order),
            Step::Share(target) => targets.push(target),
        }
    }
    Ok((targets, orders))
}

fn request(args: &Args) -> Request {
    let want = match (&args.profile, args.whole) {
        (_, true) => Want::Whole,
        (Some(profile), false) => Want::Profile(profile.clone()),
        (None, false) => Want::AtLeast(Size { compute: args.compute, memory: args.memory }),
    };
    Request {
        claim: args.claim.clone(),
        want,
        count: args.count,
        selector: Selector {
            vendors: args.vendor.iter().cloned().collect(),
            models: Vec::new(),
            devices: args.device.iter().cloned().collect(),
        },
        minimum: Minimum::default(),
        schemes: args.scheme.iter().cloned().collect(),
        domain: args.domain.clone(),
        modes: Modes::Keep,
    }
}

fn not_there(args: &Args, error: Error) -> Failure {
    Failure::from(error)
        .so(format!("`vgpu devices --backend {} --json` lists what is there", args.backend))
}

/// What would be made, and which parts are there to be shown instead.
fn would_make(backend: &dyn Backend, orders: &[CreateOrder]) -> Result<Failure, Failure> {
    let would: Vec<String> = orders
        .iter()
        .map(|order| format!("{} {} on {}", order.scheme(), carved(order), order.device()))
        .collect();
    let mut there = Vec::new();
    for order in orders {
        let parts = backend.partitions(order.device())?;
        there.extend(parts.into_iter().map(|part| part.id.to_string()));
    }
    let instead = match there.is_empty() {
        true => "no part is there to be shown instead".to_owned(),
        false => format!("show one that is there with --partition: {}", there.join(", ")),
    };
    Ok(Failure::input(format!("a dry run makes nothing, and this needs {}", would.join(", ")))
        .so(instead))
}

/// Parts on a scripted machine, unmade at the end.
#[derive(Debug)]
struct Made<'b> {
    backend: &'b dyn Backend,
    parts: Vec<PartitionId>,
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        for part in &self.parts {
            // The machine ends with this command anyway.
            let _gone = self.backend.destroy(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use vgpu_backend_mock::{Machine, MockFactory, Preset};
    use vgpu_core::{BackendFactory, Host, Probe, Vendor};

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    /// A machine whose cards pass for real ones.
    fn ask(words: &[&str]) -> (Result<ContainerEdits, Failure>, Vec<PartitionId>) {
        let machine = Machine::new(Preset::Mixed).expect("a machine");
        let factory = MockFactory::new(&machine, Vendor::NVIDIA);
        let Probe::Ready(backend) = factory.probe(&Host::default()) else {
            panic!("the machine has NVIDIA cards");
        };
        let words = ["edits"].iter().chain(words);
        let line = Line::try_parse_from(words).expect("a good line");
        (edits(&line.args, &*backend), machine.all_parts().expect("a machine in memory"))
    }

    #[test]
    fn on_a_real_card_a_dry_run_says_what_it_would_make_and_makes_nothing() {
        let (told, parts) = ask(&["--backend", "nvidia", "--profile", "1g.18gb"]);
        let failure = told.expect_err("it needs a part");
        assert_eq!(failure.code, 2);
        let told = failure.to_string();
        assert!(told.contains("this needs mig 1g.18gb at slots"), "{told}");
        assert!(told.contains("no part is there to be shown instead"), "{told}");
        assert_eq!(parts, []);
    }

    #[test]
    fn on_a_scripted_card_the_part_is_unmade_again() {
        let (edits, parts) = ask(&["--backend", "mock", "--profile", "1g.18gb"]);
        let nodes = edits.expect("edits").nodes;
        assert!(nodes.iter().any(|node| node.path.to_string_lossy().contains("caps")), "{nodes:?}");
        assert_eq!(parts, []);
    }
}
