//! A scenario played on a bench.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::bench::{Bench, Ran};
use crate::expected::{Expected, parts};
use crate::file::{Pod, Scenario, Step};

/// Only a guard: the agent asks the kubelet every second.
const PATIENCE: Duration = Duration::from_secs(60);

/// Plays a scenario to its end or to the first difference.
///
/// Besides what the file says, every pod is held to what always holds: each container has a claim of its own, new,
/// prepared, held by this very pod, of as many ids as were asked for; it is the one in its `claim.json` and its spec is
/// published; and no two containers that run have an id or a part in common.
///
/// # Errors
/// The first difference: file, step, what was expected and what was seen. What the bench fails with.
pub fn play(scenario: &Scenario, bench: &mut dyn Bench) -> Result<()> {
    let mut play = Play { bench, running: BTreeMap::new(), spent: BTreeSet::new() };
    for (n, step) in scenario.steps.iter().enumerate() {
        let place = || format!("{}.json, step {} ({step})", scenario.name, n + 1);
        play.step(step).with_context(place)?;
    }
    Ok(())
}

struct Play<'b> {
    bench: &'b mut dyn Bench,
    /// What each container of each pod holds.
    running: BTreeMap<String, BTreeMap<String, Holding>>,
    /// Claims that some container had.
    spent: BTreeSet<String>,
}

/// What one container holds.
#[derive(Debug, Clone, PartialEq)]
struct Holding {
    claim: String,
    ids: BTreeSet<String>,
    parts: BTreeSet<String>,
    spec: Value,
}

impl Play<'_> {
    fn step(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Allocatable(wanted) => self.bench.wait_allocatable(wanted),
            Step::Delete(pods) => {
                self.bench.delete(pods)?;
                pods.iter().for_each(|pod| drop(self.running.remove(pod)));
                Ok(())
            }
            Step::Kill(program) => self.bench.kill(*program),
            Step::Lose(card) => self.bench.lose(*card),
            Step::Refused { pod, because } => self.refused(pod, because),
            Step::Restore(card) => self.bench.restore(*card),
            Step::Run { pod, sees } => self.run(pod, sees),
            Step::Start(program) => self.bench.start(*program),
            Step::Unchanged(pods) => pods.iter().try_for_each(|pod| self.unchanged(pod)),
        }
    }

    fn refused(&mut self, pod: &Pod, because: &str) -> Result<()> {
        let said = self.bench.refusal(pod)?;
        ensure!(said.contains(because), "expected a refusal with {because:?}, seen {said:?}");
        let claims = self.bench.claims()?;
        let made = claims.iter().find(|c| c["holder"]["pod"] == pod.name.as_str());
        ensure!(made.is_none(), "expected no claim of the refused pod, seen {made:?}");
        Ok(())
    }

    fn run(&mut self, pod: &Pod, sees: &BTreeMap<String, Expected>) -> Result<()> {
        let ran = self.bench.run(pod)?;
        for container in pod.init.keys().chain(pod.containers.keys()) {
            let who = || format!("container {container}");
            let seen = ran.seen.get(container).with_context(who).context("it told nothing")?;
            if pod.requests(container).is_none_or(BTreeMap::is_empty) {
                let bare = seen.claim.is_null() && seen.nodes.is_empty();
                ensure!(bare, "{}: expected no card and no claim, seen {seen:?}", who());
            }
        }
        for (container, expected) in sees {
            expected
                .compare(container, &ran.seen)
                .with_context(|| format!("container {container}"))?;
        }
        let mut holdings = BTreeMap::new();
        for (container, requests) in &pod.containers {
            let Some(count) = requests.values().next() else { continue };
            let holding = self
                .holding(pod, container, &ran, *count)
                .with_context(|| format!("container {container}"))?;
            self.is_its_own(container, &holding, &holdings)?;
            holdings.insert(container.clone(), holding);
        }
        self.spent.extend(holdings.values().map(|h| h.claim.clone()));
        self.running.insert(pod.name.clone(), holdings);
        Ok(())
    }

    /// What the agent and the runtime know of a container that has just started.
    fn holding(&mut self, pod: &Pod, container: &str, ran: &Ran, count: u32) -> Result<Holding> {
        let seen = &ran.seen[container];
        let claim = seen.claim["claim"].as_str();
        let claim = claim.with_context(|| format!("expected a claim, seen {}", seen.claim))?;
        let told = self.with_holder(claim)?;
        let holder = &told["holder"];
        ensure!(
            holder["pod"] == pod.name.as_str() && holder["uid"] == ran.uid.as_str(),
            "expected a claim of pod {} ({}), seen {told}",
            pod.name,
            ran.uid
        );
        let holding = self.now(&told)?;
        ensure!(
            holding.ids.len() == count as usize,
            "expected a claim of {count} ids, seen {:?}",
            holding.ids
        );
        let in_file: BTreeSet<String> = parts(seen).into_iter().collect();
        ensure!(in_file == holding.parts, "expected parts {:?}, seen {in_file:?}", holding.parts);
        Ok(holding)
    }

    /// A claim, as soon as it is known who holds it: a kubelet that has just started names no pods for a while.
    fn with_holder(&mut self, claim: &str) -> Result<Value> {
        let until = Instant::now() + PATIENCE;
        loop {
            let told = find(&self.bench.claims()?, claim)?;
            if !told["holder"].is_null() || Instant::now() > until {
                return Ok(told);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A claim, prepared, with its spec.
    fn now(&mut self, told: &Value) -> Result<Holding> {
        ensure!(told["state"] == "prepared", "expected a prepared claim, seen {told}");
        let claim = told["claim"].as_str().context("a claim without an id")?.to_owned();
        let texts = |value: &Value, field: Option<&str>| -> BTreeSet<String> {
            let all = value.as_array().into_iter().flatten();
            let texts = all.filter_map(|v| field.map_or(v, |f| &v[f]).as_str());
            texts.map(str::to_owned).collect()
        };
        let specs = self.bench.specs()?;
        let spec = specs.iter().find(|s| s["devices"][0]["name"] == claim.as_str());
        let spec = spec.with_context(|| format!("expected a CDI spec of {claim}, seen none"))?;
        Ok(Holding {
            ids: texts(&told["ids"], None),
            parts: texts(&told["grants"], Some("part")),
            spec: spec.clone(),
            claim,
        })
    }

    fn is_its_own(
        &self,
        container: &str,
        new: &Holding,
        siblings: &BTreeMap<String, Holding>,
    ) -> Result<()> {
        ensure!(
            !self.spent.contains(&new.claim),
            "container {container}: expected a new claim, seen {} of an earlier container",
            new.claim
        );
        for (other, old) in self.running.values().flatten().chain(siblings) {
            let shared: Vec<&String> =
                new.ids.intersection(&old.ids).chain(new.parts.intersection(&old.parts)).collect();
            ensure!(
                shared.is_empty() && new.claim != old.claim,
                "container {container}: expected ids and parts of its own, seen {shared:?} with {other} of claim {}",
                old.claim
            );
        }
        Ok(())
    }

    fn unchanged(&mut self, pod: &str) -> Result<()> {
        self.bench.still_runs(pod).with_context(|| format!("pod {pod}"))?;
        let before = self.running.get(pod).context("it was never seen running")?.clone();
        for (container, before) in before {
            let who = || format!("container {container} of pod {pod}");
            let told = find(&self.bench.claims()?, &before.claim).with_context(who)?;
            let now = self.now(&told).with_context(who)?;
            ensure!(now == before, "{}: expected {before:?}, seen {now:?}", who());
        }
        Ok(())
    }
}

fn find(claims: &[Value], claim: &str) -> Result<Value> {
    let told = claims.iter().find(|c| c["claim"] == claim);
    told.cloned().with_context(|| {
        let all: Vec<&str> = claims.iter().filter_map(|c| c["claim"].as_str()).collect();
        format!("expected a claim {claim} with the agent, seen {all:?}")
    })
}
