//! MIM: hardware instances at places of a table, named by their claim.

use std::num::NonZeroU32;
use std::sync::Arc;

use vgpu_core::{
    Bytes, ComputeShare, CreateOrder, DeviceId, Error, ErrorKind, Partition, PartitionId,
    PartitionState, Placement, Profile, ProfileId, Result, Scheme, Shape, Size, Slots,
};

use crate::api::{MimInstance, MimProfile};
use crate::backend::CambriconBackend;
use crate::bindings::VGPU_CNDEV_MIM_PROFILES;
use crate::cards::Cards;
use crate::convert;
use crate::parts::{self, Openers, no_part};

/// A card's profiles, with the number by which the library knows each.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<(i32, Profile)>,
    most: u32,
}

impl Table {
    pub(crate) fn profiles(&self) -> Vec<Profile> {
        self.rows.iter().map(|(_, profile)| profile.clone()).collect()
    }

    /// Most instances of a card at once.
    pub(crate) fn most(&self) -> u32 {
        self.most
    }

    fn number(&self, id: &ProfileId) -> Option<i32> {
        self.rows.iter().find(|(_, profile)| profile.id == *id).map(|(number, _)| *number)
    }

    fn profile(&self, number: i32) -> Option<&Profile> {
        self.rows.iter().find(|(known, _)| *known == number).map(|(_, profile)| profile)
    }
}

/// A card's table: as it was read before, or as it is read now. `None` where the library tells it only in MIM mode
/// and was never in it.
pub(crate) fn table(
    cards: &Cards,
    device: &DeviceId,
    index: u32,
    memory: Bytes,
    cores: NonZeroU32,
) -> Option<Arc<Table>> {
    if let Some(table) = cards.table(device) {
        return Some(table);
    }
    let api = &cards.api;
    let mut rows: Vec<(MimProfile, Vec<Slots>)> = Vec::new();
    let mut most = 0;
    for number in 0..VGPU_CNDEV_MIM_PROFILES {
        let profile = match api.mim_profile(index, number) {
            Ok(profile) => profile,
            Err(failure) if matches!(failure.code(), Some(5 | 10 | 14)) => continue,
            // Half a table would be a wrong one.
            Err(_) => return None,
        };
        let places = api.mim_placements(index, profile.id).ok()?;
        let places: Vec<Slots> =
            places.into_iter().map(|(start, len)| Slots::new(start, len)).collect();
        let beside = side_by_side(&places);
        most = most.max(api.mim_most(index, profile.id).unwrap_or(beside)).max(beside);
        if !places.is_empty() && rows.iter().all(|(other, _)| other.name != profile.name) {
            rows.push((profile, places));
        }
    }
    let rows: Vec<(i32, Profile)> = rows
        .into_iter()
        .filter_map(|(profile, places)| {
            let size = size(&profile, side_by_side(&places), memory, cores);
            let id = ProfileId::new(profile.name).ok()?;
            Some((profile.id, Profile { id, size, placements: places, uses: Vec::new() }))
        })
        .collect();
    if rows.is_empty() {
        return None;
    }
    let table = Arc::new(Table { rows, most });
    cards.keep_table(device, &table);
    Some(table)
}

impl CambriconBackend {
    pub(crate) fn mim_parts(&self, device: &DeviceId, index: u32) -> Result<Vec<Partition>> {
        let instances = self.mim_instances(index)?;
        if instances.is_empty() {
            return Ok(Vec::new());
        }
        let (table, openers) = (self.cards.table(device), self.openers(index)?);
        instances.iter().map(|i| part(device, i, table.as_deref(), &openers)).collect()
    }

    pub(crate) fn create_mim(&self, order: &CreateOrder, index: u32) -> Result<Partition> {
        let device = order.device();
        let error = |failure| convert::error(&failure).with("device", device);
        let (Shape::Profile(profile), Placement::Slots(place)) = (order.shape(), order.placement())
        else {
            return Err(Error::new(
                ErrorKind::Invalid,
                "a MIM instance is made by profile and place",
            ));
        };
        let known = self.cards.table(device).and_then(|table| table.number(profile));
        let number = known.ok_or_else(|| {
            Error::new(ErrorKind::Invalid, format!("{device} has no profile {profile}; scan again"))
        })?;
        let name = parts::name(order.claim())?;
        let place = (place.start, place.len);
        let handle = self.api().create_mim(index, number, place, name).map_err(error)?;
        let listed = self.mim_parts(device, index).and_then(|parts| {
            let ours = parts.into_iter().find(|p| p.tag.as_ref() == Some(order.claim()));
            ours.ok_or_else(|| {
                Error::new(ErrorKind::Vendor, format!("{name} was made and is not listed"))
            })
        });
        listed.map_err(|why| match self.api().destroy_mim(handle) {
            Ok(()) => why,
            Err(failure) => why.caused_by(error(failure)),
        })
    }

    pub(crate) fn destroy_mim(&self, id: &PartitionId, index: u32) -> Result<()> {
        let instance = self.mim_instance(id, index)?;
        let uuid_of = |handle| self.api().mim_uuid(handle);
        let handle = self.handle(index, instance.id, &instance.uuid, uuid_of)?;
        let error = |failure| convert::error(&failure).with("partition", id);
        self.api().destroy_mim(handle).map_err(error)
    }

    /// The instance of a part, as the driver lists it now.
    pub(crate) fn mim_instance(&self, id: &PartitionId, index: u32) -> Result<MimInstance> {
        let device = id.device();
        let is = |i: &MimInstance| parts::id(&device, &Scheme::MIM, &i.name, i.id);
        self.mim_instances(index)?
            .into_iter()
            .find(|instance| is(instance).is_ok_and(|found| found == *id))
            .ok_or_else(|| no_part(id))
    }

    fn mim_instances(&self, index: u32) -> Result<Vec<MimInstance>> {
        let api = self.api();
        match api.mim_mode(index) {
            Ok(true) => {}
            Ok(false) => return Ok(Vec::new()),
            Err(failure) if failure.is_unsupported() => return Ok(Vec::new()),
            Err(failure) => return Err(convert::error(&failure)),
        }
        api.mim_instances(index).map_err(|failure| convert::error(&failure))
    }
}

fn part(
    device: &DeviceId,
    instance: &MimInstance,
    table: Option<&Table>,
    openers: &Openers,
) -> Result<Partition> {
    let profile = table.and_then(|table| table.profile(instance.profile));
    let (start, len) = instance.place;
    Ok(Partition {
        id: parts::id(device, &Scheme::MIM, &instance.name, instance.id)?,
        device: device.clone(),
        scheme: Scheme::MIM,
        shape: profile.map(|profile| Shape::Profile(profile.id.clone())),
        size: profile.map_or(Size::ANY, |profile| profile.size),
        placement: Placement::Slots(Slots::new(start, len)),
        handle: instance.uuid.clone(),
        tag: parts::tag(&instance.name),
        state: PartitionState::Complete,
        holders: openers.of(&instance.node, None),
    })
}

/// What a profile holds. No public word says in which unit the library gives its memory, so that the unit is the one
/// that comes nearest to the profile's name; as many as lie side by side never hold more than the card.
fn size(profile: &MimProfile, beside: u32, card: Bytes, cores: NonZeroU32) -> Size {
    let (mib, gib) =
        (profile.memory.saturating_mul(1 << 20), profile.memory.saturating_mul(1 << 30));
    let memory = match named_memory(&profile.name) {
        Some(named) if profile.memory == 0 => named,
        Some(named) if mib.abs_diff(named) <= gib.abs_diff(named) => mib,
        Some(_) => gib,
        None if profile.memory >= 512 => mib,
        None => gib,
    };
    let memory = memory.min(card.0 / u64::from(beside.max(1)));
    let share = ComputeShare { units: profile.cores.min(cores.get()), of: cores };
    Size { compute: (share.units > 0).then_some(share), memory: Some(Bytes(memory)) }
}

/// The memory in a name like `2m.16gb`.
fn named_memory(name: &str) -> Option<u64> {
    let digits: String = name.split('.').nth(1)?.chars().take_while(char::is_ascii_digit).collect();
    digits.parse::<u64>().ok()?.checked_mul(1 << 30)
}

/// How many of these places do not touch one another; greedy by end is exact for intervals.
fn side_by_side(places: &[Slots]) -> u32 {
    let mut places = places.to_vec();
    places.sort_by_key(|s| u64::from(s.start) + u64::from(s.len));
    let mut last: Option<Slots> = None;
    let mut count = 0;
    for place in places {
        if last.is_none_or(|last| !last.overlaps(place)) {
            last = Some(place);
            count += 1;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(name: &str, memory: u64) -> MimProfile {
        MimProfile { id: 0, name: name.into(), cores: 8, memory }
    }

    #[test]
    fn the_unit_of_memory_is_the_one_that_the_name_says() {
        let cores = NonZeroU32::new(24).expect("not 0");
        let of = |p: &MimProfile| size(p, 1, Bytes::gib(48), cores).memory.expect("memory");
        assert_eq!(of(&profile("2m.16gb", 16)), Bytes::gib(16));
        assert_eq!(of(&profile("2m.16gb", 16_384)), Bytes::gib(16));
        assert_eq!(of(&profile("2m.16gb", 15_900)), Bytes::mib(15_900));
        assert_eq!(of(&profile("2m.16gb", 0)), Bytes::gib(16));
        assert_eq!(of(&profile("odd", 8_192)), Bytes::gib(8));
        assert_eq!(of(&profile("odd", 8)), Bytes::gib(8));
    }

    #[test]
    fn profiles_side_by_side_never_hold_more_than_the_card() {
        let cores = NonZeroU32::new(24).expect("not 0");
        let size = size(&profile("1m.8gb", 8), 6, Bytes::gib(46), cores);
        assert!(size.memory.expect("memory").0 * 6 <= Bytes::gib(46).0);
        assert_eq!(side_by_side(&[Slots::new(0, 2), Slots::new(1, 2), Slots::new(2, 2)]), 2);
    }
}
