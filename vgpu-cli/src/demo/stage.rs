//! The demo's node: machine, kubelet and agent in a temporary folder.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use vgpu_backend_mock::{Machine, MockFactory, Preset};
use vgpu_core::{Host, Vendor};
use vgpu_kubelet_plugin::fake::{FakeKubelet, FakeOptions};
use vgpu_node::health::HealthOptions;
use vgpu_plugin::backends::Choice;
use vgpu_plugin::config::NodeConfig;
use vgpu_plugin::hook::Hook;
use vgpu_plugin::{Agent, AgentOptions};

/// Everything that plays.
pub(super) struct Stage {
    pub(super) machine: Arc<Machine>,
    pub(super) kubelet: FakeKubelet,
    pub(super) agent: Agent,
    dir: TempDir,
}

impl Stage {
    pub(super) async fn set() -> anyhow::Result<Self> {
        let dir = TempDir::with_prefix("vgpu-demo-")?;
        let machine = Machine::new(Preset::Mixed)?;
        let kubelet = FakeKubelet::new(FakeOptions::under(dir.path()))?;
        let choices = MockFactory::all(&machine)
            .into_iter()
            .map(|factory| Choice { factory, host: Host::default() });
        let options = AgentOptions {
            // A card is trusted again sooner than on a real node, so that the demo is short.
            health: HealthOptions {
                recover_after: Duration::from_secs(1),
                ..HealthOptions::default()
            },
            hook: Some(Hook::at(dir.path().join("vgpu-hook"))),
            ..AgentOptions::new(
                config(&machine)?,
                kubelet.paths().clone(),
                dir.path().join("cdi"),
                dir.path().join("state"),
            )
        };
        let agent = Agent::start(choices.collect(), options).await?;
        let resources: Vec<_> = agent.node().resources();
        for resource in resources {
            let registered = |k: &FakeKubelet| k.capacity(resource.as_str()) > 0;
            kubelet.wait_until(&format!("{resource} to be registered"), registered).await?;
        }
        Ok(Self { machine, kubelet, agent, dir })
    }

    pub(super) async fn strike(self) {
        self.agent.stop().await;
        self.kubelet.stop().await;
        drop(self.dir);
    }
}

/// Four offers, one for each way that the demo shows.
fn config(machine: &Machine) -> anyhow::Result<NodeConfig> {
    let gpus = machine.devices_of(&Vendor::NVIDIA)?;
    anyhow::ensure!(gpus.len() == 2, "the mixed machine has two GPUs, one of them in MIG mode");
    let text = format!(
        "
apiVersion: vgpu.dev/v1alpha1
kind: NodeConfig
poll: {{hardwareSeconds: 1, kubeletSeconds: 1}}
offers:
- resource: vgpu.dev/gpu
  kind: whole
  select: {{devices: [{:?}]}}
- resource: vgpu.dev/mig-1g.18gb
  kind: slice
  profile: 1g.18gb
  select: {{devices: [{:?}]}}
  minimum: {{memory: hardware, compute: hardware, faults: hardware}}
- resource: vgpu.dev/dcu-quarter
  kind: slice
  slots: 4
  select: {{vendors: [hygon]}}
- resource: vgpu.dev/mlu-memory
  kind: unit
  unit: 1Gi
  largest: 16
  select: {{vendors: [cambricon]}}
  minimum: {{memory: driver}}
",
        gpus[0].as_str(),
        gpus[1].as_str()
    );
    Ok(NodeConfig::parse(&text)?)
}
