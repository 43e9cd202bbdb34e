//! Pods of several containers, and containers that start again.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::cluster::process::wait_for;
use crate::cluster::test::Scenario;
use crate::cluster::test::pod::{PROBE, STAY, container, one, pod, prober};
use crate::cluster::test::world::{PATIENCE, World};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "two-containers", run: two_containers },
    Scenario { name: "init-and-app", run: init_and_app },
    Scenario { name: "init-alone", run: init_alone },
    Scenario { name: "sidecar", run: sidecar },
    Scenario { name: "container-restart", run: container_restart },
    Scenario { name: "same-name-again", run: same_name_again },
];

fn two_containers(world: &World) -> Result<String> {
    let limits = [("vgpu.dev/mig", 1)];
    world.create(&pod("two", vec![prober("a", &limits), prober("b", &limits)]))?;
    world.wait_running("two")?;
    let (a, b) = (world.checked("two", "a")?, world.checked("two", "b")?);
    ensure!(a.claim_id()? != b.claim_id()?, "two containers share a claim");
    ensure!(a.grant("part")? != b.grant("part")?, "two containers share a part");
    Ok(String::new())
}

/// The kubelet gives the app container the ids of the init container that has ended.
fn init_and_app(world: &World) -> Result<String> {
    let limits = [("vgpu.dev/dcu", 1)];
    let mut made = pod("init-and-app", vec![prober("app", &limits)]);
    made["spec"]["initContainers"] = json!([container("init", PROBE, &limits)]);
    world.create(&made)?;
    world.wait_running("init-and-app")?;
    let init = world.seen("init-and-app", "init")?;
    let app = world.checked("init-and-app", "app")?;
    let holder = world.claim_of("init-and-app")?;
    ensure!(holder["claim"] == app.claim["claim"], "the agent holds {holder}");
    let same = init.claim_id()? == app.claim_id()?;
    Ok(format!("the two have {}", if same { "one claim" } else { "a claim each" }))
}

fn init_alone(world: &World) -> Result<String> {
    let mut made = pod("init-alone", vec![prober("app", &[])]);
    made["spec"]["initContainers"] = json!([container("init", PROBE, &[("vgpu.dev/dcu", 1)])]);
    world.create(&made)?;
    world.wait_running("init-alone")?;
    let init = world.seen("init-alone", "init")?;
    init.matches(&world.spec(init.claim_id()?)?)?;
    let app = world.seen("init-alone", "app")?;
    ensure!(app.cards().is_empty(), "the app container sees {:?}", app.cards());
    Ok(String::new())
}

fn sidecar(world: &World) -> Result<String> {
    let limits = [("vgpu.dev/mig", 1)];
    let mut made = pod("sidecar", vec![prober("app", &limits)]);
    let mut side = prober("side", &limits);
    side["restartPolicy"] = json!("Always");
    made["spec"]["initContainers"] = json!([side]);
    world.create(&made)?;
    world.wait_running("sidecar")?;
    let (side, app) = (world.checked("sidecar", "side")?, world.checked("sidecar", "app")?);
    ensure!(side.grant("part")? != app.grant("part")?, "sidecar and app share a part");
    Ok(String::new())
}

fn container_restart(world: &World) -> Result<String> {
    // The first run ends by itself; the folder of the pod's own tells the second from it.
    let script = format!("{PROBE}\ntest -e /own/again && {{ {STAY} }}; : >/own/again; exit 3");
    let mut main = container("main", &script, &[("vgpu.dev/mig", 1)]);
    main["volumeMounts"] = json!([{"name": "own", "mountPath": "/own"}]);
    let mut made = pod("restart", vec![main]);
    made["spec"]["volumes"] = json!([{"name": "own", "emptyDir": {}}]);
    world.create(&made)?;
    world.wait_pod("restart", "second run", |pod| {
        let status = &pod["status"]["containerStatuses"][0];
        Ok(status["restartCount"] == 1 && status["state"]["running"].is_object())
    })?;
    let second = world.checked("restart", "main")?;
    let path = "/api/v1/namespaces/default/pods/restart/log?container=main&previous=true";
    let log = world.cluster.api.text(path)?;
    let first = crate::cluster::test::seen::Seen::parse(&log)?;
    let first = first.ok_or_else(|| anyhow::anyhow!("the first run told nothing"))?;
    ensure!(first.claim_id()? == second.claim_id()?, "the second run has another claim");
    ensure!(first.grant("part")? == second.grant("part")?, "the second run has another part");
    Ok(String::new())
}

/// The same name at once again, which is another pod: by hand, and by a StatefulSet.
fn same_name_again(world: &World) -> Result<String> {
    let mut uids = Vec::new();
    for _ in 0..2 {
        world.create(&one("web-0", &[("vgpu.dev/gpu", 1)]))?;
        uids.push(own_claim(world)?);
        world.delete("web-0")?;
    }
    let template = one("web-0", &[("vgpu.dev/gpu", 1)]);
    world.cluster.api.create(
        "/apis/apps/v1/namespaces/default/statefulsets",
        &json!({
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {"name": "web"},
            "spec": {
                "serviceName": "web",
                "selector": {"matchLabels": template["metadata"]["labels"]},
                "template": {
                    "metadata": {"labels": template["metadata"]["labels"]},
                    "spec": template["spec"],
                },
            },
        }),
    )?;
    for _ in 0..3 {
        wait_for("pod of the StatefulSet", PATIENCE, || {
            let pod = world.cluster.api.find("/api/v1/namespaces/default/pods/web-0")?;
            let Some(pod) = pod else { return Ok(None) };
            Ok((!uids.contains(&pod["metadata"]["uid"])).then_some(()))
        })?;
        uids.push(own_claim(world)?);
        world.delete_later("web-0")?;
    }
    ensure!(uids.len() == 5, "{uids:?}");
    Ok("five pods of one name, each with its own claim".into())
}

/// Waits until web-0 runs, sees that it has its own claim, and gives its uid.
fn own_claim(world: &World) -> Result<Value> {
    let running = world.wait_running("web-0")?;
    let seen = world.checked("web-0", "main")?;
    let held = world.claims()?;
    let of_seen = held.iter().find(|c| c["claim"] == seen.claim["claim"]);
    let uid = running["metadata"]["uid"].clone();
    ensure!(
        of_seen.is_some_and(|c| c["holder"]["uid"] == uid),
        "the claim of web-0 ({uid}) is held by {of_seen:?}"
    );
    Ok(uid)
}
