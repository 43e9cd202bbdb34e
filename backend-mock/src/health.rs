//! Readings and events.

use std::time::{Duration, Instant};

use vgpu_core::{
    Bytes, DeviceId, Error, ErrorKind, Event, Health, Holders, Meaning, Subject, Usage,
};

use crate::Result;
use crate::backend::MockBackend;
use crate::machine::Stop;
use crate::script::Op;
use crate::session::{Refusal, Session};
use crate::state::{Card, Condition};
use crate::vendor;

/// Memory that a played process uses, as far as its limit allows.
const PER_PROCESS: Bytes = Bytes::mib(64);

impl Health for MockBackend {
    fn check(&self, device: &DeviceId) -> Result<Vec<Event>> {
        let session = self.start(Op::Check, Some(device))?;
        let of = self.machine.read(|state| state.card(device).map(Card::vendor))??;
        match session.look(vendor::reads_health(&of), device, |_, card| Ok(readings(card))) {
            Ok(events) => Ok(events),
            // A card that does not answer is news, not a failure.
            Err(Stop::Failed(e)) if e.kind == ErrorKind::Lost => {
                let subject = Subject::Device(device.clone());
                Ok(vec![Event::now(subject, Meaning::Lost, e.to_string())])
            }
            Err(stop) => Err(session.failed(stop)),
        }
    }

    fn wait(&self, timeout: Duration) -> Result<Vec<Event>> {
        let session = self.start(Op::Wait, None)?;
        let deadline = Instant::now() + timeout;
        let of = self.only.clone().unwrap_or_else(crate::backend::mock);
        session.ask(vendor::waits(&of), |_| ()).map_err(|e| session.failed(e))?;
        let come = |state: &crate::state::State| {
            state.events.iter().any(|(of, _)| self.serves(of)).then_some(())
        };
        if self.machine.wait_for(Some(deadline), come)?.is_none() {
            return Ok(Vec::new());
        }
        self.machine.change(|state| {
            let (ours, others) =
                std::mem::take(&mut state.events).into_iter().partition(|(of, _)| self.serves(of));
            state.events = others;
            let ours: Vec<(vgpu_core::Vendor, Event)> = ours;
            Ok(ours.into_iter().map(|(_, event)| event).collect())
        })
    }

    fn usage(&self, subject: &Subject) -> Result<Usage> {
        let device = subject.device();
        let session = self.start(Op::Usage, device.as_ref())?;
        let Some(device) = device else {
            // The library has no use of its own to tell.
            return Ok(Usage::default());
        };
        usage(&session, &device, subject).map_err(|e| session.failed(e))
    }
}

fn readings(card: &Card) -> Vec<Event> {
    let say = |subject, condition: &Option<Condition>| match condition {
        None => Event::now(subject, Meaning::Good, "answers"),
        Some(c) => Event::now(subject, c.meaning, c.cause.clone()),
    };
    let mut events = vec![say(Subject::Device(card.id.clone()), &card.condition)];
    for part in &card.parts {
        events.push(say(Subject::Part(part.listed.id.clone()), &part.condition));
    }
    events
}

fn usage(session: &Session<'_>, device: &DeviceId, subject: &Subject) -> Result<Usage, Stop> {
    let call = session.peek(device, |_, card| Ok(vendor::reads_usage(&card.vendor())))?;
    session.look(call, device, |_, card| match subject {
        Subject::Part(id) => {
            let part = card.part(id).map_err(|_absent| Refusal::no_part(id))?;
            let limit = part.listed.size.memory;
            Ok(used(part.listed.holders, limit))
        }
        Subject::Cgroup(_, cgroup) => match card.limits.iter().find(|l| l.cgroup == *cgroup) {
            Some(l) => Ok(Usage {
                memory: Some(Bytes(0)),
                limit: Some(l.memory),
                busy_ppm: None,
                processes: None,
            }),
            None => {
                let why = format!("no limit is set on {}", cgroup.display());
                Err(Refusal::Ours(Error::new(ErrorKind::NotFound, why)))
            }
        },
        Subject::Device(_) | Subject::Vendor => {
            let total = card.facts().memory;
            let mut all = used(Holders::Processes(card.holders), Some(total));
            for part in &card.parts {
                let of = used(part.listed.holders, part.listed.size.memory);
                all.memory = sum(all.memory, of.memory.map(|m| m.0)).map(Bytes);
                all.processes = match (all.processes, of.processes) {
                    (Some(a), Some(b)) => Some(a + b),
                    _ => None,
                };
            }
            all.memory = all.memory.map(|m| m.min(total));
            Ok(all)
        }
    })
}

/// What so many played processes use.
fn used(holders: Holders, limit: Option<Bytes>) -> Usage {
    let Holders::Processes(n) = holders else {
        return Usage { limit, ..Usage::default() };
    };
    let memory = Bytes(PER_PROCESS.0 * u64::from(n)).min(limit.unwrap_or(Bytes(u64::MAX)));
    Usage { memory: Some(memory), limit, busy_ppm: Some(n.min(1) * 500_000), processes: Some(n) }
}

fn sum(a: Option<Bytes>, b: Option<u64>) -> Option<u64> {
    Some(a?.0 + b?)
}
