//! What of the driver is no library: programs, sockets of its daemons, firmware, configuration.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use vgpu_core::edits::Mount;

use crate::host::DriverTree;
use crate::isolation::libraries::read_only;
use crate::isolation::sets::Capability;

/// All of it that a container with these sets gets; what is missing on the host is left out, since
/// every installation lacks some.
pub(crate) fn mounts(
    tree: &DriverTree,
    version: &str,
    asked: &BTreeSet<Capability>,
    exclusive: bool,
) -> Vec<Mount> {
    let mut mounts = programs(tree, asked, exclusive);
    mounts.extend(sockets(tree, asked, exclusive));
    mounts.extend(configuration(tree, asked));
    if asked.contains(&Capability::Compute) {
        mounts.extend(firmware(tree, version));
    }
    mounts
}

/// Programs that a tenant may want; those that start daemons only for one alone on its cards.
fn programs(tree: &DriverTree, asked: &BTreeSet<Capability>, exclusive: bool) -> Vec<Mount> {
    const LOOK: &[&str] = &["nvidia-smi", "nvidia-debugdump"];
    const SERVE: &[&str] = &["nvidia-cuda-mps-control", "nvidia-cuda-mps-server"];
    const FOLDERS: &[&str] = &["/usr/bin", "/usr/local/nvidia/bin", "/usr/local/bin", "/opt/bin"];
    let look = if asked.contains(&Capability::Utility) { LOOK } else { &[] };
    let alone = exclusive && asked.contains(&Capability::Compute);
    let names = look.iter().chain(if alone { SERVE } else { &[] });
    names
        .filter_map(|name| {
            let mut places =
                FOLDERS.iter().map(|folder| tree.of_driver(&Path::new(folder).join(name)));
            let host = places.find(|place| tree.host.has(place))?;
            Some(read_only(host, Path::new("/usr/bin").join(name)))
        })
        .collect()
}

/// Sockets of the driver's daemons; one can connect through a read-only mount. A daemon runs on the
/// host or in the driver's own root.
fn sockets(tree: &DriverTree, asked: &BTreeSet<Capability>, exclusive: bool) -> Vec<Mount> {
    const ANY: &[&str] = &["/run/nvidia-persistenced/socket"];
    const ALONE: &[&str] = &["/run/nvidia-fabricmanager/socket"];
    if !asked.contains(&Capability::Utility) && !asked.contains(&Capability::Compute) {
        return Vec::new();
    }
    let places = ANY.iter().chain(if exclusive { ALONE } else { &[] }).map(PathBuf::from);
    places
        .filter_map(|place| {
            let on_host = [tree.of_driver(&place), place.clone()];
            let host = on_host.into_iter().find(|on_host| tree.host.has(on_host))?;
            Some(read_only(host, place))
        })
        .collect()
}

/// Files that tell loaders of OpenCL, EGL and Vulkan which library is NVIDIA's.
fn configuration(tree: &DriverTree, asked: &BTreeSet<Capability>) -> Vec<Mount> {
    const COMPUTE: &[&str] = &["/etc/OpenCL/vendors/nvidia.icd"];
    const DRAW: &[&str] = &[
        "/etc/vulkan/icd.d/nvidia_icd.json",
        "/etc/vulkan/icd.d/nvidia_layers.json",
        "/etc/vulkan/implicit_layer.d/nvidia_layers.json",
        "/usr/share/egl/egl_external_platform.d/10_nvidia_wayland.json",
        "/usr/share/egl/egl_external_platform.d/15_nvidia_gbm.json",
        "/usr/share/egl/egl_external_platform.d/20_nvidia_xcb.json",
        "/usr/share/egl/egl_external_platform.d/20_nvidia_xlib.json",
        "/usr/share/glvnd/egl_vendor.d/10_nvidia.json",
        "/usr/share/nvidia/nvoptix.bin",
        "/usr/share/vulkan/icd.d/nvidia_icd.json",
        "/usr/share/vulkan/implicit_layer.d/nvidia_layers.json",
    ];
    let of = |set, files: &'static [&'static str]| if asked.contains(&set) { files } else { &[] };
    of(Capability::Compute, COMPUTE)
        .iter()
        .chain(of(Capability::Graphics, DRAW))
        .map(|file| read_only(tree.of_driver(Path::new(file)), PathBuf::from(file)))
        .filter(|mount| tree.host.has(&mount.host))
        .collect()
}

/// Firmware that the kernel loads into the card; libraries look at which there is.
fn firmware(tree: &DriverTree, version: &str) -> Vec<Mount> {
    let below = Path::new("nvidia").join(version);
    let places = tree.firmware_folders().into_iter().map(|folder| folder.join(&below));
    let is_gsp = |name: &String| name.starts_with("gsp") && name.ends_with(".bin");
    let found =
        places.map(|folder| (tree.host.names(&folder), folder)).find_map(|(names, folder)| {
            let names: Vec<String> = names.into_iter().filter(is_gsp).collect();
            (!names.is_empty()).then_some((folder, names))
        });
    let Some((folder, names)) = found else { return Vec::new() };
    let container = Path::new("/lib/firmware").join(below);
    names.into_iter().map(|name| read_only(folder.join(&name), container.join(&name))).collect()
}
