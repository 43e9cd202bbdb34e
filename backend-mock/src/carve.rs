//! Making and unmaking parts, vendor call by vendor call, as each vendor asks for it.

use vgpu_core::{
    CreateOrder, ErrorKind, Holders, Partition, PartitionId, PartitionState, Scheme, Shape, Size,
};

use crate::Result;
use crate::machine::Stop;
use crate::room::{fit, full};
use crate::schemes::SMLU_PROFILES;
use crate::session::{Refusal, Session};
use crate::spec::VdcuWay;
use crate::state::{Card, Part, SmluProfile, State};

/// Makes a part; on a failure what was made before is unmade, unless a crash is played.
pub(crate) fn create(session: &Session<'_>, order: &CreateOrder) -> Result<Partition, Stop> {
    let device = order.device();
    let scheme = order.scheme();
    if *scheme == Scheme::MIG || *scheme == Scheme::HCU_MIG {
        let half = session.call("nvmlDeviceCreateGpuInstanceWithPlacement", device, |state| {
            add(state, order, PartitionState::Half)
        })?;
        let whole = session.call("nvmlGpuInstanceCreateComputeInstance", device, |state| {
            complete(state, &half.id)
        });
        return or_undo(whole, || {
            session.call("nvmlGpuInstanceDestroy", device, |state| remove(state, &half.id))
        });
    }
    if *scheme == Scheme::SMLU {
        let made = session.call("cndevCreateSMluProfileInfo", device, |state| {
            find_or_make_profile(state, order)
        })?;
        let part = session.call("cndevCreateSMluInstanceByProfileId", device, |state| {
            add(state, order, PartitionState::Complete)
        });
        return or_undo(part, || match made {
            None => Ok(()),
            Some(id) => session.call("cndevDestroySMluProfileInfo", device, |state| {
                state.card_mut(device)?.sizes.retain(|p| p.id != id);
                Ok(())
            }),
        });
    }
    let call = session.peek(device, |_, card| Ok(maker(card, scheme)));
    session.call(call?, device, |state| add(state, order, PartitionState::Complete))
}

/// Unmakes a part, the last made first.
pub(crate) fn destroy(session: &Session<'_>, id: &PartitionId) -> Result<(), Stop> {
    let device = id.device();
    let part = session
        .peek(&device, |_, card| card.part(id).cloned().map_err(|_absent| Refusal::no_part(id)))?;
    let scheme = id.scheme();
    if scheme == Scheme::MIG || scheme == Scheme::HCU_MIG {
        if !part.is_half() {
            session.call("nvmlComputeInstanceDestroy", &device, |state| halve(state, id))?;
        }
        return session.call("nvmlGpuInstanceDestroy", &device, |state| remove(state, id));
    }
    if scheme == Scheme::SMLU {
        session.call("cndevDestroySMluInstanceByHandle", &device, |state| remove(state, id))?;
        return drop_unused_profile(session, &device, &part.listed.size);
    }
    let call = session.peek(&device, |_, card| Ok(unmaker(card, &scheme)))?;
    session.call(call, &device, |state| remove(state, id))
}

/// Removes an sMLU profile that no instance uses any more.
pub(crate) fn drop_unused_profile(
    session: &Session<'_>,
    device: &vgpu_core::DeviceId,
    size: &Size,
) -> Result<(), Stop> {
    let unused = session
        .peek(device, |_, card| Ok(unused_profiles(card).into_iter().find(|p| p.size == *size)))?;
    let Some(unused) = unused else { return Ok(()) };
    session.call("cndevDestroySMluProfileInfo", device, |state| {
        state.card_mut(device)?.sizes.retain(|p| p.id != unused.id);
        Ok(())
    })
}

/// sMLU profiles without an instance.
pub(crate) fn unused_profiles(card: &Card) -> Vec<SmluProfile> {
    let used = |size: &Size| {
        card.parts.iter().any(|p| p.listed.scheme == Scheme::SMLU && p.listed.size == *size)
    };
    card.sizes.iter().filter(|p| !used(&p.size)).cloned().collect()
}

/// The sMLU profile of that size; its id if it is new.
pub(crate) fn profile_of(card: &mut Card, size: Size) -> Result<Option<u32>, Refusal> {
    if card.sizes.iter().any(|p| p.size == size) {
        return Ok(None);
    }
    if card.sizes.len() >= SMLU_PROFILES as usize {
        // One that nobody has makes room.
        let Some(unused) = unused_profiles(card).first().map(|p| p.id) else {
            return Err(full(format!("the card has {SMLU_PROFILES} sMLU profiles already")));
        };
        card.sizes.retain(|p| p.id != unused);
    }
    let id = lowest_free(card.sizes.iter().map(|p| p.id));
    card.sizes.push(SmluProfile { id, size });
    Ok(Some(id))
}

/// Adds a part as its driver would: the lowest free number, a new handle.
pub(crate) fn add(
    state: &mut State,
    order: &CreateOrder,
    made: PartitionState,
) -> Result<Partition, Refusal> {
    let device = order.device();
    let scheme = order.scheme();
    let card = state.card(device)?;
    let tagged = *scheme == Scheme::SMLU || *scheme == Scheme::MIM;
    if tagged && card.parts.iter().any(|p| p.listed.tag.as_ref() == Some(order.claim())) {
        let why = format!("there is an instance named {} already", order.claim());
        return Err(Refusal::no(ErrorKind::AlreadyExists, why));
    }
    let fit = fit(state, card, order)?;
    // A virtual DCU's number is the node's, all others are the card's.
    let neighbours = state.cards.iter().filter(|c| *scheme == Scheme::VDCU || c.id == *device);
    let instance = lowest_free(
        neighbours
            .flat_map(|c| &c.parts)
            .filter(|p| p.listed.scheme == *scheme)
            .map(|p| p.instance),
    );
    let local = match (order.shape(), order.placement()) {
        (Shape::Profile(profile), vgpu_core::Placement::Slots(slots)) => {
            format!("{profile}-{}", slots.start)
        }
        _ => instance.to_string(),
    };
    let id = PartitionId::of(device, scheme, local)?;
    let handle = handle(state, scheme, instance);
    let listed = Partition {
        id,
        device: device.clone(),
        scheme: scheme.clone(),
        shape: Some(order.shape().clone()),
        size: fit.size,
        placement: fit.placement,
        handle,
        tag: tagged.then(|| order.claim().clone()),
        state: made,
        holders: Holders::Processes(0),
    };
    state.card_mut(device)?.parts.push(Part { listed: listed.clone(), instance, condition: None });
    Ok(listed)
}

/// Runs `undo` if the result is a failure, and not if it is a crash.
fn or_undo(
    result: Result<Partition, Stop>,
    undo: impl FnOnce() -> Result<(), Stop>,
) -> Result<Partition, Stop> {
    match result {
        Err(Stop::Failed(error)) => {
            let undone = undo();
            match undone {
                Ok(()) => Err(Stop::Failed(error)),
                // What the undo left is a half, which `sweep` finds; the caller learns of both.
                Err(Stop::Failed(second)) => Err(Stop::Failed(error.caused_by(second))),
                Err(Stop::Crash) => Err(Stop::Crash),
            }
        }
        other => other,
    }
}

fn find_or_make_profile(state: &mut State, order: &CreateOrder) -> Result<Option<u32>, Refusal> {
    let Shape::Size(size) = order.shape() else {
        return Err(Refusal::no(ErrorKind::Invalid, "an sMLU profile is a size"));
    };
    let size = *size;
    profile_of(state.card_mut(order.device())?, size)
}

fn complete(state: &mut State, id: &PartitionId) -> Result<Partition, Refusal> {
    let part = state.card_mut(&id.device())?.part_mut(id)?;
    part.listed.state = PartitionState::Complete;
    Ok(part.listed.clone())
}

fn halve(state: &mut State, id: &PartitionId) -> Result<(), Refusal> {
    let part = state.card_mut(&id.device())?.part_mut(id)?;
    not_held(part)?;
    part.listed.state = PartitionState::Half;
    Ok(())
}

pub(crate) fn remove(state: &mut State, id: &PartitionId) -> Result<(), Refusal> {
    let card = state.card_mut(&id.device())?;
    not_held(card.part(id).map_err(|_absent| Refusal::no_part(id))?)?;
    card.parts.retain(|p| p.listed.id != *id);
    Ok(())
}

fn not_held(part: &Part) -> Result<(), Refusal> {
    match part.listed.holders {
        Holders::Processes(0) => Ok(()),
        Holders::Processes(n) => {
            let why = format!("{n} processes hold {}; end them first", part.listed.id);
            Err(Refusal::no(ErrorKind::Busy, why))
        }
        Holders::Unknown => {
            let why = format!("whether {} is held is not known", part.listed.id);
            Err(Refusal::no(ErrorKind::Busy, why))
        }
    }
}

/// The call that makes a part of a scheme that needs only one.
fn maker(card: &Card, scheme: &Scheme) -> &'static str {
    match (scheme.as_str(), card.spec.vdcu) {
        ("mim", _) => "cndevCreateMluInstanceByProfileIdWithPlacement",
        ("mps-static", _) => "sm_partition add",
        (_, VdcuWay::File) => "write vdev.conf",
        (_, VdcuWay::Library) => "dmiCreateVDevices",
    }
}

/// The call that unmakes it.
fn unmaker(card: &Card, scheme: &Scheme) -> &'static str {
    match (scheme.as_str(), card.spec.vdcu) {
        ("mim", _) => "cndevDestroyMluInstanceByHandle",
        ("mps-static", _) => "sm_partition rm",
        (_, VdcuWay::File) => "remove vdev.conf",
        (_, VdcuWay::Library) => "dmiDestroySingleVDevice",
    }
}

/// The handle that the vendor gives; another one each time where the vendor makes UUIDs.
fn handle(state: &mut State, scheme: &Scheme, instance: u32) -> String {
    match scheme.as_str() {
        "mig" | "hcu-mig" => format!("MIG-{}", state.fresh_uuid(5)),
        "mim" => format!("MLU-{}", state.fresh_uuid(6)),
        "vdcu" => format!("vdev{instance}"),
        _ => instance.to_string(),
    }
}

fn lowest_free(taken: impl Iterator<Item = u32>) -> u32 {
    let taken: Vec<u32> = taken.collect();
    (0..).find(|n| !taken.contains(n)).expect("fewer than 2^32 parts are on a card")
}
