//! What the agent costs a pod: its processor time and the threads that it starts, 50 pods at once over an in-process
//! kubelet. Minimum, median and maximum of several rounds; each round's pods end before the next.
//!
//! `cargo build --release -p vgpu-plugin -p vgpu-hook`, then
//! `cargo run --release -p vgpu-plugin --example churn -- target/release/vgpu-plugin 9`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::task::JoinSet;
use vgpu_kubelet_plugin::fake::{ContainerSpec, FakeKubelet, FakeOptions, PodSpec};

const PODS: usize = 50;

const CONFIG: &str = "
apiVersion: vgpu.dev/v1alpha1
kind: NodeConfig
offers:
- {resource: vgpu.dev/mem, kind: unit, unit: 1Gi, largest: 16, policy: spread}
";

const RESOURCE: &str = "vgpu.dev/mem";

/// The kernel's, for the times in `/proc/<pid>/stat`; the same on every Linux that Rust runs on.
const TICK_MS: f64 = 10.0;

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args_os().skip(1);
    let program = PathBuf::from(args.next().context("which agent? give its path")?);
    let rounds = args.next().map_or(Ok(9), |n| n.to_string_lossy().parse())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(&program, rounds))
}

async fn measure(program: &Path, rounds: usize) -> anyhow::Result<()> {
    let dir = TempDir::new()?;
    let kubelet = Arc::new(FakeKubelet::new(FakeOptions::under(dir.path()))?);
    let agent = Agent(start(program, dir.path())?);
    kubelet.wait_until("a registered resource", |k| k.allocatable(RESOURCE) > 0).await?;
    let (mut cpu, mut time) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let (before, began) = (cpu_ms(agent.0.id())?, Instant::now());
        let uids: Vec<String> = (0..PODS).map(|n| format!("uid-{round}-{n}")).collect();
        let mut starting = JoinSet::new();
        for (n, uid) in uids.iter().enumerate() {
            let (kubelet, uid) = (kubelet.clone(), uid.clone());
            let container = ContainerSpec::app("main").request(RESOURCE, 1);
            let pod = PodSpec::new("bench", format!("pod-{round}-{n}"), &uid).with(container);
            starting.spawn(async move {
                kubelet.admit(pod).await?;
                while let Err(error) = kubelet.start_container(&uid, "main").await {
                    again(&error.to_string());
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                anyhow::Ok(())
            });
        }
        while let Some(started) = starting.join_next().await {
            started??;
        }
        time.push(began.elapsed().as_secs_f64() * 1e3);
        cpu.push((cpu_ms(agent.0.id())? - before) / PODS as f64);
        for uid in &uids {
            kubelet.delete_pod(uid);
        }
    }
    let before = cpu_ms(agent.0.id())?;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let idle = (cpu_ms(agent.0.id())? - before) / 20.0;
    let mut out = std::io::stdout().lock();
    tell(&mut out, "processor time of the agent, ms for a pod", cpu)?;
    tell(&mut out, "50 pods admitted and started, ms", time)?;
    writeln!(out, "with nothing to do, ms of processor time in a second: {idle:.2}")?;
    Ok(())
}

fn again(error: &str) {
    let _ = writeln!(std::io::stderr(), "tried again: {error}");
}

fn tell(out: &mut impl std::io::Write, name: &str, mut values: Vec<f64>) -> anyhow::Result<()> {
    values.sort_by(f64::total_cmp);
    let (least, middle) = (values.first().context("no round")?, values[values.len() / 2]);
    let most = values.last().context("no round")?;
    writeln!(out, "{name}: {least:.2} / {middle:.2} / {most:.2} (n={})", values.len())?;
    Ok(())
}

fn start(program: &Path, dir: &Path) -> anyhow::Result<Child> {
    let config = dir.join("node.yaml");
    std::fs::write(&config, CONFIG)?;
    let mut command = Command::new(program);
    command.args(["run", "--backend", "mock", "--machine", "mlu370x8"]);
    for (flag, path) in [
        ("--config", &config),
        ("--kubelet-dir", &dir.to_owned()),
        ("--cdi-dir", &dir.join("cdi")),
        ("--state-dir", &dir.join("state")),
    ] {
        command.arg(flag).arg(path);
    }
    let beside = program.parent().context("a program lies in a folder")?;
    if beside.join("vgpu-hook").exists() {
        command.arg("--hook-dir").arg(beside);
    }
    let command = command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().with_context(|| format!("cannot start {}", program.display()))
}

/// The agent; killed when the run ends, however it ends.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// User and system time of a process, of its threads that ended too.
fn cpu_ms(pid: u32) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = text.rsplit_once(')').context("a process has a name")?;
    let mut times = rest.split_whitespace().skip(11);
    let mut next = || anyhow::Ok(times.next().context("no time")?.parse::<f64>()?);
    Ok((next()? + next()?) * TICK_MS)
}
