//! How a card is: asked afresh, and by the driver's events.

mod events;
mod table;

use std::time::{Duration, Instant};

use vgpu_core::health::{Event, Health, Meaning, Subject, Usage};
use vgpu_core::{Bytes, DeviceId, Error, ErrorKind, PartitionId, Result, Scheme};

use crate::api::{CardHealth, CndevFailure};
use crate::backend::CambriconBackend;
use crate::cards::Lookup;
use crate::convert;
use crate::parts::no_part;

pub(crate) use crate::health::events::Events;
pub use crate::health::table::{DRIVER_STATES, DriverState, SYSTEMS, System};

impl Health for CambriconBackend {
    fn check(&self, device: &DeviceId) -> Result<Vec<Event>> {
        let reading = match self.cards.lookup(device) {
            Ok(index) => self.read(device, index),
            Err(Lookup::Failed(failure)) => Err(failure),
            Err(Lookup::Unknown) => return Err(unknown(device)),
        };
        let (meaning, cause) = match reading {
            Ok(findings) => findings.verdict(),
            Err(failure) => silent(&failure).map_err(|e| e.during("check"))?,
        };
        Ok(vec![Event::now(Subject::Device(device.clone()), meaning, cause)])
    }

    fn wait(&self, timeout: Duration) -> Result<Vec<Event>> {
        self.wait_for_events(timeout).map_err(|e| e.during("wait"))
    }

    fn usage(&self, subject: &Subject) -> Result<Usage> {
        match subject {
            Subject::Device(device) => self.card_usage(device),
            Subject::Part(part) => self.part_usage(part),
            Subject::Cgroup(device, cgroup) => {
                self.cards.index(device)?;
                Err(Error::new(
                    ErrorKind::NotFound,
                    format!("nothing on {device} is counted for {}", cgroup.display()),
                ))
            }
            // The library counts nothing of its own.
            Subject::Vendor => Ok(Usage::default()),
        }
        .map_err(|e| e.during("usage"))
    }
}

impl CambriconBackend {
    fn card_usage(&self, device: &DeviceId) -> Result<Usage> {
        let index = self.cards.index(device)?;
        let memory = given(self.api().memory(index))?;
        let limit = memory.map(|m| m.total.saturating_sub(m.reserved.unwrap_or(0)));
        // More than there is would be a misreading.
        let used = memory.map(|m| m.used).filter(|used| limit.is_some_and(|limit| *used <= limit));
        let busy = given(self.api().busy_percent(index))?.filter(|percent| *percent <= 100);
        let processes = given(self.api().processes(index))?;
        Ok(Usage {
            memory: used.map(Bytes),
            limit: limit.map(Bytes),
            busy_ppm: busy.map(|percent| percent * 10_000),
            processes: processes.and_then(|list| u32::try_from(list.len()).ok()),
        })
    }

    /// Use of an instance. Of MIM ones the library tells nothing but their size.
    fn part_usage(&self, part: &PartitionId) -> Result<Usage> {
        let device = part.device();
        let index = self.cards.index(&device)?;
        if part.scheme() != Scheme::SMLU {
            let parts = self.mim_parts(&device, index)?;
            let found = parts.into_iter().find(|p| p.id == *part).ok_or_else(|| no_part(part))?;
            return Ok(Usage { limit: found.size.memory, ..Usage::default() });
        }
        let instance = self.smlu_instance(part, index)?;
        let (quota, used) = (instance.quota, instance.used);
        // The share of its own share; the driver's controller lets it run over for a while.
        let busy = u64::from(used.percent) * 1_000_000 / u64::from(quota.percent.max(1));
        Ok(Usage {
            memory: Some(Bytes(used.memory)).filter(|used| used.0 <= quota.memory),
            limit: Some(Bytes(quota.memory)),
            busy_ppm: u32::try_from(busy.min(1_000_000)).ok(),
            processes: None,
        })
    }

    /// Reads all that tells how a card is; what the card or library lacks tells nothing.
    fn read(&self, device: &DeviceId, index: u32) -> std::result::Result<Findings, CndevFailure> {
        let api = self.api();
        let mut found = Findings::default();
        if let Some(health) = told(&mut found, api.health(index))? {
            found.of_health(&health);
        }
        if told(&mut found, api.is_prohibited(index))? == Some(true) {
            found.add(Meaning::Resetting, "compute mode \"prohibited\": nobody can open the card");
        }
        if let Some(repair) = told(&mut found, api.repair(index))? {
            if repair.failed {
                found.add(Meaning::NeedsReset, "memory could not be repaired: worn out");
            }
            if repair.pending {
                found.add(Meaning::NeedsReset, "memory is repaired at the next reset");
            }
        }
        if let Some(ecc) = told(&mut found, api.ecc(index))? {
            if ecc.threshold_exceeded {
                found.add(Meaning::NeedsReset, "on-chip memory has had more errors than allowed");
            }
            if ecc.uncorrected > 0 {
                let errors = ecc.uncorrected;
                let cause =
                    format!("{errors} uncorrected memory errors since the driver was loaded");
                found.add(Meaning::Suspect, cause);
            }
        }
        if let Some(count) = told(&mut found, api.heartbeat(index))? {
            let now = Instant::now();
            let beat = self.cards.beat(device, count, now);
            let still = now.saturating_duration_since(beat.since);
            if beat.moved && still >= self.options.heartbeat && still > Duration::ZERO {
                let cause = format!("the firmware's heartbeat stands still at {count}");
                found.add(Meaning::Suspect, cause);
            }
        }
        Ok(found)
    }
}

/// Why a card is not running: it starts, or starts again, or failed to. `None` where it runs.
pub(crate) fn not_running(health: &CardHealth) -> Option<String> {
    let state = table::driver_state(health.driver_state);
    let starting = matches!(state.meaning, Meaning::Resetting);
    starting.then(|| format!("the driver's state is {} ({})", state.name, state.number))
}

/// What is wrong with a card.
#[derive(Debug, Default)]
struct Findings {
    wrong: Vec<(Meaning, String)>,
}

impl Findings {
    fn add(&mut self, meaning: Meaning, cause: impl Into<String>) {
        self.wrong.push((meaning, cause.into()));
    }

    fn of_health(&mut self, health: &CardHealth) {
        let state = table::driver_state(health.driver_state);
        if state.meaning != Meaning::Good {
            self.add(state.meaning, format!("driver state {} ({})", state.number, state.name));
        }
        let before = self.wrong.len();
        for incident in &health.incidents {
            let (meaning, system) = table::incident(incident.system, incident.result);
            if meaning != Meaning::Good {
                let (bit, code, text) = (incident.system, incident.code, &incident.text);
                self.add(meaning, format!("incident {bit:#x} ({system}), code {code}: {text}"));
            }
        }
        let explained = self.wrong.len() > before;
        let overall = health.overall.map_or(Meaning::Good, table::overall);
        if overall != Meaning::Good && !explained {
            self.add(overall, format!("overall health {}", health.overall.unwrap_or_default()));
        }
        if !health.good {
            self.add(Meaning::NeedsReset, "the card is in problem");
        }
    }

    /// The gravest meaning, and every cause, the gravest first.
    fn verdict(mut self) -> (Meaning, String) {
        self.wrong.sort_by_key(|(meaning, _)| std::cmp::Reverse(*meaning));
        match self.wrong.first() {
            Some((meaning, _)) => {
                let causes: Vec<&str> = self.wrong.iter().map(|(_, cause)| &**cause).collect();
                (*meaning, causes.join("; "))
            }
            None => (Meaning::Good, "answers".to_owned()),
        }
    }
}

/// A reading; one that fails for another reason than being absent is itself a finding.
fn told<T>(
    found: &mut Findings,
    reading: std::result::Result<T, CndevFailure>,
) -> std::result::Result<Option<T>, CndevFailure> {
    match reading {
        Ok(value) => Ok(Some(value)),
        Err(failure) if failure.is_unsupported() => Ok(None),
        Err(failure) if convert::is_of_the_driver(&failure) || convert::is_silent(&failure) => {
            Err(failure)
        }
        // Not for us to read, which says nothing of the card.
        Err(failure) if failure.code() == Some(13) => Ok(None),
        Err(failure) => {
            found.add(Meaning::Unknown, failure.to_string());
            Ok(None)
        }
    }
}

/// What a card's silence means; a driver that answers nobody is an error and no card's fault.
fn silent(failure: &CndevFailure) -> Result<(Meaning, String)> {
    let meaning = match failure.code() {
        _ if convert::is_of_the_driver(failure) => return Err(convert::error(failure)),
        _ if convert::is_silent(failure) => Meaning::Lost,
        Some(7) => Meaning::Suspect,
        _ => Meaning::Unknown,
    };
    Ok((meaning, failure.to_string()))
}

/// A number that the driver may not give; absent is not zero.
fn given<T>(reading: std::result::Result<T, CndevFailure>) -> Result<Option<T>> {
    match reading {
        Ok(value) => Ok(Some(value)),
        Err(failure) if failure.is_unsupported() => Ok(None),
        Err(failure) => Err(convert::error(&failure)),
    }
}

fn unknown(device: &DeviceId) -> Error {
    Error::new(ErrorKind::NotFound, format!("the Cambricon driver has no card {device}"))
        .during("check")
}
