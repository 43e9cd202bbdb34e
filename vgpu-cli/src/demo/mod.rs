//! `vgpu demo`: a mixed-vendor node, the agent and a kubelet, all in this process over real Unix
//! sockets. Nothing of the machine is touched.

mod stage;
mod table;

use std::io::Write;
use std::time::Duration;

use anyhow::Context as _;
use vgpu_core::Vendor;
use vgpu_kubelet_plugin::fake::{ContainerSpec, ContainerView, PodSpec};

use crate::answer::{Answer, Done};
use crate::demo::stage::Stage;
use crate::demo::table::Row;
use crate::failure::Failure;

/// What each container of the demo asks for.
const PODS: [(&str, &str, usize); 3] = [
    ("notebook", "vgpu.dev/dcu-quarter", 1),
    ("serve", "vgpu.dev/mlu-memory", 10),
    ("train", "vgpu.dev/gpu", 1),
];

/// Plays the demo and tells it as it goes.
pub(crate) fn run() -> Done {
    match on_a_runtime(&mut std::io::stdout().lock()) {
        Ok(()) => Ok(Answer::default()),
        Err(error) => Err(Failure::broken(format!("the demo went wrong: {error:#}"))),
    }
}

fn on_a_runtime(out: &mut dyn Write) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let played = runtime.block_on(play(out));
    runtime.shutdown_timeout(Duration::from_secs(1));
    played
}

async fn play(out: &mut dyn Write) -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    writeln!(
        out,
        "A node with cards of three vendors, the agent, and a kubelet over Unix sockets:\n"
    )?;
    table::resources(out, &stage)?;

    let mut views: Vec<(&str, ContainerView)> = Vec::new();
    for (name, resource, count) in PODS {
        let container = ContainerSpec::app("main").request(resource, count);
        let pod = PodSpec::new("demo", name, format!("uid-{name}")).with(container);
        let admitted =
            stage.kubelet.admit(pod).await.with_context(|| format!("admitting {name}"))?;
        let view = stage
            .kubelet
            .start_container(&admitted.uid, "main")
            .await
            .with_context(|| format!("starting {name}"))?;
        views.push((name, view));
    }
    writeln!(out, "\nThree containers were admitted and started:\n")?;
    let claims = stage.agent.node().claims();
    let rows: Vec<Row> = claims.iter().filter_map(Row::of).collect();
    anyhow::ensure!(rows.len() == PODS.len(), "{} claims live, not {}", rows.len(), PODS.len());
    table::claims(out, &rows)?;
    for (name, view) in &views {
        table::edits(out, name, view)?;
    }

    let card = stage.machine.devices_of(&Vendor::CAMBRICON)?.remove(0);
    let lost_on = rows.iter().find(|r| r.resource == "vgpu.dev/mlu-memory").map(|r| &r.device);
    let card = match lost_on {
        // The card that nobody uses, so that its neighbour's claim can be seen to be untouched.
        Some(used) if *used == card => stage.machine.devices_of(&Vendor::CAMBRICON)?.remove(1),
        _ => card,
    };
    let resource = "vgpu.dev/mlu-memory";
    let before = stage.kubelet.allocatable(resource);
    stage.machine.faults().lose(&card)?;
    stage.kubelet.wait_until("fewer units", |k| k.allocatable(resource) < before).await?;
    let during = stage.kubelet.allocatable(resource);
    writeln!(out, "\nCard {card} fell off the bus: {resource} {before} -> {during} allocatable")?;
    stage.machine.faults().restore(&card)?;
    stage.kubelet.wait_allocatable(resource, before).await?;
    writeln!(out, "It came back, with no restart:  {resource} {during} -> {before} allocatable")?;

    let after = stage.agent.node().claims();
    anyhow::ensure!(after == claims, "the claims changed: {after:?}");
    for (name, _, _) in PODS {
        let view = stage.kubelet.restart_container(&format!("uid-{name}"), "main").await?;
        let same = views
            .iter()
            .any(|(other, seen)| *other == name && seen.cdi_devices == view.cdi_devices);
        anyhow::ensure!(same, "{name} sees something else after its restart");
    }
    writeln!(out, "The three claims are untouched; each container restarted with the same edits.")?;
    stage.strike().await;
    Ok(())
}
