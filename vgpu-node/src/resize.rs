//! Changing the size of a living part, on an admin's word.

use std::num::NonZeroU32;

use vgpu_core::order::{CreateOrder, Placement, Shape};
use vgpu_core::plan::{Sizes, Want};
use vgpu_core::{
    Bytes, Change, ClaimId, ComputeShare, Device, Error, ErrorKind, Partition, PartitionId, Result,
    Scheme, Size,
};

use crate::claim::{ClaimRecord, Stage};
use crate::node::{self, Node};

impl Node {
    /// Changes what a part holds while its container runs; an axis that `size` leaves out stays.
    ///
    /// The ledger follows: until the driver has answered it keeps the larger of both sizes, so that a crash in
    /// between gives nothing out twice. The kubelet's ids stay as they are: what the part takes beyond them, the
    /// card has no more to give.
    ///
    /// # Errors
    /// `Unsupported` where the scheme cannot, `Invalid` for a size off its grid, `Exhausted` where others hold or
    /// were promised the room, `Busy` for a claim that is being prepared or released, `NotFound`, the driver's own.
    pub fn resize(&self, part: &PartitionId, size: &Size) -> Result<Partition> {
        self.resized(part, size).map_err(|e| e.during("resize").with("partition", part))
    }

    fn resized(&self, part: &PartitionId, size: &Size) -> Result<Partition> {
        let id = part.device();
        let device = self.card(&id)?;
        let owner = self.owner(part);
        let work = owner.as_ref().map(|claim| self.claim(claim)).transpose()?.map(|c| c.work);
        let _working = work.as_ref().map(|work| node::lock(work));
        let making = self.making(&id);
        let _making = node::lock(&making);
        if self.owner(part) != owner {
            return Err(Error::new(ErrorKind::Busy, "the part just changed hands; try again"));
        }
        let before = self.listed(part)?;
        let wanted = Size {
            compute: size.compute.or(before.size.compute),
            memory: size.memory.or(before.size.memory),
        };
        may_have(&device, part, &wanted)?;
        self.has_room(&device, part, &wanted)?;
        if let Some(claim) = &owner {
            self.note(claim, part, larger(before.size, wanted))?;
        }
        let asked = part.clone();
        let done = self.lanes(&id)?.change(&id, "resize", move |b| b.resize(&asked, &wanted));
        if let Some(claim) = &owner {
            // Whatever became of it: the driver's list is what is true. Where it cannot be read, the larger stays.
            if let Some(now) = done.as_ref().ok().cloned().or_else(|| self.listed(part).ok()) {
                let record = self.note(claim, part, now.size)?;
                self.tell_tenant(&record)?;
            }
        }
        self.inventory.refresh_device(&id);
        self.relist();
        let now = done?;
        tracing::info!(%part, before = %before.size, now = %now.size, "resized");
        Ok(now)
    }

    fn card(&self, id: &vgpu_core::DeviceId) -> Result<Device> {
        let snapshot = self.snapshot();
        let card = snapshot.cards.get(id).map(|card| card.device.clone());
        card.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no card {id}")))
    }

    fn listed(&self, part: &PartitionId) -> Result<Partition> {
        let parts = self.list_parts(&part.device())?;
        parts
            .into_iter()
            .find(|p| p.id == *part)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no part {part}")))
    }

    /// The claim that has the part.
    fn owner(&self, part: &PartitionId) -> Option<ClaimId> {
        let state = self.state();
        let mut records = state.claims.iter().map(|c| &c.record);
        let has = |r: &&ClaimRecord| r.grants.iter().any(|g| g.part() == Some(part));
        records.find(has).map(|r| r.claim.clone())
    }

    /// Whether what others hold, and what the kubelet was promised for them, leaves that much.
    fn has_room(&self, device: &Device, part: &PartitionId, wanted: &Size) -> Result<()> {
        let parts = self.list_parts(&device.id)?;
        let state = self.state();
        let records = || state.claims.iter().map(|c| &c.record);
        let ours = node::ours(&parts, records().flat_map(|r| &r.grants));
        let mut made: Vec<Size> = parts
            .iter()
            .filter(|p| !ours.contains(&p.id) && p.id != *part)
            .map(|p| p.size)
            .collect();
        let range = device.scheme(&part.scheme())?.range();
        let rounded =
            |size: &Size| range.and_then(|range| range.round_up(size).ok()).unwrap_or(*size);
        let mut promised: Vec<Size> = Vec::new();
        for record in records() {
            let grants = record.grants.iter().filter(|g| *g.device() == device.id);
            for grant in grants.filter(|g| g.part() != Some(part)) {
                // What is intended may not be made yet, and what was lost is nowhere.
                let there = grant.part().is_some_and(|id| parts.iter().any(|p| p.id == *id));
                if there { &mut made } else { &mut promised }.push(grant.held.size);
            }
            if record.grants.is_empty() {
                let wanted = record.wanted.iter().filter(|w| w.device == device.id);
                promised.extend(wanted.flat_map(|w| &w.wants).filter_map(|want| match want {
                    Want::AtLeast(size) => Some(rounded(size)),
                    _ => None,
                }));
            }
        }
        let sizes: Vec<Size> = made.iter().chain(&promised).copied().collect();
        if let Some(max) = range.and_then(|range| range.distinct) {
            one_of_few(&part.scheme(), wanted, max, &Sizes::new(made, promised))?;
        }
        let memory: u64 = sizes.iter().filter_map(|s| s.memory).map(|m| m.0).sum();
        let left = device.memory.0.saturating_sub(memory);
        if let Some(asked) = wanted.memory.filter(|asked| asked.0 > left) {
            let why =
                format!("{asked} asked, and others leave {} of {}", Bytes(left), device.memory);
            return Err(Error::new(ErrorKind::Exhausted, why));
        }
        if let Some(asked) = wanted.compute {
            let others = sizes.iter().filter_map(|s| s.compute).filter(|c| c.of == asked.of);
            let taken: u32 = others.map(|c| c.units).sum();
            let left = ComputeShare { units: asked.of.get().saturating_sub(taken), of: asked.of };
            if asked.units > left.units {
                let why = format!("compute {asked} asked, and others leave {left}");
                return Err(Error::new(ErrorKind::Exhausted, why));
            }
        }
        Ok(())
    }

    /// Writes down what a claim's part holds.
    fn note(&self, claim: &ClaimId, part: &PartitionId, size: Size) -> Result<ClaimRecord> {
        self.amend_if(claim, |record| {
            if record.stage != Stage::Prepared {
                let why = format!(
                    "claim {claim} is {}; try again when it is prepared",
                    record.stage.word()
                );
                return Err(Error::new(ErrorKind::Busy, why));
            }
            for grant in record.grants.iter_mut().filter(|g| g.part() == Some(part)) {
                grant.size = size;
                grant.held.size = size;
            }
            Ok(())
        })
    }

    /// The tenant's file says the new size from the next start of the container on.
    fn tell_tenant(&self, record: &ClaimRecord) -> Result<()> {
        let targets: Vec<_> = record.grants.iter().filter_map(|g| g.target.clone()).collect();
        let edits = self.edits_of(&targets)?;
        self.publish(record, &edits)
    }
}

/// Whether the scheme lets a living part have that size.
fn may_have(device: &Device, part: &PartitionId, size: &Size) -> Result<()> {
    let scheme = part.scheme();
    let info = device.scheme(&scheme)?;
    if info.resize != Some(Change::Live) || info.range().is_none() {
        let why = format!("{scheme} parts of this card keep their size; make a new one");
        return Err(Error::new(ErrorKind::Unsupported, why));
    }
    // The planner's units cannot be moved under a container.
    if info.range().is_some_and(|r| r.placed_by == vgpu_core::PlacedBy::Planner) {
        return Ok(());
    }
    let claim = ClaimId::new("resize").expect("letters make a claim id");
    CreateOrder::admit(device, &scheme, Shape::Size(*size), Placement::Driver, claim).map(drop)
}

/// Whether the card may have that size beside those of others, where the scheme allows so many different ones.
fn one_of_few(scheme: &Scheme, wanted: &Size, max: NonZeroU32, others: &Sizes) -> Result<()> {
    if others.take(wanted, max) {
        return Ok(());
    }
    let mut sizes: Vec<String> = others.made().iter().map(ToString::to_string).collect();
    sizes.sort();
    let why = format!(
        "{wanted} would be one size too many: others hold {} different ones or were promised them, and {scheme} allows \
         {max}; ask for one of those that are there: {}",
        others.all().len(),
        sizes.join("; ")
    );
    Err(Error::new(ErrorKind::Exhausted, why))
}

fn larger(a: Size, b: Size) -> Size {
    let compute = match (a.compute, b.compute) {
        (Some(a), Some(b)) if b.covers(a) => Some(b),
        (Some(a), _) => Some(a),
        (None, b) => b,
    };
    Size { compute, memory: a.memory.max(b.memory) }
}
