//! The agent as a pod of a DaemonSet, from an image of ours.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::image::AGENT_IMAGE;
use crate::cluster::process::wait_for;
use crate::cluster::test::Scenario;
use crate::cluster::test::pod::{one, pod};
use crate::cluster::test::world::{PATIENCE, World, why};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "agent-as-daemonset", run: as_daemon_set },
    Scenario { name: "vendor-library-in-image", run: vendor_library },
];

/// The image with a vendor's library in it, which a static agent could not load.
const NVML_IMAGE: &str = "vgpu.dev/agent-nvml:1";

const DAEMON_SETS: &str = "/apis/apps/v1/namespaces/default/daemonsets";

/// It takes over from the agent on the host, with the same state, and is made anew when its pod is deleted.
fn as_daemon_set(world: &World) -> Result<String> {
    world.create(&one("before", &[("vgpu.dev/mig", 1)]))?;
    world.wait_running("before")?;
    let before = world.checked("before", "main")?;
    import(world, AGENT_IMAGE)?;
    world.cluster.node.signal("agent", "TERM")?;
    world.cluster.api.create(DAEMON_SETS, &daemon_set(template(world, AGENT_IMAGE)))?;
    let first = ready_pod(world, AGENT_IMAGE)?;
    serves(world, "first", before.claim_id()?)?;
    world.delete(&first)?;
    let second = ready_pod(world, AGENT_IMAGE)?;
    ensure!(first != second, "the DaemonSet made no other pod");
    serves(world, "second", before.claim_id()?)?;
    Ok("from an image of ours; the host's claims taken over, twice".into())
}

fn serves(world: &World, stem: &str, claim: &str) -> Result<()> {
    world.wait_served()?;
    let (units, mig) = (format!("{stem}-units"), format!("{stem}-mig"));
    world.create(&one(&units, &[("vgpu.dev/mlu-memory", 2)]))?;
    world.create(&one(&mig, &[("vgpu.dev/mig", 1)]))?;
    for name in [units, mig] {
        world.wait_running(&name)?;
        world.checked(&name, "main")?;
    }
    let held = world.claim_of("before")?;
    ensure!(held["claim"] == claim, "the pod that ran holds {held}");
    Ok(())
}

/// `--backend nvidia` on an NVML that lies in the image: what cannot `dlopen` there serves nothing.
fn vendor_library(world: &World) -> Result<String> {
    let nvml = &world.programs.fake_nvml;
    world.cluster.import(NVML_IMAGE, &[world.agent(), nvml])?;
    world.cluster.node.signal("agent", "TERM")?;
    let name = nvml.file_name().context("a library has a name")?.to_string_lossy();
    let dir = &world.cluster.node.layout.dir;
    // A state and a configuration of its own: the cards of the other machine are not there.
    let (state, config) = (dir.join("nvml-state"), dir.join("etc/nvml.yaml"));
    std::fs::create_dir_all(&state)?;
    std::fs::write(
        &config,
        "apiVersion: vgpu.dev/v1alpha1\nkind: NodeConfig\n\
         offers:\n- {resource: vgpu.dev/nvml, kind: whole}\n",
    )?;
    let mut made = template(world, NVML_IMAGE);
    let container = &mut made["spec"]["containers"][0];
    let args = [
        format!("/bin/{}", file_name(world)),
        "run".to_owned(),
        format!("--config={}", config.display()),
        "--backend=nvidia".to_owned(),
        format!("--nvml-library=/bin/{name}"),
        format!("--hook-dir={}", dir.join("hooks").display()),
        format!("--state-dir={}", state.display()),
        "--cdi-dir=/run/cdi".to_owned(),
    ];
    container["command"] = json!(args);
    container["env"] = json!([{"name": "FAKE_NVML", "value": "h200x2"}]);
    world.cluster.api.create(DAEMON_SETS, &daemon_set(made))?;
    let agent = ready_pod(world, NVML_IMAGE)?;
    wait_for("both cards of the library", PATIENCE, || {
        let log = world.log(&agent, "agent").unwrap_or_default();
        ensure!(world.pod(&agent)?["status"]["phase"] == "Running", "the agent ended: {log}");
        Ok((world.allocatable()?.get("vgpu.dev/nvml") == Some(&2)).then_some(()))
    })
    .with_context(|| world.log(&agent, "agent").unwrap_or_default())?;
    Ok("two cards found through dlopen in the image".into())
}

/// Gives the runtime an image with the agent.
pub(crate) fn import(world: &World, image: &str) -> Result<()> {
    world.cluster.import(image, &[world.agent()])
}

/// The name of the pod of the DaemonSet that runs this image, once it runs.
pub(crate) fn ready_pod(world: &World, image: &str) -> Result<String> {
    wait_for(&format!("agent of {image}"), PATIENCE, || {
        let path = "/api/v1/namespaces/default/pods?labelSelector=app%3Dvgpu-agent";
        let all = world.cluster.api.get(path)?;
        let pods = all["items"].as_array().cloned().unwrap_or_default();
        let found = pods.iter().find(|pod| {
            pod["spec"]["containers"][0]["image"] == image
                && pod["metadata"]["deletionTimestamp"].is_null()
        });
        let Some(pod) = found else { return Ok(None) };
        ensure!(pod["status"]["phase"] != "Failed", "the agent's pod failed: {}", why(pod));
        let ready = pod["status"]["containerStatuses"][0]["ready"] == true;
        Ok(pod["metadata"]["name"].as_str().filter(|_| ready).map(str::to_owned))
    })
}

/// A DaemonSet of the agent, which makes a new pod before it ends the old one.
pub(crate) fn daemon_set(template: Value) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "agent"},
        "spec": {
            "selector": {"matchLabels": {"app": "vgpu-agent"}},
            "updateStrategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": template,
        },
    })
}

/// The agent's pod.
pub(crate) fn template(world: &World, image: &str) -> Value {
    let dir = world.cluster.node.layout.dir.display().to_string();
    let places = ["/var/lib/kubelet", "/var/lib/vgpu", "/run/cdi", "/run/containerd", &dir];
    let volumes = places
        .iter()
        .enumerate()
        .map(|(n, path)| json!({"name": format!("place-{n}"), "hostPath": {"path": path}}));
    let mounts = places
        .iter()
        .enumerate()
        .map(|(n, path)| json!({"name": format!("place-{n}"), "mountPath": path}));
    let mut command = vec![format!("/bin/{}", file_name(world))];
    command.extend(world.agent_args());
    let mut made = pod(
        "agent",
        vec![json!({
            "name": "agent",
            "image": image,
            "imagePullPolicy": "Never",
            "command": command,
            "volumeMounts": mounts.collect::<Vec<_>>(),
        })],
    );
    made["metadata"] = json!({"labels": {"app": "vgpu-agent"}});
    made["spec"]["hostNetwork"] = json!(true);
    made["spec"]["priorityClassName"] = json!("system-node-critical");
    made["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    made["spec"]["volumes"] = volumes.collect();
    json!({"metadata": made["metadata"], "spec": made["spec"]})
}

fn file_name(world: &World) -> String {
    world.agent().file_name().unwrap_or_default().to_string_lossy().into_owned()
}
