//! Pods that come and go for a long time, and what the agent takes meanwhile.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::args::Args;
use crate::cluster::assets::Assets;
use crate::cluster::churn::sample::{Sample, Table};
use crate::cluster::node::Node;
use crate::cluster::process::wait_for;
use crate::cluster::test;
use crate::cluster::test::pod::{STAY, container, pod};
use crate::cluster::test::world::{PATIENCE, World};
use crate::cluster::up::Cluster;

mod sample;

/// Between two samples.
const EVERY: Duration = Duration::from_secs(15);

/// How many makers of pods work at once.
const MAKERS: u64 = 3;

/// What the pods ask for, in turn: every kind of offer, and several sizes of units.
const LIMITS: [(&str, u32); 8] = [
    ("vgpu.dev/mig", 1),
    ("vgpu.dev/mlu-memory", 3),
    ("vgpu.dev/dcu", 1),
    ("vgpu.dev/mlu-memory", 1),
    ("vgpu.dev/mig", 1),
    ("vgpu.dev/mlu-memory", 7),
    ("vgpu.dev/dcu", 1),
    ("vgpu.dev/mlu-memory", 2),
];

/// `cargo xtask churn`.
pub(crate) fn run(root: &Path, args: &Args) -> Result<()> {
    let assets = Assets::find(args.out.as_deref()).context("no pod was made")?;
    let programs = test::programs(root, args)?;
    let about = format!(
        "cargo xtask churn --minutes {}; {MAKERS} makers of pods, a sample every {} s",
        args.minutes,
        EVERY.as_secs()
    );
    let cluster = Cluster::start(&args.dir, assets)?;
    let outcome = World::start(cluster, programs).and_then(|world| churn(&world, args.minutes));
    if !args.keep {
        Node::end(&args.dir).context("the node could not be ended")?;
    }
    let table = outcome?;
    let file = root.join(&args.csv);
    std::fs::write(&file, table.csv(&about))
        .with_context(|| format!("cannot write {}", file.display()))?;
    table.summary().iter().for_each(|line| crate::say(line));
    crate::say(&format!("{} samples in {}", table.len(), file.display()));
    let grown = table.grown();
    ensure!(grown.is_empty(), "the agent's needs grow: {}", grown.join("; "));
    Ok(())
}

/// Makes pods and takes samples until the time is up.
fn churn(world: &World, minutes: u32) -> Result<Table> {
    let began = Instant::now();
    let end = Duration::from_secs(u64::from(minutes) * 60);
    let (over, made) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let makers: Vec<_> = (0..MAKERS)
            .map(|maker| {
                let (over, made) = (&over, &made);
                scope.spawn(move || {
                    // One that fails ends the others too.
                    let outcome = make(world, maker, over, made);
                    over.store(true, Ordering::Relaxed);
                    outcome
                })
            })
            .collect();
        let mut table = Table::default();
        let sampled = (|| -> Result<()> {
            while began.elapsed() < end && !over.load(Ordering::Relaxed) {
                table.push(Sample::take(world, began.elapsed(), made.load(Ordering::Relaxed))?);
                let next = EVERY * u32::try_from(table.len())?;
                while began.elapsed() < next.min(end) && !over.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(200));
                }
            }
            Ok(())
        })();
        over.store(true, Ordering::Relaxed);
        for maker in makers {
            maker.join().expect("a maker of pods does not panic")?;
        }
        sampled?;
        table.push(Sample::take(world, began.elapsed(), made.load(Ordering::Relaxed))?);
        Ok(table)
    })
}

/// Makes a pod, waits until it runs, looks whether it has its own, and ends it; again and again.
fn make(world: &World, maker: u64, over: &AtomicBool, made: &AtomicU64) -> Result<()> {
    for n in 0u64.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("churn-{maker}-{n}");
        let limits = [LIMITS[usize::try_from(n * MAKERS + maker)? % LIMITS.len()]];
        let script = format!("cat /etc/vgpu/claim.json; echo '=== end'; {STAY}");
        let mut made_pod = pod(&name, vec![container("main", &script, &limits)]);
        if n % 5 == 4 {
            // The kubelet gives both the same ids, and asks Allocate twice.
            made_pod["spec"]["initContainers"] = json!([container("init", "true", &limits)]);
        }
        world.create(&made_pod)?;
        world.wait_running(&name)?;
        let told = told(world, &name)?;
        let claim = world.claim_of(&name)?;
        ensure!(claim["claim"] == told["claim"], "{name} sees {told}, and the agent holds {claim}");
        world.delete(&name)?;
        made.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// The `claim.json` that a pod's container printed.
fn told(world: &World, pod: &str) -> Result<Value> {
    wait_for("word of the container", PATIENCE, || {
        // The log is there a moment after the container.
        let log = world.log(pod, "main").unwrap_or_default();
        let Some((claim, _)) = log.split_once("=== end") else { return Ok(None) };
        serde_json::from_str(claim).map(Some).with_context(|| format!("{pod} printed {claim}"))
    })
}
