//! Machines by name.

use serde::{Deserialize, Serialize};
use vgpu_core::{Scheme, TrustDomain};

use crate::model::Model;
use crate::spec::{CardSpec, Kernel, MachineSpec, VdcuWay};

/// A machine by name.
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
    strum::IntoStaticStr,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Preset {
    /// Four A100-40GB in MIG mode; leaving it asks for a reset.
    #[serde(rename = "a100x4-mig")]
    #[strum(serialize = "a100x4-mig")]
    A100x4Mig,
    /// Four Hygon BW1000 in the node-wide HCU-MIG mode.
    #[serde(rename = "bw1000x4")]
    #[strum(serialize = "bw1000x4")]
    Bw1000x4,
    /// No card at all.
    Empty,
    /// Eight H100-80GB: six plain, one in MPS and one in static MPS mode for the domain `team-a`.
    #[serde(rename = "h100x8")]
    #[strum(serialize = "h100x8")]
    H100x8,
    /// Eight H200 under a driver that limits memory per cgroup.
    #[serde(rename = "h200x8")]
    #[strum(serialize = "h200x8")]
    H200x8,
    /// Four Hygon K100-AI whose virtual DCUs are made through the vendor's library.
    #[serde(rename = "k100x4-library")]
    #[strum(serialize = "k100x4-library")]
    K100x4Library,
    /// Eight Hygon K100-AI whose virtual DCUs are files of ours.
    #[serde(rename = "k100x8")]
    #[strum(serialize = "k100x8")]
    K100x8,
    /// Three vendors on one node: an H200 in MIG mode and a plain one, two K100-AI, two MLU370-X8
    /// in sMLU mode.
    Mixed,
    /// Four Cambricon MLU370-X8 in MIM mode.
    #[serde(rename = "mlu370x4-mim")]
    #[strum(serialize = "mlu370x4-mim")]
    Mlu370x4Mim,
    /// Eight Cambricon MLU370-X8 in sMLU mode.
    #[serde(rename = "mlu370x8")]
    #[strum(serialize = "mlu370x8")]
    Mlu370x8,
}

impl Preset {
    /// The description.
    pub fn spec(self) -> MachineSpec {
        let spec = MachineSpec::new();
        let card = CardSpec::new;
        match self {
            Self::A100x4Mig => spec.with(4, &card(Model::A100Sxm40gb).in_mode(Scheme::MIG)),
            Self::Bw1000x4 => spec.with(4, &card(Model::Bw1000).in_mode(Scheme::HCU_MIG)),
            Self::Empty => spec,
            Self::H100x8 => {
                // Two cards serve MPS clients of one domain, so that both of its schemes are met
                // in use.
                let mps = |scheme| CardSpec {
                    domain: Some(TrustDomain::new("team-a").expect("a word")),
                    ..card(Model::H100Sxm80gb).in_mode(scheme)
                };
                spec.with(6, &card(Model::H100Sxm80gb))
                    .with(1, &mps(Scheme::MPS))
                    .with(1, &mps(Scheme::MPS_STATIC))
            }
            Self::H200x8 => spec.with(8, &card(Model::H200Sxm141gb).under(Kernel::CgroupMemory)),
            Self::K100x4Library => {
                spec.with(4, &CardSpec { vdcu: VdcuWay::Library, ..card(Model::K100Ai) })
            }
            Self::K100x8 => spec.with(8, &card(Model::K100Ai)),
            Self::Mixed => spec
                .with(1, &card(Model::H200Sxm141gb).under(Kernel::CgroupMemory))
                .with(
                    1,
                    &card(Model::H200Sxm141gb).under(Kernel::CgroupMemory).in_mode(Scheme::MIG),
                )
                .with(2, &card(Model::K100Ai))
                .with(2, &card(Model::Mlu370X8).in_mode(Scheme::SMLU)),
            Self::Mlu370x4Mim => spec.with(4, &card(Model::Mlu370X8).in_mode(Scheme::MIM)),
            Self::Mlu370x8 => spec.with(8, &card(Model::Mlu370X8).in_mode(Scheme::SMLU)),
        }
    }
}

impl From<Preset> for MachineSpec {
    fn from(preset: Preset) -> Self {
        preset.spec()
    }
}
