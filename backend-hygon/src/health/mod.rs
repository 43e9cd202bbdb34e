//! How a card is: asked afresh of the host's files, and by what changes.

mod causes;
mod watch;

use std::io;
use std::time::Duration;

use vgpu_backend_kit::pci_folder;
use vgpu_core::health::{Event, Health, Meaning, Subject, Usage};
use vgpu_core::{Bytes, DeviceId, Error, ErrorKind, PartitionId, Result, Scheme};

use crate::backend::HygonBackend;
use crate::cards::Card;
use crate::convert;
use crate::kfd;
use crate::partition;

pub(crate) use crate::health::watch::Watch;

impl Health for HygonBackend {
    fn check(&self, device: &DeviceId) -> Result<Vec<Event>> {
        let card = match self.card(device) {
            Ok(card) => card,
            Err(e) if e.kind == ErrorKind::Lost => {
                let subject = Subject::Device(device.clone());
                return Ok(vec![Event::now(subject, Meaning::Lost, e.to_string())]);
            }
            Err(e) => return Err(e.during("check")),
        };
        let (meaning, cause) = self.findings(&card);
        let mut events = vec![Event::now(Subject::Device(device.clone()), meaning, cause)];
        // A file that a hand broke is nobody's fault but its own.
        for found in self.on_card(&card).unwrap_or_default() {
            if let Some(why) = partition::fault(&card, &found) {
                let id = PartitionId::of(device, &Scheme::VDCU, found.number)?;
                let cause = format!("/etc/vdev/vdev{}.conf: {why}", found.number);
                events.push(Event::now(Subject::Part(id), Meaning::Suspect, cause));
            }
        }
        Ok(events)
    }

    fn wait(&self, timeout: Duration) -> Result<Vec<Event>> {
        self.wait_for_events(timeout).map_err(|e| e.during("wait"))
    }

    fn usage(&self, subject: &Subject) -> Result<Usage> {
        match subject {
            Subject::Device(device) => self.card_usage(device),
            Subject::Part(part) => self.part_usage(part),
            Subject::Cgroup(device, cgroup) => {
                self.card(device)?;
                Err(Error::new(
                    ErrorKind::NotFound,
                    format!("nothing on {device} is counted for {}", cgroup.display()),
                ))
            }
            Subject::Vendor => Ok(Usage::default()),
        }
        .map_err(|e| e.during("usage"))
    }
}

impl HygonBackend {
    fn card_usage(&self, device: &DeviceId) -> Result<Usage> {
        let card = self.card(device)?;
        let used = self.cards.memory_used(&card)?;
        let busy = self.cards.busy_percent(&card)?;
        Ok(Usage {
            // More than there is would be a misreading.
            memory: used.filter(|used| *used <= card.memory.0).map(Bytes),
            limit: Some(card.memory),
            busy_ppm: busy.and_then(ppm),
            processes: Some(partition::processes_of_card(&self.cards.tree, card.kfd.gpu_id)),
        })
    }

    fn part_usage(&self, part: &PartitionId) -> Result<Usage> {
        let card = self.card(&part.device())?;
        let listed = self.existing(part)?;
        let limit = listed.size.memory;
        let within = |used: u64| limit.is_none_or(|limit| used <= limit.0).then_some(Bytes(used));
        let processes = match listed.holders {
            vgpu_core::Holders::Processes(n) => Some(n),
            vgpu_core::Holders::Unknown => None,
        };
        let mut usage = Usage { limit, processes, ..Usage::default() };
        if part.scheme() != Scheme::VDCU {
            return Ok(usage);
        }
        let Ok(number) = part.local().parse::<u32>() else { return Ok(usage) };
        if let Some(dmi) = &self.dmi {
            match dmi.vdevice_info(number) {
                Ok(info) => {
                    usage.memory = within(info.used);
                    let busy = dmi.vdevice_busy(number).ok();
                    usage.busy_ppm = busy.and_then(|percent| ppm(u64::from(percent)));
                    return Ok(usage);
                }
                // Made by file: counted like one.
                Err(failure) if convert::error(&failure).kind == ErrorKind::NotFound => {}
                Err(failure) => return Err(convert::error(&failure).with("partition", part)),
            }
        }
        if let Ok(pids) = partition::of_vdcu(&self.cards.tree, card.address(), number) {
            let tree = &self.cards.tree;
            let each = pids.iter().map(|pid| kfd::memory_of(tree, *pid, card.kfd.gpu_id));
            usage.memory = each.sum::<Option<u64>>().and_then(within);
        }
        Ok(usage)
    }

    /// The gravest of what can be read, and every cause. That there is no such reading says nothing of
    /// a card which the kernel and the compute driver both have; that none of its memory can be read
    /// is "not known", and never good.
    fn findings(&self, card: &Card) -> (Meaning, String) {
        let mut wrong: Vec<(Meaning, String)> = Vec::new();
        let mut notes: Vec<String> = Vec::new();
        match self.errors(card) {
            Reading::Told(0) => {}
            Reading::Told(count) => wrong.push(causes::uncorrected(count)),
            Reading::Absent => notes.push("no error counts are told".into()),
            Reading::Failed(why) => wrong.push((Meaning::Unknown, why)),
        }
        match self.cards.memory_used(card) {
            Ok(Some(_)) => {}
            Ok(None) => wrong.push((Meaning::Unknown, "its memory in use is not told".into())),
            Err(e) => wrong.push((Meaning::Unknown, e.to_string())),
        }
        if let Some(degrees) = self.temperature(card) {
            notes.push(format!("{degrees} °C"));
        }
        notes.extend(self.cards.serial(card.address()).map(|serial| format!("serial {serial}")));
        wrong.sort_by_key(|(meaning, _)| std::cmp::Reverse(*meaning));
        let meaning = wrong.first().map_or(Meaning::Good, |(meaning, _)| *meaning);
        let mut words: Vec<String> = wrong.into_iter().map(|(_, cause)| cause).collect();
        if words.is_empty() {
            words.push("answers".into());
        }
        words.extend(notes);
        (meaning, words.join("; "))
    }

    /// Uncorrected memory errors: the kernel's count, else the library's.
    pub(crate) fn errors(&self, card: &Card) -> Reading {
        let file = pci_folder(card.address()).join("ras/umc_err_count");
        match self.cards.tree.text(&file) {
            Ok(text) => {
                let line = text.lines().find_map(|line| line.trim().strip_prefix("ue:"));
                match line.and_then(|count| count.trim().parse().ok()) {
                    Some(count) => Reading::Told(count),
                    None => {
                        let text: String = text.chars().take(40).collect();
                        Reading::Failed(format!("{} says {text:?}", file.display()))
                    }
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let Some(smi) = &self.cards.smi else { return Reading::Absent };
                match smi.read(card.address(), |smi, index| smi.uncorrected_errors(index)) {
                    Ok(Some(count)) => Reading::Told(count),
                    Ok(None) => Reading::Absent,
                    Err(failure) if convert::is_unsupported(&failure) => Reading::Absent,
                    Err(failure) => Reading::Failed(failure.to_string()),
                }
            }
            Err(e) => Reading::Failed(format!("{} cannot be read: {e}", file.display())),
        }
    }

    /// Degrees Celsius of the first sensor.
    fn temperature(&self, card: &Card) -> Option<i64> {
        let folder = pci_folder(card.address()).join("hwmon");
        let names = self.cards.tree.names(&folder).into_iter();
        let read = |name| self.cards.tree.number::<i64>(folder.join(name).join("temp1_input"));
        names.filter_map(read).next().map(|thousandths| thousandths / 1000)
    }
}

/// A count that a card may not tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Neither kernel nor library has such a count.
    Absent,
    /// There is one and it cannot be read.
    Failed(String),
    /// So many.
    Told(u64),
}

fn ppm(percent: u64) -> Option<u32> {
    u32::try_from(percent).ok().filter(|percent| *percent <= 100).map(|percent| percent * 10_000)
}
