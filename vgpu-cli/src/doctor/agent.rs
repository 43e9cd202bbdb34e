//! The agent: whether it answers, is of our version, and gets on; and whether there is another.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::doctor::catalogue::Check;
use crate::doctor::finding::{Finding, Topic};
use crate::doctor::places::Places;
use crate::doctor::plugins::{Listening, Socket, nonce};
use crate::doctor::processes::Process;
use crate::doctor::record::Agent;

/// The agent's program.
pub(crate) const PROGRAM: &str = "vgpu-plugin";

/// Where an agent keeps its state that says nothing else.
const STATE_DIR: &str = "/var/lib/vgpu";

/// What is known of agents here.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    pub(crate) agent: Agent,
    /// Processes of the agent's program.
    pub(crate) processes: Vec<Process>,
    /// Device plugins' sockets.
    pub(crate) sockets: Vec<Socket>,
}

/// How the agent is.
pub(crate) fn judge(facts: &Facts, places: &Places) -> Vec<Finding> {
    let socket = Path::new(&places.state_dir).join("claims.sock");
    let at = socket.display();
    let agents: Vec<&Process> = facts.processes.iter().filter(|p| is_agent(p)).collect();
    let mut found = others(&agents, places);
    found.extend(instances(&facts.sockets));
    match &facts.agent {
        Agent::Answers(_) => {}
        Agent::Garbled(why) => {
            let what = format!("the agent's answer is not understood: {why}");
            found.push(
                Finding::new(Check::AgentVersion, what)
                    .at(&at)
                    .so("use the `vgpu` that came with the agent"),
            );
        }
        Agent::None => {
            let what = "no agent uses this state folder";
            let remedy = "start vgpu-plugin, or give its --state-dir, if one should run";
            found.push(Finding::new(Check::NoAgent, what).at(&at).so(remedy));
        }
        Agent::Silent(why) => {
            let what = format!("the agent's socket is there and it does not answer: {why}");
            let remedy = "start vgpu-plugin again if it has ended; else look at its log";
            found.push(Finding::new(Check::AgentSilent, what).at(&at).so(remedy));
        }
    }
    if let Agent::Answers(reply) = &facts.agent {
        found.extend(of_reply(reply, &socket));
        if found.is_empty() {
            let what = format!(
                "it answers, has registered all that it offers, and {} claims get on",
                reply.claims.len()
            );
            found.push(Finding::new(Check::Fine(Topic::Agent), what).at(&at));
        }
    }
    found
}

fn of_reply(reply: &vgpu_plugin::sockets::ClaimsReply, socket: &Path) -> Vec<Finding> {
    let at = socket.display();
    let own = env!("CARGO_PKG_VERSION");
    let mut found = Vec::new();
    if reply.version.as_deref() != Some(own) {
        let theirs = reply.version.as_deref().unwrap_or("an older one, which does not say");
        let what = format!("the agent's version is {theirs}, this command's is {own}");
        let remedy = "use the `vgpu` that came with the agent; after an upgrade, restart the agent";
        found.push(Finding::new(Check::AgentVersion, what).at(&at).so(remedy));
    }
    if let Some(trouble) = &reply.trouble {
        let what = format!(
            "the configuration was not taken, the offers are as they were before: {trouble}"
        );
        let remedy = "`vgpu-plugin check-config` says more";
        found.push(Finding::new(Check::OffersKept, what).at(&at).so(remedy));
    }
    let waiting = reply.resources.iter().flatten().filter(|(_, state)| *state != "registered");
    found.extend(waiting.map(|(resource, state)| {
        let what = format!("{resource} is not registered with the kubelet: {state}");
        Finding::new(Check::NotRegistered, what)
            .at(&at)
            .so("it is tried again by itself; look at the kubelet")
    }));
    for claim in &reply.claims {
        let holder = claim
            .holder
            .as_ref()
            .map_or_else(String::new, |h| format!(" of {}/{}", h.namespace, h.pod));
        let name = &claim.claim;
        let why = claim.trouble.as_deref().unwrap_or("it does not say why");
        if claim.state == "broken" {
            let what = format!("{name}{holder} is broken: {why}");
            found.push(Finding::new(Check::ClaimBroken, what).at(&at).so("delete the pod"));
        } else if claim.trouble.is_some() {
            let what = format!("{name}{holder} is {} and does not get on: {why}", claim.state);
            let remedy = "it is tried again by itself; docs/agent.md says what errors mean";
            found.push(Finding::new(Check::ClaimTrouble, what).at(&at).so(remedy));
        }
    }
    found
}

/// Its children are of the same program and serve one backend each.
fn is_agent(process: &Process) -> bool {
    process.words.get(1).is_some_and(|word| word == "run")
}

fn others(agents: &[&Process], places: &Places) -> Vec<Finding> {
    let folder = |agent: &Process| PathBuf::from(agent.option("--state-dir").unwrap_or(STATE_DIR));
    let told = |agent: &&Process| format!("{} ({})", agent.pid, folder(agent).display());
    if agents.len() > 1 {
        let all: Vec<String> = agents.iter().map(told).collect();
        let what = format!(
            "{} agents run, and each gives the same cards out: processes {}",
            agents.len(),
            all.join(", ")
        );
        let remedy = "end all but one; while one takes over from another, look again after 30 s";
        return vec![Finding::new(Check::TwoAgents, what).so(remedy)];
    }
    match agents {
        [only] if folder(only) != places.state_dir => {
            let what = format!("an agent runs with another state folder: process {}", told(only));
            let remedy = format!(
                "give --state-dir {} to look at that one; a second agent must not be started",
                folder(only).display()
            );
            vec![Finding::new(Check::TwoAgents, what).so(remedy)]
        }
        _ => Vec::new(),
    }
}

fn instances(sockets: &[Socket]) -> Vec<Finding> {
    let alive = sockets.iter().filter(|socket| socket.listening != Listening::No);
    let nonces: BTreeSet<&str> = alive.clone().filter_map(|socket| nonce(&socket.name)).collect();
    if nonces.len() < 2 {
        return Vec::new();
    }
    let what = format!("{} processes of vgpu serve the kubelet at once", nonces.len());
    let remedy = "end all agents but one; while one takes over from another, look again after 30 s";
    let finding = Finding::new(Check::TwoInstances, what).so(remedy);
    let first = alive.clone().next().and_then(|socket| socket.path.parent());
    vec![match first {
        Some(folder) => finding.at(folder.display()),
        None => finding,
    }]
}
