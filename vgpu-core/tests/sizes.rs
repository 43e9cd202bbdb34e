//! Sizes where a driver keeps few: what is told free is served, whoever comes first.

mod common;

use std::collections::BTreeSet;

use common::{memory, n};
use proptest::prelude::*;
use vgpu_core::plan::Sizes;
use vgpu_core::size::Bytes;

/// A driver that keeps so many sizes, and makes a part of one that it has or has a place for.
#[derive(Clone)]
struct Driver {
    max: usize,
    sizes: BTreeSet<u64>,
}

impl Driver {
    fn make(&mut self, size: u64) -> bool {
        let fits = self.sizes.contains(&size) || self.sizes.len() < self.max;
        if fits {
            self.sizes.insert(size);
        }
        fits
    }

    fn tell(&self, promised: &[u64]) -> Sizes {
        let mib = |size: &u64| memory(Bytes::mib(*size));
        Sizes::new(self.sizes.iter().map(mib), promised.iter().map(mib))
    }
}

#[test]
fn a_size_that_is_only_promised_cannot_be_joined_once_another_tool_took_its_place() {
    let mut driver = Driver { max: 2, sizes: BTreeSet::from([1]) };
    let take = |driver: &Driver, size| driver.tell(&[2]).take(&memory(Bytes::mib(size)), n(2));
    assert!(take(&driver, 1) && take(&driver, 2), "both have a place");
    assert!(!take(&driver, 3), "it would take the place of the promised one");
    assert!(driver.make(3), "another tool does");
    assert!(!take(&driver, 2), "promised, and nobody can make it");
    assert!(take(&driver, 1) && take(&driver, 3), "they are there");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Promises are given as told, other tools take what the driver lets them, at any moment.
    #[test]
    fn what_is_told_free_is_served_and_nothing_else_is_held_back(
        max in 1u32..6,
        steps in proptest::collection::vec((0u8..4, 0u64..9), 0..24),
        order in proptest::collection::vec(0u64..9, 0..9),
    ) {
        let mut driver = Driver { max: max as usize, sizes: BTreeSet::new() };
        let mut promised: Vec<u64> = Vec::new();
        let mut disturbed = false;
        for (step, size) in steps {
            match step {
                0 | 1 => {
                    if driver.tell(&promised).take(&memory(Bytes::mib(size)), n(max)) {
                        promised.push(size);
                    }
                }
                2 => disturbed |= driver.make(size),
                _ => {
                    // The oldest promise's container starts.
                    if !promised.is_empty() {
                        let size = promised.remove(0);
                        prop_assert!(driver.make(size) || disturbed, "{size} was promised");
                    }
                }
            }
            // Now each size: if it is told free, it is served though all others come first, in any order.
            for asked in 0..9 {
                let told = driver.tell(&promised).take(&memory(Bytes::mib(asked)), n(max));
                let mut others: Vec<u64> =
                    promised.iter().copied().filter(|size| *size != asked).collect();
                others.sort_by_key(|size| order.iter().position(|o| o == size));
                let mut later = driver.clone();
                let all_served = others.iter().filter(|size| !later.make(**size)).count() == 0;
                let served = later.make(asked);
                prop_assert_eq!(told, served, "{} beside {:?} and {:?}", asked, &driver.sizes, &promised);
                // And it takes the place of nobody.
                let mut first = driver.clone();
                if told && first.make(asked) {
                    let now = others.iter().filter(|size| !first.make(**size)).count() == 0;
                    prop_assert!(now || !all_served, "{asked} took another's place");
                }
            }
        }
    }
}
