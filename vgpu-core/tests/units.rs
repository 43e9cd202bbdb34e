//! Units: whatever a scheduler admits by the advertised sum fits on one card.

mod common;

use common::{card, smlu, time_slice, vdcu};
use proptest::prelude::*;
use vgpu_core::order::Placement;
use vgpu_core::plan::Held;
use vgpu_core::plan::units::{Bounds, CardRoom, Unit, UnitCompute, advertise};
use vgpu_core::size::Bytes;

fn room(units: &[u64]) -> Vec<CardRoom> {
    units.iter().map(|u| CardRoom { units: *u, requests: None }).collect()
}

fn bounds(smallest: u64, largest: u64) -> Bounds {
    Bounds { smallest, largest }
}

#[test]
fn the_bound_by_hand() {
    assert_eq!(advertise(&room(&[10, 10]), bounds(1, 10)), 11);
    assert_eq!(advertise(&room(&[10, 10]), bounds(1, 1)), 20);
    assert_eq!(advertise(&room(&[10, 10]), bounds(1, 100)), 10);
    assert_eq!(advertise(&room(&[10]), bounds(1, 10)), 10);
    assert_eq!(advertise(&room(&[]), bounds(1, 10)), 0);
    assert_eq!(advertise(&room(&[0, 0]), bounds(1, 10)), 0);
    // Too little for the smallest request: nothing.
    assert_eq!(advertise(&room(&[3, 3]), bounds(4, 8)), 0);
    // Four slots of a 64-unit card may be eaten up by four requests of one unit.
    let four = [CardRoom { units: 64, requests: Some(4) }];
    assert_eq!(advertise(&four, bounds(1, 64)), 4);
    assert_eq!(advertise(&four, bounds(16, 64)), 64);
}

#[test]
fn a_unit_too_small_for_the_grid_is_refused_by_name() {
    let name = "s1";
    let device = card(name, Bytes::gib(48), 60, vec![smlu(name, Bytes::mib(256))]);
    let info = &device.schemes[0];
    let range = info.range().expect("a range");
    let unit = |mib, compute| Unit { memory: Bytes::mib(mib), compute };
    let e = unit(256, UnitCompute::Proportional).size(&device, range, 1).unwrap_err();
    assert!(e.contains("compute share"), "{e}");
    assert!(unit(256, UnitCompute::None).size(&device, range, 1).is_ok());
    let e = unit(100, UnitCompute::None).size(&device, range, 1).unwrap_err();
    assert!(e.contains("multiple"), "{e}");
    assert!(unit(1024, UnitCompute::Proportional).size(&device, range, 49).is_err());
    assert!(unit(1024, UnitCompute::Proportional).size(&device, range, 0).is_err());
    // A scheme without sizes offers no units.
    let turns = card(name, Bytes::gib(48), 60, vec![time_slice(name)]);
    let got = unit(1024, UnitCompute::None).room(&turns, &turns.schemes[0], &[], bounds(1, 9));
    assert_eq!(got.units, 0);
}

/// A card on paper: a real scheme, and what is held on it.
struct Paper {
    device: vgpu_core::Device,
    held: Vec<Held>,
}

impl Paper {
    fn room(&self, unit: Unit, bounds: Bounds) -> CardRoom {
        let held: Vec<&Held> = self.held.iter().collect();
        unit.room(&self.device, &self.device.schemes[0], &held, bounds)
    }

    fn take(&mut self, unit: Unit, units: u64) {
        let info = &self.device.schemes[0];
        let range = info.range().expect("a range");
        let size = unit.size(&self.device, range, units).expect("admitted sizes are on the grid");
        self.held.push(Held {
            device: self.device.id.clone(),
            scheme: info.scheme.clone(),
            size,
            placement: Placement::Driver,
            profile: None,
            domain: None,
        });
    }
}

fn papers(kinds: &[(u8, u64)]) -> Vec<Paper> {
    let make = |(i, (kind, gib)): (usize, &(u8, u64))| {
        let name = format!("c{i}");
        let scheme = match kind {
            0 => smlu(&name, Bytes::mib(256)),
            1 => vdcu(&name, 64, Some(4)),
            2 => vdcu(&name, 120, Some(16)),
            _ => vdcu(&name, 128, None),
        };
        Paper { device: card(&name, Bytes::gib(*gib), 64, vec![scheme]), held: vec![] }
    };
    kinds.iter().enumerate().map(make).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    /// Well over 100,000 admissions: a thousand machines, a hundred or more requests each, admitted
    /// by a sum that is refreshed only now and then, put on the worst card that fits, freed at random.
    #[test]
    fn no_admitted_request_misfits(
        kinds in proptest::collection::vec((0u8..4, 8u64..97), 1..8),
        proportional: bool,
        smallest in 1u64..4,
        spread in 0u64..40,
        seed: u64,
    ) {
        let compute = if proportional { UnitCompute::Proportional } else { UnitCompute::None };
        let unit = Unit { memory: Bytes::gib(1), compute };
        let mut cards = papers(&kinds);
        let bounds = bounds(smallest, smallest + spread);
        let mut random = seed | 1;
        let mut next = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below.max(1)
        };
        let mut sum = 0;
        let advertised = |cards: &[Paper]| {
            let rooms: Vec<CardRoom> = cards.iter().map(|c| c.room(unit, bounds)).collect();
            advertise(&rooms, bounds)
        };
        for round in 0..160 {
            // The scheduler's picture is refreshed now and then; between, it only subtracts.
            if round % (1 + next(9)) == 0 {
                if next(3) == 0 {
                    for card in &mut cards {
                        card.held.retain(|_| next(2) == 0);
                    }
                }
                sum = advertised(&cards);
            }
            let asked = bounds.smallest + next(bounds.largest - bounds.smallest + 1);
            if asked > sum {
                continue;
            }
            let fitting: Vec<usize> = (0..cards.len())
                .filter(|i| cards[*i].room(unit, bounds).units >= asked)
                .collect();
            prop_assert!(!fitting.is_empty(), "{asked} was admitted by {sum} and fits nowhere");
            // An adversary puts it where it hurts most: half the time on the emptiest card.
            let on = match next(2) {
                0 => *fitting.iter().max_by_key(|i| cards[**i].room(unit, bounds).units).expect("some"),
                _ => fitting[next(fitting.len() as u64) as usize],
            };
            let before = advertised(&cards);
            cards[on].take(unit, asked);
            let after = advertised(&cards);
            // What is left of a sum that is too small for any request is told as 0.
            let left = before.saturating_sub(asked);
            prop_assert!(after >= left || left < bounds.smallest, "{before} - {asked} > {after}");
            sum -= asked;
        }
    }

    #[test]
    fn it_is_never_less_than_the_plain_bound(
        free in proptest::collection::vec(0u64..200, 1..17), largest in 1u64..210,
    ) {
        let sum: u64 = free.iter().sum();
        let most = free.iter().copied().max().unwrap_or(0);
        let plain = most.max(sum.saturating_sub(free.len() as u64 * (largest - 1)));
        let got = advertise(&room(&free), bounds(1, largest));
        prop_assert!(got >= plain && got <= sum, "{got} of {sum}, plain {plain}");
    }
}
