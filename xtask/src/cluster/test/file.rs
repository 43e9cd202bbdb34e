//! The files of `scenarios/` on the real kubelet; `vgpu-plugin/tests/scenarios` plays them on the in-process one.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use vgpu_core::id::DeviceId;
use vgpu_scenarios::{Bench, Pod, Program, Ran, Requests, Scenario, Seen, play};

use crate::cluster::process::wait_for;
use crate::cluster::test::pod::{PROBE, container, pod, prober};
use crate::cluster::test::world::{PATIENCE, World, why};

/// Plays one.
pub(crate) fn run(world: &World, scenario: &Scenario) -> Result<String> {
    play(scenario, &mut OnNode(world))?;
    Ok(format!("{} steps", scenario.steps.len()))
}

struct OnNode<'w>(&'w World);

impl Bench for OnNode<'_> {
    fn wait_allocatable(&mut self, wanted: &BTreeMap<String, u64>) -> Result<()> {
        let mut seen = BTreeMap::new();
        let waited = wait_for("such amounts", PATIENCE, || {
            seen = self.0.allocatable()?;
            Ok(wanted.iter().all(|(r, n)| seen.get(r) == Some(n)).then_some(()))
        });
        waited.with_context(|| format!("expected {wanted:?}, seen {seen:?}"))
    }

    fn run(&mut self, pod: &Pod) -> Result<Ran> {
        self.0.create(&made(pod))?;
        let running = self.0.wait_running(&pod.name)?;
        let uid = running["metadata"]["uid"].as_str().context("a pod without a uid")?.to_owned();
        let mut seen = BTreeMap::new();
        for name in pod.init.keys() {
            seen.insert(name.clone(), self.0.seen(&pod.name, name)?);
        }
        for (name, requests) in &pod.containers {
            // What the container sees is what the runtime was told, to the last node; where it was told anything.
            let told = match requests.is_empty() {
                true => self.0.seen(&pod.name, name)?,
                false => self.0.checked(&pod.name, name)?,
            };
            seen.insert(name.clone(), told);
        }
        let seen = seen.into_iter().map(|(name, told)| (name, sees(told))).collect();
        Ok(Ran { uid, seen })
    }

    fn refusal(&mut self, pod: &Pod) -> Result<String> {
        self.0.create(&made(pod))?;
        let failed = self.0.wait_pod(&pod.name, "refusal", |p| {
            ensure!(p["status"]["phase"] != "Running", "expected a refusal, seen it running");
            Ok(p["status"]["phase"] == "Failed")
        })?;
        let reason = &failed["status"]["reason"];
        let expected = "UnexpectedAdmissionError";
        ensure!(reason == expected, "expected {expected}, seen {reason}: {}", why(&failed));
        self.0.delete(&pod.name)?;
        Ok(why(&failed))
    }

    fn delete(&mut self, pods: &[String]) -> Result<()> {
        pods.iter().try_for_each(|name| self.0.delete_later(name))?;
        pods.iter().try_for_each(|name| self.0.delete(name))
    }

    fn still_runs(&mut self, name: &str) -> Result<()> {
        let pod = self.0.pod(name)?;
        let phase = &pod["status"]["phase"];
        ensure!(phase == "Running", "expected Running, seen {phase}: {}", why(&pod));
        let statuses = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
        let again: Vec<&Value> = statuses.filter(|s| s["restartCount"] != 0).collect();
        ensure!(again.is_empty(), "expected the first containers, seen started again: {again:?}");
        Ok(())
    }

    fn kill(&mut self, program: Program) -> Result<()> {
        self.0.cluster.node.signal(&program.to_string(), "KILL")
    }

    fn start(&mut self, program: Program) -> Result<()> {
        match program {
            Program::Agent => self.0.start_agent(),
            Program::Kubelet => self.0.cluster.start_kubelet(),
        }
    }

    fn lose(&mut self, card: usize) -> Result<()> {
        Ok(self.0.machine.faults().lose(&self.card(card)?)?)
    }

    fn restore(&mut self, card: usize) -> Result<()> {
        Ok(self.0.machine.faults().restore(&self.card(card)?)?)
    }

    fn claims(&mut self) -> Result<Vec<Value>> {
        self.0.claims()
    }

    fn specs(&mut self) -> Result<Vec<Value>> {
        self.0.specs()
    }
}

impl OnNode<'_> {
    fn card(&self, n: usize) -> Result<DeviceId> {
        let cards = self.0.machine.devices()?;
        cards.get(n).cloned().with_context(|| format!("there is no card {n}"))
    }
}

/// The pod as the apiserver wants it.
fn made(wanted: &Pod) -> Value {
    let init = wanted.init.iter().map(|(name, r)| container(name, PROBE, &pairs(r)));
    let init: Vec<Value> = init.collect();
    let apps = wanted.containers.iter().map(|(name, r)| prober(name, &pairs(r)));
    let mut made = pod(&wanted.name, apps.collect());
    made["spec"]["initContainers"] = json!(init);
    made
}

fn pairs(requests: &Requests) -> Vec<(&str, u32)> {
    requests.iter().map(|(resource, n)| (resource.as_str(), *n)).collect()
}

fn sees(told: super::seen::Seen) -> Seen {
    Seen {
        nodes: told.cards().into_iter().map(str::to_owned).collect(),
        files: told.mounts.into_keys().collect(),
        claim: told.claim,
    }
}
