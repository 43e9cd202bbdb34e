//! The agent of a vendor's backend on a stand-in for its library, in the place of the mock's agent.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::cluster::test::setup::Setup;
use crate::cluster::test::world::World;

/// What the agent is started on.
#[derive(Debug, Clone, Default)]
pub(crate) struct StandIn {
    /// Which backend, and where it finds its library.
    pub(crate) flags: Vec<String>,
    /// What the library reads.
    pub(crate) env: Vec<(String, String)>,
    /// The offers of its configuration.
    pub(crate) offers: String,
    /// The nodes that the vendor's driver would make.
    pub(crate) nodes: Vec<String>,
}

/// A vendor's agent that runs. At its end the mock's is not started again: [`World::tidy`] does that, once the pods are
/// gone.
#[derive(Debug)]
pub(crate) struct Vendor {
    /// The same node, with this agent.
    pub(crate) world: World,
    /// Nodes that were not there before.
    nodes: Vec<String>,
}

impl Vendor {
    /// A new folder below the node's, which processes in the box see under the same path.
    pub(crate) fn folder(world: &World, name: &str) -> Result<PathBuf> {
        let dir = world.cluster.node.layout.dir.join("vendors").join(name);
        let failed = || format!("cannot make {}", dir.display());
        if dir.exists() {
            std::fs::remove_dir_all(&dir).with_context(failed)?;
        }
        std::fs::create_dir_all(&dir).with_context(failed)?;
        Ok(dir)
    }

    /// Ends the mock's agent and starts this one, with an empty state in that folder.
    pub(crate) fn start(world: &World, dir: &Path, what: &StandIn) -> Result<Self> {
        let setup = Setup::of_another(&world.cluster.node.layout, dir, &what.flags, &what.env);
        let mut vendor = Self { world: World { setup, ..world.clone() }, nodes: Vec::new() };
        vendor.nodes = world.make_nodes(&what.nodes)?;
        vendor.world.configure(&what.offers)?;
        world.cluster.node.signal("agent", "TERM")?;
        world.wait_empty()?;
        vendor.world.start_agent()?;
        Ok(vendor)
    }

    /// Plays a scenario when at least so much is offered, and tells of its claims where it failed; later it has ended.
    pub(crate) fn tried(
        &self,
        offered: &[(&str, u64)],
        scenario: impl FnOnce() -> Result<String>,
    ) -> Result<String> {
        let served = offered.iter().try_for_each(|(name, n)| self.world.wait_within(name, *n..));
        served.and_then(|()| scenario()).inspect_err(|_| self.world.explain_claims())
    }
}

impl Drop for Vendor {
    fn drop(&mut self) {
        let node = &self.world.cluster.node;
        if node.runs("agent")
            && let Err(error) =
                node.signal("agent", "TERM").or_else(|_| node.signal("agent", "KILL"))
        {
            crate::say(&format!("    the vendor's agent cannot be ended: {error:#}"));
        }
        let nodes = ["-f"].into_iter().chain(self.nodes.iter().map(String::as_str));
        if let Err(error) = node.output("/bin/rm".as_ref(), nodes) {
            crate::say(&format!("    the vendor's nodes cannot be removed: {error:#}"));
        }
    }
}
