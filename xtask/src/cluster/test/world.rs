//! The node with our agent on it, in scenarios' words.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use vgpu_backend_mock::{Machine, Preset};

use crate::cluster::config::NODE;
use crate::cluster::process::{output, retry, wait_for};
use crate::cluster::test::seen::Seen;
use crate::cluster::test::setup::Setup;
use crate::cluster::up::Cluster;

/// A guard against waiting for ever; nothing is judged by it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

const PODS: &str = "/api/v1/namespaces/default/pods";

/// A number that every kernel with FUSE has: opening it works and does nothing, and containers may not unless the
/// runtime says so. All nodes of the scripted cards are this device.
pub(crate) const FUSE: (&str, &str) = ("10", "229");

/// What is tried, as files.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) agent: PathBuf,
    pub(crate) hook: PathBuf,
    /// The command line.
    pub(crate) vgpu: PathBuf,
    pub(crate) fake_nvml: PathBuf,
    pub(crate) fake_mps: PathBuf,
    pub(crate) fake_cndev: PathBuf,
    pub(crate) fake_hygon: FakeHygon,
    /// Answers as a container runtime that ignores CDI names.
    pub(crate) old_runtime: PathBuf,
    /// A device plugin that does next to nothing, to compare with.
    pub(crate) trivial: PathBuf,
}

/// The stand-ins for Hygon's libraries, and what prepares a host for them.
#[derive(Debug, Clone)]
pub(crate) struct FakeHygon {
    pub(crate) host: PathBuf,
    pub(crate) hydmi: PathBuf,
    pub(crate) rocm_smi: PathBuf,
}

impl Programs {
    pub(crate) fn all(&self) -> [&Path; 11] {
        let Self { agent, hook, vgpu, fake_nvml, fake_mps, fake_cndev, .. } = self;
        let Self { fake_hygon: FakeHygon { host, hydmi, rocm_smi }, old_runtime, trivial, .. } =
            self;
        [
            agent,
            hook,
            vgpu,
            fake_nvml,
            fake_mps,
            fake_cndev,
            host,
            hydmi,
            rocm_smi,
            old_runtime,
            trivial,
        ]
    }
}

/// The node, the scripted machine behind it, and our agent.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) machine: Arc<Machine>,
    pub(crate) programs: Programs,
    /// How the agent is started: on the scripted machine, unless one of a vendor stands in for it.
    pub(crate) setup: Setup,
}

impl World {
    /// Makes the devices and starts the agent.
    pub(crate) fn start(cluster: Cluster, programs: Programs) -> Result<Self> {
        let dir = cluster.node.layout.dir.clone();
        let machine = Machine::open(&dir.join("machine.json"), Preset::Mixed)?;
        let setup = Setup::of_the_mock(&cluster.node.layout);
        let world = Self { cluster, machine, programs, setup };
        world.make_own_nodes()?;
        let hooks = dir.join("hooks");
        std::fs::create_dir_all(&hooks)?;
        std::fs::copy(&world.programs.hook, hooks.join("vgpu-hook"))
            .with_context(|| format!("cannot copy {}", world.programs.hook.display()))?;
        world.configure(&world.offers()?)?;
        let began = Instant::now();
        world.start_agent()?;
        world.wait_allocatable(&[("vgpu.dev/gpu", 1)])?;
        crate::say(&format!("agent start to allocatable  {:.1} s", began.elapsed().as_secs_f64()));
        Ok(world)
    }

    /// One offer for each way to divide a card: those that the in-process kubelet's scenarios have too.
    pub(crate) fn offers(&self) -> Result<String> {
        let cards = self.machine.devices()?;
        ensure!(cards.len() == 6, "the mixed machine has {} cards, not 6", cards.len());
        let cards: Vec<&str> = cards.iter().map(|card| card.as_str()).collect();
        vgpu_scenarios::offers(&cards)
    }

    /// Our resources as the node tells them.
    pub(crate) fn allocatable(&self) -> Result<BTreeMap<String, u64>> {
        let node = self.cluster.api.get(&format!("/api/v1/nodes/{NODE}"))?;
        let all = node["status"]["allocatable"].as_object().cloned().unwrap_or_default();
        let ours = all.iter().filter(|(name, _)| name.starts_with("vgpu.dev/"));
        ours.map(|(name, value)| {
            let text = value.as_str().context("a quantity is no text")?;
            Ok((name.clone(), text.parse().with_context(|| format!("{name} is {text}"))?))
        })
        .collect()
    }

    /// When the kubelet last told how the node is.
    pub(crate) fn heartbeat(&self) -> Result<String> {
        let node = self.cluster.api.get(&format!("/api/v1/nodes/{NODE}"))?;
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready =
            conditions.iter().find(|c| c["type"] == "Ready").context("no Ready condition")?;
        Ok(ready["lastHeartbeatTime"].to_string())
    }

    /// Waits until the node tells these amounts.
    pub(crate) fn wait_allocatable(&self, wanted: &[(&str, u64)]) -> Result<()> {
        let mut last = BTreeMap::new();
        let waited = wait_for("such amounts", PATIENCE, || {
            ensure!(
                self.cluster.node.runs("agent"),
                "the agent ended:\n{}",
                self.cluster.node.log_tail("agent")
            );
            last = self.allocatable()?;
            let all = wanted.iter().all(|(name, n)| last.get(*name) == Some(n));
            Ok(all.then_some(()))
        });
        waited.with_context(|| format!("waiting for {wanted:?}; the node has {last:?}"))
    }

    /// Waits until the node tells that it has nothing of ours. It tells what it had for a while after its agent ended.
    pub(crate) fn wait_empty(&self) -> Result<()> {
        wait_for("empty node", PATIENCE, || {
            Ok(self.allocatable()?.values().all(|n| *n == 0).then_some(()))
        })
    }

    /// Waits until the kubelet has all that the agent that runs now offers, and until the node says so.
    ///
    /// The node's own word may be older than that agent; so its health page is asked, inside the box.
    pub(crate) fn wait_served(&self) -> Result<()> {
        let url = "http://127.0.0.1:9400/healthz";
        let busybox = self.cluster.assets.busybox();
        wait_for("registration of all resources", PATIENCE, || {
            let page = self.cluster.node.output(busybox, ["wget", "-q", "-O", "-", url]);
            let page = page.unwrap_or_default();
            Ok((page.matches(": registered").count() >= 4).then_some(()))
        })?;
        // It says so when the kubelet has begun to read the list; the kubelet has read it a moment later.
        std::thread::sleep(Duration::from_secs(2));
        wait_for("resources in the node", PATIENCE, || {
            let all = self.allocatable()?;
            let has = |name| all.get(name).is_some_and(|n| *n > 0);
            Ok((has("vgpu.dev/gpu") && has("vgpu.dev/mig") && has("vgpu.dev/mlu-memory"))
                .then_some(()))
        })
    }

    /// Makes a pod.
    pub(crate) fn create(&self, pod: &Value) -> Result<()> {
        self.cluster.api.create(PODS, pod).map(drop)
    }

    /// A pod as it is now.
    pub(crate) fn pod(&self, name: &str) -> Result<Value> {
        self.cluster.api.get(&format!("{PODS}/{name}"))
    }

    /// Waits until all of a pod's containers run.
    pub(crate) fn wait_running(&self, name: &str) -> Result<Value> {
        self.wait_pod(name, "running containers", |pod| {
            let phase = pod["status"]["phase"].as_str().unwrap_or_default();
            ensure!(phase != "Failed", "pod {name} failed: {}", why(pod));
            let ready = pod["status"]["conditions"].as_array().is_some_and(|all| {
                all.iter().any(|c| c["type"] == "ContainersReady" && c["status"] == "True")
            });
            Ok(phase == "Running" && ready)
        })
    }

    /// Waits until a pod is as wanted.
    pub(crate) fn wait_pod(
        &self,
        name: &str,
        what: &str,
        is_so: impl Fn(&Value) -> Result<bool>,
    ) -> Result<Value> {
        let mut last = Value::Null;
        let waited = wait_for(what, PATIENCE, || {
            last = self.pod(name)?;
            Ok(is_so(&last)?.then(|| last.clone()))
        });
        waited.with_context(|| format!("pod {name}: {}", why(&last)))
    }

    /// Asks for a pod's end and waits for it.
    pub(crate) fn delete(&self, name: &str) -> Result<()> {
        self.cluster.api.delete(&format!("{PODS}/{name}"))?;
        wait_for(&format!("end of pod {name}"), PATIENCE, || {
            Ok(self.cluster.api.find(&format!("{PODS}/{name}"))?.is_none().then_some(()))
        })
    }

    /// Asks for a pod's end, and does not wait.
    pub(crate) fn delete_later(&self, name: &str) -> Result<()> {
        self.cluster.api.delete(&format!("{PODS}/{name}"))
    }

    /// What a container said so far.
    pub(crate) fn log(&self, pod: &str, container: &str) -> Result<String> {
        self.cluster.api.text(&format!("{PODS}/{pod}/log?container={container}"))
    }

    /// What a container sees.
    pub(crate) fn seen(&self, pod: &str, container: &str) -> Result<Seen> {
        let mut last = String::new();
        let waited = wait_for("word of the probe", PATIENCE, || {
            // The log is there a moment after the container.
            last = self.log(pod, container).unwrap_or_else(|e| format!("{e:#}"));
            Seen::parse(&last)
        });
        waited.with_context(|| format!("{container} of pod {pod}; its log: {last}"))
    }

    /// What a container sees, compared with what the runtime was told.
    pub(crate) fn checked(&self, pod: &str, container: &str) -> Result<Seen> {
        let seen = self.seen(pod, container)?;
        let who = || format!("{container} of pod {pod}");
        let spec = self.spec(seen.claim_id().with_context(who)?).with_context(who)?;
        seen.matches(&spec).with_context(who)?;
        Ok(seen)
    }

    /// The CDI spec of a claim.
    pub(crate) fn spec(&self, claim: &str) -> Result<Value> {
        for spec in self.specs()? {
            if spec["devices"][0]["name"] == claim {
                return Ok(spec);
            }
        }
        bail!("there is no CDI spec of the claim {claim}")
    }

    /// What `vgpu edits` shows of a claim's one grant, on the machine as it is now.
    pub(crate) fn vgpu_edits(&self, claim: &Value) -> Result<Value> {
        let dir = &self.cluster.node.layout.dir;
        let grant = &claim["grants"][0];
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut args = vec!["edits".to_owned(), "--backend=mock".into(), "--machine=mixed".into()];
        args.push(format!("--machine-state={}", dir.join("machine.json").display()));
        args.push(format!("--hook={}", dir.join("hooks/vgpu-hook").display()));
        args.push("--state-dir=/var/lib/vgpu".into());
        args.push(format!("--claim={}", word(&claim["claim"])));
        match grant["part"].as_str() {
            Some(part) => args.push(format!("--partition={part}")),
            None => args.extend(["--whole".into(), format!("--device={}", word(&grant["device"]))]),
        }
        let program = self.programs.vgpu.display().to_string();
        let text = output(&program, &args)?;
        serde_json::from_str(&text).with_context(|| format!("vgpu edits printed {text}"))
    }

    /// All CDI specs that are published.
    pub(crate) fn specs(&self) -> Result<Vec<Value>> {
        let dir = self.cluster.node.inside("/run/cdi");
        let mut specs = Vec::new();
        for entry in
            std::fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))?
        {
            let path = entry?.path();
            // One may be withdrawn while we look.
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            if path.extension().is_some_and(|e| e == "json") {
                specs.push(
                    serde_json::from_str(&text)
                        .with_context(|| format!("{} is no JSON", path.display()))?,
                );
            }
        }
        Ok(specs)
    }

    /// What the agent says of its claims.
    pub(crate) fn claims(&self) -> Result<Vec<Value>> {
        let socket = self.setup.state.join("claims.sock");
        // An agent that has just been started opens it a moment later, and one that was just killed takes whom it had
        // not answered with it.
        let text = retry(PATIENCE, || {
            let ask = || -> std::io::Result<String> {
                let mut text = String::new();
                UnixStream::connect(&socket)?.read_to_string(&mut text)?;
                Ok(text)
            };
            ask().with_context(|| format!("cannot ask the agent at {}", socket.display()))
        })?;
        let reply: Value = serde_json::from_str(&text).context("the agent's answer is no JSON")?;
        Ok(reply["claims"].as_array().cloned().unwrap_or_default())
    }

    /// The claim that a pod's container holds, as the agent says. By the pod's uid: an earlier pod of that
    /// name may be gone for less time than proves it.
    pub(crate) fn claim_of(&self, pod: &str) -> Result<Value> {
        let uid = self.pod(pod)?["metadata"]["uid"].clone();
        let claims = self.claims()?;
        let of_pod = |c: &&Value| c["holder"]["pod"] == pod && c["holder"]["uid"] == uid;
        claims
            .iter()
            .find(of_pod)
            .cloned()
            .with_context(|| format!("no claim of pod {pod}: {claims:?}"))
    }

    /// Ends all pods and undoes all faults, so that scenarios do not hang on each other.
    pub(crate) fn tidy(&self) -> Result<()> {
        self.machine.faults().take_all_back()?;
        if !self.cluster.node.runs("kubelet") {
            self.cluster.start_kubelet()?;
        }
        // Whoever makes pods goes first.
        for kind in ["daemonsets", "statefulsets"] {
            let path = format!("/apis/apps/v1/namespaces/default/{kind}");
            let all = self.cluster.api.get(&path)?;
            for made in all["items"].as_array().into_iter().flatten() {
                let name = made["metadata"]["name"].as_str().unwrap_or_default();
                self.cluster.api.delete(&format!("{path}/{name}"))?;
            }
        }
        let pods = self.cluster.api.get(PODS)?;
        let pods = pods["items"].as_array().cloned().unwrap_or_default();
        let names: Vec<&str> = pods.iter().filter_map(|p| p["metadata"]["name"].as_str()).collect();
        names.iter().try_for_each(|name| self.delete_later(name))?;
        names.iter().try_for_each(|name| self.delete(name))?;
        // Last: one of the pods may have been an agent.
        if self.cluster.node.runs("agent") {
            return Ok(());
        }
        self.wait_empty()?;
        self.start_agent()?;
        self.wait_allocatable(&[("vgpu.dev/gpu", 1)])
    }

    /// After a failure: what the agent said last, and the claims that are not simply in use.
    pub(crate) fn explain(&self) {
        let log = self.cluster.node.log_tail("agent");
        log.lines().for_each(|line| crate::say(&format!("    agent: {}", shortened(line))));
        self.explain_claims();
    }

    /// The claims that are not simply in use, where an agent runs that can tell.
    pub(crate) fn explain_claims(&self) {
        if !self.cluster.node.runs("agent") {
            return;
        }
        match self.claims() {
            Ok(claims) => claims.iter().filter(|c| c["state"] != "prepared").for_each(|claim| {
                let word = |key: &str| claim[key].as_str().unwrap_or("-").to_owned();
                let pod = claim["holder"]["pod"].as_str().unwrap_or("-");
                crate::say(&format!(
                    "    claim: {} {} {} of pod {pod}, ids {}, {}",
                    word("claim"),
                    word("resource"),
                    word("state"),
                    shortened(&claim["ids"].to_string()),
                    shortened(&word("trouble"))
                ));
            }),
            Err(error) => crate::say(&format!("    its claims are not known: {error:#}")),
        }
    }

    /// The nodes that the drivers of the scripted cards would make.
    fn make_own_nodes(&self) -> Result<()> {
        let mut paths: Vec<String> =
            ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia0", "nvidia1", "kfd", "mkfd"]
                .map(|name| format!("/dev/{name}"))
                .into();
        paths.extend(
            (2..4).flat_map(|i| {
                [format!("/dev/dri/card{i}"), format!("/dev/dri/renderD{}", 128 + i)]
            }),
        );
        paths.push("/dev/cambricon_ctl".into());
        for card in 0..2 {
            paths.extend(["dev", "ipcm"].map(|kind| format!("/dev/cambricon_{kind}{card}")));
            paths.extend((1..=64).map(|i| format!("/dev/cambricon-caps/cap_dev{card}_mi{i}")));
        }
        self.cluster.node.output("/bin/mkdir".as_ref(), ["-p", "/opt/hyhal"])?;
        self.make_nodes(&paths).map(drop)
    }

    /// Makes nodes as drivers do, those that are not there yet; says which.
    pub(crate) fn make_nodes(&self, paths: &[String]) -> Result<Vec<String>> {
        let script = format!(
            "for n in \"$@\"; do test -e \"$n\" && continue; \
             test -d \"${{n%/*}}\" || mkdir -p \"${{n%/*}}\" || exit 1; \
             mknod -m 666 \"$n\" c {} {} || exit 1; echo \"$n\"; done",
            FUSE.0, FUSE.1
        );
        let script = ["-c", &script, "sh"].into_iter();
        let args = script.chain(paths.iter().map(String::as_str));
        let made = self.cluster.node.output("/bin/sh".as_ref(), args)?;
        Ok(made.lines().map(str::to_owned).collect())
    }
}

/// Why a pod is as it is.
pub(crate) fn why(pod: &Value) -> String {
    let status = &pod["status"];
    let mut words = vec![status["phase"].as_str().unwrap_or("unknown").to_owned()];
    words
        .extend(["reason", "message"].iter().filter_map(|k| Some(status[*k].as_str()?.to_owned())));
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    words.extend(conditions.iter().filter_map(|c| Some(c["message"].as_str()?.to_owned())));
    for statuses in ["initContainerStatuses", "containerStatuses"] {
        for container in status[statuses].as_array().into_iter().flatten() {
            let waiting = &container["state"]["waiting"];
            words.extend(
                ["reason", "message"].iter().filter_map(|k| Some(waiting[*k].as_str()?.to_owned())),
            );
        }
    }
    words.join(", ")
}

fn shortened(line: &str) -> String {
    const MOST: usize = 240;
    match line.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.to_owned(),
    }
}
