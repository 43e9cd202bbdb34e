//! The in-process kubelet as a bench.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tokio::runtime::Runtime;
use vgpu_backend_mock::Preset;
use vgpu_core::id::DeviceId;
use vgpu_kubelet_plugin::fake::{AdmissionError, ContainerSpec, ContainerView, Forget, Pod};
use vgpu_plugin::Agent;
use vgpu_scenarios::{Bench, Program, Ran, Requests, Seen};

use crate::stage::{self, GUARD, Stage};

/// How long `PodResources` answers with no pods after a restart of the kubelet.
const PODS_HIDDEN: Duration = Duration::from_millis(500);

/// The in-process kubelet and an agent.
pub(crate) struct OnFake {
    // The agent before the runtime: what it runs ends with it.
    agent: Option<Agent>,
    stage: Stage,
    pods: BTreeMap<String, Pod>,
    patience: Duration,
    runtime: Runtime,
}

impl OnFake {
    /// A node with an agent; `patience` is for amounts that do not come.
    pub(crate) fn new(patience: Duration) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let stage = runtime.block_on(async {
            Stage::with(Preset::Mixed, |options| {
                options.forget = Forget::Lazily;
                options.pods_hidden = PODS_HIDDEN;
            })
        });
        let mut bench = Self { agent: None, stage, pods: BTreeMap::new(), patience, runtime };
        bench.start_agent().expect("the agent starts");
        let agent = bench.agent.as_ref().expect("it was started");
        bench.runtime.block_on(bench.stage.served(agent));
        bench
    }

    fn start_agent(&mut self) -> Result<()> {
        ensure!(self.agent.is_none(), "the agent runs already");
        let cards: Vec<String> =
            self.stage.machine.devices()?.iter().map(ToString::to_string).collect();
        let options = self.stage.options(&vgpu_scenarios::offers(&cards)?);
        let starting = Agent::start(self.stage.choices(), options);
        self.agent = Some(self.runtime.block_on(starting)?);
        Ok(())
    }

    fn card(&self, n: usize) -> Result<DeviceId> {
        let cards = self.stage.machine.devices()?;
        cards.get(n).cloned().with_context(|| format!("there is no card {n}"))
    }

    /// The scheduler's part: a pod stays where it is until the node has as much left as it asks for.
    fn bind(&self, pod: &vgpu_scenarios::Pod) -> Result<()> {
        let total = pod.total();
        let mut left = BTreeMap::new();
        let fits = || {
            left = total.keys().map(|r| (r.clone(), self.left(r))).collect::<BTreeMap<_, _>>();
            total.iter().all(|(r, n)| left[r] >= i64::from(*n))
        };
        let done = wait(GUARD, fits);
        ensure!(done, "pod {}: expected room for {total:?}, seen {left:?} left", pod.name);
        Ok(())
    }

    /// What a scheduler believes to be left of a resource.
    fn left(&self, resource: &str) -> i64 {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let held: i64 = self
            .pods
            .values()
            .map(|pod| {
                let ids = pod.allocations.iter().filter(|a| a.resource == resource);
                let ids: BTreeSet<&String> = ids.flat_map(|a| &a.device_ids).collect();
                count(ids.len())
            })
            .sum();
        count(self.stage.kubelet.allocatable(resource)) - held
    }

    fn admit(&mut self, pod: &vgpu_scenarios::Pod) -> Result<Result<Pod, String>> {
        self.bind(pod)?;
        let init = pod.init.iter().map(|(name, r)| asks(ContainerSpec::init(name), r));
        let apps = pod.containers.iter().map(|(name, r)| asks(ContainerSpec::app(name), r));
        let mut spec = stage::pod(&pod.name, []);
        spec.containers = init.chain(apps).collect();
        match self.runtime.block_on(self.stage.kubelet.admit(spec)) {
            Ok(admitted) => Ok(Ok(admitted)),
            Err(AdmissionError::Rejected { message }) => Ok(Err(message)),
            Err(other) => bail!("pod {}: {other}", pod.name),
        }
    }
}

impl Bench for OnFake {
    fn wait_allocatable(&mut self, wanted: &BTreeMap<String, u64>) -> Result<()> {
        let kubelet = &self.stage.kubelet;
        let mut seen = BTreeMap::new();
        let done = wait(self.patience, || {
            let now = |r: &String| (r.clone(), kubelet.allocatable(r) as u64);
            seen = wanted.keys().map(now).collect();
            seen == *wanted
        });
        ensure!(done, "expected {wanted:?}, seen {seen:?}");
        Ok(())
    }

    fn run(&mut self, pod: &vgpu_scenarios::Pod) -> Result<Ran> {
        let admitted = match self.admit(pod)? {
            Ok(admitted) => admitted,
            Err(message) => bail!("pod {}: expected to run, seen refused: {message}", pod.name),
        };
        let mut seen = BTreeMap::new();
        for container in pod.init.keys().chain(pod.containers.keys()) {
            let starting = self.stage.start(&admitted.uid, container);
            seen.insert(container.clone(), sees(&self.runtime.block_on(starting))?);
        }
        let uid = admitted.uid.clone();
        self.pods.insert(pod.name.clone(), admitted);
        Ok(Ran { uid, seen })
    }

    fn refusal(&mut self, pod: &vgpu_scenarios::Pod) -> Result<String> {
        match self.admit(pod)? {
            Err(message) => Ok(message),
            Ok(admitted) => {
                bail!("expected a refusal, seen admitted with {:?}", admitted.allocations)
            }
        }
    }

    fn delete(&mut self, pods: &[String]) -> Result<()> {
        for name in pods {
            let pod = self.pods.remove(name).with_context(|| format!("no pod {name} runs"))?;
            ensure!(self.stage.kubelet.delete_pod(&pod.uid), "the kubelet has no pod {name}");
        }
        Ok(())
    }

    fn still_runs(&mut self, name: &str) -> Result<()> {
        let before = &self.pods[name];
        let now = self.stage.kubelet.pods().into_iter().find(|p| p.uid == before.uid);
        ensure!(now.as_ref() == Some(before), "expected {before:?}, seen {now:?}");
        Ok(())
    }

    fn kill(&mut self, program: Program) -> Result<()> {
        let _in_runtime = self.runtime.enter();
        match program {
            Program::Agent => drop(self.agent.take().context("the agent does not run")?),
            Program::Kubelet => self.runtime.block_on(self.stage.kubelet.stop()),
        }
        Ok(())
    }

    fn start(&mut self, program: Program) -> Result<()> {
        match program {
            Program::Agent => self.start_agent(),
            Program::Kubelet => Ok(self.runtime.block_on(self.stage.kubelet.start())?),
        }
    }

    fn lose(&mut self, card: usize) -> Result<()> {
        Ok(self.stage.machine.faults().lose(&self.card(card)?)?)
    }

    fn restore(&mut self, card: usize) -> Result<()> {
        Ok(self.stage.machine.faults().restore(&self.card(card)?)?)
    }

    fn claims(&mut self) -> Result<Vec<Value>> {
        let mut text = String::new();
        let socket = self.stage.state_dir().join("claims.sock");
        UnixStream::connect(&socket)
            .with_context(|| format!("cannot ask the agent at {}", socket.display()))?
            .read_to_string(&mut text)
            .context("the agent hung up")?;
        let reply: Value = serde_json::from_str(&text).context("the agent's answer is no JSON")?;
        Ok(reply["claims"].as_array().cloned().unwrap_or_default())
    }

    fn specs(&mut self) -> Result<Vec<Value>> {
        let dir = self.stage.cdi_dir();
        let read = |name: String| Ok(serde_json::from_slice(&std::fs::read(dir.join(name))?)?);
        self.stage.specs().into_iter().map(read).collect()
    }
}

fn asks(container: ContainerSpec, requests: &Requests) -> ContainerSpec {
    requests.iter().fold(container, |c, (resource, n)| c.request(resource, *n as usize))
}

/// What a container sees that was started by these edits.
fn sees(view: &ContainerView) -> Result<Seen> {
    let edits = || view.cdi_devices.iter().flat_map(|d| [&d.spec_edits, &d.device_edits]);
    let all = |list: &str, field: &str| -> BTreeSet<String> {
        let items = edits().flat_map(|e| e[list].as_array().into_iter().flatten());
        items.filter_map(|i| i[field].as_str().map(str::to_owned)).collect()
    };
    let mounts = edits().flat_map(|e| e["mounts"].as_array().into_iter().flatten());
    let mut claim = Value::Null;
    for mount in mounts.filter(|m| m["containerPath"] == vgpu_node::publish::CLAIM_FILE) {
        let path = mount["hostPath"].as_str().context("a mount without a host's path")?;
        let text = std::fs::read(path).with_context(|| format!("cannot read {path}"))?;
        claim = serde_json::from_slice(&text).with_context(|| format!("{path} is no JSON"))?;
    }
    Ok(Seen { nodes: all("deviceNodes", "path"), files: all("mounts", "containerPath"), claim })
}

/// Whether it holds before the time has passed.
fn wait(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + limit;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
