//! What the driver does with MIM: instances at places of a table.

use crate::abi::{DUPLICATE, INSUFFICIENT_SPACE, INVALID_ARGUMENT, NOT_FOUND, NOT_SUPPORTED};
use crate::scenario::MimRow;
use crate::smlu;
use crate::state::{Instance, Mode};
use crate::world::{Answer, Here};

pub(crate) fn is_on(here: &Here<'_>) -> Answer<bool> {
    if here.card.mim.is_empty() { Err(NOT_SUPPORTED) } else { Ok(here.state.mode == Mode::Mim) }
}

/// The row of that place in the enumeration.
pub(crate) fn numbered(here: &Here<'_>, number: i32) -> Answer<MimRow> {
    let on = is_on(here)?;
    if here.card.mim_only_in_mode && !on {
        return Err(NOT_SUPPORTED);
    }
    here.card.mim.iter().find(|row| row.number == number).cloned().ok_or(NOT_FOUND)
}

pub(crate) fn row<'h>(here: &'h Here<'_>, id: i32) -> Answer<&'h MimRow> {
    here.card.mim.iter().find(|row| row.id == id).ok_or(NOT_FOUND)
}

pub(crate) fn create(here: Here<'_>, profile: i32, at: (i32, i32), name: &str) -> Answer<i32> {
    if !is_on(&here)? {
        return Err(NOT_SUPPORTED);
    }
    let (start, len) = at;
    let row = row(&here, profile)?;
    if !row.starts.contains(&start) || row.len != len {
        return Err(INVALID_ARGUMENT);
    }
    if here.state.instances.iter().any(|i| i.name == name) {
        return Err(DUPLICATE);
    }
    let overlaps = |i: &Instance| {
        let theirs = here.card.mim.iter().find(|r| r.id == i.profile).map_or(0, |r| r.len);
        start < i.start + theirs && i.start < start + len
    };
    if here.state.instances.iter().any(overlaps) {
        return Err(INSUFFICIENT_SPACE);
    }
    let id = smlu::lowest_free(here.state);
    let name = name.to_owned();
    here.state.instances.push(Instance { id, name, profile, start, holders: Vec::new() });
    here.state.instances.sort_by_key(|i| i.id);
    Ok(id << 8 | here.card.minor.cast_signed())
}

pub(crate) fn destroy(here: Here<'_>, id: i32) -> Answer<()> {
    if !is_on(&here)? {
        return Err(NOT_SUPPORTED);
    }
    smlu::remove(here.state, id)
}
