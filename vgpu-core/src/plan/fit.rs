//! Whether and how one card serves one request.

use std::cmp::Reverse;

use crate::device::Device;
use crate::order::{CreateOrder, Grant, ModeOrder, Placement, Shape, Target};
use crate::plan::{Assignment, Held, Modes, Request, Sizes, Step, Want, Why, pack};
use crate::scheme::{Change, Form, PlacedBy, Profile, Range, Scheme, SchemeInfo, Sizing};
use crate::size::{Bytes, Size};

/// The best way in which `device` serves `request`, or the reason nearest to fitting.
pub(super) fn on(device: &Device, held: &[&Held], request: &Request) -> Result<Assignment, Why> {
    if !request.selector.selects(device) {
        return Err(Why::NotSelected);
    }
    let mut nearest = Why::NoScheme;
    for info in candidates(device, request) {
        match under(device, info, held, request) {
            Ok(assignment) => return Ok(assignment),
            Err(why) if why.distance() < nearest.distance() => nearest = why,
            Err(_) => {}
        }
    }
    Err(nearest)
}

/// The schemes to try, in the request's order, or strongest first.
fn candidates<'d>(device: &'d Device, request: &Request) -> Vec<&'d SchemeInfo> {
    let serves = |info: &&SchemeInfo| match (&request.want, &info.sizing) {
        (Want::Whole, sizing) => *sizing == Sizing::Whole,
        (Want::AtLeast(_), sizing) => *sizing != Sizing::Whole,
        (Want::Profile(_), sizing) => matches!(sizing, Sizing::Profiles(_)),
    };
    if request.schemes.is_empty() {
        let mut all: Vec<&SchemeInfo> = device.schemes.iter().filter(serves).collect();
        all.sort_by_key(|info| Reverse(info.guarantees.strength()));
        return all;
    }
    let of = |scheme: &Scheme| device.schemes.iter().find(|info| info.scheme == *scheme);
    request.schemes.iter().filter_map(of).filter(serves).collect()
}

fn under(
    device: &Device,
    info: &SchemeInfo,
    held: &[&Held],
    request: &Request,
) -> Result<Assignment, Why> {
    let scheme = || info.scheme.clone();
    if let Some((axis, has, asked)) = info.guarantees.shortfall(&request.minimum) {
        return Err(Why::EnforcesLess { scheme: scheme(), axis: axis.into(), has, asked });
    }
    if let Some(max) = info.max_per_container.filter(|max| request.count > max.get() as usize) {
        let why = format!("a container can have at most {max} of it, {} were asked", request.count);
        return Err(Why::Cannot { scheme: scheme(), why });
    }
    let sized = sized(device, info, request)?;
    if let Some(other) = held.iter().find(|h| h.scheme != info.scheme) {
        return Err(Why::InUse { by: other.scheme.clone() });
    }
    let mode = mode(device, info, held, request)?;
    if !info.keeps_strangers_apart()
        && let Some(with) = held.iter().find_map(|h| other_domain(h, request))
    {
        return Err(Why::OtherDomain { with });
    }
    if let Some(max) = info.max.filter(|max| held.len() >= max.get() as usize) {
        return Err(Why::NoSlot { scheme: scheme(), max: max.get() });
    }
    let step = placed(device, info, held, request, &sized)?;
    Ok(Assignment { device: device.id.clone(), mode, step })
}

fn other_domain(held: &Held, request: &Request) -> Option<String> {
    match &held.domain {
        Some(domain) if *domain == request.domain => None,
        Some(domain) => Some(domain.to_string()),
        None => Some("of another tool".into()),
    }
}

/// What the scheme would give for what is asked, whatever is free.
enum Sized<'d> {
    Profiles(Vec<&'d Profile>),
    Range(&'d Range, Size),
    Turn,
    Whole,
}

fn sized<'d>(device: &Device, info: &'d SchemeInfo, request: &Request) -> Result<Sized<'d>, Why> {
    let cannot = |why: String| Why::Cannot { scheme: info.scheme.clone(), why };
    match (&info.sizing, &request.want) {
        (Sizing::Whole, Want::Whole) => Ok(Sized::Whole),
        (Sizing::Turns, Want::AtLeast(size)) if *size == Size::ANY => Ok(Sized::Turn),
        (Sizing::Turns, Want::AtLeast(_)) => Err(cannot("its turns have no size".into())),
        (Sizing::Profiles(_), Want::Profile(id)) => match info.profile(id) {
            Some(profile) => Ok(Sized::Profiles(vec![profile])),
            None => Err(Why::NoProfile { scheme: info.scheme.clone(), profile: id.clone() }),
        },
        (Sizing::Profiles(table), Want::AtLeast(size)) => {
            let mut covering: Vec<&Profile> =
                table.iter().filter(|p| p.size.covers(size)).collect();
            covering.sort_by_key(|p| (slots_of(p), p.size.memory, p.uses.len(), p.id.clone()));
            match covering.is_empty() {
                true => Err(cannot(format!("no profile holds {size}"))),
                false => Ok(Sized::Profiles(covering)),
            }
        }
        (Sizing::Range(range), Want::AtLeast(size)) => {
            let size = range.round_up(size).map_err(cannot)?;
            if size.memory.is_some_and(|m| m > device.memory) {
                return Err(cannot(format!("{size} is more than the card's {}", device.memory)));
            }
            match size.compute {
                Some(c) if c.units > c.of.get() => {
                    Err(cannot(format!("compute {c} is more than the card")))
                }
                _ => Ok(Sized::Range(range, size)),
            }
        }
        (_, want) => Err(cannot(format!("it does not serve {want:?}"))),
    }
}

fn slots_of(profile: &Profile) -> u32 {
    profile.placements.first().map_or(u32::MAX, |p| p.len)
}

fn mode(
    device: &Device,
    info: &SchemeInfo,
    held: &[&Held],
    request: &Request,
) -> Result<Option<ModeOrder>, Why> {
    let other = info.mode.domain.as_ref().filter(|domain| **domain != request.domain);
    if info.mode.active && other.is_none() {
        return Ok(None);
    }
    let only_this = info.mode.affects == [device.id.clone()];
    let easy = info.mode.enter <= Change::IdleDevice && only_this && held.is_empty();
    if request.modes == Modes::Keep || !easy {
        // Empty or not, what serves another domain is not handed to this one.
        if let Some(domain) = other {
            return Err(Why::OtherDomain { with: domain.to_string() });
        }
        return Err(Why::WrongMode { scheme: info.scheme.clone(), needs: info.mode.enter });
    }
    Ok(Some(ModeOrder {
        device: device.id.clone(),
        scheme: Some(info.scheme.clone()),
        affected: info.mode.affects.clone(),
        domain: Some(request.domain.clone()),
    }))
}

fn placed(
    device: &Device,
    info: &SchemeInfo,
    held: &[&Held],
    request: &Request,
    sized: &Sized<'_>,
) -> Result<Step, Why> {
    let no_room = |asked: String| Why::NoRoom { scheme: info.scheme.clone(), asked };
    match sized {
        Sized::Whole if held.is_empty() => Ok(share(request, Grant::Whole(device.id.clone()))),
        Sized::Whole => Err(no_room("the whole card".into())),
        Sized::Turn => Ok(shared(device, info, request, Size::ANY)),
        Sized::Profiles(covering) => {
            let Sizing::Profiles(table) = &info.sizing else { return Err(Why::NoScheme) };
            for profile in covering {
                if let Some(slots) = pack::slots(device, table, profile, held) {
                    let shape = Shape::Profile(profile.id.clone());
                    return carve(device, info, request, shape, Placement::Slots(slots));
                }
            }
            let smallest = covering.first().map(|p| p.id.to_string());
            Err(no_room(smallest.unwrap_or_default()))
        }
        Sized::Range(range, size) => {
            if pack::mixes(info, held, size.compute.is_some()) {
                let beside =
                    "beside a part whose units are shared, unknown or, for a share of all, its own";
                return Err(no_room(format!("{size} {beside}")));
            }
            room(device, info, range, held, size)?;
            if info.form == Form::Shared {
                return Ok(shared(device, info, request, *size));
            }
            let placement = match (range.placed_by, size.compute) {
                (PlacedBy::Driver, _) => Placement::Driver,
                (PlacedBy::Planner, None) => Placement::Units(Vec::new()),
                (PlacedBy::Planner, Some(c)) => {
                    let mask = pack::mask(c, held).ok_or_else(|| no_room(size.to_string()))?;
                    Placement::Units(mask)
                }
            };
            carve(device, info, request, Shape::Size(*size), placement)
        }
    }
}

/// Whether the sums of what is held and asked stay within the card.
fn room(
    device: &Device,
    info: &SchemeInfo,
    range: &Range,
    held: &[&Held],
    size: &Size,
) -> Result<(), Why> {
    let no_room = || Why::NoRoom { scheme: info.scheme.clone(), asked: size.to_string() };
    let memory: u64 = held.iter().filter_map(|h| h.size.memory).map(|m| m.0).sum();
    let asked = size.memory.unwrap_or(Bytes(0)).0;
    if memory.checked_add(asked).is_none_or(|sum| sum > device.memory.0) {
        return Err(no_room());
    }
    if let Some(asked) = size.compute {
        let busy: u64 =
            held.iter().filter_map(|h| h.size.compute).map(|c| u64::from(c.units)).sum();
        if busy + u64::from(asked.units) > u64::from(asked.of.get()) {
            return Err(no_room());
        }
    }
    if let Some(max) = range.distinct
        && !Sizes::new(held.iter().map(|h| h.size), []).take(size, max)
    {
        return Err(Why::TooManySizes { scheme: info.scheme.clone(), max: max.get() });
    }
    Ok(())
}

fn carve(
    device: &Device,
    info: &SchemeInfo,
    request: &Request,
    shape: Shape,
    placement: Placement,
) -> Result<Step, Why> {
    let mut device = device.clone();
    // The mode is entered before the order is carried out; `mode` decided whether it may be.
    for other in device.schemes.iter_mut().filter(|s| s.scheme == info.scheme) {
        other.mode.active = true;
    }
    CreateOrder::admit(&device, &info.scheme, shape, placement, request.claim.clone())
        .map(Step::Carve)
        .map_err(|e| Why::Cannot { scheme: info.scheme.clone(), why: e.message })
}

fn shared(device: &Device, info: &SchemeInfo, request: &Request, size: Size) -> Step {
    let grant = Grant::Shared {
        device: device.id.clone(),
        scheme: info.scheme.clone(),
        size,
        domain: request.domain.clone(),
    };
    share(request, grant)
}

fn share(request: &Request, grant: Grant) -> Step {
    Step::Share(Target { claim: request.claim.clone(), grant })
}
