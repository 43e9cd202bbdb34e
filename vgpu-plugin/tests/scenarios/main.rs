//! The files of `scenarios/` on the in-process kubelet; `cargo xtask cluster test` plays them on a real one.

#[path = "../stage/mod.rs"]
mod stage;

mod on_fake;
mod teeth;

use libtest_mimic::{Arguments, Trial};

use on_fake::OnFake;
use stage::GUARD;

fn main() {
    let args = Arguments::from_args();
    let scenarios = vgpu_scenarios::all().unwrap_or_else(|e| panic!("{e:#}"));
    let files = scenarios.into_iter().map(|scenario| {
        Trial::test(format!("file::{}", scenario.name), move || {
            let mut bench = OnFake::new(GUARD);
            vgpu_scenarios::play(&scenario, &mut bench).map_err(|e| format!("{e:#}").into())
        })
    });
    let trials = files.chain(teeth::trials()).collect();
    libtest_mimic::run(&args, trials).exit();
}
