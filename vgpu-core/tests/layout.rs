//! Layouts: what is in use is never touched, what is made never overlaps, and every round comes nearer to the end.

mod common;

use common::{card, id, mig, n};
use proptest::prelude::*;
use vgpu_core::id::{CounterId, PartitionId, ProfileId};
use vgpu_core::order::Placement;
use vgpu_core::plan::layout::{LayoutPlan, Placed, ProfileCount, Right, Standing, layout};
use vgpu_core::scheme::{Change, ModeInfo, Scheme, Sizing, Slots};
use vgpu_core::size::Bytes;
use vgpu_core::{Device, ErrorKind};

const NAMES: [&str; 6] = ["1g.5gb", "1g.10gb", "2g.10gb", "3g.20gb", "4g.20gb", "7g.40gb"];

/// An A100 in MIG mode, seven compute slices counted.
fn a100() -> Device {
    let mut info = mig("a100", ModeInfo::always(&id("a100")));
    let Sizing::Profiles(table) = &mut info.sizing else { panic!("a table") };
    let compute = CounterId::new("compute-slice").expect("a counter");
    for profile in table {
        let slices = profile.id.as_str().bytes().next().expect("a digit") - b'0';
        profile.uses = vec![(compute.clone(), slices.into())];
    }
    let mut device = card("a100", Bytes::gib(40), 98, vec![info]);
    device.counters = vec![(compute, 7)];
    device
}

fn profile(name: &str) -> ProfileId {
    ProfileId::new(name).expect("a profile")
}

fn wish(parts: &[(&str, u32)]) -> Vec<ProfileCount> {
    let one =
        |&(name, count): &(&str, u32)| ProfileCount { profile: profile(name), count: n(count) };
    parts.iter().map(one).collect()
}

fn part(name: &str, start: u32) -> PartitionId {
    PartitionId::of(&id("a100"), &Scheme::MIG, format!("{name}-{start}")).expect("an id")
}

fn places(name: &str) -> Vec<Slots> {
    let device = a100();
    let info = device.scheme(&Scheme::MIG).expect("declared");
    info.profile(&profile(name)).expect("a profile").placements.clone()
}

fn stands(name: &str, start: u32, right: Right) -> Standing {
    let slots = places(name).into_iter().find(|s| s.start == start).expect("a place");
    Standing {
        part: part(name, start),
        profile: Some(profile(name)),
        placement: Placement::Slots(slots),
        right,
    }
}

fn plan(parts: &[(&str, u32)], standing: &[Standing]) -> LayoutPlan {
    layout(&a100(), &Scheme::MIG, &wish(parts), standing).expect("reachable")
}

/// The card when a plan was carried out; what was made is idle.
fn carried_out(plan: &LayoutPlan, standing: &[Standing]) -> Vec<Standing> {
    let mut after: Vec<Standing> =
        standing.iter().filter(|s| !plan.unmake.contains(&s.part)).cloned().collect();
    let made = plan.make.iter().map(|p| stands(p.profile.as_str(), p.slots.start, Right::Idle));
    after.extend(made);
    after
}

#[test]
fn five_idle_parts_make_room_and_two_in_use_stay() {
    let mut standing: Vec<Standing> =
        (0..7).map(|start| stands("1g.5gb", start, Right::Idle)).collect();
    standing[1].right = Right::InUse;
    standing[2].right = Right::InUse;
    let told = plan(&[("3g.20gb", 1), ("1g.5gb", 3)], &standing);
    assert_eq!(told.make, [Placed { profile: profile("3g.20gb"), slots: Slots::new(4, 4) }]);
    assert!(told.keep.contains(&part("1g.5gb", 1)) && told.keep.contains(&part("1g.5gb", 2)));
    assert_eq!(told.keep.len(), 3, "one idle part stays as well");
    assert_eq!(told.unmake.len(), 4);
    assert_eq!((told.later, told.waits_for), (vec![], vec![]));
}

#[test]
fn what_is_in_the_way_is_waited_for_and_named() {
    let standing = [stands("1g.5gb", 5, Right::InUse), stands("1g.5gb", 0, Right::Idle)];
    let told = plan(&[("3g.20gb", 2)], &standing);
    assert_eq!(told.make, [Placed { profile: profile("3g.20gb"), slots: Slots::new(0, 4) }]);
    assert_eq!(told.later, [Placed { profile: profile("3g.20gb"), slots: Slots::new(4, 4) }]);
    assert_eq!(told.waits_for, [part("1g.5gb", 5)]);
    assert_eq!(told.unmake, [part("1g.5gb", 0)]);
    // Another tool's part is none of ours, though it is like what is asked for.
    let foreign = [stands("3g.20gb", 0, Right::Foreign)];
    let told = plan(&[("3g.20gb", 1)], &foreign);
    assert_eq!(told.make, [Placed { profile: profile("3g.20gb"), slots: Slots::new(4, 4) }]);
}

#[test]
fn a_layout_that_no_placement_reaches_is_refused_with_the_reason() {
    for (parts, word) in [
        (&[("7g.40gb", 1), ("1g.5gb", 1)][..], "no placement together"),
        (&[("3g.20gb", 2), ("1g.5gb", 1)], "no placement together"),
        (&[("2g.10gb", 3), ("1g.10gb", 2)], "no placement together"),
        (&[("1g.5gb", 8)], "more than its 7 places"),
        (&[("1g.5gb", 4_000_000_000)], "more than its 7 places"),
        (&[("1g.5gb", 4), ("1g.5gb", 4)], "more than its 7 places"),
        (&[("5g.30gb", 1)], "no profile 5g.30gb; it has 1g.5gb"),
    ] {
        let error = layout(&a100(), &Scheme::MIG, &wish(parts), &[]).expect_err(word);
        assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
        assert!(error.message.contains(word), "{error}");
    }
    let error = layout(&a100(), &Scheme::MIM, &[], &[]).expect_err("no such scheme");
    assert_eq!(error.kind, ErrorKind::Unsupported);
}

#[test]
fn the_mode_is_entered_only_for_something_to_make() {
    let mut device = a100();
    device.schemes[0].mode.active = false;
    device.schemes[0].mode.enter = Change::IdleDevice;
    let asked = layout(&device, &Scheme::MIG, &wish(&[("1g.5gb", 1)]), &[]).expect("reachable");
    assert_eq!(asked.mode.expect("to be entered").scheme, Some(Scheme::MIG));
    let nothing = layout(&device, &Scheme::MIG, &[], &[]).expect("reachable");
    assert!(nothing.is_done() && nothing.mode.is_none());
}

/// Parts side by side, each with what may be done to it.
fn anything() -> impl Strategy<Value = Vec<Standing>> {
    let right = prop_oneof![Just(Right::Foreign), Just(Right::Idle), Just(Right::InUse)];
    let any = (0..NAMES.len(), 0_u32..7, right);
    proptest::collection::vec(any, 0..8).prop_map(|list| {
        let mut all: Vec<Standing> = Vec::new();
        let mut compute = 0;
        for (name, start, right) in list {
            let name = NAMES[name];
            if !places(name).iter().any(|s| s.start == start) {
                continue;
            }
            let one = stands(name, start, right);
            let slices = u32::from(name.as_bytes()[0] - b'0');
            if compute + slices <= 7 && all.iter().all(|s| !s.placement.overlaps(&one.placement)) {
                compute += slices;
                all.push(one);
            }
        }
        all
    })
}

fn wishes() -> impl Strategy<Value = Vec<ProfileCount>> {
    let one = (0..NAMES.len(), 1_u32..4);
    proptest::collection::vec(one, 0..4)
        .prop_map(|list| wish(&list.iter().map(|(name, n)| (NAMES[*name], *n)).collect::<Vec<_>>()))
}

/// Whether some arrangement on an empty card has them all; every one is tried.
fn possible(items: &[&str], laid: &mut Vec<Slots>, compute: u32) -> bool {
    let Some((first, rest)) = items.split_first() else { return true };
    let slices = u32::from(first.as_bytes()[0] - b'0');
    compute + slices <= 7
        && places(first).into_iter().any(|place| {
            let free = laid.iter().all(|other| !other.overlaps(place));
            free && {
                laid.push(place);
                let fits = possible(rest, laid, compute + slices);
                laid.pop();
                fits
            }
        })
}

fn flat(parts: &[ProfileCount]) -> Vec<&str> {
    let each = |p: &ProfileCount| {
        std::iter::repeat_n(p.profile.as_str().to_owned(), p.count.get() as usize)
    };
    let names: Vec<String> = parts.iter().flat_map(each).collect();
    let mut flat: Vec<&str> =
        names.iter().map(|name| *NAMES.iter().find(|n| *n == name).expect("a name")).collect();
    flat.sort_unstable();
    flat
}

proptest! {
    #[test]
    fn it_is_reached_where_any_arrangement_reaches_it(parts in wishes()) {
        let told = layout(&a100(), &Scheme::MIG, &parts, &[]);
        let items = flat(&parts);
        prop_assert_eq!(told.is_ok(), possible(&items, &mut Vec::new(), 0));
        if let Ok(plan) = told {
            prop_assert_eq!(plan.make.len(), items.len());
            prop_assert!(plan.later.is_empty() && plan.unmake.is_empty());
        }
    }

    #[test]
    fn nothing_in_use_is_touched_and_nothing_overlaps(parts in wishes(), standing in anything()) {
        let Ok(plan) = layout(&a100(), &Scheme::MIG, &parts, &standing) else { return Ok(()) };
        for part in &plan.unmake {
            let found = standing.iter().find(|s| s.part == *part).expect("it is there");
            prop_assert_eq!(found.right, Right::Idle);
        }
        for part in &plan.keep {
            let found = standing.iter().find(|s| s.part == *part).expect("it is there");
            prop_assert!(found.right != Right::Foreign);
        }
        // All of the layout is accounted for, each part once.
        let kept = plan.keep.iter().map(|p| p.local().rsplit_once('-').expect("a place").0);
        let new = plan.make.iter().chain(&plan.later).map(|p| p.profile.as_str());
        let mut all: Vec<&str> = kept.chain(new).collect();
        all.sort_unstable();
        prop_assert_eq!(all, flat(&parts));
        let after = carried_out(&plan, &standing);
        for (i, one) in after.iter().enumerate() {
            for other in &after[i + 1..] {
                prop_assert!(!one.placement.overlaps(&other.placement), "{one:?} {other:?}");
            }
        }
        let compute: u32 =
            after.iter().map(|s| u32::from(s.part.local().as_bytes()[0] - b'0')).sum();
        prop_assert!(compute <= 7, "{compute} compute slices");
        prop_assert_eq!(plan.later.is_empty(), plan.waits_for.is_empty());
    }

    #[test]
    fn it_comes_to_an_end_without_unmaking_what_it_made(parts in wishes(), standing in anything()) {
        let Ok(first) = layout(&a100(), &Scheme::MIG, &parts, &standing) else { return Ok(()) };
        let after = carried_out(&first, &standing);
        // Again, with nothing changed: nothing is left to do but wait.
        let again = layout(&a100(), &Scheme::MIG, &parts, &after).expect("still reachable");
        prop_assert!(again.make.is_empty() && again.unmake.is_empty(), "{again:?}");
        // Those in use end, other tools tidy up: now it is what it shall be.
        let freed: Vec<Standing> = after
            .iter()
            .filter(|s| s.right != Right::Foreign)
            .map(|s| Standing { right: Right::Idle, ..s.clone() })
            .collect();
        let last = layout(&a100(), &Scheme::MIG, &parts, &freed).expect("still reachable");
        prop_assert!(last.later.is_empty(), "{last:?}");
        for made in &first.make {
            let part = part(made.profile.as_str(), made.slots.start);
            prop_assert!(last.keep.contains(&part), "{part} was made and is unmade");
        }
        let done = layout(&a100(), &Scheme::MIG, &parts, &carried_out(&last, &freed));
        prop_assert!(done.expect("still reachable").is_done());
    }
}
