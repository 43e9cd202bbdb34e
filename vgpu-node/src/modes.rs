//! Modes that serve one trust domain (an MPS daemon): brought back where what serves it died, and left
//! when nobody needs it any more.

use std::collections::BTreeSet;

use vgpu_core::id::{DeviceId, TrustDomain};
use vgpu_core::plan::Modes;
use vgpu_core::scheme::{Scheme, SchemeInfo};
use vgpu_core::{Device, ModeChange, ModeOrder, Result};

use crate::claim::ClaimRecord;
use crate::inventory::Presence;
use crate::node::{self, Node};
use crate::pool::{ModeRecord, Record};

impl Node {
    /// Looks at every card: brings back what died under claims, leaves what serves nobody.
    pub(crate) fn keep_modes(&self) {
        let snapshot = self.inventory.snapshot();
        for (id, card) in &snapshot.cards {
            if card.presence != Presence::Here {
                continue;
            }
            let Some((info, domain)) = serving(&card.device) else {
                self.forget_mode_that_went(id);
                continue;
            };
            if !self.is_needed(id) {
                if self.is_ours(id, &info.scheme) || self.is_noted(id, &info.scheme) {
                    self.leave_mode(&card.device, info);
                }
            } else if !info.mode.active {
                self.switch(id, Some(&info.scheme), info, Some(domain.clone()), "brought back");
            }
        }
    }

    /// Leaves the mode that a card's last claim had it put into.
    pub(crate) fn leave_unneeded(&self, id: &DeviceId) {
        let snapshot = self.inventory.snapshot();
        let Some(card) = snapshot.cards.get(id) else { return };
        if let Some((info, _)) = serving(&card.device)
            && !self.is_needed(id)
        {
            self.leave_mode(&card.device, info);
        }
    }

    fn leave_mode(&self, device: &Device, info: &SchemeInfo) {
        let making = self.making(&device.id);
        // Whoever makes something there needs it, or sees the card as it is afterwards.
        let Ok(_alone) = making.try_lock() else { return };
        if self.is_needed(&device.id) {
            return;
        }
        if self.switch(&device.id, None, info, None, "left") {
            self.forget_mode(&device.id);
        }
    }

    /// Writes down that a card is put into a mode that serves one domain, before it is.
    pub(crate) fn note_mode(&self, order: &ModeOrder) -> Result<()> {
        let (Some(mode), Some(_)) = (&order.scheme, &order.domain) else { return Ok(()) };
        let record = ModeRecord { mode: mode.clone(), device: order.device.clone() };
        node::lock(&self.ledger).put(key(&order.device), &Record::Mode(record))
    }

    fn is_noted(&self, id: &DeviceId, scheme: &Scheme) -> bool {
        let ledger = node::lock(&self.ledger);
        matches!(ledger.get(&key(id)), Some(Record::Mode(record)) if record.mode == *scheme)
    }

    /// A mode that a reboot or somebody else took.
    fn forget_mode_that_went(&self, id: &DeviceId) {
        if node::lock(&self.ledger).get(&key(id)).is_none() {
            return;
        }
        let making = self.making(id);
        // Whoever makes something there may have put the card into it since.
        let Ok(_alone) = making.try_lock() else { return };
        let snapshot = self.inventory.snapshot();
        let serves = snapshot.cards.get(id).is_some_and(|card| serving(&card.device).is_some());
        if !serves && !self.is_needed(id) {
            self.forget_mode(id);
        }
    }

    fn forget_mode(&self, id: &DeviceId) {
        if let Err(error) = node::lock(&self.ledger).forget(&key(id)) {
            tracing::warn!(device = %id, %error, "cannot forget a mode yet");
        }
    }

    /// Whether it was done.
    fn switch(
        &self,
        id: &DeviceId,
        scheme: Option<&Scheme>,
        info: &SchemeInfo,
        domain: Option<TrustDomain>,
        word: &str,
    ) -> bool {
        let affected = info.mode.affects.clone();
        let order = ModeOrder { device: id.clone(), scheme: scheme.cloned(), affected, domain };
        let sent = order.clone();
        let done = self.lanes(id).and_then(|lanes| {
            lanes.change_all(&order.affected, "set mode", move |b| b.set_mode(&sent))
        });
        let is_done = matches!(done, Ok(ModeChange::Done));
        match done {
            Ok(ModeChange::Done) => {
                tracing::info!(device = %id, scheme = %info.scheme, "mode {word}");
                self.inventory.rescan(id);
            }
            Ok(pending) => {
                tracing::warn!(device = %id, scheme = %info.scheme, ?pending, "mode is pending");
            }
            Err(error) => {
                tracing::warn!(device = %id, scheme = %info.scheme, %error, "mode cannot be {word} yet");
            }
        }
        is_done
    }

    /// Whether a claim has the card, or is about to.
    fn is_needed(&self, id: &DeviceId) -> bool {
        let state = self.state();
        let mut records = state.claims.iter().map(|c| &c.record);
        records.any(|record| {
            record.ids.iter().any(|slot| slot.device == *id)
                || record.grants.iter().any(|grant| grant.device() == id)
        })
    }

    /// Whether an offer that changes modes serves the card by this scheme: what a person put into a
    /// mode by hand is theirs.
    fn is_ours(&self, id: &DeviceId, scheme: &Scheme) -> bool {
        let layout = self.layout();
        let mut resources = layout.resources.values();
        resources.any(|resource| {
            let slots = resource.cards.get(id).filter(|slots| slots.scheme == *scheme);
            slots.is_some() && resource.offer.modes() == Modes::Enter
        })
    }
}

/// The ledger's key for a card's mode.
fn key(id: &DeviceId) -> String {
    format!("mode:{id}")
}

/// The cards that a claim had put into a mode.
pub(crate) fn entered(record: &ClaimRecord) -> BTreeSet<DeviceId> {
    let wanted = record.wanted.iter().filter(|wanted| wanted.modes == Modes::Enter);
    wanted.map(|wanted| wanted.device.clone()).collect()
}

/// The scheme whose mode serves one domain on the card, alive or dead.
fn serving(device: &Device) -> Option<(&SchemeInfo, &TrustDomain)> {
    device.schemes.iter().find_map(|info| Some((info, info.mode.domain.as_ref()?)))
}
