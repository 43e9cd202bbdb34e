//! What the node and its Events tell of pods, waited for.

use std::fmt::Debug;
use std::ops::RangeBounds;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::cluster::process::wait_for;
use crate::cluster::test::world::{PATIENCE, World};

impl World {
    /// Waits until the node tells so much of a resource.
    pub(crate) fn wait_within(
        &self,
        resource: &str,
        many: impl RangeBounds<u64> + Debug,
    ) -> Result<()> {
        let mut last = 0;
        let waited = wait_for("such an amount", PATIENCE, || {
            last = self.allocatable()?.get(resource).copied().unwrap_or_default();
            Ok(many.contains(&last).then_some(()))
        });
        waited.with_context(|| {
            let runs = if self.cluster.node.runs("agent") { "runs" } else { "has ended" };
            format!("waiting for {many:?} of {resource}; the node has {last}, the agent {runs}")
        })
    }

    /// What was said of a pod that is there. By its uid: Events of an earlier one of that name outlive it.
    pub(crate) fn events(&self, pod: &str) -> Result<Vec<String>> {
        let pod = self.pod(pod)?;
        let uid = pod["metadata"]["uid"].as_str().context("a pod without a uid")?;
        let path =
            format!("/api/v1/namespaces/default/events?fieldSelector=involvedObject.uid%3D{uid}");
        let all = self.cluster.api.get(&path)?;
        let events = all["items"].as_array().cloned().unwrap_or_default();
        Ok(events.iter().filter_map(|e| Some(e["message"].as_str()?.to_owned())).collect())
    }

    /// Waits for an Event of a pod with these words.
    pub(crate) fn event(&self, pod: &str, words: &[&str]) -> Result<String> {
        let mut last = Vec::new();
        let found = wait_for("such an Event", PATIENCE, || {
            last = self.events(pod)?;
            let has_all = |e: &&String| words.iter().all(|word| e.contains(word));
            Ok(last.iter().find(has_all).cloned())
        });
        found.with_context(|| format!("pod {pod}: no Event with {words:?} among {last:?}"))
    }

    /// Waits for the scheduler's Event on a pod that waits for a resource, and that nothing was made for it.
    pub(crate) fn insufficient(&self, name: &str, resource: &str) -> Result<String> {
        let said = self.event(name, &[&format!("Insufficient {resource}")])?;
        let pod = self.pod(name)?;
        ensure!(pod["status"]["phase"] == "Pending", "pod {name} is {}", pod["status"]["phase"]);
        ensure!(self.claim_of(name).is_err(), "pod {name} holds a claim");
        Ok(said)
    }

    /// That no container of a pod was started again.
    pub(crate) fn ran_on(&self, name: &str) -> Result<()> {
        let pod = self.pod(name)?;
        let statuses = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
        let again: Vec<&Value> = statuses.iter().filter(|s| s["restartCount"] != 0).collect();
        ensure!(again.is_empty(), "containers of pod {name} were started again: {again:?}");
        Ok(())
    }
}
