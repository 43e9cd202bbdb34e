//! What a scenario may say, as types; README.md tells it in words.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::presets;

/// A machine, and what of the library is wrong.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    /// The library's release; 3.9 lacks what `exports_newer.rs` has.
    pub(crate) era: Era,
    pub(crate) driver: [u32; 3],
    pub(crate) cards: Vec<Card>,
    /// Where instances are kept; without it they end with the process.
    #[serde(default)]
    pub(crate) state: Option<PathBuf>,
    /// Claimed instead of the true number of cards.
    #[serde(default)]
    pub(crate) device_count: Option<u32>,
}

/// A release of the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Era {
    #[serde(rename = "3.9")]
    V3_9,
    #[serde(rename = "4.0")]
    V4_0,
    #[serde(rename = "6.5")]
    V6_5,
}

/// A card's nature, which no driver changes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Card {
    /// Empty for a model that the library does not know.
    pub(crate) name: String,
    /// 36 characters.
    pub(crate) uuid: String,
    /// `dddd:bb:dd.f`.
    pub(crate) pci: String,
    #[serde(default)]
    pub(crate) pci_device_id: u32,
    /// What the library calls it.
    pub(crate) handle: i32,
    /// The number in the names of its nodes, and within the handles of its instances.
    pub(crate) minor: u32,
    pub(crate) memory_mib: u64,
    #[serde(default)]
    pub(crate) reserved_mib: u64,
    pub(crate) cores: u32,
    #[serde(default)]
    pub(crate) numa: Option<i32>,
    /// Cards of one number are on one board.
    #[serde(default)]
    pub(crate) board: Option<u32>,
    /// UUIDs at the other ends of its MLU-Links.
    #[serde(default)]
    pub(crate) links: Vec<String>,
    #[serde(default = "yes")]
    pub(crate) smlu: bool,
    /// The profiles of MIM; none for a card without it.
    #[serde(default)]
    pub(crate) mim: Vec<MimRow>,
    /// Whether the profiles are told in MIM mode only.
    #[serde(default)]
    pub(crate) mim_only_in_mode: bool,
    /// The UUID fills its array without an end.
    #[serde(default)]
    pub(crate) unterminated: bool,
}

/// A profile of MIM.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MimRow {
    /// The place in the library's enumeration.
    pub(crate) number: i32,
    pub(crate) id: i32,
    pub(crate) name: String,
    pub(crate) cores: i32,
    /// In whatever unit.
    pub(crate) memory: i32,
    pub(crate) starts: Vec<i32>,
    pub(crate) len: i32,
}

impl Card {
    /// What instances may have, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.memory_mib.saturating_sub(self.reserved_mib) << 20
    }
}

impl Scenario {
    /// A preset, or a YAML file: a whole scenario, or `preset` and what differs from it.
    pub(crate) fn named(name: &str) -> Result<Self, String> {
        if let Some(scenario) = presets::of(name) {
            return Ok(scenario);
        }
        if !Path::new(name).exists() {
            let presets = presets::NAMES.join(", ");
            return Err(format!("there is no preset and no file {name}; presets are {presets}"));
        }
        let text = std::fs::read_to_string(name).map_err(|e| format!("{name}: {e}"))?;
        let given: serde_json::Value =
            serde_saphyr::from_str(&text).map_err(|e| format!("{name}: {e}"))?;
        let serde_json::Value::Object(mut given) = given else {
            return Err(format!("{name} is no mapping"));
        };
        let mut whole = match given.remove("preset") {
            None => serde_json::Map::new(),
            Some(preset) => {
                let preset = preset.as_str().unwrap_or_default();
                let scenario = presets::of(preset).ok_or_else(|| format!("no preset {preset}"))?;
                match serde_json::to_value(scenario) {
                    Ok(serde_json::Value::Object(whole)) => whole,
                    _ => return Err("a preset is no mapping".into()),
                }
            }
        };
        whole.extend(given);
        serde_json::from_value(whole.into()).map_err(|e| format!("{name}: {e}"))
    }
}

fn yes() -> bool {
    true
}
