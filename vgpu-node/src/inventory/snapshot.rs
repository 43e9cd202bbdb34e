//! What was known at one moment; never changed once it is published.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use vgpu_core::backend::BackendInfo;
use vgpu_core::device::{Device, Link, Lost};
use vgpu_core::error::{Error, ErrorKind, Result};
use vgpu_core::id::{DeviceId, Vendor};
use vgpu_core::partition::Partition;

use crate::lanes::Lanes;

/// All that is known of the machine.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Each later snapshot has a higher one.
    pub generation: u64,
    /// What became of each vendor.
    pub backends: BTreeMap<Vendor, BackendStatus>,
    /// Every card that was ever seen.
    pub cards: BTreeMap<DeviceId, Card>,
    /// Cards that do not answer and were never seen to; by a PCI address or index.
    pub unknown: Vec<(Vendor, Lost)>,
    /// How near cards are to one another; a pair that is missing scores 0.
    pub links: Vec<Link>,
}

/// What became of a vendor on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendStatus {
    /// There is nothing of it, and why we think so.
    Absent(String),
    /// Its driver or library does not work. Cards that were seen before keep what was last known.
    Broken(Error),
    /// It works.
    Ready(BackendInfo),
}

/// A card, as last seen.
#[derive(Debug, Clone)]
pub struct Card {
    /// Its description; the last known one where it is lost.
    pub device: Device,
    /// Whether it answers.
    pub presence: Presence,
    /// What the driver holds on it, or why that is not known.
    pub partitions: Result<Vec<Partition>>,
    /// The way to its driver.
    pub lanes: Arc<Lanes>,
}

/// Whether a card answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// It does.
    Here,
    /// It did once, and does not now; it comes back under the same id.
    Lost {
        /// Why.
        reason: Error,
        /// When that was noticed first.
        since: SystemTime,
    },
}

impl Card {
    /// Marks it lost; since when stays as it was noticed first.
    pub(super) fn lose(&mut self, reason: Error, now: SystemTime) {
        let since = match &self.presence {
            Presence::Here => now,
            Presence::Lost { since, .. } => *since,
        };
        self.presence = Presence::Lost { reason, since };
    }
}

impl Snapshot {
    /// Takes the lost cards of a vendor's scan, and loses those that it does not mention at all.
    pub(super) fn lose(&mut self, vendor: &Vendor, here: &[&DeviceId], lost: Vec<Lost>) {
        let now = SystemTime::now();
        self.unknown.retain(|(of, _)| of != vendor);
        let mut named: BTreeMap<DeviceId, Error> = BTreeMap::new();
        for lost in lost {
            let is_it = |(id, card): &(&DeviceId, &Card)| {
                id.as_str() == lost.name
                    || (card.device.vendor == *vendor
                        && card.device.pci.as_ref() == Some(&lost.name))
            };
            match self.cards.iter().find(is_it) {
                Some((id, _)) => drop(named.insert(id.clone(), lost.reason)),
                None => self.unknown.push((vendor.clone(), lost)),
            }
        }
        for (id, card) in self.cards.iter_mut().filter(|(_, c)| c.device.vendor == *vendor) {
            if !here.contains(&id) {
                let missing = || {
                    Error::new(ErrorKind::Lost, format!("the driver does not list {id} any more"))
                };
                card.lose(named.remove(id).unwrap_or_else(missing), now);
            }
        }
    }

    /// Loses every card of a vendor.
    pub(super) fn lose_all(&mut self, vendor: &Vendor, reason: &Error) {
        let now = SystemTime::now();
        for card in self.cards.values_mut().filter(|c| c.device.vendor == *vendor) {
            card.lose(reason.clone(), now);
        }
    }

    /// Takes a card that answers; what is known of its parts stays. Says whether it was known.
    pub(super) fn meet(&mut self, device: &Device, lanes: &Arc<Lanes>) -> bool {
        let Some(card) = self.cards.get_mut(&device.id) else { return false };
        card.device = device.clone();
        card.presence = Presence::Here;
        card.lanes = lanes.clone();
        true
    }

    /// Takes the links between a vendor's cards in place of those that were known.
    pub(super) fn link(&mut self, vendor: &Vendor, links: Vec<Link>) {
        let cards = &self.cards;
        let of = |id: &DeviceId| cards.get(id).map(|card| &card.device.vendor);
        self.links.retain(|l| of(&l.a) != Some(vendor) && of(&l.b) != Some(vendor));
        self.links.extend(links);
    }
}
