//! MIG profiles as the driver tells them: names, sizes, placements, and what each uses up.
//!
//! The driver's numbers are bounded here, once: whatever contradicts itself is a fault of the driver and no profile.
//! A profile that this version does not know is one like any other.

use std::num::NonZeroU32;

use vgpu_core::{Bytes, ComputeShare, CounterId, Profile, ProfileId, Size, Slots};

use crate::api::{MemoryInfo, NvmlApi, NvmlFailure};
use crate::mig::api::{GpuInstanceProfile, MAX_PROFILES, MIG_SYMBOLS, MemorySlices};
use crate::symbols::malformed;

/// A card's profiles, and how much of each countable thing the card has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MigTable {
    pub(crate) rows: Vec<MigRow>,
    pub(crate) counters: Vec<(CounterId, u64)>,
    /// Multiprocessors of the largest profile.
    pub(crate) multiprocessors: NonZeroU32,
}

/// A profile with what the driver calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MigRow {
    /// What calls name it by.
    pub(crate) id: u32,
    /// Slices of compute.
    pub(crate) slices: u32,
    pub(crate) profile: Profile,
}

impl MigTable {
    /// Reads the table of a card; `None` where the card, the driver or the library has no such thing, or does not
    /// tell it to this user.
    ///
    /// # Errors
    /// A failure of the driver, and numbers that cannot be.
    pub(crate) fn read(
        api: &dyn NvmlApi,
        index: u32,
        memory: &MemoryInfo,
        units: NonZeroU32,
    ) -> Result<Option<Self>, NvmlFailure> {
        if api.missing_symbols().iter().any(|symbol| MIG_SYMBOLS.contains(symbol)) {
            return Ok(None);
        }
        let mut raw: Vec<Raw> = Vec::new();
        for nth in 0..MAX_PROFILES {
            let info = match api.gpu_instance_profile(index, nth) {
                Ok(info) => info,
                Err(failure) if failure.code() == Some(2) => break,
                Err(failure) if failure.code() == Some(3) => continue,
                Err(failure) if untold(&failure) => return Ok(None),
                Err(failure) => return Err(failure),
            };
            let places = match api.gpu_instance_placements(index, info.id) {
                Ok(places) => places,
                Err(failure) if failure.code() == Some(3) => continue,
                Err(failure) if untold(&failure) => return Ok(None),
                Err(failure) => return Err(failure),
            };
            bounded(&info, &places, memory)?;
            // One that can lie nowhere can be had by nobody.
            if !places.is_empty() {
                raw.push(Raw { nth, info, places });
            }
        }
        let Some(multiprocessors) = raw.iter().map(|r| r.info.multiprocessors).max() else {
            return Ok(None);
        };
        let multiprocessors = NonZeroU32::new(multiprocessors).unwrap_or(NonZeroU32::MIN);
        let of = units.max(multiprocessors);
        let mut rows: Vec<MigRow> = Vec::new();
        for one in &raw {
            let name = name(one, &rows, memory);
            rows.push(row(one, name, of, memory)?);
        }
        let counters = counters(&raw);
        Ok(Some(Self { rows, counters, multiprocessors }))
    }

    /// The row of a profile.
    pub(crate) fn row(&self, profile: &ProfileId) -> Option<&MigRow> {
        self.rows.iter().find(|row| row.profile.id == *profile)
    }

    /// The profiles, as a scheme declares them.
    pub(crate) fn profiles(&self) -> Vec<Profile> {
        self.rows.iter().map(|row| row.profile.clone()).collect()
    }
}

/// A profile as the driver tells it, and its place in the driver's list.
struct Raw {
    nth: u32,
    info: GpuInstanceProfile,
    places: Vec<MemorySlices>,
}

/// Slices that a card may have; those known have 8, and a mask of them is a word.
const MOST_SLICES: u32 = 64;

/// Whether the driver says that it has nothing to tell, to this user at least.
fn untold(failure: &NvmlFailure) -> bool {
    failure.is_unsupported() || failure.code() == Some(4)
}

fn bounded(
    info: &GpuInstanceProfile,
    places: &[MemorySlices],
    memory: &MemoryInfo,
) -> Result<(), NvmlFailure> {
    let wrong = |what: String| malformed("nvmlDeviceGetGpuInstanceProfileInfo", what);
    let id = info.id;
    if info.slices == 0 || info.slices > MOST_SLICES {
        return Err(wrong(format!("profile {id} has {} slices", info.slices)));
    }
    if info.multiprocessors == 0 || info.multiprocessors > 1 << 16 {
        return Err(wrong(format!("profile {id} has {} multiprocessors", info.multiprocessors)));
    }
    // A card's largest profile may hold a little more than the card says is free to use, never more than it has.
    if info.memory_mib == 0 || info.memory_mib > memory.total >> 20 {
        let total = Bytes(memory.total);
        return Err(wrong(format!(
            "profile {id} has {} MiB on a card of {total}",
            info.memory_mib
        )));
    }
    if let Some((engine, n)) = info.engines.iter().find(|(_, n)| *n > 1 << 16) {
        return Err(wrong(format!("profile {id} has {n} of {engine}")));
    }
    let odd = |p: &&MemorySlices| {
        p.size == 0 || p.start.checked_add(p.size).is_none_or(|end| end > MOST_SLICES)
    };
    if let Some(place) = places.iter().find(odd) {
        return Err(malformed(
            "nvmlDeviceGetGpuInstancePossiblePlacements_v2",
            format!("profile {id} may lie in {} slices from {}", place.size, place.start),
        ));
    }
    Ok(())
}

fn row(
    raw: &Raw,
    name: ProfileId,
    of: NonZeroU32,
    memory: &MemoryInfo,
) -> Result<MigRow, NvmlFailure> {
    let mut placements: Vec<Slots> =
        raw.places.iter().map(|place| Slots::new(place.start, place.size)).collect();
    placements.sort_unstable();
    placements.dedup();
    let largest = raw.places.iter().map(|place| place.size).max().unwrap_or_default();
    let mut uses = vec![
        (counter("compute-slice"), u64::from(raw.info.slices)),
        (counter("memory-slice"), u64::from(largest)),
    ];
    let engines = raw.info.engines.iter().filter(|(_, n)| *n > 0);
    uses.extend(engines.map(|(engine, n)| (counter(engine), u64::from(*n))));
    // Its instances together hold no more than what the card hands out.
    let usable = memory.total.saturating_sub(memory.reserved.unwrap_or(0));
    let share = usable / u64::from(side_by_side(&placements).max(1));
    let holds = (raw.info.memory_mib << 20).min(share);
    let units = raw.info.multiprocessors;
    let size = Size { compute: Some(ComputeShare { units, of }), memory: Some(Bytes(holds)) };
    let profile = Profile { id: name, size, placements, uses };
    Ok(MigRow { id: raw.info.id, slices: raw.info.slices, profile })
}

/// The largest amount that one profile has is what the card has: one that takes all of it is always there.
fn counters(raw: &[Raw]) -> Vec<(CounterId, u64)> {
    let most = |of: &dyn Fn(&Raw) -> u32| raw.iter().map(of).max().unwrap_or(0);
    let ends = |r: &Raw| r.places.iter().map(|p| p.start + p.size).max().unwrap_or(0);
    let mut all = vec![
        (counter("compute-slice"), u64::from(most(&|r| r.info.slices))),
        (counter("memory-slice"), u64::from(most(&ends))),
    ];
    let engines = raw.first().map(|r| r.info.engines).unwrap_or_default();
    for (at, (engine, _)) in engines.iter().enumerate() {
        let n = most(&|r| r.info.engines[at].1);
        if n > 0 {
            all.push((counter(engine), u64::from(n)));
        }
    }
    all
}

fn counter(name: &str) -> CounterId {
    CounterId::new(name).expect("letters and dashes make a counter")
}

/// The vendor's name, else one made as the vendor makes them; two of a kind are told apart by their ids.
fn name(raw: &Raw, before: &[MigRow], memory: &MemoryInfo) -> ProfileId {
    let told = raw.info.name.as_deref().map(str::trim).unwrap_or_default();
    let told = ProfileId::new(told.strip_prefix("MIG ").unwrap_or(told)).ok();
    let id = told.unwrap_or_else(|| ProfileId::new(made_up(raw, memory)).expect("a word"));
    if before.iter().all(|row| row.profile.id != id) {
        return id;
    }
    let longer = format!("p{}", raw.info.id);
    ProfileId::new(format!("{}g.{longer}", raw.info.slices)).expect("a word")
}

/// `3g.20gb`: slices, memory in eighths of the card, and what sets it apart from its like.
fn made_up(raw: &Raw, memory: &MemoryInfo) -> String {
    const GIB: u64 = 1 << 30;
    let (total_mib, total_gib) = ((memory.total >> 20).max(1), memory.total.div_ceil(GIB));
    let eighths = (raw.info.memory_mib * 8).div_ceil(total_mib);
    let gigabytes = (eighths * total_gib * 2 + 8) / 16;
    let apart = match raw.nth {
        0..=6 | 9 => String::new(),
        7 | 8 => "+me".to_owned(),
        10..=12 | 17 => "+gfx".to_owned(),
        13 | 14 => "-me".to_owned(),
        15 | 16 => "+me.all".to_owned(),
        _ => format!("+p{}", raw.info.id),
    };
    format!("{}g.{gigabytes}gb{apart}", raw.info.slices)
}

/// How many of these places do not touch one another; greedy by end is exact for intervals.
fn side_by_side(places: &[Slots]) -> u32 {
    let mut places = places.to_vec();
    places.sort_by_key(|s| s.start + s.len);
    let mut last: Option<Slots> = None;
    let mut n = 0;
    for place in places {
        if last.is_none_or(|l| !l.overlaps(place)) {
            last = Some(place);
            n += 1;
        }
    }
    n
}
