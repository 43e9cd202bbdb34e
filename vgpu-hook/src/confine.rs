//! `confine`: the agent learns which cgroup a claim's container has, before its first process runs.

use std::time::Duration;

use serde_json::{Value, json};

use crate::agent::{self, Options};
use crate::notice::EveryDevice;
use crate::state::State;
use crate::{Outcome, cgroup, complain};

/// For connecting, asking and being answered together.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn run(args: &[String]) -> Outcome<()> {
    let options = Options::parse("confine", args, PATIENCE)?;
    let state = State::from_stdin()?;
    let pid = state.pid.ok_or(
        "the container's state has no pid; confine must be a createRuntime hook, which runs once there is one",
    )?;
    let cgroup = cgroup::folder(&options.proc, pid)?;
    let pid_namespace = cgroup::pid_namespace(&options.proc, pid)?;
    let cgroup = cgroup.to_str().ok_or("the container's cgroup is not UTF-8")?;
    let mut request = json!({
        "version": 1,
        "op": "confine",
        "claim": options.claim,
        "cgroup": cgroup,
        "pid": pid,
        "pid_namespace": pid_namespace,
    });
    let beyond = EveryDevice::of(&state);
    if let Ok(Some(open)) = &beyond {
        request["every_device"] = Value::Bool(true);
        request["container"] = json!(open.container);
    }
    agent::ask(&options, &request).map_err(|why| format!("{why}; no yes, no start"))?;
    // What is only told must not end a start, nor hide why one ended.
    beyond.err().iter().for_each(|why| complain("vgpu-hook confine", why));
    Ok(())
}
