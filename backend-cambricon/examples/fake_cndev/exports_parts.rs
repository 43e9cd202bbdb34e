//! The functions of instances, which every release since 3.9 has.

use std::ffi::c_char;

use crate::abi::{
    INVALID_ARGUMENT, MimInfo, MimProfile, Pair, Place, SmluIds, SmluInfo, SmluProfile, SmluSet,
    VERSION,
};
use crate::exports::{MIB, address, cap, instance_uuid, pair};
use crate::ffi::{answer, array, get, put, put_list, readers, text, versioned};
use crate::state::{Instance, Mode};
use crate::world::{self, Answer, Here};
use crate::{mim, smlu};

readers! {
    versioned cndevGetMimMode -> Pair = |here| mim::is_on(&here).map(|on| pair(i32::from(on)));
    versioned cndevGetSMLUMode -> Pair = |here| smlu::is_on(&here).map(|on| pair(i32::from(on)));
    versioned cndevGetSMluProfileIdInfo -> SmluIds = |here| {
        smlu::is_on(&here)?;
        let mut ids = [0; 128];
        for (to, profile) in ids.iter_mut().zip(&here.state.profiles) {
            *to = profile.id;
        }
        let count = i32::try_from(here.state.profiles.len()).unwrap_or(i32::MAX);
        Ok(SmluIds { version: VERSION, count, ids })
    };
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cndevSetMimMode(mode: *mut Pair, device: i32) -> i32 {
    // SAFETY: handed on as it came.
    answer(|| unsafe { set_mode("cndevSetMimMode", mode, device, Mode::Mim) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cndevSetSMLUMode(mode: *mut Pair, device: i32) -> i32 {
    // SAFETY: handed on as it came.
    answer(|| unsafe { set_mode("cndevSetSMLUMode", mode, device, Mode::Smlu) })
}

/// # Safety
///
/// `mode` is null or readable.
unsafe fn set_mode(function: &str, mode: *mut Pair, device: i32, of: Mode) -> Answer<()> {
    // SAFETY: as the caller promises.
    unsafe { versioned(mode) }?;
    // SAFETY: as the caller promises.
    let on = match unsafe { get(mode) }?.value {
        0 => false,
        1 => true,
        _ => return Err(INVALID_ARGUMENT),
    };
    world::on(function, device, true, |here| smlu::set_mode(here, of, on))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cndevGetMluInstanceProfileInfo(
    to: *mut MimProfile,
    number: i32,
    device: i32,
) -> i32 {
    answer(|| {
        // SAFETY: `to` is null or readable.
        unsafe { versioned(to) }?;
        let function = "cndevGetMluInstanceProfileInfo";
        let row = world::on(function, device, false, |here| mim::numbered(&here, number))?;
        let profile = MimProfile {
            version: VERSION,
            id: row.id,
            cores: row.cores,
            engines: [1; 3],
            memory: row.memory,
            name: array(&row.name, true),
        };
        // SAFETY: `to` is null or writable.
        unsafe { put(to, profile) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cndevGetMluInstancePossiblePlacements(
    count: *mut i32,
    list: *mut Place,
    profile: i32,
    device: i32,
) -> i32 {
    answer(|| {
        // SAFETY: `list` is null or readable for an entry.
        unsafe { versioned(list) }?;
        let function = "cndevGetMluInstancePossiblePlacements";
        let row = world::on(function, device, false, |here| mim::row(&here, profile).cloned())?;
        let place = |start: &i32| Place { version: VERSION, start: *start, size: row.len };
        // SAFETY: as the table says.
        unsafe { put_list(count.cast(), list, row.starts.iter().map(place).collect(), None) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cndevGetMaxMluInstanceCount(to: *mut i32, profile: i32, device: i32) -> i32 {
    answer(|| {
        let function = "cndevGetMaxMluInstanceCount";
        let most = world::on(function, device, false, |here| {
            mim::row(&here, profile).map(|row| row.starts.len())
        })?;
        // SAFETY: `to` is null or writable.
        unsafe { put(to, i32::try_from(most).unwrap_or(i32::MAX)) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cndevCreateMluInstanceByProfileIdWithPlacement(
    at: *mut Place,
    to: *mut i32,
    profile: u32,
    device: i32,
    name: *const c_char,
) -> i32 {
    answer(|| {
        // SAFETY: `at` is null or readable.
        unsafe { versioned(at) }?;
        // SAFETY: `at` is not null, since it was read.
        let at = unsafe { get(at) }?;
        // SAFETY: `name` is null or a string with an end.
        let name = unsafe { text(name) }?;
        let function = "cndevCreateMluInstanceByProfileIdWithPlacement";
        let handle = world::on(function, device, true, |here| {
            mim::create(here, profile.cast_signed(), (at.start, at.size), &name)
        })?;
        // SAFETY: `to` is null or writable.
        unsafe { put(to, handle) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cndevDestroyMluInstanceByHandle(instance: i32) -> i32 {
    answer(|| world::on_instance("cndevDestroyMluInstanceByHandle", instance, true, mim::destroy))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cndevGetMluInstanceInfo(to: *mut MimInfo, instance: i32) -> i32 {
    answer(|| {
        // SAFETY: `to` is null or readable.
        unsafe { versioned(to) }?;
        let info = world::on_instance("cndevGetMluInstanceInfo", instance, false, |here, id| {
            let found = here.state.instances.iter().find(|i| i.id == id);
            mim_info(&here, found.ok_or(INVALID_ARGUMENT)?)
        })?;
        // SAFETY: `to` is null or writable.
        unsafe { put(to, info) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cndevGetAllMluInstanceInfo(
    count: *mut i32,
    list: *mut MimInfo,
    device: i32,
) -> i32 {
    answer(|| {
        // SAFETY: `list` is null or readable for an entry.
        unsafe { versioned(list) }?;
        let function = "cndevGetAllMluInstanceInfo";
        let (infos, claimed) = world::on(function, device, false, |here| {
            mim::is_on(&here)?;
            let infos = here.state.instances.iter().map(|i| mim_info(&here, i));
            Ok((infos.collect::<Answer<Vec<_>>>()?, here.state.claimed_instances))
        })?;
        // SAFETY: as the table says.
        unsafe { put_list(count.cast(), list, infos, claimed) }
    })
}

fn mim_info(here: &Here<'_>, instance: &Instance) -> Answer<MimInfo> {
    let row = mim::row(here, instance.profile)?;
    Ok(MimInfo {
        version: VERSION,
        parent: here.card.handle,
        id: instance.id,
        profile: instance.profile,
        uuid: array(&instance_uuid(here, instance.id), true),
        pci: address(here)?.map(u32::cast_signed),
        place: Place { version: VERSION, start: instance.start, size: row.len },
        cores: row.cores,
        engines: [1; 3],
        memory: row.memory,
        profile_name: array(&row.name, true),
        node: array(&cap(here, instance.id), true),
        ipcm: array(&format!("/dev/cambricon_ipcm{}", here.card.minor), true),
        name: array(&instance.name, !here.state.unterminated),
        spare: [0; 128],
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cndevGetSMluProfileInfo(
    to: *mut SmluProfile,
    profile: i32,
    device: i32,
) -> i32 {
    answer(|| {
        // SAFETY: `to` is null or readable.
        unsafe { versioned(to) }?;
        let info = world::on("cndevGetSMluProfileInfo", device, false, |here| {
            let found = here.state.profile(profile).ok_or(INVALID_ARGUMENT)?;
            let used = here.state.instances.iter().filter(|i| i.profile == profile).count();
            let total = 100 / found.percent.max(1);
            Ok(SmluProfile {
                version: VERSION,
                id: found.id,
                name: array(&profile_name(found.percent, found.memory), true),
                total,
                remain: total.saturating_sub(u32::try_from(used).unwrap_or(u32::MAX)),
                percent: [found.percent, 0],
                memory: [found.memory, 0],
            })
        })?;
        // SAFETY: `to` is null or writable.
        unsafe { put(to, info) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cndevCreateSMluProfileInfo(
    size: *mut SmluSet,
    to: *mut i32,
    device: i32,
) -> i32 {
    answer(|| {
        // SAFETY: `size` is null or readable.
        unsafe { versioned(size) }?;
        // SAFETY: `size` is not null, since it was read.
        let size = unsafe { get(size) }?;
        let function = "cndevCreateSMluProfileInfo";
        let id = world::on(function, device, true, |here| {
            smlu::create_profile(here, size.percent, size.memory)
        })?;
        // SAFETY: `to` is null or writable.
        unsafe { put(to, id) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cndevDestroySMluProfileInfo(profile: i32, device: i32) -> i32 {
    let function = "cndevDestroySMluProfileInfo";
    answer(|| world::on(function, device, true, |here| smlu::destroy_profile(here, profile)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cndevCreateSMluInstanceByProfileId(
    to: *mut i32,
    profile: u32,
    device: i32,
    name: *const c_char,
) -> i32 {
    answer(|| {
        // SAFETY: `name` is null or a string with an end.
        let name = unsafe { text(name) }?;
        let function = "cndevCreateSMluInstanceByProfileId";
        let handle = world::on(function, device, true, |here| {
            smlu::create(here, profile.cast_signed(), &name)
        })?;
        // SAFETY: `to` is null or writable.
        unsafe { put(to, handle) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cndevDestroySMluInstanceByHandle(instance: i32) -> i32 {
    answer(|| world::on_instance("cndevDestroySMluInstanceByHandle", instance, true, smlu::destroy))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cndevGetSMluInstanceInfo(to: *mut SmluInfo, instance: i32) -> i32 {
    answer(|| {
        // SAFETY: `to` is null or readable.
        unsafe { versioned(to) }?;
        let info = world::on_instance("cndevGetSMluInstanceInfo", instance, false, |here, id| {
            let found = here.state.instances.iter().find(|i| i.id == id);
            smlu_info(&here, found.ok_or(INVALID_ARGUMENT)?)
        })?;
        // SAFETY: `to` is null or writable.
        unsafe { put(to, info) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cndevGetAllSMluInstanceInfo(
    count: *mut i32,
    list: *mut SmluInfo,
    device: i32,
) -> i32 {
    answer(|| {
        // SAFETY: `list` is null or readable for an entry.
        unsafe { versioned(list) }?;
        let function = "cndevGetAllSMluInstanceInfo";
        let (infos, claimed) = world::on(function, device, false, |here| {
            smlu::is_on(&here)?;
            let infos = here.state.instances.iter().map(|i| smlu_info(&here, i));
            Ok((infos.collect::<Answer<Vec<_>>>()?, here.state.claimed_instances))
        })?;
        // SAFETY: as the table says.
        unsafe { put_list(count.cast(), list, infos, claimed) }
    })
}

fn smlu_info(here: &Here<'_>, instance: &Instance) -> Answer<SmluInfo> {
    let size = here.state.profile(instance.profile).ok_or(INVALID_ARGUMENT)?;
    let holders = u32::try_from(instance.holders.len()).unwrap_or(u32::MAX);
    Ok(SmluInfo {
        version: VERSION,
        profile: instance.profile,
        id: instance.id,
        uuid: array(&instance_uuid(here, instance.id), true),
        pci: address(here)?.map(u32::cast_signed),
        profile_name: array(&profile_name(size.percent, size.memory), true),
        name: array(&instance.name, !here.state.unterminated),
        node: array(&cap(here, instance.id), true),
        percent: [size.percent, holders.min(size.percent)],
        memory: [size.memory, u64::from(holders) * MIB],
        spare: [0; 128],
    })
}

fn profile_name(percent: u32, memory: u64) -> String {
    format!("{percent}p.{}mb", memory / MIB)
}
