//! How a card is: asked afresh, and by the driver's events.

mod events;
mod mps;
mod xid;

use std::time::Duration;

use vgpu_core::health::{Event, Health, Meaning, Subject, Usage};
use vgpu_core::{Bytes, DeviceId, Error, ErrorKind, Holders, PartitionId, Result, Scheme};

use crate::api::{FIELD_RECOVERY_ACTION, NvmlApi, NvmlFailure, TemperatureLimit};
use crate::backend::NvidiaBackend;
use crate::cards::Lookup;
use crate::{convert, partition};

pub(crate) use crate::health::events::Events;
pub use crate::health::xid::{Action, XID_RECOVERY_ACTION, XIDS, Xid, xid};

impl Health for NvidiaBackend {
    fn check(&self, device: &DeviceId) -> Result<Vec<Event>> {
        let reading = match self.cards.lookup(device) {
            Ok(index) => read(self.api(), index, self.options.thermal_margin),
            Err(Lookup::Failed(failure)) => Err(failure),
            Err(Lookup::Unknown) => return Err(unknown(device)),
        };
        let (meaning, cause) = match reading {
            Ok(mut findings) => {
                if let Some((meaning, cause)) = self.daemon_trouble(device) {
                    findings.add(meaning, cause);
                }
                findings.verdict()
            }
            Err(failure) => silent(&failure).map_err(|e| e.during("check"))?,
        };
        let mut events = vec![Event::now(Subject::Device(device.clone()), meaning, cause)];
        events.extend(self.lost_clients(device));
        Ok(events)
    }

    fn wait(&self, timeout: Duration) -> Result<Vec<Event>> {
        self.wait_for_events(timeout).map_err(|e| e.during("wait"))
    }

    fn usage(&self, subject: &Subject) -> Result<Usage> {
        match subject {
            Subject::Device(device) => self.card_usage(device),
            Subject::Part(part) => {
                let index = self.cards.index(&part.device())?;
                match part.scheme() {
                    scheme if scheme == Scheme::MIG => self.mig_usage(part, index),
                    scheme if partition::mps::is_mps(&scheme) => self.mps_usage(part),
                    _ => Err(partition::no_part(part)),
                }
            }
            Subject::Cgroup(device, cgroup) => self.cgroup_usage(device, cgroup),
            // NVML counts nothing of its own.
            Subject::Vendor => Ok(Usage::default()),
        }
        .map_err(|e| e.during("usage"))
    }
}

impl NvidiaBackend {
    fn card_usage(&self, device: &DeviceId) -> Result<Usage> {
        let index = self.cards.index(device)?;
        let memory = given(self.api().memory_info(index))?;
        let limit = memory.map(|m| m.total.saturating_sub(m.reserved.unwrap_or(0)));
        // More than there is would be a misreading.
        let used = memory.map(|m| m.used).filter(|used| limit.is_some_and(|limit| *used <= limit));
        let processes = given(self.api().compute_processes(index))?;
        Ok(Usage {
            memory: used.map(Bytes),
            limit: limit.map(Bytes),
            busy_ppm: None,
            processes: processes.and_then(|list| u32::try_from(list.len()).ok()),
        })
    }
}

impl NvidiaBackend {
    fn mig_usage(&self, part: &PartitionId, index: u32) -> Result<Usage> {
        let found = self.mig_part(part, index)?;
        let limit = found.part.size.memory;
        let memory = match found.nth {
            Some(nth) => given(self.api().mig_device_memory(index, nth))?,
            None => None,
        };
        // More than there is would be a misreading.
        let used = memory.map(|m| Bytes(m.used)).filter(|used| limit.is_some_and(|l| *used <= l));
        let processes = match found.part.holders {
            Holders::Processes(n) => Some(n),
            Holders::Unknown => None,
        };
        Ok(Usage { memory: used, limit, busy_ppm: None, processes })
    }
}

/// What is wrong with a card, and what was read.
#[derive(Debug, Default)]
struct Findings {
    wrong: Vec<(Meaning, String)>,
    temperature: Option<u32>,
}

impl Findings {
    fn add(&mut self, meaning: Meaning, cause: impl Into<String>) {
        self.wrong.push((meaning, cause.into()));
    }

    /// The gravest meaning, and every cause, the gravest first.
    fn verdict(mut self) -> (Meaning, String) {
        self.wrong.sort_by_key(|(meaning, _)| std::cmp::Reverse(*meaning));
        match (self.wrong.first(), self.temperature) {
            (Some((meaning, _)), _) => {
                let causes: Vec<&str> = self.wrong.iter().map(|(_, cause)| &**cause).collect();
                (*meaning, causes.join("; "))
            }
            (None, Some(degrees)) => (Meaning::Good, format!("answers, {degrees} °C")),
            (None, None) => (Meaning::Good, "answers".to_owned()),
        }
    }
}

/// Reads all that tells how a card is; what the card or driver lacks tells nothing.
fn read(api: &dyn NvmlApi, index: u32, margin: u32) -> std::result::Result<Findings, NvmlFailure> {
    let mut found = Findings::default();
    found.temperature = told(&mut found, api.temperature(index))?;
    let limit = told(&mut found, api.temperature_limit(index, TemperatureLimit::Shutdown))?;
    if let (Some(now), Some(limit)) = (found.temperature, limit)
        && limit > 0
        && now.saturating_add(margin) >= limit
    {
        found.add(Meaning::Suspect, format!("{now} °C, and it switches off at {limit} °C"));
    }
    if let Some(action) = told(&mut found, api.field_value(index, FIELD_RECOVERY_ACTION))?
        && action != 0
    {
        let (meaning, what) = xid::recovery_action(action);
        found.add(meaning, format!("recovery action {action}: {what}"));
    }
    if let Some(rows) = told(&mut found, api.remapped_rows(index))? {
        if rows.failed {
            found.add(Meaning::NeedsReset, "a memory row could not be replaced: worn out");
        }
        if rows.pending {
            found.add(Meaning::NeedsReset, "a memory row is replaced at the next reset");
        }
    }
    if told(&mut found, api.retired_pages_pending(index))? == Some(true) {
        found.add(Meaning::NeedsReset, "memory pages are retired at the next reset");
    }
    if let Some(errors @ 1..) = told(&mut found, api.uncorrected_ecc_errors(index))? {
        let cause = format!("{errors} uncorrected memory errors since the driver was loaded");
        found.add(Meaning::Suspect, cause);
    }
    Ok(found)
}

/// A reading; one that fails for another reason than being absent is itself a finding.
fn told<T>(
    found: &mut Findings,
    reading: std::result::Result<T, NvmlFailure>,
) -> std::result::Result<Option<T>, NvmlFailure> {
    match reading {
        Ok(value) => Ok(Some(value)),
        Err(failure) if failure.is_unsupported() => Ok(None),
        Err(failure) => match (failure.code(), convert::is_of_the_driver(&failure)) {
            (Some(15 | 16), _) | (_, true) => Err(failure),
            // Not for us to read, which says nothing of the card.
            (Some(4), _) => Ok(None),
            _ => {
                found.add(Meaning::Unknown, failure.to_string());
                Ok(None)
            }
        },
    }
}

/// What a card's silence means; a driver that answers nobody is an error and no card's fault.
fn silent(failure: &NvmlFailure) -> Result<(Meaning, String)> {
    let meaning = match failure.code() {
        _ if convert::is_of_the_driver(failure) => return Err(convert::error(failure)),
        Some(15) => Meaning::Lost,
        Some(16) => Meaning::NeedsReset,
        _ => Meaning::Unknown,
    };
    Ok((meaning, failure.to_string()))
}

/// A number that the driver may not give; absent is not zero.
fn given<T>(reading: std::result::Result<T, NvmlFailure>) -> Result<Option<T>> {
    match reading {
        Ok(value) => Ok(Some(value)),
        Err(failure) if failure.is_unsupported() || failure.code() == Some(4) => Ok(None),
        Err(failure) => Err(convert::error(&failure)),
    }
}

fn unknown(device: &DeviceId) -> Error {
    Error::new(ErrorKind::NotFound, format!("the NVIDIA driver has no card {device}"))
        .during("check")
}
