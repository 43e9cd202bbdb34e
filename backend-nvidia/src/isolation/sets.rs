//! What a container may do with its cards, as sets of the driver's files.

use std::collections::BTreeSet;

/// One set of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    /// CUDA and OpenCL, and what compiles for them.
    Compute,
    /// EGL, OpenGL, Vulkan and ray tracing, with their configuration.
    Graphics,
    /// NVML and `nvidia-smi`.
    Utility,
}

/// How the driver's files get into a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// Where the host has them, with links and the loader's cache made by `vgpu-hook`: any image runs.
    #[default]
    Hook,
    /// All in `/usr/local/nvidia/lib64`, with `LD_LIBRARY_PATH`: no hook is needed, and what the image
    /// had in that variable is lost.
    Hookless,
}

/// The sets that a library belongs to, by the beginning of its name.
///
/// What no list names computes: each driver adds some, and nearly all of them are for that.
pub(crate) fn of_library(stem: &str) -> &'static [Capability] {
    let is = |names: &[&str]| names.iter().any(|name| stem.starts_with(name));
    if is(BOTH) {
        &[Capability::Compute, Capability::Graphics]
    } else if is(DRAWING) {
        &[Capability::Graphics]
    } else if is(TELLING) {
        &[Capability::Utility]
    } else {
        &[Capability::Compute]
    }
}

/// Whether a file of these sets is wanted.
pub(crate) fn wanted(of: &[Capability], asked: &BTreeSet<Capability>) -> bool {
    of.iter().any(|set| asked.contains(set))
}

/// The compiler and allocator behind both.
const BOTH: &[&str] = &["libnvidia-allocator", "libnvidia-glvkspirv", "libnvidia-gpucomp"];

/// Libraries for display, drawing and ray tracing: of no use without their configuration files.
const DRAWING: &[&str] = &[
    "libEGL_nvidia",
    "libGLESv1_CM_nvidia",
    "libGLESv2_nvidia",
    "libGLX_nvidia",
    "libnvidia-egl",
    "libnvidia-fbc",
    "libnvidia-gl",
    "libnvidia-gtk",
    "libnvidia-ngx",
    "libnvidia-present",
    "libnvidia-rtcore",
    "libnvidia-tls",
    "libnvidia-vksc",
    "libnvidia-vulkan",
    "libnvidia-wayland",
    "libnvoptix",
    "libvdpau_nvidia",
];

const TELLING: &[&str] = &["libnvidia-cfg", "libnvidia-ml", "libnvidia-nscq"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_library_has_its_sets() {
        use Capability::{Compute, Graphics, Utility};
        for (stem, sets) in [
            ("libcuda", &[Compute][..]),
            ("libcudadebugger", &[Compute]),
            ("libnvidia-something-new", &[Compute]),
            ("libnvidia-ml", &[Utility]),
            ("libGLX_nvidia", &[Graphics]),
            ("libnvidia-glcore", &[Graphics]),
            ("libnvidia-glvkspirv", &[Compute, Graphics]),
            ("libnvidia-gpucomp", &[Compute, Graphics]),
        ] {
            assert_eq!(of_library(stem), sets, "{stem}");
        }
    }
}
