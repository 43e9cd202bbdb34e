//! What a scenario is played on.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use serde_json::Value;

use crate::file::{Pod, Program};

/// A node with the scripted machine `mixed`, a kubelet, and our agent with the offers of `offers.yaml`.
///
/// Every method waits for what it says, with a generous limit, and fails with what it saw instead.
pub trait Bench {
    /// Waits until the node tells exactly these amounts; resources that are not named may have any.
    fn wait_allocatable(&mut self, wanted: &BTreeMap<String, u64>) -> Result<()>;

    /// Makes a pod, waits until all its containers run, and gives what they see.
    fn run(&mut self, pod: &Pod) -> Result<Ran>;

    /// Makes a pod that the scheduler lets pass, waits until it is refused, gives the text in its status, and takes it
    /// away again.
    fn refusal(&mut self, pod: &Pod) -> Result<String>;

    /// Ends pods and waits until they are gone.
    fn delete(&mut self, pods: &[String]) -> Result<()>;

    /// Fails unless a pod's containers are those that were started first.
    fn still_runs(&mut self, pod: &str) -> Result<()>;

    /// Kills a program and waits for its end.
    fn kill(&mut self, program: Program) -> Result<()>;

    /// Starts a program that was killed.
    fn start(&mut self, program: Program) -> Result<()>;

    /// A card falls off the bus.
    fn lose(&mut self, card: usize) -> Result<()>;

    /// A lost card is there again.
    fn restore(&mut self, card: usize) -> Result<()>;

    /// The claims that the agent tells at its socket `claims.sock`.
    fn claims(&mut self) -> Result<Vec<Value>>;

    /// All CDI specs that a runtime would find.
    fn specs(&mut self) -> Result<Vec<Value>>;
}

/// A pod that runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Ran {
    /// Its uid.
    pub uid: String,
    /// What each container sees, init containers as well.
    pub seen: BTreeMap<String, Seen>,
}

/// What a container sees.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    /// Device nodes of any card.
    pub nodes: BTreeSet<String>,
    /// Where files and folders are mounted for it.
    pub files: BTreeSet<String>,
    /// `/etc/vgpu/claim.json`; null where there is none.
    pub claim: Value,
}
