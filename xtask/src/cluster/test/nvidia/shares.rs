//! Shares of a card by MPS: one daemon that the agent starts, a door of its own for each container.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::r615::{QUARTERS, R615, SHARE};
use crate::cluster::process::wait_for;
use crate::cluster::test::pod::{PROBE, STAY, container, pod};
use crate::cluster::test::world::PATIENCE;

/// Two pods have a daemon in common and a namespace each; it outlives the agent, and ends with the last of them.
pub(crate) fn shares(gpu: &R615) -> Result<String> {
    let world = gpu.world();
    ensure!(record(gpu)?.is_none(), "there is a daemon before anybody needs it");
    let mut doors = Vec::new();
    for (name, n) in [("a", 1), ("b", 2)] {
        world.create(&pod(name, vec![prober(name, n)]))?;
        world.wait_running(name)?;
        doors.push(door(gpu, name, n)?);
    }
    ensure!(doors[0] != doors[1], "both have the door {}", doors[0]);
    let daemon = running(gpu)?;
    ensure!(compute_mode(gpu)? == 3, "somebody computes beside the daemon");

    world.cluster.node.signal("agent", "KILL")?;
    world.wait_within(SHARE, 0..=0)?;
    ensure!(alive(gpu, daemon), "the daemon ended with the agent");
    world.start_agent()?;
    world.wait_within(SHARE, 4..)?;
    ensure!(running(gpu)? == daemon, "there is another daemon: {:?}", record(gpu)?);
    for (name, n) in [("a", 1), ("b", 2)] {
        in_force(gpu, name, n)?;
        world.ran_on(name)?;
    }

    world.delete("a")?;
    world.create(&pod("c", vec![prober("c", 1)]))?;
    world.wait_running("c")?;
    door(gpu, "c", 1)?;
    ensure!(running(gpu)? == daemon, "the daemon ended with one of its clients");
    for name in ["b", "c"] {
        world.delete(name)?;
    }
    wait_for("end of the daemon", PATIENCE, || Ok((!alive(gpu, daemon)).then_some(())))?;
    let folder = world.cluster.node.inside(&gpu.daemons());
    wait_for("end of its folder", PATIENCE, || Ok((!folder.exists()).then_some(())))?;
    wait_for("anybody to compute", PATIENCE, || Ok((compute_mode(gpu)? == 0).then_some(())))?;
    Ok("one daemon, two doors; it ended with its last client".into())
}

/// As `prober`, and it tells what is behind its door, and leaves something where server and clients meet in memory.
fn prober(name: &str, shares: u32) -> Value {
    let script = format!(
        "{PROBE}\necho '=== door'; stat -c %i /tmp/nvidia-mps; ls /tmp/nvidia-mps; : >/dev/shm/{name}; \
         head -n 1 /etc/vgpu/mps/share; echo '=== all'\n{STAY}"
    );
    container("main", &script, &[(SHARE, shares)])
}

/// What a container has of MPS is the namespace of its share, with its limit; gives the name.
fn door(gpu: &R615, pod: &str, shares: u32) -> Result<String> {
    let seen = gpu.checked(pod, "main", 1)?;
    let part = seen.grant("part")?;
    let told = wait_for("word of the door", PATIENCE, || {
        let told = gpu.world().log(pod, "main")?;
        Ok(told.strip_suffix("=== all\n").map(str::to_owned))
    })?;
    let told = told.rsplit_once("=== door\n").map_or("", |(_, text)| text);
    let told: Vec<&str> = told.lines().collect();
    let [inode, socket, share] = told[..] else { anyhow::bail!("pod {pod} tells {told:?}") };
    ensure!(socket == "control", "behind its door pod {pod} sees {socket}");
    ensure!(share == part, "pod {pod} is told of the share {share}, and has {part}");
    let namespace = in_force(gpu, pod, shares)?;
    let inside = |path: &str| gpu.world().cluster.node.inside(path);
    let folder = inside(&format!("{}/pipe/vgpu/{namespace}", gpu.daemons()));
    let its = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&folder)?);
    ensure!(inode == its.to_string(), "pod {pod} has another door than {}", folder.display());
    let card = gpu.daemons().rsplit('/').next().unwrap_or_default().to_owned();
    let met = inside(&format!("/dev/shm/vgpu-mps/{card}/{pod}"));
    ensure!(met.is_file(), "what pod {pod} left in memory is not where the daemon has it");
    Ok(namespace)
}

/// That the daemon limits a pod's share to its size; gives its namespace.
fn in_force(gpu: &R615, pod: &str, shares: u32) -> Result<String> {
    let claim = gpu.world().claim_of(pod)?;
    let part = claim["grants"][0]["part"].as_str().context("the claim has no part")?;
    let namespace = format!("n{}", part.rsplit(['/', ':']).next().unwrap_or_default());
    let limit = gpu.ask(&["namespace", "get", &namespace, "vgpu", "pinned-memory-limit"])?;
    let expected = format!("{}M", u64::from(shares) * QUARTERS[1]);
    ensure!(limit == expected, "pod {pod} may have {limit}, not {expected}");
    Ok(namespace)
}

/// What is written down of the daemon, if there is one.
fn record(gpu: &R615) -> Result<Option<Value>> {
    let file = gpu.world().cluster.node.inside(&format!("{}/daemon.json", gpu.daemons()));
    let Ok(text) = std::fs::read(&file) else { return Ok(None) };
    Ok(Some(serde_json::from_slice(&text).context("the daemon's record is no JSON")?))
}

/// The daemon's process, by its number in the box.
fn running(gpu: &R615) -> Result<u64> {
    let record = record(gpu)?.context("there is no daemon")?;
    let pid = record["process"]["pid"].as_u64().with_context(|| format!("no process: {record}"))?;
    ensure!(alive(gpu, pid), "the daemon {pid} does not run");
    Ok(pid)
}

fn alive(gpu: &R615, pid: u64) -> bool {
    gpu.world().cluster.node.inside(&format!("/proc/{pid}/exe")).exists()
}

/// Who may compute on the card, as the driver has it; 3 is one process.
fn compute_mode(gpu: &R615) -> Result<u64> {
    Ok(gpu.state()?["compute_modes"]["2"].as_u64().unwrap_or(0))
}
