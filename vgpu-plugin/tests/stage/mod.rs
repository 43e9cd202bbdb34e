//! An agent on a mock machine and a fake kubelet, all below one folder.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of this module")]
#![allow(clippy::print_stdout, reason = "seeds are told")]

pub mod program;
pub mod raw;
pub mod standin;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vgpu_backend_mock::{Machine, MachineSpec, MockFactory};
use vgpu_core::id::{DeviceId, PartitionId, SlotId};
use vgpu_core::{Bytes, Host, Partition, Vendor};
use vgpu_kubelet_plugin::fake::{
    ContainerSpec, ContainerView, FakeKubelet, FakeOptions, Pod, PodSpec, StartError,
};
use vgpu_node::ClaimStatus;
use vgpu_node::absence::AbsenceOptions;
use vgpu_node::health::HealthOptions;
use vgpu_node::publish::{CLAIM_FILE, ClaimFacts};
use vgpu_plugin::backends::Choice;
use vgpu_plugin::config::NodeConfig;
use vgpu_plugin::hook::Hook;
use vgpu_plugin::{Agent, AgentOptions};

/// Only a guard: what is waited for is a matter of milliseconds.
pub const GUARD: Duration = Duration::from_secs(60);

/// A quarter of a Hygon card.
pub const DCU: &str = "vgpu.dev/dcu";
/// A GiB of a Cambricon card.
pub const MEM: &str = "vgpu.dev/mem";
/// A MIG slice.
pub const MIG: &str = "vgpu.dev/mig";
/// A whole GPU.
pub const GPU: &str = "vgpu.dev/gpu";

/// A machine and a kubelet; agents come and go.
pub struct Stage {
    pub machine: Arc<Machine>,
    pub kubelet: FakeKubelet,
    pub dir: TempDir,
}

impl Stage {
    pub fn new(spec: impl Into<MachineSpec>) -> Self {
        Self::with(spec, |_| {})
    }

    /// With another kind of kubelet.
    pub fn with(spec: impl Into<MachineSpec>, tune: impl FnOnce(&mut FakeOptions)) -> Self {
        let dir = folder();
        let machine = Machine::new(spec).expect("a machine");
        let mut options = FakeOptions::under(dir.path().join("k"));
        options.wait_limit = GUARD;
        tune(&mut options);
        println!("the kubelet's seed is {}", options.seed);
        let kubelet = FakeKubelet::new(options).expect("a kubelet");
        let stage = Self { machine, kubelet, dir };
        stage.write_boot_id();
        stage
    }

    /// The usual agent, with waits as short as a test likes them.
    pub fn options(&self, offers: &str) -> AgentOptions {
        let dir = self.dir.path();
        AgentOptions {
            hook: Some(Hook::at(dir.join("vgpu-hook"))),
            host_root: dir.join("root"),
            health: HealthOptions { recover_after: Duration::ZERO, ..HealthOptions::default() },
            ledger_wait: GUARD,
            ..AgentOptions::new(
                config(offers),
                self.kubelet.paths().clone(),
                self.cdi_dir(),
                self.state_dir(),
            )
        }
    }

    /// Starts an agent and waits until the kubelet has all that it offers.
    pub async fn agent(&self, offers: &str) -> Agent {
        self.agent_with(self.options(offers)).await
    }

    pub async fn agent_with(&self, options: AgentOptions) -> Agent {
        let agent = Agent::start(self.choices(), options).await.expect("the agent starts");
        self.served(&agent).await;
        agent
    }

    pub fn choices(&self) -> Vec<Choice> {
        let factories = MockFactory::all(&self.machine).into_iter();
        factories.map(|factory| Choice { factory, host: Host::default() }).collect()
    }

    /// Waits until the kubelet has exactly what the agent lists.
    pub async fn served(&self, agent: &Agent) {
        let same = |kubelet: &FakeKubelet| {
            agent.node().listing().iter().all(|(resource, slots)| {
                let healthy = slots.iter().filter(|s| s.healthy).count();
                kubelet.capacity(resource.as_str()) == slots.len()
                    && kubelet.allocatable(resource.as_str()) == healthy
            })
        };
        self.kubelet.wait_until("the agent's lists", same).await.expect("it is served");
    }

    /// The healthy ids of the last list that the kubelet took, held ones included.
    pub fn kubelet_ids(&self, resource: &str) -> BTreeSet<String> {
        let Ok(text) = std::fs::read(self.kubelet.paths().checkpoint()) else {
            return BTreeSet::new();
        };
        let file: serde_json::Value = serde_json::from_slice(&text).expect("a checkpoint");
        let ids = file["Data"]["RegisteredDevices"][resource].as_array();
        ids.into_iter().flatten().map(|id| id.as_str().expect("an id").to_owned()).collect()
    }

    /// How many ids of each resource the kubelet may give.
    pub fn allocatable(&self, resources: &[&str]) -> BTreeMap<String, usize> {
        let count = |r: &&str| ((*r).to_owned(), self.kubelet.allocatable(r));
        resources.iter().map(count).collect()
    }

    /// Admits a pod of one container.
    pub async fn admit(&self, name: &str, resource: &str, count: usize) -> Pod {
        let pod = pod(name, [ContainerSpec::app("main").request(resource, count)]);
        self.kubelet.admit(pod).await.unwrap_or_else(|e| panic!("{name} is not admitted: {e}"))
    }

    /// Admits a pod of one container and starts it.
    pub async fn run(&self, name: &str, resource: &str, count: usize) -> (Pod, ContainerView) {
        let pod = self.admit(name, resource, count).await;
        let view = self.start(&pod.uid, "main").await;
        (pod, view)
    }

    /// Starts a container, again and again as the kubelet does.
    pub async fn start(&self, uid: &str, container: &str) -> ContainerView {
        let until = Instant::now() + GUARD;
        loop {
            match self.kubelet.start_container(uid, container).await {
                Ok(view) => return view,
                Err(e) => assert!(Instant::now() < until, "{uid} does not start: {e}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The machine is booted anew: parts and specs are gone, the boot id is another.
    pub fn reboot(&self) {
        self.machine.faults().reboot().expect("reboots");
        self.write_boot_id();
        match std::fs::remove_dir_all(self.cdi_dir()) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => panic!("{e}"),
            _ => {}
        }
    }

    pub fn cdi_dir(&self) -> PathBuf {
        self.dir.path().join("k/cdi")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// The claims whose specs a runtime would find, by file name.
    pub fn specs(&self) -> Vec<String> {
        let Ok(files) = std::fs::read_dir(self.cdi_dir()) else { return Vec::new() };
        let names = files.map(|f| f.expect("a file").file_name().into_string().expect("a name"));
        let mut names: Vec<String> = names.filter(|n| n.ends_with(".json")).collect();
        names.sort();
        names
    }

    pub fn parts(&self) -> Vec<PartitionId> {
        self.machine.all_parts().expect("parts")
    }

    pub fn cards(&self, vendor: &Vendor) -> Vec<DeviceId> {
        self.machine.devices_of(vendor).expect("cards")
    }

    /// The container has exactly what the ids of its units say: one part of that size, on that card.
    pub fn has_exactly(&self, pod: &Pod, container: &str, view: &ContainerView) {
        let ids: Vec<SlotId> =
            pod.device_ids(container, MEM).iter().map(|id| id.parse().expect("an id")).collect();
        let told = facts(view);
        assert_eq!(told.grants.len(), 1, "{}: {told:?}", pod.name);
        let part = told.grants[0].part.clone().expect("a part");
        let memory = Some(Bytes::gib(ids.len() as u64));
        assert_eq!(told.grants[0].size.memory, memory, "{}", pod.name);
        for id in &ids {
            assert_eq!(part.device(), id.device, "{} has a part of another card", pod.name);
        }
        let parts = self.machine.truth(&part.device()).expect("parts");
        let real = parts.iter().find(|p| p.id == part).expect("the driver has it");
        assert_eq!(real.size.memory, memory, "{}", pod.name);
        let name = &view.cdi_devices[0].name;
        assert_eq!(*name, cdi_name(pod, container, MEM));
        // Its nodes are of that part alone.
        let all = nodes(view);
        let cap = all.iter().find(|n| n.contains("cambricon-caps")).expect("a capability");
        let handle = format!("cap_dev{}_mi", all[0].trim_start_matches("/dev/cambricon_dev"));
        assert!(cap.contains(&handle), "{all:?}");
    }

    /// Every part of the machine, on all cards.
    pub fn truth(&self) -> Vec<Partition> {
        let cards = self.machine.devices().expect("cards");
        cards.iter().flat_map(|card| self.machine.truth(card).expect("parts")).collect()
    }

    /// Tells the machine's boot id where the host's root is.
    pub fn write_boot_id(&self) {
        let dir = self.dir.path().join("root/proc/sys/kernel/random");
        std::fs::create_dir_all(&dir).expect("a folder");
        let id = self.machine.boot_id().expect("a boot id");
        std::fs::write(dir.join("boot_id"), id + "\n").expect("a file");
    }
}

/// Offers for the mixed machine: one of each kind, on all three vendors. The schemes are named, so
/// that a mode that a reboot took is entered again.
pub fn mixed(machine: &Machine) -> String {
    let gpus = machine.devices_of(&Vendor::NVIDIA).expect("cards");
    format!(
        "
- {{resource: {GPU}, kind: whole, select: {{devices: [{}]}}}}
- {{resource: {MIG}, kind: slice, profile: 1g.18gb, schemes: [mig], select: {{devices: [{}]}}}}
- {{resource: {DCU}, kind: slice, slots: 4, select: {{vendors: [hygon]}}}}
- {{resource: {MEM}, kind: unit, unit: 1Gi, largest: 16, schemes: [smlu],
   select: {{vendors: [cambricon]}}}}
",
        gpus[0], gpus[1]
    )
}

/// A configuration with these offers and the shortest polls.
pub fn config(offers: &str) -> NodeConfig {
    NodeConfig::parse(&config_text(offers)).expect("a configuration")
}

pub fn config_text(offers: &str) -> String {
    format!(
        "apiVersion: vgpu.dev/v1alpha1\nkind: NodeConfig\n\
         poll: {{hardwareSeconds: 1, kubeletSeconds: 1}}\noffers:\n{offers}"
    )
}

/// Absence of which each part can be shortened alone; nothing is ever proven otherwise.
pub fn never() -> AbsenceOptions {
    let day = Duration::from_secs(86_400);
    AbsenceOptions { unbroken: day, apart: day, age: day, stale: day }
}

/// A pod under its name, with a uid that no other has.
pub fn pod<const N: usize>(name: &str, containers: [ContainerSpec; N]) -> PodSpec {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let uid = format!("uid-{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    containers.into_iter().fold(PodSpec::new("default", name, uid), PodSpec::with)
}

/// The claim that the kubelet has for a container.
pub fn claim_of(agent: &Agent, pod: &Pod, container: &str, resource: &str) -> Option<ClaimStatus> {
    let name = cdi_name(pod, container, resource);
    agent.node().claims().into_iter().find(|c| agent.node().cdi_name(&c.claim) == name)
}

pub fn cdi_name(pod: &Pod, container: &str, resource: &str) -> String {
    let ours = |a: &&vgpu_kubelet_plugin::fake::Allocation| {
        a.container == container && a.resource == resource
    };
    let allocation = pod.allocations.iter().find(ours).expect("it has the resource");
    allocation.cdi_devices[0].clone()
}

/// What the container's own file says of its claim.
pub fn facts(view: &ContainerView) -> ClaimFacts {
    let mounts = view.cdi_devices.iter().flat_map(|d| d.device_edits["mounts"].as_array());
    let file = mounts.flatten().find(|m| m["containerPath"] == CLAIM_FILE).expect("a claim file");
    let path = file["hostPath"].as_str().expect("a path");
    let text = std::fs::read_to_string(path).expect("it is there");
    serde_json::from_str(&text).expect("facts")
}

/// The device nodes that a container gets by its CDI names.
pub fn nodes(view: &ContainerView) -> Vec<String> {
    let nodes = view.cdi_devices.iter().flat_map(|d| d.device_edits["deviceNodes"].as_array());
    nodes.flatten().map(|n| n["path"].as_str().expect("a path").to_owned()).collect()
}

/// The text of a refusal that may be tried again.
pub fn waiting(error: &StartError) -> &str {
    match error {
        StartError::Config { message } | StartError::Create { message } => message,
        other => panic!("{other}"),
    }
}

/// Silence is proof as soon as the list and the checkpoint agree, but for a claim so young that the
/// kubelet may not have written it down yet.
pub fn at_once() -> AbsenceOptions {
    let zero = Duration::ZERO;
    AbsenceOptions { unbroken: zero, apart: zero, age: Duration::from_millis(500), ..never() }
}

/// Waits until something holds.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + GUARD;
    while !holds() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Has the agent look at the hardware now.
pub async fn look(agent: &Agent) {
    let node = agent.node().clone();
    tokio::task::spawn_blocking(move || node.refresh()).await.expect("it looks");
}

/// Waits until the agent has asked the kubelet for its pods so many more times.
pub async fn asked(kubelet: &FakeKubelet, times: u64) {
    let until = kubelet.counters().pod_resources_calls + times;
    let enough = |k: &FakeKubelet| k.counters().pod_resources_calls >= until;
    kubelet.wait_until("the agent to ask for pods", enough).await.expect("it asks");
}

/// In memory where there is such a place: fsyncs wait for no disk there.
pub fn folder() -> TempDir {
    TempDir::with_prefix_in("vgpu-", "/dev/shm")
        .or_else(|_| TempDir::with_prefix("vgpu-"))
        .expect("a temporary folder")
}
