//! GPU instance profiles of real cards: the driver's place in its list, id, name, sizes and placements.
//!
//! Ids, placements and A100 sizes as in the field notes; sizes of the larger cards as `nvidia-smi mig -lgip` prints
//! them, engines as it prints them too.

use serde::{Deserialize, Serialize};

/// A card whose table is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Model {
    #[serde(rename = "a100-40gb")]
    A100,
    #[serde(rename = "b200-180gb")]
    B200,
    #[serde(rename = "h100-80gb")]
    H100,
    #[serde(rename = "h200-141gb")]
    H200,
}

/// One profile.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    /// Its place in the driver's list.
    pub(crate) nth: u32,
    pub(crate) id: u32,
    /// With the vendor's `MIG ` before it.
    pub(crate) name: String,
    pub(crate) slices: u32,
    #[serde(default = "one")]
    pub(crate) instances: u32,
    pub(crate) multiprocessors: u32,
    pub(crate) memory_mib: u64,
    /// Copy engines, decoders, encoders, jpeg and ofa engines.
    #[serde(default)]
    pub(crate) engines: [u32; 5],
    /// Starts and sizes.
    pub(crate) places: Vec<(u32, u32)>,
    /// Claimed instead of the true number of places.
    #[serde(default)]
    pub(crate) claimed_places: Option<u32>,
    /// Its name is written without an end.
    #[serde(default)]
    pub(crate) unterminated: bool,
}

/// The profiles of a model; `drivers` is how many places the driver's list has.
pub(crate) fn of(model: Model) -> Vec<Profile> {
    match model {
        Model::A100 => table(
            ["5gb", "10gb", "20gb", "40gb"],
            [4_864, 9_856, 19_968, 40_192],
            [14, 14, 28, 42, 56, 98],
            [[1, 0], [1, 1], [2, 1], [3, 2], [4, 2], [7, 5]],
        ),
        Model::B200 => table(
            ["23gb", "45gb", "90gb", "180gb"],
            [21_504, 44_032, 89_088, 180_224],
            [18, 30, 36, 70, 72, 148],
            [[1, 1], [1, 1], [2, 2], [3, 3], [4, 4], [8, 7]],
        ),
        Model::H100 => table(
            ["10gb", "20gb", "40gb", "80gb"],
            [9_856, 20_096, 40_448, 81_152],
            [16, 26, 32, 60, 64, 132],
            [[1, 1], [1, 1], [2, 2], [3, 3], [4, 4], [8, 7]],
        ),
        Model::H200 => table(
            ["18gb", "35gb", "71gb", "141gb"],
            [16_384, 33_280, 71_424, 143_360],
            [16, 26, 32, 60, 64, 132],
            [[1, 1], [1, 1], [2, 2], [3, 3], [4, 4], [8, 7]],
        ),
    }
}

/// Names and MiB of an eighth, a quarter, a half and all of the memory; multiprocessors and
/// `[copy engines, decoders]` of 1g, 1g with double memory, 2g, 3g, 4g and 7g.
fn table(
    [eighth, quarter, half, all]: [&str; 4],
    [m8, m4, m2, m1]: [u64; 4],
    [sm1, sm1x, sm2, sm3, sm4, sm7]: [u32; 6],
    [e1, e1x, e2, e3, e4, e7]: [[u32; 2]; 6],
) -> Vec<Profile> {
    let each = |starts: &[u32], size| starts.iter().map(|start| (*start, size)).collect();
    let row = |nth, id, name: String, slices, multiprocessors, memory_mib, engines, places| {
        let [copy, decoders]: [u32; 2] = engines;
        let places: Vec<(u32, u32)> = places;
        Profile {
            nth,
            id,
            name: format!("MIG {name}"),
            slices,
            instances: u32::try_from(places.len()).unwrap_or(1),
            multiprocessors,
            memory_mib,
            engines: [copy, decoders, 0, 0, 0],
            places,
            claimed_places: None,
            unterminated: false,
        }
    };
    let single: Vec<(u32, u32)> = each(&[0, 1, 2, 3, 4, 5, 6], 1);
    let media = |profile: Profile| {
        let [copy, decoders, encoders, ..] = profile.engines;
        Profile { instances: 1, engines: [copy, decoders.max(1), encoders, 1, 1], ..profile }
    };
    let mut whole = row(4, 0, format!("7g.{all}"), 7, sm7, m1, e7, vec![(0, 8)]);
    whole.engines[3] = 1;
    whole.engines[4] = 1;
    vec![
        row(0, 19, format!("1g.{eighth}"), 1, sm1, m8, e1, single.clone()),
        row(1, 14, format!("2g.{quarter}"), 2, sm2, m4, e2, each(&[0, 2, 4], 2)),
        row(2, 9, format!("3g.{half}"), 3, sm3, m2, e3, each(&[0, 4], 4)),
        row(3, 5, format!("4g.{half}"), 4, sm4, m2, e4, vec![(0, 4)]),
        whole,
        media(row(7, 20, format!("1g.{eighth}+me"), 1, sm1, m8, e1, single)),
        row(9, 15, format!("1g.{quarter}"), 1, sm1x, m4, e1x, each(&[0, 2, 4, 6], 2)),
    ]
}

/// How many places the list of a driver has, by its version.
pub(crate) fn listed_by(driver: &str) -> u32 {
    let major = driver.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0_u32);
    match major {
        0..=509 => 0x8,
        510..=579 => 0xa,
        580..=599 => 0x11,
        _ => 0x12,
    }
}

fn one() -> u32 {
    1
}
