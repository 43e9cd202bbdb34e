//! Reading every card that a library counts, and naming those that do not answer.

use std::collections::BTreeMap;

use vgpu_core::{Device, DeviceId, Error, ErrorKind, Lost, Result};

use crate::numbers::CardNumbers;

/// Cards with their numbers, and the numbers under which none answered, with the reason.
#[derive(Debug, Default)]
pub struct Listed {
    /// In the library's order.
    pub found: Vec<(u32, Device)>,
    /// Likewise.
    pub silent: Vec<(u32, Error)>,
}

/// Why a card could not be read. A backend makes it of its own failure with `From`.
#[derive(Debug)]
pub enum Unread {
    /// Its own silence.
    Card(Error),
    /// A driver that answers nobody, so that asking about the next card is of no use.
    Driver(Error),
}

/// Reads the cards 0 to `count` - 1 and remembers their names; one that gives another's name is left
/// out, with `report` as the way to report it.
///
/// # Errors
/// [`Unread::Driver`]'s.
pub fn read_cards(
    count: u32,
    numbers: &CardNumbers,
    report: &str,
    mut describe: impl FnMut(u32) -> std::result::Result<Device, Unread>,
) -> Result<Listed> {
    let mut cards = Listed::default();
    for number in 0..count {
        match describe(number) {
            Ok(device) => match cards.found.iter().find(|(_, other)| other.id == device.id) {
                None => {
                    numbers.remember(number, &device.id);
                    cards.found.push((number, device));
                }
                Some((first, _)) => {
                    let why = twice(*first, number, &device.id, report);
                    cards.silent.push((number, why));
                }
            },
            Err(Unread::Card(why)) => cards.silent.push((number, why)),
            Err(Unread::Driver(why)) => return Err(why),
        }
    }
    Ok(cards)
}

/// Names what does not answer by what it was called when it did, else as `nameless` says; and tells what
/// was there before and has no number any more. `known` are the remembered cards that were not found.
pub fn lost(
    silent: Vec<(u32, Error)>,
    mut known: BTreeMap<u32, DeviceId>,
    count: u32,
    nameless: impl Fn(u32) -> String,
) -> Vec<Lost> {
    let mut lost: Vec<Lost> = Vec::new();
    for (number, reason) in silent {
        let name = known.remove(&number).map_or_else(|| nameless(number), |id| id.to_string());
        lost.push(Lost { name, reason });
    }
    lost.extend(known.into_iter().map(|(number, id)| {
        let why = format!("it was card {number}, and the driver lists {count} cards without it");
        Lost { name: id.to_string(), reason: Error::new(ErrorKind::Lost, why) }
    }));
    lost
}

fn twice(first: u32, second: u32, id: &DeviceId, report: &str) -> Error {
    let why = format!(
        "cards {first} and {second} both say that they are {id}; the second is left out, report it {report}"
    );
    Error::new(ErrorKind::Vendor, why)
}
