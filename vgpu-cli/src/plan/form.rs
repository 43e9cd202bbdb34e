//! The question, as it is written; published as `docs/schemas/plan-input.json`.

use serde::Deserialize;
use vgpu_backend_mock::MachineSpec;
use vgpu_core::plan::{Held, Policy, Request};
use vgpu_core::{Device, Link};

use crate::devices::Report;

/// Nodes, and what is asked of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Question {
    /// How to choose among nodes and cards that fit.
    #[serde(default)]
    pub(crate) policy: Policy,
    /// The nodes.
    pub(crate) nodes: Vec<Node>,
    /// The requests, in order.
    pub(crate) requests: Vec<Request>,
}

/// A node; exactly one of `devices`, `machine`, `preset` and `report` says what is in it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Node {
    /// Its name.
    pub(crate) name: String,
    /// Its cards, one by one.
    pub(crate) devices: Option<Vec<Device>>,
    /// How near they are; goes with `devices`.
    pub(crate) links: Option<Vec<Link>>,
    /// A scripted machine, described.
    pub(crate) machine: Option<MachineSpec>,
    /// A scripted machine, by name.
    pub(crate) preset: Option<String>,
    /// What `vgpu devices --json` said there.
    pub(crate) report: Option<Report>,
    /// What is taken already, besides the parts that a report lists.
    #[serde(default)]
    pub(crate) held: Vec<Held>,
}
