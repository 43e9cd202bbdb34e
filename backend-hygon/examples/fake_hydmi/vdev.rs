//! Virtual DCUs as the vendor's daemon keeps them: one file each below `etc/vdev`.

use std::fs;
use std::path::PathBuf;

use crate::world::{Call, Card};
use crate::{DEVICE_BUSY, FILE_ERROR, INVALID_ARGUMENTS, OUT_OF_RESOURCES, VDEV_NOT_EXIST};

/// Most on one card.
pub(crate) const MOST: i32 = 4;

pub(crate) struct Vdev {
    pub(crate) number: i32,
    pub(crate) address: String,
    pub(crate) mask: [u64; 2],
    pub(crate) memory_mib: u64,
    pipe: u32,
}

/// All of the node; files that are not of this form are none of the daemon's.
pub(crate) fn all(call: &Call) -> Vec<Vdev> {
    let Ok(entries) = fs::read_dir(call.at("etc/vdev")) else { return Vec::new() };
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            let number = name.strip_prefix("vdev")?.strip_suffix(".conf")?.parse().ok()?;
            let text = fs::read_to_string(entry.path()).ok()?;
            let of = |key: &str| {
                let with = format!("{key}: ");
                let values = text.lines().filter_map(|line| line.strip_prefix(&with));
                values.map(str::to_owned).collect::<Vec<String>>()
            };
            let word =
                |n: usize| u64::from_str_radix(of("cu_mask").get(n)?.strip_prefix("0x")?, 16).ok();
            Some(Vdev {
                number,
                address: of("PciBusId").first()?.clone(),
                mask: [word(0)?, word(1)?],
                memory_mib: of("mem").first()?.strip_suffix(" MiB")?.parse().ok()?,
                pipe: of("pipe_id").first()?.parse().ok()?,
            })
        })
        .collect()
}

pub(crate) fn device_of(call: &Call, address: &str) -> i32 {
    call.cards().iter().position(|card| card.address == address).unwrap_or(0) as i32
}

/// Units and MiB that are left on a card.
pub(crate) fn left(call: &Call, device: i32) -> Result<(u32, u64), u32> {
    let card = card(call, device)?;
    let ours = all(call).into_iter().filter(|v| v.address == card.address);
    let (units, memory) = ours.fold((0, 0), |(units, memory), v| {
        (units + v.mask.iter().map(|w| w.count_ones()).sum::<u32>(), memory + v.memory_mib)
    });
    Ok((card.units.saturating_sub(units), card.memory_mib.saturating_sub(memory)))
}

pub(crate) fn create(call: &Call, device: i32, units: i32, memory: i32) -> Result<(), u32> {
    let card = card(call, device)?;
    let there = all(call);
    let on_card: Vec<&Vdev> = there.iter().filter(|v| v.address == card.address).collect();
    let (units_left, memory_left) = left(call, device)?;
    if on_card.len() >= MOST as usize {
        return Err(OUT_OF_RESOURCES);
    }
    let (Ok(units), Ok(memory)) = (u32::try_from(units), u64::try_from(memory)) else {
        return Err(INVALID_ARGUMENTS);
    };
    if memory == 0 {
        return Err(INVALID_ARGUMENTS);
    }
    if units > units_left || memory > memory_left {
        return Err(OUT_OF_RESOURCES);
    }
    // Units are shared by all of a card's or by none.
    if on_card.iter().any(|v| (v.mask == [0, 0]) != (units == 0)) {
        return Err(INVALID_ARGUMENTS);
    }
    let number = (0..200).find(|n| there.iter().all(|v| v.number != *n)).ok_or(OUT_OF_RESOURCES)?;
    let pipe = (0..20).find(|n| on_card.iter().all(|v| v.pipe != *n)).ok_or(OUT_OF_RESOURCES)?;
    let taken = if call.has("overlap") { [0, 0] } else { union(&on_card) };
    let mut mask = lowest(card, units, taken);
    if call.has("beyond") {
        mask[1] |= 1 << 63;
    }
    let mut address = card.address.clone();
    if call.has("wrong-card")
        && let Some(other) = call.cards().iter().find(|other| other.address != address)
    {
        address = other.address.clone();
    }
    if call.has("no-file") {
        call.changed();
        return Ok(());
    }
    let vdev = Vdev { number, address, mask, memory_mib: memory, pipe };
    write(call, &vdev)?;
    call.changed();
    Ok(())
}

pub(crate) fn destroy(call: &Call, number: i32) -> Result<(), u32> {
    if !all(call).iter().any(|v| v.number == number) {
        return Err(VDEV_NOT_EXIST);
    }
    if call.control.busy.iter().any(|busy| *busy as i32 == number) {
        return Err(DEVICE_BUSY);
    }
    fs::remove_file(file(call, number)).map_err(|_e| FILE_ERROR)?;
    call.changed();
    Ok(())
}

pub(crate) fn update(call: &Call, number: i32, units: i32, memory: i32) -> Result<(), u32> {
    let mut there = all(call);
    let at = there.iter().position(|v| v.number == number).ok_or(VDEV_NOT_EXIST)?;
    let mut vdev = there.remove(at);
    let device = device_of(call, &vdev.address);
    let card = card(call, device)?;
    let on_card: Vec<&Vdev> = there.iter().filter(|v| v.address == card.address).collect();
    if memory >= 0 {
        let held: u64 = on_card.iter().map(|v| v.memory_mib).sum();
        if memory == 0 || held + memory as u64 > card.memory_mib {
            return Err(OUT_OF_RESOURCES);
        }
        vdev.memory_mib = memory as u64;
    }
    if units >= 0 {
        let taken = union(&on_card);
        let held: u32 = taken.iter().map(|w| w.count_ones()).sum();
        if held + units as u32 > card.units {
            return Err(OUT_OF_RESOURCES);
        }
        vdev.mask = lowest(card, units as u32, taken);
    }
    write(call, &vdev)?;
    call.changed();
    Ok(())
}

fn write(call: &Call, v: &Vdev) -> Result<(), u32> {
    let units: u32 = v.mask.iter().map(|w| w.count_ones()).sum();
    let device = device_of(call, &v.address);
    let text = format!(
        "PciBusId: {}\ncu_mask: 0x{:016x}\ncu_mask: 0x{:016x}\ncu_count: {units}\nmem: {} MiB\n\
         device_id: {device}\nvdev_id: {}\npipe_id: {}\nenable: 1\n",
        v.address, v.mask[0], v.mask[1], v.memory_mib, v.number, v.pipe
    );
    let path = file(call, v.number);
    fs::create_dir_all(call.at("etc/vdev")).map_err(|_e| FILE_ERROR)?;
    let draft = path.with_extension("daemon");
    fs::write(&draft, text).and_then(|()| fs::rename(&draft, &path)).map_err(|_e| FILE_ERROR)
}

fn card(call: &Call, device: i32) -> Result<&Card, u32> {
    let cards = call.cards();
    let at = usize::try_from(device).map_err(|_e| INVALID_ARGUMENTS)?;
    cards.get(at).copied().ok_or(INVALID_ARGUMENTS)
}

fn union(on_card: &[&Vdev]) -> [u64; 2] {
    on_card.iter().fold([0, 0], |[a, b], v| [a | v.mask[0], b | v.mask[1]])
}

fn lowest(card: &Card, units: u32, taken: [u64; 2]) -> [u64; 2] {
    let taken = u128::from(taken[0]) | u128::from(taken[1]) << 64;
    let (mut mask, mut missing) = (0_u128, units);
    for unit in 0..card.units.min(128) {
        if missing > 0 && taken & 1 << unit == 0 {
            mask |= 1 << unit;
            missing -= 1;
        }
    }
    [mask as u64, (mask >> 64) as u64]
}

fn file(call: &Call, number: i32) -> PathBuf {
    call.at(format!("etc/vdev/vdev{number}.conf"))
}
