//! From the parts that a card shall have to those to make and those to unmake.
//!
//! Parts in use and other tools' parts are never touched: what they are in the way of is made later. Idle parts of ours
//! that the layout has stay where they lie, as many as a complete layout lets.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::device::Device;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{CounterId, PartitionId, ProfileId};
use crate::order::{ModeOrder, Placement};
use crate::scheme::{Form, Profile, Scheme, SchemeInfo, Sizing, Slots};

/// So many parts of a profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileCount {
    /// By the vendor's name.
    pub profile: ProfileId,
    /// How many.
    pub count: NonZeroU32,
}

/// A part that is on the card now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Which.
    pub part: PartitionId,
    /// Its profile, where the driver tells.
    pub profile: Option<ProfileId>,
    /// Where it lies.
    pub placement: Placement,
    /// What may be done to it.
    pub right: Right,
}

/// What may be done to a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Right {
    /// Another tool's: it stays, and is none of the layout's.
    Foreign,
    /// Ours and idle: it may go.
    Idle,
    /// Ours and in use: it stays, and counts where the layout has its like.
    InUse,
}

/// What a layout comes to on a card.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutPlan {
    /// The mode to enter first.
    pub mode: Option<ModeOrder>,
    /// Parts of the layout that are there, by their places.
    pub keep: Vec<PartitionId>,
    /// Idle parts that the layout does not have; first of all.
    pub unmake: Vec<PartitionId>,
    /// Parts to make then, in this order.
    pub make: Vec<Placed>,
    /// Parts for which room comes when others end.
    pub later: Vec<Placed>,
    /// Those others.
    pub waits_for: Vec<PartitionId>,
}

/// A profile at its place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Placed {
    /// Which.
    pub profile: ProfileId,
    /// Where.
    pub slots: Slots,
}

impl LayoutPlan {
    /// Whether the card is as it shall be.
    pub fn is_done(&self) -> bool {
        self.unmake.is_empty() && self.make.is_empty() && self.later.is_empty()
    }
}

/// Plans a layout for a card with these parts on it.
///
/// The places are those of a complete layout, so that what is made now is never in the way of what is made later.
///
/// # Errors
/// `Unsupported` for a scheme that the card lacks, `Invalid` for one without profiles, for a profile that it lacks, and
/// for parts that have no placement together even on an empty card.
pub fn layout(
    device: &Device,
    scheme: &Scheme,
    parts: &[ProfileCount],
    standing: &[Standing],
) -> Result<LayoutPlan> {
    let info = device.scheme(scheme)?;
    let items = items(device, info, parts)?;
    let mut search = Search {
        device,
        standing,
        items: &items,
        chosen: Vec::new(),
        best: None,
        steps: MOST_STEPS,
    };
    search.go(0);
    let Some((_, places)) = search.best else {
        let asked: Vec<String> =
            parts.iter().map(|p| format!("{} × {}", p.count, p.profile)).collect();
        let why = format!(
            "{} have no placement together on {}, even when it is empty; take fewer or smaller",
            asked.join(", "),
            device.id
        );
        return Err(Error::new(ErrorKind::Invalid, why).with("scheme", scheme));
    };
    Ok(told(device, info, &items, places, standing))
}

/// Enough for every arrangement of a table that is known; a guard against one that nobody has seen.
const MOST_STEPS: u32 = 200_000;

/// Every part of the layout on its own, larger ones first, those of a kind beside each other.
fn items<'d>(
    device: &Device,
    info: &'d SchemeInfo,
    parts: &[ProfileCount],
) -> Result<Vec<&'d Profile>> {
    let invalid = |why: String| Err(Error::new(ErrorKind::Invalid, why).with("device", &device.id));
    let (Form::Carved, Sizing::Profiles(table)) = (info.form, &info.sizing) else {
        return invalid(format!("{} has no table of profiles to lay out", info.scheme));
    };
    let mut items: Vec<&Profile> = Vec::new();
    for ProfileCount { profile, count } in parts {
        let Some(found) = table.iter().find(|p| p.id == *profile) else {
            let has: Vec<&str> = table.iter().map(|p| p.id.as_str()).collect();
            return invalid(format!("there is no profile {profile}; it has {}", has.join(", ")));
        };
        // Each part takes a place of its own, so more parts than places need not be tried.
        let count = usize::try_from(count.get()).unwrap_or(usize::MAX);
        let there = items.iter().filter(|p| p.id == *profile).count();
        if count.saturating_add(there) > found.placements.len() {
            let places = found.placements.len();
            return invalid(format!("{count} × {profile} are more than its {places} places"));
        }
        items.extend(std::iter::repeat_n(found, count));
    }
    items.sort_by_key(|p| (std::cmp::Reverse(length(p)), p.id.clone()));
    Ok(items)
}

fn length(profile: &Profile) -> u32 {
    profile.placements.iter().map(|p| p.len).max().unwrap_or(0)
}

/// How good an arrangement is: parts in use that stay part of the layout, then little that has to wait, then idle
/// parts that stay.
type Score = (usize, std::cmp::Reverse<u32>, usize);

struct Search<'a> {
    device: &'a Device,
    standing: &'a [Standing],
    items: &'a [&'a Profile],
    chosen: Vec<Slots>,
    best: Option<(Score, Vec<Slots>)>,
    steps: u32,
}

impl Search<'_> {
    fn go(&mut self, at: usize) {
        let Some(profile) = self.items.get(at).copied() else {
            let score = self.score();
            if self.best.as_ref().is_none_or(|(best, _)| score > *best) {
                self.best = Some((score, self.chosen.clone()));
            }
            return;
        };
        if short(self.device, self.items.iter().take(at + 1).copied()) {
            return;
        }
        // Of parts of one kind only the order of their places is tried.
        let like = at > 0 && self.items[at - 1].id == profile.id;
        let after = like.then(|| self.chosen[at - 1]);
        let mut places = profile.placements.clone();
        places.sort_unstable();
        for place in places {
            if after.is_some_and(|after| place <= after)
                || self.chosen.iter().any(|other| other.overlaps(place))
            {
                continue;
            }
            if self.steps == 0 {
                return;
            }
            self.steps -= 1;
            self.chosen.push(place);
            self.go(at + 1);
            self.chosen.pop();
        }
    }

    fn score(&self) -> Score {
        let (mut used, mut waits, mut idle) = (0, 0, 0);
        for (profile, slots) in self.items.iter().zip(&self.chosen) {
            match there(self.standing, profile, *slots) {
                Some(Standing { right: Right::InUse, .. }) => used += 1,
                Some(_) => idle += 1,
                None if blocked(self.standing, *slots) => waits += slots.len,
                None => {}
            }
        }
        (used, std::cmp::Reverse(waits), idle)
    }
}

/// The part of ours that is of this profile at this place.
fn there<'s>(standing: &'s [Standing], profile: &Profile, slots: Slots) -> Option<&'s Standing> {
    standing.iter().find(|s| {
        s.right != Right::Foreign
            && s.profile.as_ref() == Some(&profile.id)
            && s.placement == Placement::Slots(slots)
    })
}

/// Whether a part that stays lies there; one of which nobody knows where it lies may lie anywhere.
fn blocked(standing: &[Standing], slots: Slots) -> bool {
    standing.iter().filter(|s| s.right != Right::Idle).any(|s| blocks(s, slots))
}

fn blocks(standing: &Standing, slots: Slots) -> bool {
    match &standing.placement {
        Placement::Slots(own) => own.overlaps(slots),
        Placement::Driver | Placement::Units(_) => true,
    }
}

/// Whether some counter of the card is too small for all of these.
fn short<'p>(device: &Device, profiles: impl Iterator<Item = &'p Profile>) -> bool {
    let mut used: Vec<(&CounterId, u64)> = Vec::new();
    for (counter, n) in profiles.flat_map(|p| &p.uses) {
        match used.iter_mut().find(|(c, _)| *c == counter) {
            Some((_, sum)) => *sum = sum.saturating_add(*n),
            None => used.push((counter, *n)),
        }
    }
    used.iter().any(|(counter, n)| *n > device.counter(counter))
}

fn told(
    device: &Device,
    info: &SchemeInfo,
    items: &[&Profile],
    places: Vec<Slots>,
    standing: &[Standing],
) -> LayoutPlan {
    let mut plan = LayoutPlan::default();
    let mut missing: Vec<(&Profile, Slots)> = Vec::new();
    for (profile, slots) in items.iter().zip(places) {
        match there(standing, profile, slots) {
            Some(found) => plan.keep.push(found.part.clone()),
            None => missing.push((profile, slots)),
        }
    }
    let kept = plan.keep.clone();
    let stays = |s: &&Standing| s.right != Right::Idle || kept.contains(&s.part);
    let idle = standing.iter().filter(|s| !stays(s));
    plan.unmake = idle.map(|s| s.part.clone()).collect();
    // What stays uses up counters too, whether the layout has it or not.
    let mut there: Vec<&Profile> =
        standing.iter().filter(stays).filter_map(|s| info.profile(s.profile.as_ref()?)).collect();
    for (profile, slots) in missing {
        let placed = Placed { profile: profile.id.clone(), slots };
        let full = short(device, there.iter().copied().chain([profile]));
        if full || blocked(standing, slots) {
            let others = standing
                .iter()
                .filter(|s| s.right != Right::Idle && !kept.contains(&s.part))
                .filter(|s| full || blocks(s, slots));
            plan.waits_for.extend(others.map(|s| s.part.clone()));
            plan.later.push(placed);
        } else {
            there.push(profile);
            plan.make.push(placed);
        }
    }
    plan.waits_for.sort();
    plan.waits_for.dedup();
    if !info.mode.active && !plan.make.is_empty() {
        plan.mode = Some(ModeOrder {
            device: device.id.clone(),
            scheme: Some(info.scheme.clone()),
            affected: info.mode.affects.clone(),
            domain: None,
        });
    }
    plan
}
