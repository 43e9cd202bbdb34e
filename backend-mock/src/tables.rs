//! Profile tables with their placements in memory slices and the engines that each profile takes.
//!
//! NVIDIA's numbers are those that NVML reports (`reference/nvidia.md` §6.2; sizes of the larger
//! cards rounded to what `nvidia-smi mig -lgip` prints); Hygon's are measured by others; no table of
//! a MIM card is public, so that one is made up in the vendor's naming (`2m.16gb`).

use std::num::NonZeroU32;

use vgpu_core::{Bytes, ComputeShare, CounterId, Profile, ProfileId, Size, Slots};

use crate::model::{Table, units_of};

/// A100-SXM4-40GB.
pub(crate) fn a100_40gb() -> Table {
    mig(
        108,
        [5, 1],
        &[
            Row("1g.5gb", 1, 4_864, 14, SINGLE, [0, 0]),
            Row("1g.5gb+me", 1, 4_864, 14, SINGLE, [1, 1]),
            Row("1g.10gb", 1, 9_856, 14, DOUBLE, [1, 0]),
            Row("2g.10gb", 2, 9_856, 28, TWO, [1, 0]),
            Row("3g.20gb", 3, 19_968, 42, HALF, [2, 0]),
            Row("4g.20gb", 4, 19_968, 56, LEFT, [2, 0]),
            Row("7g.40gb", 7, 40_192, 98, ALL, [5, 1]),
        ],
    )
}

/// A100-SXM4-80GB.
pub(crate) fn a100_80gb() -> Table {
    mig(
        108,
        [5, 1],
        &[
            Row("1g.10gb", 1, 9_728, 14, SINGLE, [0, 0]),
            Row("1g.10gb+me", 1, 9_728, 14, SINGLE, [1, 1]),
            Row("1g.20gb", 1, 19_968, 14, DOUBLE, [1, 0]),
            Row("2g.20gb", 2, 19_968, 28, TWO, [1, 0]),
            Row("3g.40gb", 3, 40_192, 42, HALF, [2, 0]),
            Row("4g.40gb", 4, 40_192, 56, LEFT, [2, 0]),
            Row("7g.80gb", 7, 80_640, 98, ALL, [5, 1]),
        ],
    )
}

/// H100-SXM5-80GB.
pub(crate) fn h100_80gb() -> Table {
    mig(
        132,
        [7, 1],
        &[
            Row("1g.10gb", 1, 9_856, 16, SINGLE, [1, 0]),
            Row("1g.10gb+me", 1, 9_856, 16, SINGLE, [1, 1]),
            Row("1g.20gb", 1, 20_096, 26, DOUBLE, [1, 0]),
            Row("2g.20gb", 2, 20_096, 32, TWO, [2, 0]),
            Row("3g.40gb", 3, 40_448, 60, HALF, [3, 0]),
            Row("4g.40gb", 4, 40_448, 64, LEFT, [4, 0]),
            Row("7g.80gb", 7, 81_152, 132, ALL, [7, 1]),
        ],
    )
}

/// H200-SXM5-141GB.
pub(crate) fn h200_141gb() -> Table {
    mig(
        132,
        [7, 1],
        &[
            Row("1g.18gb", 1, 16_384, 16, SINGLE, [1, 0]),
            Row("1g.18gb+me", 1, 16_384, 16, SINGLE, [1, 1]),
            Row("1g.35gb", 1, 33_280, 26, DOUBLE, [1, 0]),
            Row("2g.35gb", 2, 33_280, 32, TWO, [2, 0]),
            Row("3g.71gb", 3, 71_424, 60, HALF, [3, 0]),
            Row("4g.71gb", 4, 71_424, 64, LEFT, [4, 0]),
            Row("7g.141gb", 7, 143_360, 132, ALL, [7, 1]),
        ],
    )
}

/// BW1000 with HCU-MIG: four slices.
pub(crate) fn bw1000() -> Table {
    sliced(
        80,
        4,
        &[
            Row("2g.15gb", 1, 16_380, 20, (&[0, 1, 2, 3], 1), [0, 0]),
            Row("4g.31gb", 2, 32_760, 40, (&[0, 2], 2), [0, 0]),
            Row("8g.63gb", 4, 65_520, 80, (&[0], 4), [0, 0]),
        ],
    )
}

/// MLU370-X8 with MIM: six slices.
pub(crate) fn mlu370_x8() -> Table {
    sliced(
        24,
        6,
        &[
            Row("1m.8gb", 1, 8_192, 4, (&[0, 1, 2, 3, 4, 5], 1), [0, 0]),
            Row("2m.16gb", 2, 16_384, 8, (&[0, 2, 4], 2), [0, 0]),
            Row("3m.24gb", 3, 24_576, 12, (&[0, 3], 3), [0, 0]),
            Row("6m.48gb", 6, 49_152, 24, (&[0], 6), [0, 0]),
        ],
    )
}

/// Starts and length in memory slices.
type Places = (&'static [u32], u32);

const SINGLE: Places = (&[0, 1, 2, 3, 4, 5, 6], 1);
const DOUBLE: Places = (&[0, 2, 4, 6], 2);
const TWO: Places = (&[0, 2, 4], 2);
const HALF: Places = (&[0, 4], 4);
const LEFT: Places = (&[0], 4);
const ALL: Places = (&[0], 8);

/// Name, compute slices, memory in MiB, compute units, placements, `[decoders, media engines]`.
struct Row(&'static str, u64, u64, u32, Places, [u64; 2]);

/// Seven compute slices, eight memory slices, and engines.
fn mig(units: u32, [decoders, media]: [u64; 2], rows: &[Row]) -> Table {
    Table {
        profiles: rows
            .iter()
            .map(|row| {
                let [d, m] = row.5;
                let uses = [("decoder", d), ("media-engine", m)];
                profile(row, units_of(units), &uses)
            })
            .collect(),
        counters: counters(&[
            ("compute-slice", 7),
            ("memory-slice", 8),
            ("decoder", decoders),
            ("media-engine", media),
        ]),
    }
}

/// As many compute slices as memory slices, no engines.
fn sliced(units: u32, slices: u64, rows: &[Row]) -> Table {
    Table {
        profiles: rows.iter().map(|row| profile(row, units_of(units), &[])).collect(),
        counters: counters(&[("compute-slice", slices), ("memory-slice", slices)]),
    }
}

fn profile(row: &Row, of: NonZeroU32, engines: &[(&str, u64)]) -> Profile {
    let &Row(name, slices, memory, units, (starts, len), _) = row;
    let mut uses = counters(&[("compute-slice", slices), ("memory-slice", u64::from(len))]);
    uses.extend(counters(engines).into_iter().filter(|(_, n)| *n > 0));
    Profile {
        id: ProfileId::new(name).expect("a name of the catalogue is well formed"),
        size: Size { compute: Some(ComputeShare { units, of }), memory: Some(Bytes::mib(memory)) },
        placements: starts.iter().map(|start| Slots::new(*start, len)).collect(),
        uses,
    }
}

fn counters(list: &[(&str, u64)]) -> Vec<(CounterId, u64)> {
    list.iter()
        .map(|(name, n)| {
            (CounterId::new(*name).expect("a name of the catalogue is well formed"), *n)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Check<'c> = &'c dyn Fn(&[(usize, Slots)]);

    /// Tries every set of placements that the slots allow, and looks at the counters and memory.
    fn every_packing_fits(table: &Table, memory: Bytes, slots: u32) {
        fn go(table: &Table, from: usize, laid: &mut Vec<(usize, Slots)>, check: Check<'_>) {
            check(laid);
            for (i, profile) in table.profiles.iter().enumerate().skip(from) {
                for slots in &profile.placements {
                    if laid.iter().all(|(_, other)| !slots.overlaps(*other)) {
                        laid.push((i, *slots));
                        go(table, i, laid, check);
                        laid.pop();
                    }
                }
            }
        }
        go(table, 0, &mut Vec::new(), &|laid| {
            assert!(laid.iter().all(|(_, s)| s.start + s.len <= slots));
            let sum: u64 = laid
                .iter()
                .map(|(i, _)| table.profiles[*i].size.memory.expect("profiles hold memory").0)
                .sum();
            assert!(sum <= memory.0, "{laid:?} holds more memory than the card");
        });
    }

    #[test]
    fn no_packing_of_placements_exceeds_the_cards_memory() {
        for (table, memory, slots) in [
            (a100_40gb(), 40_442, 8),
            (a100_80gb(), 81_050, 8),
            (h100_80gb(), 81_559, 8),
            (h200_141gb(), 143_771, 8),
            (bw1000(), 65_520, 4),
            (mlu370_x8(), 49_152, 6),
        ] {
            every_packing_fits(&table, Bytes::mib(memory), slots);
        }
    }

    #[test]
    fn each_profile_is_covered_by_the_counters() {
        for table in [a100_40gb(), a100_80gb(), h100_80gb(), h200_141gb(), bw1000(), mlu370_x8()] {
            for profile in &table.profiles {
                for (counter, n) in &profile.uses {
                    let has = table.counters.iter().find(|(c, _)| c == counter);
                    assert!(has.is_some_and(|(_, has)| has >= n), "{} {counter}", profile.id);
                }
            }
        }
    }

    #[test]
    fn the_media_engine_is_had_once() {
        let table = a100_40gb();
        let media = CounterId::new("media-engine").expect("a counter");
        let of = |name: &str| {
            let profile = table.profiles.iter().find(|p| p.id.as_str() == name);
            let uses = &profile.expect("a profile").uses;
            uses.iter().find(|(c, _)| *c == media).map_or(0, |(_, n)| *n)
        };
        assert_eq!((of("1g.5gb+me"), of("7g.40gb"), of("1g.5gb")), (1, 1, 0));
    }
}
