//! Whole-process figures of the agent: minimum, median and maximum of several runs.
//!
//! `cargo build --release -p vgpu-plugin -p vgpu-hook -p vgpu-cli`, then
//! `cargo run --release -p vgpu-plugin --example figures`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;
use vgpu_backend_mock::{Machine, Preset};
use vgpu_kubelet_plugin::fake::{ContainerSpec, FakeKubelet, FakeOptions, PodSpec};

const RUNS: usize = 9;

const CONFIG: &str = "
apiVersion: vgpu.dev/v1alpha1
kind: NodeConfig
poll: {hardwareSeconds: 1, kubeletSeconds: 5}
offers:
- {resource: vgpu.dev/turn, kind: slice, size: {memory: 1400Mi}, schemes: [time-slice]}
";

const RESOURCE: &str = "vgpu.dev/turn";

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let programs = programs()?;
    let mut out = std::io::stdout().lock();
    for program in ["vgpu-plugin", "vgpu-hook", "vgpu"] {
        let bytes = std::fs::metadata(programs.join(program))?.len();
        writeln!(out, "{program} binary: {:.1} MB", bytes as f64 / 1e6)?;
    }
    let mut figures = Figures::default();
    for _ in 0..RUNS {
        let program = programs.join("vgpu-plugin");
        runtime.block_on(one_life(&program, &mut figures))?;
        runtime.block_on(one_loss(&program, &mut figures))?;
    }
    for (name, values) in figures.0 {
        let mut values = values;
        values.sort_by(f64::total_cmp);
        let median = values[values.len() / 2];
        let (least, most) = (values[0], values[values.len() - 1]);
        writeln!(out, "{name}: {least:.2} / {median:.2} / {most:.2} (n={})", values.len())?;
    }
    Ok(())
}

/// Named samples, in the order of their first.
#[derive(Default)]
struct Figures(Vec<(&'static str, Vec<f64>)>);

impl Figures {
    fn add(&mut self, name: &'static str, value: f64) {
        match self.0.iter_mut().find(|(n, _)| *n == name) {
            Some((_, values)) => values.push(value),
            None => self.0.push((name, vec![value])),
        }
    }
}

/// From its start over twenty pods; the machine is in the agent's memory, so that no file of the
/// mock's is waited for.
async fn one_life(program: &Path, figures: &mut Figures) -> anyhow::Result<()> {
    let dir = TempDir::new()?;
    let kubelet = FakeKubelet::new(FakeOptions::under(dir.path()))?;
    let config = config(dir.path())?;
    let began = Instant::now();
    let mut agent = Agent(start(program, dir.path(), &config, None)?);
    kubelet.wait_until("a registered resource", |k| k.allocatable(RESOURCE) > 0).await?;
    figures.add("exec to registered with all ids, ms", ms(began));
    figures.add("ids", kubelet.allocatable(RESOURCE) as f64);

    for n in 0..20 {
        let container = ContainerSpec::app("main").request(RESOURCE, 1);
        let uid = format!("uid-{n}");
        let pod = PodSpec::new("bench", format!("pod-{n}"), &uid).with(container);
        let began = Instant::now();
        kubelet.admit(pod).await?;
        figures
            .add("admission through the kubelet (preference, Allocate, checkpoint), ms", ms(began));
        let began = Instant::now();
        kubelet.start_container(&uid, "main").await?;
        figures.add("container start through the kubelet (PreStart, CDI found), ms", ms(began));
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    for (key, name) in [
        ("VmRSS:", "resident memory after 20 pods, MB"),
        ("RssAnon:", "of it anonymous, MB"),
        ("Threads:", "threads"),
    ] {
        let value = status(agent.0.id(), key)?;
        figures.add(name, if key == "Threads:" { value } else { value * 1024.0 / 1e6 });
    }

    ensure!(agent.0.try_wait()?.is_none(), "the agent ended");
    Ok(())
}

/// A card falls off; the machine is in a file that both processes use.
async fn one_loss(program: &Path, figures: &mut Figures) -> anyhow::Result<()> {
    let dir = TempDir::new()?;
    let state = dir.path().join("machine.json");
    let machine = Machine::open(&state, Preset::H200x8)?;
    let kubelet = FakeKubelet::new(FakeOptions::under(dir.path()))?;
    let config = config(dir.path())?;
    let agent = Agent(start(program, dir.path(), &config, Some(&state))?);
    kubelet.wait_until("a registered resource", |k| k.allocatable(RESOURCE) > 0).await?;
    let card = machine.devices()?.remove(0);
    let before = kubelet.allocatable(RESOURCE);
    let began = Instant::now();
    machine.faults().lose(&card)?;
    kubelet.wait_until("fewer ids", |k| k.allocatable(RESOURCE) < before).await?;
    figures.add("card lost to the kubelet's list (event), ms", ms(began));
    drop(agent);
    Ok(())
}

fn config(dir: &Path) -> anyhow::Result<PathBuf> {
    let path = dir.join("node.yaml");
    std::fs::write(&path, CONFIG)?;
    Ok(path)
}

fn start(program: &Path, dir: &Path, config: &Path, state: Option<&Path>) -> anyhow::Result<Child> {
    let mut command = Command::new(program);
    command.args(["run", "--backend", "mock", "--machine", "h200x8"]);
    if let Some(state) = state {
        command.arg("--machine-state").arg(state);
    }
    let hooks = program.parent().context("a program lies in a folder")?;
    for (flag, path) in [
        ("--config", config),
        ("--kubelet-dir", dir),
        ("--cdi-dir", &dir.join("cdi")),
        ("--state-dir", &dir.join("state")),
        ("--hook-dir", hooks),
    ] {
        command.arg(flag).arg(path);
    }
    let command = command.env("VGPU_LOG", "error").stdout(Stdio::null());
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

fn programs() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let programs = own.parent().and_then(Path::parent).context("an example lies in examples/")?;
    for name in ["vgpu-plugin", "vgpu-hook", "vgpu"] {
        let what = "run `cargo build --release -p vgpu-plugin -p vgpu-hook -p vgpu-cli` first";
        ensure!(programs.join(name).exists(), "{name} is not built; {what}");
    }
    Ok(programs.to_owned())
}

fn ms(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}

/// A number of `/proc/<pid>/status`, as it stands there.
fn status(pid: u32, key: &str) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find(|l| l.starts_with(key)).with_context(|| format!("no {key}"))?;
    let number = line[key.len()..].split_whitespace().next().context("a number")?;
    Ok(number.parse()?)
}
