//! An instance isolates by PID namespace: who has none of its own does not start, and its Event says why. Kernel, runtime,
//! hook, agent and backend are real here.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::node::{MEM, Mlu, WHOLE};
use crate::cluster::test::pod::{one, pod, prober};

/// With `hostPID`. A whole card asks for no namespace.
pub(crate) fn hosts(mlu: &Mlu) -> Result<String> {
    let world = mlu.world();
    let host_pid = |name: &str, resource: &str| -> Value {
        let mut made = one(name, &[(resource, 1)]);
        made["spec"]["hostPID"] = json!(true);
        made
    };
    world.create(&host_pid("whole", WHOLE))?;
    world.create(&host_pid("refused", MEM))?;
    let said = world.event("refused", &["smlu", "hostPID"])?;
    let claim = world.claim_of("refused")?;
    let id = claim["claim"].as_str().unwrap_or_default();
    ensure!(said.contains(id), "the Event does not name the claim {id}: {said}");
    never_ran(&world.pod("refused")?, "main")?;
    world.wait_running("whole")?;
    mlu.checked("whole", "main")?;
    world.delete("refused")?;
    after(mlu)?;
    Ok(format!("\"{}\"", why(&said)))
}

/// With `shareProcessNamespace`: the first container of the pod has the namespace, the second may not have it too.
pub(crate) fn shared(mlu: &Mlu) -> Result<String> {
    let world = mlu.world();
    let mut both = pod("both", vec![prober("a", &[(MEM, 4)]), prober("b", &[(MEM, 6)])]);
    both["spec"]["shareProcessNamespace"] = json!(true);
    world.create(&both)?;
    let words = ["smlu", "shareProcessNamespace", "container a of pod default/both"];
    let said = world.event("both", &words)?;
    mlu.checked("both", "a")?;
    never_ran(&world.pod("both")?, "b")?;
    // An agent that was killed knows still whose namespace it is.
    world.cluster.node.signal("agent", "KILL")?;
    world.wait_within(MEM, 0..=0)?;
    world.start_agent()?;
    world.wait_within(MEM, 11..)?;
    let starts = status(&world.pod("both")?, "b")["restartCount"].as_u64();
    world.wait_pod("both", "another start", |pod| {
        never_ran(pod, "b")?;
        let b = status(pod, "b");
        let said = b["lastState"]["terminated"]["message"].as_str().unwrap_or_default();
        Ok(b["restartCount"].as_u64() > starts && words.iter().all(|word| said.contains(word)))
    })?;
    ensure!(mlu.instances(0)?.len() == 2, "refusals unmade something: {:?}", mlu.instances(0)?);
    // Where only one of them asks for the card, the namespace may be shared.
    world.delete("both")?;
    let mut alone = pod("alone", vec![prober("a", &[(MEM, 4)]), prober("b", &[])]);
    alone["spec"]["shareProcessNamespace"] = json!(true);
    world.create(&alone)?;
    world.wait_running("alone")?;
    mlu.checked("alone", "a")?;
    let b = world.seen("alone", "b")?;
    ensure!(b.cards().is_empty(), "the container without a card sees {:?}", b.cards());
    after(mlu)?;
    Ok(format!("\"{}\"", why(&said)))
}

/// Whoever comes next is served.
fn after(mlu: &Mlu) -> Result<()> {
    mlu.world().create(&one("next", &[(MEM, 2)]))?;
    mlu.world().wait_running("next")?;
    mlu.checked("next", "main").map(drop)
}

fn never_ran(pod: &Value, container: &str) -> Result<()> {
    let its = status(pod, container);
    ensure!(!its["state"]["running"].is_object(), "{container} runs: {its}");
    let last = &its["lastState"]["terminated"]["reason"];
    ensure!(last.is_null() || last == "StartError", "{container} ran: {its}");
    Ok(())
}

fn status(pod: &Value, container: &str) -> Value {
    let statuses = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
    statuses.into_iter().find(|s| s["name"] == container).unwrap_or_default()
}

/// What the hook said, out of what the kubelet says.
fn why(event: &str) -> &str {
    event.split_once("the vgpu agent refuses: ").map_or(event, |(_, why)| why)
}
