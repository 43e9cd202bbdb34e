//! Layouts: the parts that cards shall have, made ahead and kept so.
//!
//! A layout is applied differentially, one step at a time, each written down before the driver is asked: idle parts
//! that it does not have are unmade, missing ones are made where a complete layout has them, and what is in use or
//! another tool's is never touched. After a crash what a step made is recognised by its intent; after a reboot all is
//! made anew. Claims of pooled offers take idle parts and give them back.

mod preview;
mod record;
mod regain;
mod spec;
mod standing;
mod take;

use std::collections::{BTreeMap, BTreeSet};

use vgpu_core::id::{ClaimId, DeviceId};
use vgpu_core::order::{CreateOrder, ModeOrder, Placement, Shape};
use vgpu_core::ownership::Intent;
use vgpu_core::plan::layout::{LayoutPlan, Placed, Right, layout};
use vgpu_core::{
    Device, Error, ErrorKind, ModeChange, Partition, PartitionId, PartitionState, Result,
};

use crate::claim;
use crate::inventory::{self, Presence};
use crate::node::{self, Node};

pub use preview::{Preview, preview};
pub use record::{ModeRecord, PoolRecord, PoolStage, Record};
pub use spec::CardLayout;

pub(crate) use record::apart;
pub(crate) use standing::idle;

/// Steps of one card in one go: more than any table has places; a guard against a driver that makes and unmakes by
/// itself.
const MOST_STEPS: usize = 256;

impl Node {
    /// Brings every card nearer to its layout, as far as that goes now, and tells what is in the way.
    ///
    /// Takes as long as the drivers do; cards are changed side by side.
    pub fn lay_out(&self) {
        let layout = self.layout();
        let cards: BTreeSet<DeviceId> = {
            let state = self.state();
            let pooled = state.pool.values().map(|r| r.device().clone());
            layout.pools.keys().cloned().chain(pooled).collect()
        };
        if cards.is_empty() {
            return;
        }
        let cards: Vec<DeviceId> = cards.into_iter().collect();
        inventory::in_parallel(&cards, |device| {
            let making = self.making(device);
            let outcome = {
                let _making = node::lock(&making);
                self.lay_out_card(device)
            };
            self.note_layout(device, outcome.err());
            self.inventory.refresh_device(device);
        });
        self.relist();
    }

    /// What keeps cards from being as their layouts say, by card.
    pub fn layout_troubles(&self) -> BTreeMap<DeviceId, String> {
        self.state().pool_trouble.clone()
    }

    /// The parts that were made ahead and are there.
    pub fn pool(&self) -> BTreeSet<PartitionId> {
        self.state().pool.values().filter_map(|r| r.part.clone()).collect()
    }

    /// One card; the caller has its making lock.
    pub(crate) fn lay_out_card(&self, device: &DeviceId) -> Result<()> {
        let layout_of_node = self.layout();
        let wish = layout_of_node.pools.get(device);
        if let Some(stuck) = self.lanes(device)?.shut(device) {
            let why = format!("the outcome of {stuck} is awaited; nothing is laid out meanwhile");
            return Err(Error::new(ErrorKind::Busy, why).with("device", device));
        }
        self.heal_pool(device)?;
        let mut held: BTreeSet<PartitionId> = BTreeSet::new();
        for _ in 0..MOST_STEPS {
            let card = self.card_to_lay_out(device)?;
            let listed = self.list_parts(device)?;
            let plan = self.plan_of(&card, wish, &listed, &held)?;
            if let Some(part) = plan.unmake.first() {
                if !self.unmake(device, part)? {
                    held.insert(part.clone());
                }
            } else if let Some(order) = &plan.mode {
                self.enter_for_layout(order)?;
            } else if let (Some(placed), Some(wish)) = (plan.make.first(), wish) {
                self.make_ahead(&card, wish, placed, &listed)?;
            } else {
                return waits(device, &plan);
            }
        }
        let why = format!("{device} is not as its layout says after {MOST_STEPS} steps");
        Err(Error::new(ErrorKind::Vendor, why))
    }

    fn card_to_lay_out(&self, device: &DeviceId) -> Result<Device> {
        let snapshot = self.inventory.snapshot();
        let lost = || Error::new(ErrorKind::Lost, format!("card {device} does not answer now"));
        let card = snapshot.cards.get(device).ok_or_else(lost)?;
        if card.presence != Presence::Here || !self.state().health.usable(device, None) {
            return Err(lost());
        }
        Ok(card.device.clone())
    }

    fn plan_of(
        &self,
        card: &Device,
        wish: Option<&CardLayout>,
        listed: &[Partition],
        held: &BTreeSet<PartitionId>,
    ) -> Result<LayoutPlan> {
        let state = self.state();
        let mut standing = standing::standing(&card.id, listed, &state.claims, &state.pool);
        standing.iter_mut().filter(|s| held.contains(&s.part)).for_each(|s| s.right = Right::InUse);
        match wish {
            Some(wish) => layout(card, &wish.scheme, &wish.parts, &standing),
            // The card has no layout any more: what is idle goes.
            None => Ok(LayoutPlan {
                unmake: standing
                    .into_iter()
                    .filter(|s| s.right == Right::Idle)
                    .map(|s| s.part)
                    .collect(),
                ..LayoutPlan::default()
            }),
        }
    }

    /// Finds out what became of parts that earlier steps, or a reboot, left in doubt.
    fn heal_pool(&self, device: &DeviceId) -> Result<()> {
        let listed = self.list_parts(device)?;
        let records: Vec<PoolRecord> = {
            let state = self.state();
            let own = state.pool.values().filter(|r| standing::is_on(r, device, None));
            own.cloned().collect()
        };
        let known: BTreeSet<PartitionId> = records.iter().filter_map(|r| r.part.clone()).collect();
        for mut record in records {
            let part = match &record.part {
                Some(id) => listed.iter().find(|p| p.id == *id).cloned(),
                None => {
                    let free = |p: &&Partition| {
                        !known.contains(&p.id) && !standing::is_claimed(&self.state().claims, &p.id)
                    };
                    let free: Vec<Partition> = listed.iter().filter(free).cloned().collect();
                    record.pool.recognise(&free).cloned()
                }
            };
            // What a living claim has is the claim's matter, whatever became of it.
            if record.part.as_ref().is_some_and(|id| standing::is_claimed(&self.state().claims, id))
            {
                continue;
            }
            match (record.stage, part) {
                (PoolStage::Intended, Some(part)) if part.state == PartitionState::Complete => {
                    record.part = Some(part.id);
                    record.stage = PoolStage::Ready;
                    self.write_pool(&record)?;
                }
                (PoolStage::Ready, Some(part)) if part.state == PartitionState::Complete => {}
                (_, Some(part)) => {
                    self.destroy(device, &part.id)?;
                    self.forget_pool(record.key())?;
                }
                (_, None) => self.forget_pool(record.key())?,
            }
        }
        Ok(())
    }

    /// Unmakes an idle part; answers whether it could be.
    fn unmake(&self, device: &DeviceId, part: &PartitionId) -> Result<bool> {
        let found = {
            let state = self.state();
            let is_it = |r: &&PoolRecord| r.part.as_ref() == Some(part);
            state.pool.values().find(is_it).cloned()
        };
        let Some(mut record) = found else {
            let why = format!("{part} is none of this node's; it is left alone");
            return Err(Error::new(ErrorKind::Invalid, why));
        };
        record.stage = PoolStage::Leaving;
        self.write_pool(&record)?;
        self.options.points.hit("pool.unmake");
        match self.destroy(device, part) {
            Ok(()) => {
                self.forget_pool(record.key())?;
                tracing::info!(%part, "unmade: the layout does not have it");
                Ok(true)
            }
            Err(e) if e.kind == ErrorKind::Busy => {
                record.stage = PoolStage::Ready;
                self.write_pool(&record)?;
                Ok(false)
            }
            Err(e) => Err(e),
        }
    }

    fn make_ahead(
        &self,
        card: &Device,
        wish: &CardLayout,
        placed: &Placed,
        listed: &[Partition],
    ) -> Result<()> {
        let info = card.scheme(&wish.scheme)?;
        let order = CreateOrder::admit(
            card,
            &wish.scheme,
            Shape::Profile(placed.profile.clone()),
            Placement::Slots(placed.slots),
            claim::fresh_id()?,
        )?;
        let seen = listed.iter().map(|p| p.id.clone()).collect();
        let intent = Intent { order, ownership: info.ownership, seen };
        let mut record = PoolRecord { pool: intent, stage: PoolStage::Intended, part: None };
        self.write_pool(&record)?;
        self.options.points.hit("pool.make");
        // What a failure left is found by the intent, at the next look.
        let part = self.create(&record.pool.order)?;
        tracing::info!(part = %part.id, "made ahead for the layout");
        record.part = Some(part.id);
        record.stage = PoolStage::Ready;
        self.write_pool(&record)
    }

    fn enter_for_layout(&self, order: &ModeOrder) -> Result<()> {
        let lanes = self.lanes(&order.device)?;
        let sent = order.clone();
        let change = lanes.change_all(&order.affected, "set mode", move |b| b.set_mode(&sent))?;
        self.inventory.rescan(&order.device);
        if change == ModeChange::Done {
            return Ok(());
        }
        let scheme = order.scheme.as_ref().map(ToString::to_string).unwrap_or_default();
        let why = match change {
            ModeChange::AfterReboot => format!("{scheme} mode waits for a reboot of the node"),
            _ => {
                format!("{scheme} mode waits for a reset of the card, which is never done for you")
            }
        };
        Err(Error::new(ErrorKind::Busy, why).with("device", &order.device))
    }

    pub(crate) fn write_pool(&self, record: &PoolRecord) -> Result<()> {
        let key = record.key().clone();
        let mut ledger = node::lock(&self.ledger);
        let written = Record::Pool(record.clone());
        // What only ends must not fail for want of the room that it will give back.
        match record.stage {
            PoolStage::Leaving => ledger.put_last(key.as_str(), &written)?,
            PoolStage::Intended | PoolStage::Ready => ledger.put(key.as_str(), &written)?,
        }
        self.state().pool.insert(key, record.clone());
        Ok(())
    }

    fn forget_pool(&self, key: &ClaimId) -> Result<()> {
        node::lock(&self.ledger).forget(key.as_str())?;
        self.state().pool.remove(key);
        Ok(())
    }

    /// Says once what keeps a card from its layout, and once that nothing does any more.
    fn note_layout(&self, device: &DeviceId, trouble: Option<Error>) {
        let told = trouble.map(|e| e.to_string());
        let before = {
            let mut state = self.state();
            match &told {
                Some(why) => state.pool_trouble.insert(device.clone(), why.clone()),
                None => state.pool_trouble.remove(device),
            }
        };
        match (&told, before) {
            (Some(why), before) if before.as_ref() != Some(why) => {
                tracing::warn!(%device, why, "the card is not as its layout says");
            }
            (None, Some(_)) => tracing::info!(%device, "the card is as its layout says"),
            _ => {}
        }
    }
}

/// Nothing can be done now; whether something is left to do.
fn waits(device: &DeviceId, plan: &LayoutPlan) -> Result<()> {
    if plan.later.is_empty() {
        return Ok(());
    }
    let missing: Vec<String> =
        plan.later.iter().map(|p| format!("{} at slots {}", p.profile, p.slots)).collect();
    let by: Vec<&str> = plan.waits_for.iter().map(PartitionId::as_str).collect();
    let why = format!("{} waits for the end of {}", missing.join(", "), by.join(", "));
    Err(Error::new(ErrorKind::Busy, why).with("device", device))
}
