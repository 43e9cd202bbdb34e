//! The cards that a machine can be made of, and what is known of each.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use vgpu_core::{Bytes, CounterId, Profile, Vendor};

use crate::tables;

/// A model of card.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumIter,
    strum::EnumString,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Model {
    /// NVIDIA A100-SXM4-40GB: MIG after a reset.
    A100Sxm40gb,
    /// NVIDIA A100-SXM4-80GB: MIG after a reset.
    A100Sxm80gb,
    /// Hygon BW1000: hardware instances, a mode of the whole node.
    Bw1000,
    /// NVIDIA H100-SXM5-80GB: MIG on an idle card.
    H100Sxm80gb,
    /// NVIDIA H200-SXM5-141GB: MIG on an idle card.
    H200Sxm141gb,
    /// Hygon K100-AI: virtual DCUs.
    K100Ai,
    /// Cambricon MLU370-X8: sMLU and MIM, which exclude each other.
    Mlu370X8,
}

impl Model {
    pub(crate) fn facts(self) -> Facts {
        let nvidia = |name, memory, units, table: fn() -> Table, ampere, lanes| Facts {
            vendor: Vendor::NVIDIA,
            name,
            memory: Bytes::mib(memory),
            units: units_of(units),
            table: Some(table),
            ampere,
            lanes,
        };
        match self {
            Self::A100Sxm40gb => {
                nvidia("NVIDIA A100-SXM4-40GB", 40_442, 108, tables::a100_40gb, true, 12)
            }
            Self::A100Sxm80gb => {
                nvidia("NVIDIA A100-SXM4-80GB", 81_050, 108, tables::a100_80gb, true, 12)
            }
            Self::H100Sxm80gb => {
                nvidia("NVIDIA H100 80GB HBM3", 81_559, 132, tables::h100_80gb, false, 18)
            }
            Self::H200Sxm141gb => {
                nvidia("NVIDIA H200", 143_771, 132, tables::h200_141gb, false, 18)
            }
            Self::Bw1000 => Facts {
                vendor: Vendor::HYGON,
                name: "BW1000",
                memory: Bytes::mib(65_520),
                units: units_of(80),
                table: Some(tables::bw1000),
                ampere: false,
                lanes: 1,
            },
            Self::K100Ai => Facts {
                vendor: Vendor::HYGON,
                name: "K100-AI",
                memory: Bytes::mib(65_520),
                units: units_of(120),
                table: None,
                ampere: false,
                lanes: 1,
            },
            Self::Mlu370X8 => Facts {
                vendor: Vendor::CAMBRICON,
                name: "MLU370-X8",
                memory: Bytes::mib(49_152),
                units: units_of(24),
                table: Some(tables::mlu370_x8),
                ampere: false,
                lanes: 2,
            },
        }
    }

    /// Whose card it is.
    pub fn vendor(self) -> Vendor {
        self.facts().vendor
    }
}

/// A profile table and the counters that it draws on.
pub(crate) struct Table {
    pub(crate) profiles: Vec<Profile>,
    pub(crate) counters: Vec<(CounterId, u64)>,
}

/// What is known of a model.
pub(crate) struct Facts {
    pub(crate) vendor: Vendor,
    pub(crate) name: &'static str,
    pub(crate) memory: Bytes,
    pub(crate) units: NonZeroU32,
    /// Hardware instances: MIG, MIM or HCU-MIG, by vendor.
    pub(crate) table: Option<fn() -> Table>,
    /// Whether the mode changes only with a reset, and survives a reboot.
    pub(crate) ampere: bool,
    /// Direct links between two cards of a node.
    pub(crate) lanes: u32,
}

pub(crate) fn units_of(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).expect("a card of the catalogue has compute units")
}
