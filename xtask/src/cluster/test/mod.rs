//! Our agent on a real node: scenarios, and what came of them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

use crate::cluster::args::Args;
use crate::cluster::assets::Assets;
use crate::cluster::node::Node;
use crate::cluster::up::Cluster;

mod agent_pod;
mod bad_input;
mod cambricon;
mod cards;
mod containers;
mod elsewhere;
mod file;
mod flag;
mod fragments;
mod hygon;
mod nvidia;
mod offers;
mod pace;
pub(crate) mod pod;
mod refusals;
mod reload;
mod restarts;
mod seen;
mod setup;
mod standin;
mod told;
mod upgrade;
pub(crate) mod world;

use crate::cluster::test::world::{FakeHygon, Programs, World};

/// One thing that is tried: in code here, or in a file that the in-process kubelet plays too.
#[derive(Debug, Clone)]
enum Trial {
    Code(Scenario),
    File(String, vgpu_scenarios::Scenario),
}

/// One thing that is tried, in code.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Gives what was measured, if anything was.
    pub(crate) run: fn(&World) -> Result<String>,
}

impl Trial {
    fn name(&self) -> &str {
        match self {
            Self::Code(scenario) => scenario.name,
            Self::File(name, _) => name,
        }
    }

    fn run(&self, world: &World) -> Result<String> {
        match self {
            Self::Code(scenario) => (scenario.run)(world),
            Self::File(_, scenario) => file::run(world, scenario),
        }
    }
}

/// `cargo xtask cluster test`.
pub(crate) fn run(root: &Path, args: &Args) -> Result<()> {
    let chosen = chosen(&args.only)?;
    if args.list {
        chosen.iter().for_each(|trial| crate::say(trial.name()));
        return Ok(());
    }
    let assets = match Assets::find(args.out.as_deref()) {
        Ok(assets) => assets,
        Err(error) => bail!("no cluster scenario was run: {error:#}"),
    };
    let programs = programs(root, args)?;
    let began = Instant::now();
    let cluster = Cluster::start(&args.dir, assets)?;
    crate::say(&format!("node ready                  {:.1} s", began.elapsed().as_secs_f64()));
    let failed = World::start(cluster, programs).map(|world| all(&world, &chosen, args));
    if args.keep {
        crate::say(&format!("the node is left up in {}", args.dir.display()));
    } else {
        Node::end(&args.dir).context("the node could not be ended")?;
    }
    let failed = failed?;
    ensure!(failed.is_empty(), "{} of the scenarios failed: {}", failed.len(), failed.join(", "));
    Ok(())
}

/// Runs them in order and gives the names of those that failed.
fn all(world: &World, chosen: &[Trial], args: &Args) -> Vec<String> {
    let mut failed = Vec::new();
    for round in 1..=args.times {
        if args.times > 1 {
            crate::say(&format!("round {round} of {}", args.times));
        }
        for trial in chosen {
            let began = Instant::now();
            let outcome = trial.run(world);
            let seconds = began.elapsed().as_secs_f64();
            let name = trial.name();
            match outcome {
                Ok(figures) => crate::say(&format!("{name:<28}ok      {seconds:6.1} s  {figures}")),
                Err(error) => {
                    crate::say(&format!("{name:<28}FAILED  {seconds:6.1} s  {error:#}"));
                    world.explain();
                    failed.push(name.to_owned());
                    if args.keep {
                        return failed;
                    }
                }
            }
            if let Err(error) = world.tidy() {
                crate::say(&format!("{name:<28}left something behind: {error:#}"));
                failed.push(format!("what is behind {name}"));
            }
        }
    }
    failed
}

fn chosen(only: &[String]) -> Result<Vec<Trial>> {
    let all = [
        offers::SCENARIOS,
        containers::SCENARIOS,
        refusals::SCENARIOS,
        bad_input::SCENARIOS,
        fragments::SCENARIOS,
        reload::SCENARIOS,
        restarts::SCENARIOS,
        cards::SCENARIOS,
        upgrade::SCENARIOS,
        agent_pod::SCENARIOS,
        cambricon::SCENARIOS,
        hygon::SCENARIOS,
        nvidia::SCENARIOS,
        elsewhere::SCENARIOS,
        pace::SCENARIOS,
    ];
    let mut chosen: Vec<Trial> = all.concat().into_iter().map(Trial::Code).collect();
    let named = |s: vgpu_scenarios::Scenario| Trial::File(format!("file-{}", s.name), s);
    chosen.extend(vgpu_scenarios::all()?.into_iter().map(named));
    chosen.retain(|t| only.is_empty() || only.iter().any(|word| t.name().contains(word.as_str())));
    ensure!(!chosen.is_empty(), "no scenario's name holds {}; see --list", only.join(" or "));
    Ok(chosen)
}

/// What is tried: out of a folder that was given, or built now.
pub(crate) fn programs(root: &Path, args: &Args) -> Result<Programs> {
    let bin = match &args.bin {
        Some(bin) => bin.clone(),
        None => built(root, args)?,
    };
    let programs = Programs {
        agent: args.agent.clone().unwrap_or_else(|| bin.join("vgpu-plugin")),
        hook: args.hook.clone().unwrap_or_else(|| bin.join("vgpu-hook")),
        vgpu: bin.join("vgpu"),
        fake_nvml: bin.join("examples/libfake_nvml.so"),
        fake_mps: bin.join("examples/fake_mps_control"),
        fake_cndev: bin.join("examples/libfake_cndev.so"),
        fake_hygon: FakeHygon {
            host: bin.join("examples/fake_hygon_host"),
            hydmi: bin.join("examples/libfake_hydmi.so"),
            rocm_smi: bin.join("examples/libfake_rocm_smi.so"),
        },
        old_runtime: bin.join("examples/runtime"),
        trivial: bin.join("examples/trivial"),
    };
    for file in programs.all() {
        ensure!(file.is_file(), "there is no {}", file.display());
    }
    Ok(programs)
}

/// Builds them and gives cargo's folder.
fn built(root: &Path, args: &Args) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let wanted: [&[&str]; 5] = [
        &["-p", "vgpu-plugin", "-p", "vgpu-hook", "-p", "vgpu-cli", "--bins"],
        &["-p", "vgpu-backend-nvidia", "--examples"],
        &["-p", "vgpu-kubelet-plugin", "--examples"],
        &["-p", "vgpu-backend-cambricon", "--examples"],
        &["-p", "vgpu-backend-hygon", "--examples"],
    ];
    for what in wanted {
        let status = Command::new(&cargo)
            .args(["build", "--quiet"])
            .args(what)
            .args(args.release.then_some("--release"))
            .current_dir(root)
            .status()
            .context("cannot run cargo")?;
        ensure!(status.success(), "cargo build {} failed", what.join(" "));
    }
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(root.join(target).join(if args.release { "release" } else { "debug" }))
}
