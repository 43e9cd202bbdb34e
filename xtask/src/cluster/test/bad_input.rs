//! What pods may ask for by mistake, or on purpose: a clear word, and nothing allocated by halves.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::process::wait_for;
use crate::cluster::test::Scenario;
use crate::cluster::test::pod::{one, pod, prober};
use crate::cluster::test::world::{PATIENCE, World, why};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "asks-for-none", run: none },
    Scenario { name: "more-than-the-node-has", run: beyond_the_node },
    Scenario { name: "host-pid", run: host_pid },
    Scenario { name: "privileged", run: privileged },
];

/// `limits: {vgpu.dev/…: 0}` is no request: the pod runs, sees nothing, and the agent never hears of it.
fn none(world: &World) -> Result<String> {
    let limits = [("vgpu.dev/mig", 0), ("vgpu.dev/mlu-memory", 0)];
    world.create(&one("none", &limits))?;
    world.wait_running("none")?;
    let seen = world.seen("none", "main")?;
    ensure!(seen.cards().is_empty(), "a pod that asked for 0 sees {:?}", seen.cards());
    ensure!(seen.claim.is_null(), "a pod that asked for 0 sees {}", seen.claim);
    ensure!(world.claim_of("none").is_err(), "a pod that asked for 0 holds a claim");
    Ok(String::new())
}

/// The scheduler's own word, and it waits: more whole cards, parts or units than the node ever has.
fn beyond_the_node(world: &World) -> Result<String> {
    for (n, (resource, count)) in
        [("vgpu.dev/gpu", 2), ("vgpu.dev/mig", 8), ("vgpu.dev/mlu-memory", 97)].iter().enumerate()
    {
        let name = format!("beyond-{n}");
        world.create(&one(&name, &[(resource, *count)]))?;
        let waits = world.wait_pod(&name, "word of the scheduler", |p| {
            Ok(p["status"]["conditions"].as_array().is_some_and(|c| !c.is_empty()))
        })?;
        let said = why(&waits);
        ensure!(said.contains(&format!("Insufficient {resource}")), "{name}: {said}");
        ensure!(world.claim_of(&name).is_err(), "{name} holds a claim");
    }
    Ok("three wait, each with the scheduler's reason".into())
}

/// sMLU tells containers apart by their PID namespace: refused with a word for the pod's author. All else is served.
fn host_pid(world: &World) -> Result<String> {
    let host_pid = |name: &str, limits: &[(&str, u32)]| -> Value {
        let mut made = one(name, limits);
        made["spec"]["hostPID"] = json!(true);
        made
    };
    world.create(&host_pid("well", &[("vgpu.dev/mig", 1)]))?;
    world.wait_running("well")?;
    world.checked("well", "main")?;
    world.create(&host_pid("refused", &[("vgpu.dev/mlu-memory", 2)]))?;
    let mut said = String::new();
    wait_for("refusal of a pod in the host's PID namespace", PATIENCE, || {
        let pod = world.pod("refused")?;
        ensure!(!runs(&pod), "it runs");
        said = world.events("refused")?.join("; ");
        Ok(said.contains("hostPID").then_some(()))
    })?;
    // The part was made before the runtime asked; it goes with the pod.
    let card_parts = || -> Result<usize> {
        let mlus = world.machine.devices_of(&vgpu_core::Vendor::CAMBRICON)?;
        mlus.iter().try_fold(0, |n, card| Ok(n + world.machine.truth(card)?.len()))
    };
    world.delete("refused")?;
    world.create(&one("next", &[("vgpu.dev/mlu-memory", 2)]))?;
    world.wait_running("next")?;
    world.checked("next", "main")?;
    let event = said.split("; ").find(|e| e.contains("hostPID")).unwrap_or_default();
    Ok(format!("{} part(s) left; \"{event}\"", card_parts()?))
}

/// What the agent says of a container that may open every device.
const EVERY_DEVICE: &str = "this container may open every device of the node";

/// Whoever is privileged has every device of the node, whatever was given: the runtime's way, and no plugin can change
/// it. The pod still gets its claim, the others keep theirs, and the agent says it: of this pod and of no other.
fn privileged(world: &World) -> Result<String> {
    let warnings = || -> Result<Vec<String>> {
        let log = world.agent_log()?;
        Ok(log.lines().filter(|line| line.contains(EVERY_DEVICE)).map(str::to_owned).collect())
    };
    let earlier = warnings()?.len();
    world.create(&one("beside", &[("vgpu.dev/mig", 1)]))?;
    world.wait_running("beside")?;
    let before = world.checked("beside", "main")?;
    let mut main = prober("main", &[("vgpu.dev/mig", 1)]);
    main["securityContext"] = json!({"privileged": true});
    world.create(&pod("all", vec![main]))?;
    world.wait_running("all")?;
    let seen = world.seen("all", "main")?;
    let spec = world.spec(seen.claim_id()?)?;
    let given = spec["devices"][0]["containerEdits"]["deviceNodes"].as_array().map_or(0, Vec::len);
    ensure!(
        seen.cards().len() > given,
        "a privileged container sees {:?}, no more than it was given: then it can be confined, and this page is wrong",
        seen.cards()
    );
    ensure!(seen.grant("part")? != before.grant("part")?, "two pods share a part");
    let claim = world.claim_of("all")?;
    ensure!(claim["claim"] == seen.claim["claim"], "the agent holds {claim}");
    world.checked("beside", "main")?;
    ensure!(claim["every_device"] == true, "the claim has no mark: {claim}");
    let plain = world.claim_of("beside")?;
    ensure!(plain["every_device"] == false, "a plain pod's claim has the mark: {plain}");
    // One whose hook sets a limit tells it beside that, and only of the container that is so.
    let mut main = prober("main", &[("vgpu.dev/mlu-memory", 2)]);
    main["securityContext"] = json!({"privileged": true});
    world.create(&pod("all-units", vec![main, prober("plain", &[("vgpu.dev/mlu-memory", 2)])]))?;
    world.wait_running("all-units")?;
    let claims = world.claims()?;
    let of_units = |container: &str| -> Result<&Value> {
        let is_it =
            |c: &&Value| c["holder"]["pod"] == "all-units" && c["holder"]["container"] == container;
        claims.iter().find(is_it).with_context(|| format!("no claim of {container}: {claims:?}"))
    };
    let (open, closed) = (of_units("main")?, of_units("plain")?);
    ensure!(open["every_device"] == true, "no mark: {open}");
    ensure!(closed["every_device"] == false, "marked: {closed}");
    // The hook waits for the agent's answer, and the agent says it before: what runs was told.
    let told = warnings()?.split_off(earlier);
    ensure!(told.len() == 2, "told of {} containers, not 2: {told:?}", told.len());
    for (line, pod, claim) in [
        (&told[0], "default/all", &claim["claim"]),
        (&told[1], "default/all-units", &open["claim"]),
    ] {
        let words = ["WARN", pod, "main", claim.as_str().unwrap_or("-")];
        let missing: Vec<&str> = words.into_iter().filter(|word| !line.contains(word)).collect();
        ensure!(missing.is_empty(), "{missing:?} not in {line}");
    }
    Ok(format!("given {given} nodes, sees {}, told", seen.cards().len()))
}

fn runs(pod: &Value) -> bool {
    pod["status"]["containerStatuses"][0]["state"]["running"].is_object()
}
