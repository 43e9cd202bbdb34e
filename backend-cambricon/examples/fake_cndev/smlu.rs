//! What the driver does with sMLU: 16 profiles and 64 instances to a card, quotas that never exceed it together.

use crate::abi::{DUPLICATE, IN_USE, INSUFFICIENT_SPACE, INVALID_ARGUMENT, NOT_SUPPORTED};
use crate::exports::MIB;
use crate::state::{Card, Instance, Mode, Profile};
use crate::world::{Answer, Here};

const PROFILES: usize = 16;
const INSTANCES: usize = 64;

/// Enters or leaves a mode, while nobody has the card open and no instance is there.
pub(crate) fn set_mode(here: Here<'_>, mode: Mode, on: bool) -> Answer<()> {
    let has = match mode {
        Mode::Smlu => here.card.smlu,
        _ => !here.card.mim.is_empty(),
    };
    if !has {
        return Err(NOT_SUPPORTED);
    }
    let (wanted, now) = (if on { mode } else { Mode::Default }, here.state.mode);
    if now == wanted || (!on && now != mode) {
        return Ok(());
    }
    // The modes exclude one another.
    if on && now != Mode::Default {
        return Err(NOT_SUPPORTED);
    }
    if !here.state.holders.is_empty() || !here.state.instances.is_empty() {
        return Err(IN_USE);
    }
    here.state.mode = wanted;
    here.state.profiles.clear();
    if wanted == Mode::Smlu {
        let all = here.card.memory();
        for (id, percent) in [(0, 100), (1, 50), (2, 25)] {
            let memory = all / 100 * u64::from(percent) / MIB * MIB;
            here.state.profiles.push(Profile { id, percent, memory });
        }
    }
    Ok(())
}

pub(crate) fn is_on(here: &Here<'_>) -> Answer<bool> {
    if here.card.smlu { Ok(here.state.mode == Mode::Smlu) } else { Err(NOT_SUPPORTED) }
}

pub(crate) fn create_profile(here: Here<'_>, percent: u32, memory: u64) -> Answer<i32> {
    must_be_on(&here)?;
    add_profile(here.card.memory(), here.state, percent, memory)
}

pub(crate) fn destroy_profile(here: Here<'_>, id: i32) -> Answer<()> {
    must_be_on(&here)?;
    if here.state.instances.iter().any(|i| i.profile == id) {
        return Err(DUPLICATE);
    }
    let before = here.state.profiles.len();
    here.state.profiles.retain(|p| p.id != id);
    if here.state.profiles.len() == before { Err(INVALID_ARGUMENT) } else { Ok(()) }
}

pub(crate) fn create(here: Here<'_>, profile: i32, name: &str) -> Answer<i32> {
    must_be_on(&here)?;
    let size = here.state.profile(profile).ok_or(INVALID_ARGUMENT)?.clone();
    if here.state.instances.iter().any(|i| i.name == name) {
        return Err(DUPLICATE);
    }
    if here.state.instances.len() >= INSTANCES {
        return Err(INSUFFICIENT_SPACE);
    }
    fits(&here, &size, None)?;
    let id = lowest_free(here.state);
    here.state.instances.push(Instance {
        id,
        name: name.to_owned(),
        profile,
        start: 0,
        holders: Vec::new(),
    });
    here.state.instances.sort_by_key(|i| i.id);
    Ok(id << 8 | here.card.minor.cast_signed())
}

pub(crate) fn destroy(here: Here<'_>, id: i32) -> Answer<()> {
    must_be_on(&here)?;
    remove(here.state, id)
}

/// Changes the size of a living instance, which gets another profile, as if it were made anew.
pub(crate) fn update(here: Here<'_>, id: i32, percent: u32, memory: u64) -> Answer<()> {
    must_be_on(&here)?;
    let at = here.state.instances.iter().position(|i| i.id == id).ok_or(INVALID_ARGUMENT)?;
    let size = Profile { id: -1, percent, memory };
    fits(&here, &size, Some(id))?;
    let found = here.state.profiles.iter().find(|p| p.percent == percent && p.memory == memory);
    let profile = match found.map(|p| p.id) {
        Some(profile) => profile,
        None => add_profile(here.card.memory(), here.state, percent, memory)?,
    };
    here.state.instances[at].profile = profile;
    Ok(())
}

/// Unmakes an instance of either kind that nobody has open.
pub(crate) fn remove(card: &mut Card, id: i32) -> Answer<()> {
    let at = card.instances.iter().position(|i| i.id == id).ok_or(INVALID_ARGUMENT)?;
    if !card.instances[at].holders.is_empty() {
        return Err(IN_USE);
    }
    card.instances.remove(at);
    Ok(())
}

pub(crate) fn lowest_free(card: &Card) -> i32 {
    (1..).find(|id| card.instances.iter().all(|i| i.id != *id)).unwrap_or(i32::MAX)
}

fn add_profile(all: u64, card: &mut Card, percent: u32, memory: u64) -> Answer<i32> {
    if percent == 0 || percent > 100 || memory < MIB || memory > all {
        return Err(INVALID_ARGUMENT);
    }
    if card.profiles.iter().any(|p| p.percent == percent && p.memory == memory) {
        return Err(DUPLICATE);
    }
    if card.profiles.len() >= PROFILES {
        return Err(INSUFFICIENT_SPACE);
    }
    let id = (0..).find(|id| card.profiles.iter().all(|p| p.id != *id)).unwrap_or(i32::MAX);
    card.profiles.push(Profile { id, percent, memory });
    Ok(id)
}

/// Whether the quotas of all, less those of `but`, and this one stay within the card.
fn fits(here: &Here<'_>, size: &Profile, but: Option<i32>) -> Answer<()> {
    let others = here.state.instances.iter().filter(|i| Some(i.id) != but);
    let sizes: Vec<&Profile> = others.filter_map(|i| here.state.profile(i.profile)).collect();
    let memory: u64 = sizes.iter().map(|p| p.memory).sum();
    let percent: u32 = sizes.iter().map(|p| p.percent).sum();
    if memory + size.memory > here.card.memory() || percent + size.percent > 100 {
        return Err(INSUFFICIENT_SPACE);
    }
    Ok(())
}

fn must_be_on(here: &Here<'_>) -> Answer<()> {
    if is_on(here)? { Ok(()) } else { Err(NOT_SUPPORTED) }
}
