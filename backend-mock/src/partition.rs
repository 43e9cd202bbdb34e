//! Parts: listing, modes, making, resizing, unmaking, sweeping.

use vgpu_core::{
    CreateOrder, DeviceId, Error, ErrorKind, ModeChange, ModeOrder, Partition, PartitionId,
    Partitioner, PlacedBy, Placement, Scheme, Size, Swept,
};

use crate::Result;
use crate::backend::MockBackend;
use crate::machine::Stop;
use crate::room::{free_units, room_for};
use crate::schemes::describe;
use crate::script::Op;
use crate::session::{Refusal, Session};
use crate::state::State;
use crate::{carve, modes, vendor};

impl Partitioner for MockBackend {
    fn partitions(&self, device: &DeviceId) -> Result<Vec<Partition>> {
        let session = self.start(Op::Partitions, Some(device))?;
        let call = session.named(device, vendor::lists_parts)?;
        session
            .look(call, device, |_, card| Ok(card.parts.iter().map(|p| p.listed.clone()).collect()))
            .map_err(|e| session.failed(e))
    }

    fn set_mode(&self, order: &ModeOrder) -> Result<ModeChange> {
        let session = self.start(Op::SetMode, Some(&order.device))?;
        modes::set(&session, order).map_err(|e| session.failed(e))
    }

    fn create(&self, order: &CreateOrder) -> Result<Partition> {
        let session = self.start(Op::Create, Some(order.device()))?;
        carve::create(&session, order).map_err(|e| session.failed(e))
    }

    fn resize(&self, partition: &PartitionId, size: &Size) -> Result<Partition> {
        let device = partition.device();
        let session = self.start(Op::Resize, Some(&device))?;
        resize(&session, partition, size).map_err(|e| session.failed(e))
    }

    fn destroy(&self, partition: &PartitionId) -> Result<()> {
        let device = partition.device();
        let session = self.start(Op::Destroy, Some(&device))?;
        carve::destroy(&session, partition).map_err(|e| session.failed(e))
    }

    fn sweep(&self, device: &DeviceId, keep: &[PartitionId]) -> Result<Vec<Swept>> {
        let session = self.start(Op::Sweep, Some(device))?;
        sweep(&session, device, keep).map_err(|e| session.failed(e))
    }
}

fn sweep(
    session: &Session<'_>,
    device: &DeviceId,
    keep: &[PartitionId],
) -> Result<Vec<Swept>, Stop> {
    let call = session.named(device, vendor::lists_parts)?;
    let (halves, profiles) = session.look(call, device, |_, card| {
        let halves = card.parts.iter().filter(|p| p.is_half() && !keep.contains(&p.listed.id));
        let halves: Vec<_> = halves.map(|p| (p.listed.id.clone(), p.instance)).collect();
        Ok((halves, carve::unused_profiles(card)))
    })?;
    let mut swept = Vec::new();
    for (id, instance) in halves {
        session.call("nvmlGpuInstanceDestroy", device, |state| carve::remove(state, &id))?;
        let what = format!("gpu instance {instance} ({id}) without compute instance");
        swept.push(Swept { what });
    }
    for profile in profiles {
        carve::drop_unused_profile(session, device, &profile.size)?;
        swept.push(Swept { what: format!("smlu profile {}", profile.id) });
    }
    Ok(swept)
}

fn resize(session: &Session<'_>, id: &PartitionId, size: &Size) -> Result<Partition, Stop> {
    let device = id.device();
    let (old, call) = session.peek(&device, |state, card| {
        let part = card.part(id).map_err(|_absent| Refusal::no_part(id))?;
        on_grid(state, id, size)?;
        let call = match id.scheme() {
            s if s == Scheme::SMLU => "cndevUpdateSMluInstanceQuotaByHandle",
            _ if card.spec.vdcu == crate::spec::VdcuWay::File => "write vdev.conf",
            _ => "dmiUpdateSingleVDevice",
        };
        Ok((part.listed.size, call))
    })?;
    let resized = session.call(call, &device, |state| {
        let memory = describe(state, state.card(&device)?).memory;
        let card = state.card_mut(&device)?;
        room_for(card, &id.scheme(), size, memory, Some(id))?;
        if id.scheme() == Scheme::SMLU {
            carve::profile_of(card, *size)?;
        }
        let placement = placement_of(card, id, size)?;
        let part = card.part_mut(id)?;
        part.listed.size = *size;
        part.listed.shape = Some(vgpu_core::Shape::Size(*size));
        part.listed.placement = placement;
        Ok(part.listed.clone())
    })?;
    if id.scheme() == Scheme::SMLU && old != *size {
        carve::drop_unused_profile(session, &device, &old)?;
    }
    Ok(resized)
}

/// Where the resized part lies: where it did, unless the driver places it and its compute changes.
fn placement_of(
    card: &crate::state::Card,
    id: &PartitionId,
    size: &Size,
) -> Result<Placement, Refusal> {
    let part = &card.part(id)?.listed;
    if part.size.compute == size.compute || id.scheme() != Scheme::VDCU {
        return Ok(part.placement.clone());
    }
    let mut others = card.clone();
    others.parts.retain(|p| p.listed.id != *id);
    Ok(Placement::Units(free_units(&others, size.compute)?))
}

/// Whether the part may have that size at all.
fn on_grid(state: &State, id: &PartitionId, size: &Size) -> Result<()> {
    let device = describe(state, state.card(&id.device())?);
    let info = device.scheme(&id.scheme())?;
    let why = |kind, why: &str| Err(Error::new(kind, why).with("partition", id));
    let (Some(_), Some(range)) = (info.resize, info.range()) else {
        return why(ErrorKind::Unsupported, "the scheme cannot resize a part; make a new one");
    };
    let compute = match (size.compute, range.compute) {
        (Some(share), Some(grid)) => grid.has(share),
        (asked, _) => asked.is_none(),
    };
    let memory = match (size.memory, range.memory) {
        (Some(bytes), Some(grid)) => grid.has(bytes) && bytes <= device.memory,
        (asked, _) => asked.is_none(),
    };
    if !compute || !memory {
        return why(ErrorKind::Invalid, "the size is not on the scheme's grid");
    }
    let old = state.card(&id.device())?.part(id)?.listed.size;
    if range.placed_by == PlacedBy::Planner && old.compute != size.compute {
        return why(ErrorKind::Invalid, "the planner places its units, so compute stays as it is");
    }
    Ok(())
}
