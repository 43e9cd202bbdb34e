//! The suite on every preset, and on two of them through JSON text: a test for each case, card of
//! each kind and scheme.

use std::process::ExitCode;

use vgpu_backend_mock::{MockFixture, Preset};
use vgpu_conformance::{Fixture, Wired, test_main};
use vgpu_core::Vendor;

fn main() -> ExitCode {
    let mut fixtures: Vec<Box<dyn Fixture>> = Vec::new();
    for fixture in MockFixture::all().expect("presets are machines") {
        fixtures.push(Box::new(fixture));
    }
    for preset in [Preset::Mixed, Preset::A100x4Mig] {
        let fixture = MockFixture::preset(preset).expect("presets are machines");
        fixtures.push(Box::new(Wired::new(fixture)));
    }
    let hygon = MockFixture::of("mock-mixed-hygon", Preset::Mixed, Vendor::HYGON);
    fixtures.push(Box::new(hygon.expect("presets are machines")));
    test_main(fixtures)
}
