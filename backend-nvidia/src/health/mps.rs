//! How a card's MPS daemon is, and whose clients it has lost.

use vgpu_core::health::{Event, Meaning, Subject, Usage};
use vgpu_core::{Bytes, DeviceId, Holders, PartitionId, Result, Scheme};

use crate::backend::NvidiaBackend;
use crate::mps::Look;

impl NvidiaBackend {
    /// What is wrong with the card's daemon, if it should have one.
    pub(super) fn daemon_trouble(&self, device: &DeviceId) -> Option<(Meaning, String)> {
        match self.mps.look(device) {
            Ok(Look::None) => None,
            Ok(Look::Down(record)) => Some((
                // It is started again without anybody's hand, and nothing is given on it until then.
                Meaning::Resetting,
                format!("the MPS daemon for {} died", record.domain),
            )),
            Ok(Look::Up(running)) => match self.mps.is_in_fault(&running) {
                Ok(false) => None,
                Ok(true) => Some((
                    Meaning::Resetting,
                    "a client's fault ended the work of all clients of the MPS server; it takes \
                     new ones when the last is gone"
                        .to_owned(),
                )),
                Err(e) => Some((Meaning::Suspect, format!("the MPS daemon does not answer: {e}"))),
            },
            Err(e) => Some((Meaning::Unknown, e.to_string())),
        }
    }

    /// The shares of whose clients the daemon knows nothing any more: they were there before it was.
    pub(super) fn lost_clients(&self, device: &DeviceId) -> Vec<Event> {
        let (since, scheme) = match self.mps.look(device) {
            Ok(Look::Up(running)) => (Some(running.process.started), running.record.scheme),
            // There is no daemon, so that everybody was there before the next.
            Ok(Look::Down(record)) => (None, record.scheme),
            Ok(Look::None) | Err(_) => return Vec::new(),
        };
        if scheme != Scheme::MPS {
            return Vec::new();
        }
        let tenants = self.mps.tenants();
        let shares = self.mps.shares(device).unwrap_or_default();
        let event = |n: u32| {
            let part = PartitionId::of(device, &Scheme::MPS, n).ok()?;
            let lost: Vec<String> = tenants
                .iter()
                .filter(|t| t.share == part.as_str() && since.is_none_or(|s| t.started < s))
                .map(|t| t.pid.to_string())
                .collect();
            let cause = match (lost.is_empty(), since) {
                (true, Some(_)) => return None,
                (true, None) => "its MPS daemon died; it has no clients".to_owned(),
                (false, _) => format!(
                    "its MPS daemon died under processes {}: their work on the card is lost, \
                     restart the container",
                    lost.join(", ")
                ),
            };
            Some(Event::now(Subject::Part(part), Meaning::Suspect, cause))
        };
        shares.iter().filter_map(|share| event(share.n)).collect()
    }

    /// A part's limit as the daemon has it, and its clients.
    pub(super) fn mps_usage(&self, id: &PartitionId) -> Result<Usage> {
        let part = self.mps_part(id)?;
        let processes = match part.holders {
            Holders::Processes(n) => Some(n),
            Holders::Unknown => None,
        };
        if part.scheme != Scheme::MPS {
            return Ok(Usage { processes, ..Usage::default() });
        }
        let running = self.daemon(&part.device, &part.scheme)?;
        let share =
            self.mps.shares(&part.device)?.into_iter().find(|s| s.n.to_string() == id.local());
        let limit = match share {
            Some(share) => self.mps.limits_in_force(&running, &share)?.memory_mib.map(Bytes::mib),
            None => None,
        };
        Ok(Usage { limit, processes, ..Usage::default() })
    }
}
