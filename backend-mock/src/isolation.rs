//! Showing grants to containers, and limits on living ones.

use vgpu_core::edits::{Hook, HookAction, HookStage};
use vgpu_core::{
    Bytes, Confinement, Container, ContainerEdits, DeviceId, Error, ErrorKind, Grant, Isolation,
    Scheme, Target,
};

use crate::Result;
use crate::backend::MockBackend;
use crate::machine::Stop;
use crate::schemes::describe;
use crate::script::Op;
use crate::session::{Refusal, Session};
use crate::spec::Kernel;
use crate::state::{Card, Limit, State};
use crate::{nodes, vendor};

/// Inode of the host's PID namespace.
pub const HOST_PID_NAMESPACE: u64 = Container::HOST_PID_NAMESPACE;

const SETS_LIMIT: &str = "nvmlDeviceSetMemoryLimits_v1";
const READS_LIMIT: &str = "nvmlDeviceGetMemoryLimits_v1";

impl Isolation for MockBackend {
    fn edits(&self, targets: &[Target]) -> Result<ContainerEdits> {
        let session = self.start(Op::Edits, None)?;
        let mut all = ContainerEdits::default();
        for target in targets {
            let device = target.grant.device();
            self.must_serve(&device).map_err(|e| session.failed(e))?;
            let call = session.named(&device, vendor::reads_minor)?;
            let edits = session
                .look(call, &device, |state, card| Ok(edits(state, card, target)?))
                .map_err(|e| session.failed(e))?;
            all = all.merge(edits).map_err(|e| session.failed(e))?;
        }
        Ok(all)
    }

    fn confine(&self, target: &Target, container: &Container) -> Result<Confinement> {
        let device = target.grant.device();
        let session = self.start(Op::Confine, Some(&device))?;
        confine(&session, &device, target, container).map_err(|e| session.failed(e))
    }

    fn unconfine(&self, target: &Target, container: &Container) -> Result<()> {
        let device = target.grant.device();
        let session = self.start(Op::Unconfine, Some(&device))?;
        let is_there = |card: &Card| card.limits.iter().any(|l| l.cgroup == container.cgroup);
        let limited = session
            .look(READS_LIMIT, &device, |_, card| Ok(is_there(card)))
            .map_err(|e| session.failed(e))?;
        if !limited {
            return Ok(());
        }
        session
            .call(SETS_LIMIT, &device, |state| {
                let card = state.card_mut(&device)?;
                card.limits.retain(|l| l.cgroup != container.cgroup);
                Ok(())
            })
            .map_err(|e| session.failed(e))
    }
}

fn confine(
    session: &Session<'_>,
    device: &DeviceId,
    target: &Target,
    container: &Container,
) -> Result<Confinement, Stop> {
    let memory = session.peek(device, |state, card| Ok(limit_of(state, card, target)?))?;
    let Some(memory) = memory else {
        let keyed = target.grant.scheme() == Scheme::SMLU;
        if keyed && container.pid_namespace == HOST_PID_NAMESPACE {
            // The driver keys an instance by PID namespace; in the host's there is no isolation.
            let why = "an sMLU instance isolates by PID namespace; run the pod without hostPID";
            return Err(Error::new(ErrorKind::Permission, why).with("claim", &target.claim).into());
        }
        return Ok(Confinement::NotNeeded);
    };
    session.call(SETS_LIMIT, device, |state| {
        let limits = &mut state.card_mut(device)?.limits;
        limits.retain(|l| l.cgroup != container.cgroup);
        let cgroup = container.cgroup.clone();
        limits.push(Limit { claim: target.claim.clone(), cgroup, memory });
        Ok(())
    })?;
    session.look(READS_LIMIT, device, |_, card| {
        let read = card.limits.iter().find(|l| l.cgroup == container.cgroup).map(|l| l.memory);
        if read == Some(memory) {
            return Ok(Confinement::Set);
        }
        Err(Refusal::no(ErrorKind::Vendor, format!("set {memory}, read back {read:?}")))
    })
}

/// The limit that can only be set on the living container, if the grant has one.
fn limit_of(state: &State, card: &Card, target: &Target) -> Result<Option<Bytes>> {
    match &target.grant {
        Grant::Part(part) => card.part(part).map(|_| None),
        Grant::Whole(_) => Ok(None),
        Grant::Shared { scheme, size, .. } => {
            describe(state, card).scheme(scheme)?;
            Ok(size.memory.filter(|_| card.spec.kernel == Kernel::CgroupMemory))
        }
    }
}

/// What one grant changes in its container.
fn edits(state: &State, card: &Card, target: &Target) -> Result<ContainerEdits> {
    let mut edits = match &target.grant {
        Grant::Part(part) => nodes::of_part(card, card.part(part)?)?,
        Grant::Shared { scheme, domain, .. } if *scheme == Scheme::MPS => {
            nodes::with_daemon(card, domain)
        }
        Grant::Shared { scheme, .. } => {
            describe(state, card).scheme(scheme)?;
            nodes::of_card(card)
        }
        Grant::Whole(_) => nodes::of_card(card),
    };
    if target.grant.scheme() == Scheme::SMLU || limit_of(state, card, target)?.is_some() {
        edits.hooks.push(Hook {
            stage: HookStage::CreateRuntime,
            action: HookAction::Confine(target.claim.clone()),
        });
    }
    Ok(edits)
}
