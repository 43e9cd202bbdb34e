//! Cards that fall off the bus and come back.

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::cluster::test::Scenario;
use crate::cluster::test::pod::one;
use crate::cluster::test::world::World;

pub(crate) const SCENARIOS: &[Scenario] =
    &[Scenario { name: "card-lost-and-back", run: lost_and_back }];

/// Its neighbours stay, the pod on it stays, and it is offered again without a restart of anything.
fn lost_and_back(world: &World) -> Result<String> {
    world.create(&one("on-it", &[("vgpu.dev/mig", 1)]))?;
    world.wait_running("on-it")?;
    let card = world.machine.devices()?.swap_remove(1);
    let faults = world.machine.faults();
    faults.lose(&card)?;
    let began = Instant::now();
    world.wait_allocatable(&[("vgpu.dev/mig", 0), ("vgpu.dev/gpu", 1), ("vgpu.dev/dcu", 8)])?;
    let gone = began.elapsed().as_secs_f64();
    let pod = world.pod("on-it")?;
    ensure!(
        pod["status"]["phase"] == "Running",
        "the pod on the lost card is {}",
        pod["status"]["phase"]
    );
    faults.restore(&card)?;
    let began = Instant::now();
    world.wait_allocatable(&[("vgpu.dev/mig", 7)])?;
    let back = began.elapsed().as_secs_f64();
    world.create(&one("after", &[("vgpu.dev/mig", 1)]))?;
    world.wait_running("after")?;
    world.checked("after", "main")?;
    Ok(format!("allocatable 0 after {gone:.1} s, full {back:.1} s after it came back"))
}
