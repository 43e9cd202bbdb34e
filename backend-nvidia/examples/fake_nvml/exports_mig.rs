//! The functions of MIG. Each one is `unsafe` as C is: pointers are null or point to what the function's table says.

use crate::abi::{Handle, INSUFFICIENT_SIZE, INVALID_ARGUMENT, NOT_FOUND, NOT_SUPPORTED};
use crate::abi_mig::{
    ComputeInstanceInfo, ComputeProfileInfo, Counts, GpuInstanceInfo, MIG_CONFIG_CHANGE,
    NO_PERMISSION, Place, ProfileInfo,
};
use crate::ffi::{answer, put};
use crate::mig::{COMPUTE_SLICES, MigState};
use crate::mig_tables::{self, Profile};
use crate::scenario::Card;
use crate::world::{self, Answer};

/// A call on a card or on one of its instances that was let through.
struct Call {
    index: u32,
    card: std::sync::Arc<Card>,
}

/// Whether a call asks for root.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Anybody,
    Root,
}

fn begin(function: &str, device: Handle, who: Who) -> Answer<Call> {
    let card = world::card(function, device)?;
    let index = world::index_of(device)?;
    if who == Who::Root && !world::locked(|world| Ok(world.scenario.privileged))? {
        return Err(NO_PERMISSION);
    }
    Ok(Call { index, card })
}

impl Call {
    /// Reads or changes MIG; a change is an event.
    fn mig<T>(&self, call: impl FnOnce(&mut MigState, &Card) -> Answer<T>) -> Answer<T> {
        world::locked(|world| {
            let index = self.index;
            let (answer, changed) = world.mig(|state| {
                let before = state.clone();
                let answer = call(state, &self.card);
                let changed = *state != before;
                (answer, changed)
            })?;
            if changed {
                world.raise(index, MIG_CONFIG_CHANGE);
            }
            answer
        })
    }

    /// Which profile has this id.
    fn profile(&self, id: u32) -> Answer<Profile> {
        self.card.profiles().into_iter().find(|p| p.id == id).ok_or(INVALID_ARGUMENT)
    }

    /// Which profile has this place in the driver's list.
    fn nth(&self, nth: u32) -> Answer<Profile> {
        let table = self.card.profiles();
        let known =
            world::locked(|world| Ok(mig_tables::listed_by(&world.scenario.driver_version)))?;
        let own = self.card.mig_profiles.iter().map(|p| p.nth + 1).max().unwrap_or(0);
        if self.card.mig.is_none() {
            return Err(NOT_SUPPORTED);
        }
        if nth >= known.max(own) {
            return Err(INVALID_ARGUMENT);
        }
        table.into_iter().find(|p| p.nth == nth).ok_or(NOT_SUPPORTED)
    }
}

pub(crate) fn counts(profile: &Profile) -> Counts {
    let [copy_engines, decoders, encoders, jpegs, ofas] = profile.engines;
    Counts {
        id: profile.id,
        p2p: 0,
        slices: profile.slices,
        instances: profile.instances,
        multiprocessors: profile.multiprocessors,
        copy_engines,
        decoders,
        encoders,
        jpegs,
        ofas,
    }
}

/// The profile of a place in the driver's list, for both versions of the call.
pub(crate) fn listed(function: &str, device: Handle, nth: u32) -> Answer<Profile> {
    begin(function, device, Who::Anybody)?.nth(nth)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceSetMigMode(device: Handle, on: u32, status: *mut u32) -> u32 {
    answer(|| {
        let call = begin("nvmlDeviceSetMigMode", device, Who::Root)?;
        if on > 1 {
            return Err(INVALID_ARGUMENT);
        }
        let activation = call.mig(|state, card| state.set_mode(call.index, card, on))?;
        // SAFETY: `status` is null or writable.
        unsafe { put(status, activation) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMigMode(
    device: Handle,
    current: *mut u32,
    pending: *mut u32,
) -> u32 {
    answer(|| {
        let call = begin("nvmlDeviceGetMigMode", device, Who::Anybody)?;
        let mode = call.mig(|state, card| state.mode(call.index, card))?;
        // SAFETY: `current` is null or writable.
        unsafe { put(current, mode.current) }?;
        // SAFETY: `pending` is null or writable.
        unsafe { put(pending, mode.pending) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetGpuInstanceProfileInfo(
    device: Handle,
    nth: u32,
    to: *mut ProfileInfo,
) -> u32 {
    answer(|| {
        let profile = listed("nvmlDeviceGetGpuInstanceProfileInfo", device, nth)?;
        let info = ProfileInfo { counts: counts(&profile), memory_mib: profile.memory_mib };
        // SAFETY: `to` is null or writable.
        unsafe { put(to, info) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetGpuInstancePossiblePlacements_v2(
    device: Handle,
    profile_id: u32,
    to: *mut Place,
    count: *mut u32,
) -> u32 {
    answer(|| {
        let function = "nvmlDeviceGetGpuInstancePossiblePlacements_v2";
        let profile = begin(function, device, Who::Root)?.profile(profile_id)?;
        let present = u32::try_from(profile.places.len()).map_err(|_many| INSUFFICIENT_SIZE)?;
        // SAFETY: `count` is null or writable.
        unsafe { put(count, profile.claimed_places.unwrap_or(present)) }?;
        if to.is_null() {
            return Ok(());
        }
        for (at, (start, size)) in profile.places.iter().enumerate() {
            // SAFETY: the caller has room for as many as it was told before.
            let entry = unsafe { to.add(at) };
            // SAFETY: within the caller's list.
            unsafe { put(entry, Place { start: *start, size: *size }) }?;
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceCreateGpuInstanceWithPlacement(
    device: Handle,
    profile_id: u32,
    place: *const Place,
    to: *mut Handle,
) -> u32 {
    answer(|| {
        let function = "nvmlDeviceCreateGpuInstanceWithPlacement";
        let call = begin(function, device, Who::Root)?;
        if place.is_null() || to.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        // SAFETY: not null, and so readable.
        let place = unsafe { place.read() };
        let profile = call.profile(profile_id)?;
        let where_to = (place.start, place.size);
        let id = call.mig(|state, card| state.create(call.index, card, &profile, where_to))?;
        // SAFETY: not null, and so writable.
        unsafe { put(to, world::gpu_instance(call.index, id)) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetGpuInstances(
    device: Handle,
    profile_id: u32,
    to: *mut Handle,
    count: *mut u32,
) -> u32 {
    answer(|| {
        let call = begin("nvmlDeviceGetGpuInstances", device, Who::Root)?;
        let ids: Vec<u32> = call.mig(|state, card| {
            if state.mode(call.index, card)?.current != 1 {
                return Err(NOT_SUPPORTED);
            }
            let own = state.instances(call.index).iter().filter(|i| i.profile_id == profile_id);
            Ok(own.map(|i| i.id).collect())
        })?;
        // SAFETY: `count` is null or writable.
        unsafe { put(count, u32::try_from(ids.len()).unwrap_or(u32::MAX)) }?;
        if to.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        for (at, id) in ids.iter().enumerate() {
            // SAFETY: the caller has room for as many instances as the profile has.
            let entry = unsafe { to.add(at) };
            // SAFETY: within the caller's list.
            unsafe { put(entry, world::gpu_instance(call.index, *id)) }?;
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetGpuInstanceById(device: Handle, id: u32, to: *mut Handle) -> u32 {
    answer(|| {
        let call = begin("nvmlDeviceGetGpuInstanceById", device, Who::Root)?;
        call.mig(|state, _| state.instance(call.index, id).map(|_there| ()))?;
        // SAFETY: `to` is null or writable.
        unsafe { put(to, world::gpu_instance(call.index, id)) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpuInstanceGetInfo(instance: Handle, to: *mut GpuInstanceInfo) -> u32 {
    answer(|| {
        let (index, id) = world::gpu_instance_of(instance)?;
        let device = world::handle(index);
        let call = begin("nvmlGpuInstanceGetInfo", device, Who::Root)?;
        let found = call.mig(|state, _| state.instance(index, id).cloned())?;
        let info = GpuInstanceInfo {
            device,
            id,
            profile_id: found.profile_id,
            place: Place { start: found.start, size: found.size },
        };
        // SAFETY: `to` is null or writable.
        unsafe { put(to, info) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlGpuInstanceDestroy(instance: Handle) -> u32 {
    answer(|| {
        let (index, id) = world::gpu_instance_of(instance)?;
        let call = begin("nvmlGpuInstanceDestroy", world::handle(index), Who::Root)?;
        call.mig(|state, card| state.destroy(index, card, id))
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpuInstanceGetComputeInstanceProfileInfo(
    instance: Handle,
    nth: u32,
    engines: u32,
    to: *mut ComputeProfileInfo,
) -> u32 {
    answer(|| {
        let (index, id) = world::gpu_instance_of(instance)?;
        let function = "nvmlGpuInstanceGetComputeInstanceProfileInfo";
        let call = begin(function, world::handle(index), Who::Root)?;
        let found = call.mig(|state, _| state.instance(index, id).cloned())?;
        let of = call.profile(found.profile_id)?;
        let at = usize::try_from(nth).map_err(|_too_large| INVALID_ARGUMENT)?;
        let slices = COMPUTE_SLICES.get(at).copied().ok_or(INVALID_ARGUMENT)?;
        if engines != 0 {
            return Err(INVALID_ARGUMENT);
        }
        // The two last are of profiles that no card here has.
        if slices > of.slices || nth > 6 || of.slices == 0 {
            return Err(NOT_SUPPORTED);
        }
        let info = ComputeProfileInfo {
            id: nth,
            slices,
            instances: of.slices / slices,
            multiprocessors: of.multiprocessors * slices / of.slices,
            shared: of.engines,
        };
        // SAFETY: `to` is null or writable.
        unsafe { put(to, info) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpuInstanceCreateComputeInstance(
    instance: Handle,
    profile_id: u32,
    to: *mut Handle,
) -> u32 {
    answer(|| {
        let (index, id) = world::gpu_instance_of(instance)?;
        let function = "nvmlGpuInstanceCreateComputeInstance";
        let call = begin(function, world::handle(index), Who::Root)?;
        let compute = call.mig(|state, card| state.create_compute(index, card, id, profile_id))?;
        // SAFETY: `to` is null or writable.
        unsafe { put(to, world::compute_instance(index, id, compute)) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlGpuInstanceGetComputeInstanceById(
    instance: Handle,
    compute: u32,
    to: *mut Handle,
) -> u32 {
    answer(|| {
        let (index, id) = world::gpu_instance_of(instance)?;
        let function = "nvmlGpuInstanceGetComputeInstanceById";
        let call = begin(function, world::handle(index), Who::Root)?;
        call.mig(|state, _| {
            let computes = &state.instance(index, id)?.computes;
            computes.iter().find(|c| c.id == compute).map(|_there| ()).ok_or(NOT_FOUND)
        })?;
        // SAFETY: `to` is null or writable.
        unsafe { put(to, world::compute_instance(index, id, compute)) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlComputeInstanceGetInfo_v2(
    compute: Handle,
    to: *mut ComputeInstanceInfo,
) -> u32 {
    answer(|| {
        let (index, gpu, id) = world::compute_instance_of(compute)?;
        let device = world::handle(index);
        let call = begin("nvmlComputeInstanceGetInfo_v2", device, Who::Root)?;
        let found = call.mig(|state, _| {
            let computes = &state.instance(index, gpu)?.computes;
            computes.iter().find(|c| c.id == id).cloned().ok_or(NOT_FOUND)
        })?;
        let info = ComputeInstanceInfo {
            device,
            gpu_instance: world::gpu_instance(index, gpu),
            id,
            profile_id: found.profile_id,
            place: Place { start: 0, size: found.slices },
        };
        // SAFETY: `to` is null or writable.
        unsafe { put(to, info) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlComputeInstanceDestroy(compute: Handle) -> u32 {
    answer(|| {
        let (index, gpu, id) = world::compute_instance_of(compute)?;
        let call = begin("nvmlComputeInstanceDestroy", world::handle(index), Who::Root)?;
        call.mig(|state, card| state.destroy_compute(index, card, gpu, id))
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMaxMigDeviceCount(device: Handle, to: *mut u32) -> u32 {
    answer(|| {
        let call = begin("nvmlDeviceGetMaxMigDeviceCount", device, Who::Anybody)?;
        let most = call.card.profiles().iter().map(|p| p.slices).max();
        let count = call.card.mig.and(most).unwrap_or(0);
        // SAFETY: `to` is null or writable.
        unsafe { put(to, count) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    device: Handle,
    nth: u32,
    to: *mut Handle,
) -> u32 {
    answer(|| {
        let call = begin("nvmlDeviceGetMigDeviceHandleByIndex", device, Who::Anybody)?;
        let at = usize::try_from(nth).map_err(|_too_large| INVALID_ARGUMENT)?;
        let (gpu, compute) = call.mig(|state, _| {
            let found = state.devices(call.index).nth(at).ok_or(NOT_FOUND)?;
            Ok((found.0.id, found.1.id))
        })?;
        // SAFETY: `to` is null or writable.
        unsafe { put(to, world::mig_device(call.index, gpu, compute)) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetGpuInstanceId(mig: Handle, to: *mut u32) -> u32 {
    answer(|| {
        let (index, gpu, _) = world::mig_device_of(mig).ok_or(INVALID_ARGUMENT)?;
        begin("nvmlDeviceGetGpuInstanceId", world::handle(index), Who::Anybody)?;
        // SAFETY: `to` is null or writable.
        unsafe { put(to, gpu) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetComputeInstanceId(mig: Handle, to: *mut u32) -> u32 {
    answer(|| {
        let (index, _, compute) = world::mig_device_of(mig).ok_or(INVALID_ARGUMENT)?;
        begin("nvmlDeviceGetComputeInstanceId", world::handle(index), Who::Anybody)?;
        // SAFETY: `to` is null or writable.
        unsafe { put(to, compute) }
    })
}

/// The UUID of a MIG device.
pub(crate) fn uuid(function: &str, (index, gpu, compute): (u32, u32, u32)) -> Answer<String> {
    let call = begin(function, world::handle(index), Who::Anybody)?;
    call.mig(|state, _| {
        let computes = &state.instance(index, gpu)?.computes;
        let found = computes.iter().find(|c| c.id == compute).ok_or(NOT_FOUND)?;
        Ok(found.uuid.clone())
    })
}

/// MiB of a MIG device: all, used.
pub(crate) fn memory(function: &str, (index, gpu, _): (u32, u32, u32)) -> Answer<(u64, u64)> {
    let call = begin(function, world::handle(index), Who::Anybody)?;
    let instance = call.mig(|state, _| state.instance(index, gpu).cloned())?;
    let used = crate::mig::on(&call.card.processes, &instance).filter_map(|p| p.used_mib).sum();
    Ok((call.profile(instance.profile_id)?.memory_mib, used))
}
