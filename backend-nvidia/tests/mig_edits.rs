//! What a container gets of a MIG instance, word for word, on a prepared host and the fake library.

#[path = "support/built.rs"]
mod built;
#[path = "support/golden.rs"]
mod golden;
#[path = "support/inside.rs"]
mod inside;

use std::fs;

use vgpu_backend_nvidia::{Capability, NvidiaFactory, NvidiaOptions};
use vgpu_core::{
    BackendFactory, CreateOrder, Grant, Host, Placement, Probe, ProfileId, Scheme, Shape, Slots,
    Target,
};

use crate::built::built;
use crate::golden::{claim, golden};
use crate::inside::{INSIDE, folder, inside};

#[test]
fn an_instance_shows_its_own_capabilities_and_no_other() {
    inside("instance", "preset: h100-mig\nhost_root: {folder}\n", |folder| {
        let write = |path: &str, text: &str| {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().expect("below the folder")).expect("made");
            fs::write(path, text).expect("written");
        };
        let devices =
            "Character devices:\n195 nvidia\n195 nvidia-modeset\n236 nvidia-caps\n511 nvidia-uvm\n";
        write("proc/devices", devices);
        for library in ["libcuda", "libnvidia-ml", "libnvidia-glcore"] {
            write(&format!("usr/lib/x86_64-linux-gnu/{library}.so.570.124.06"), "");
        }
        write("usr/bin/nvidia-smi", "");
        write("usr/bin/nvidia-cuda-mps-control", "");
        write("sys/bus/pci/devices/0000:1b:00.0/drm/renderD128/dev", "226:128\n");
    });
}

/// What runs in a process whose environment names the machine; does nothing otherwise.
#[test]
#[ignore = "is started by the other test, with a machine"]
fn child() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let host = Host { root: folder(), library: Some(built("libfake_nvml.so")) };
    let all = [Capability::Compute, Capability::Graphics, Capability::Utility];
    let options = NvidiaOptions { capabilities: all.into(), ..NvidiaOptions::default() };
    let backend = match NvidiaFactory::new(options).probe(&host) {
        Probe::Ready(backend) => backend,
        other => panic!("{other:?}"),
    };
    let device = backend.scan().expect("a scan").devices.remove(0);
    let order = |profile: &str, start, len| {
        let shape = Shape::Profile(ProfileId::new(profile).expect("a profile"));
        let place = Placement::Slots(Slots::new(start, len));
        CreateOrder::admit(&device, &Scheme::MIG, shape, place, claim()).expect("admitted")
    };
    let neighbour = backend.create(&order("1g.10gb", 0, 1)).expect("made");
    let part = backend.create(&order("1g.10gb", 2, 1)).expect("made");
    let target = |part: &vgpu_core::Partition| Target {
        claim: claim(),
        grant: Grant::Part(part.id.clone()),
    };
    let edits = backend.edits(&[target(&part)]).expect("shown");
    golden(&edits, "mig.json");
    let nodes = |edits: &vgpu_core::ContainerEdits| -> Vec<String> {
        let caps = edits.nodes.iter().filter(|node| node.path.starts_with("/dev/nvidia-caps"));
        caps.map(|node| node.path.display().to_string()).collect()
    };
    let (own, other) =
        (nodes(&edits), nodes(&backend.edits(&[target(&neighbour)]).expect("shown")));
    assert_eq!((own.len(), other.len()), (2, 2));
    assert!(own.iter().all(|node| !other.contains(node)), "{own:?} and {other:?}");
    let shown = serde_json::to_string(&edits).expect("serializes");
    for never in ["uvm-tools", "modeset", "mps", "/dev/dri"] {
        assert!(!shown.contains(never), "{never} in {shown}");
    }
}
