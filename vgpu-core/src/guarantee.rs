//! How hard a limit is to get round, per axis, and on whose word.

use serde::{Deserialize, Serialize};

/// How hard a limit is to get round for an unprivileged tenant.
///
/// Ordered, so that a request can say "at least".
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::EnumIter,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Enforcement {
    /// No limit.
    #[default]
    None,
    /// A tenant that wants to get round it can (its env, its library, its processes).
    Cooperative,
    /// Kernel driver or a server outside the tenant refuses.
    Driver,
    /// The hardware partitions.
    Hardware,
}

/// Whose sum the limit bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Per {
    /// The container as a whole.
    Container,
    /// Each process: N processes get N times the limit (MPS v1 and v2).
    Process,
}

/// What stands behind the word.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proof {
    /// Vendor's documents or our reading of a source.
    Declared,
    /// The named report under `reports/` measured it on a card of this model and driver.
    Measured(String),
}

/// One axis of isolation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Axis {
    /// How hard.
    pub level: Enforcement,
    /// Bounding what.
    pub per: Per,
    /// On whose word.
    pub proof: Proof,
}

impl Axis {
    /// A level per container, on the vendor's word.
    pub fn declared(level: Enforcement) -> Self {
        Self { level, per: Per::Container, proof: Proof::Declared }
    }

    /// The level that counts: a per-process limit is never more than cooperative, since a tenant
    /// multiplies it by starting processes.
    pub fn effective(&self) -> Enforcement {
        match self.per {
            Per::Container => self.level,
            Per::Process => self.level.min(Enforcement::Cooperative),
        }
    }

    /// Whether a request for at least `minimum` is met; with `measured`, only by a measurement.
    pub fn meets(&self, minimum: Enforcement, measured: bool) -> bool {
        if minimum == Enforcement::None {
            return true;
        }
        let proven = !measured || matches!(self.proof, Proof::Measured(_));
        proven && self.effective() >= minimum
    }
}

/// What a compute share means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum ComputeKind {
    /// Nothing is promised.
    Unlimited,
    /// An upper bound; neighbours may overlap (MPS thread percentage).
    Cap,
    /// A mean over time, held by a controller (sMLU).
    Throttle,
    /// Units of one's own (MIG, CU mask, static SM chunks).
    Partition,
}

/// What one scheme enforces on this device with this driver; probed, not written down once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guarantees {
    /// Memory limit.
    pub memory: Axis,
    /// Compute limit.
    pub compute: Axis,
    /// What `compute` means.
    pub compute_kind: ComputeKind,
    /// Whether one tenant's fault ends the others.
    pub faults: Axis,
}

impl Guarantees {
    /// The same level on every axis, declared: the whole card, or hardware instances.
    pub fn uniform(level: Enforcement, compute_kind: ComputeKind) -> Self {
        let axis = || Axis::declared(level);
        Self { memory: axis(), compute: axis(), compute_kind, faults: axis() }
    }

    /// Orders schemes by what they enforce: memory first, then compute, then faults.
    pub fn strength(&self) -> [Enforcement; 3] {
        [self.memory.effective(), self.compute.effective(), self.faults.effective()]
    }

    /// The first axis that falls short of `minimum`, with the level that it has.
    pub fn shortfall(&self, minimum: &Minimum) -> Option<(&'static str, Enforcement, Enforcement)> {
        [
            ("memory", &self.memory, minimum.memory),
            ("compute", &self.compute, minimum.compute),
            ("faults", &self.faults, minimum.faults),
        ]
        .into_iter()
        .find(|(_, axis, asked)| !axis.meets(*asked, minimum.measured))
        .map(|(name, axis, asked)| (name, axis.effective(), asked))
    }
}

/// Least enforcement on each axis.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Minimum {
    /// Memory.
    pub memory: Enforcement,
    /// Compute.
    pub compute: Enforcement,
    /// Faults.
    pub faults: Enforcement,
    /// Whether only a measured level counts; else a declared one is enough.
    pub measured: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_per_process_limit_is_not_driver_enforcement() {
        let mut axis = Axis::declared(Enforcement::Driver);
        assert!(axis.meets(Enforcement::Driver, false));
        axis.per = Per::Process;
        assert!(!axis.meets(Enforcement::Driver, false));
        assert!(axis.meets(Enforcement::Cooperative, false));
    }

    #[test]
    fn a_declared_level_is_not_a_measured_one() {
        let mut axis = Axis::declared(Enforcement::Hardware);
        assert!(!axis.meets(Enforcement::Driver, true));
        axis.proof = Proof::Measured("nvidia-h200.json".into());
        assert!(axis.meets(Enforcement::Driver, true));
    }
}
