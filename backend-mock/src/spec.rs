//! The description of a machine: what is in it when it is made. Any machine can be scripted in JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vgpu_core::{DeviceId, Link, Scheme, TrustDomain};

use crate::model::Model;

/// A machine, as it is when it is made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MachineSpec {
    /// The cards, in the order of their PCI addresses.
    pub cards: Vec<CardSpec>,
    /// How near they are; `None` = as usual for their models.
    pub links: Option<Vec<Link>>,
    /// Driver version by vendor; what is not named has a usual one.
    pub drivers: BTreeMap<String, String>,
    /// Optional symbols that a vendor's library lacks; each one is a capability less only where
    /// [`CardSpec::without`] says so.
    pub missing_symbols: BTreeMap<String, Vec<String>>,
}

impl MachineSpec {
    /// A machine without cards.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `count` cards like `card`.
    #[must_use]
    pub fn with(mut self, count: u32, card: &CardSpec) -> Self {
        self.cards.extend((0..count).map(|_| card.clone()));
        self
    }
}

/// A card, as it is when the machine is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CardSpec {
    /// Which model.
    pub model: Model,
    /// Its id; `None` = derived from vendor and place, the same in every run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<DeviceId>,
    /// Its NUMA node; `None` = the first half of the cards on 0, the others on 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numa: Option<u32>,
    /// The scheme whose mode it is in; `None` = the default mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Scheme>,
    /// Whom the mode serves, for MPS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<TrustDomain>,
    /// What the kernel driver can limit.
    #[serde(default)]
    pub kernel: Kernel,
    /// How virtual DCUs are made.
    #[serde(default)]
    pub vdcu: VdcuWay,
    /// Schemes that it does not have after all: an old driver, a missing symbol.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<Scheme>,
}

impl CardSpec {
    /// A card in its default mode.
    pub fn new(model: Model) -> Self {
        Self {
            model,
            id: None,
            numa: None,
            mode: None,
            domain: None,
            kernel: Kernel::default(),
            vdcu: VdcuWay::default(),
            without: Vec::new(),
        }
    }

    /// The same card in the mode of `scheme`.
    #[must_use]
    pub fn in_mode(mut self, scheme: Scheme) -> Self {
        self.mode = Some(scheme);
        self
    }

    /// The same card under this kernel driver.
    #[must_use]
    pub fn under(mut self, kernel: Kernel) -> Self {
        self.kernel = kernel;
        self
    }
}

/// What an NVIDIA kernel driver can limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kernel {
    /// Memory of a cgroup, since r615.
    CgroupMemory,
    /// Nothing.
    #[default]
    Plain,
}

/// How virtual DCUs are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VdcuWay {
    /// A configuration file with the planner's mask.
    #[default]
    File,
    /// `dmiCreateVDevices`; the driver picks the units.
    Library,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_json_and_refuses_what_it_does_not_know() {
        let spec: MachineSpec = serde_json::from_str(
            r#"{"cards": [{"model": "h200-sxm141gb", "mode": "mig", "kernel": "cgroup-memory"}]}"#,
        )
        .expect("a description");
        assert_eq!(spec.cards[0].mode, Some(Scheme::MIG));
        let text = serde_json::to_string(&spec).expect("serializes");
        assert_eq!(serde_json::from_str::<MachineSpec>(&text).expect("parses"), spec);
        assert!(serde_json::from_str::<MachineSpec>(r#"{"card": []}"#).is_err());
        assert!(serde_json::from_str::<CardSpec>(r#"{"model": "h200"}"#).is_err());
    }
}
