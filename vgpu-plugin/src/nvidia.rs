//! The `nvidia` part of the configuration.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use vgpu_backend_nvidia::{Capability, Delivery, NvidiaOptions};

/// Where NVIDIA's driver lies, and how much of it containers get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct NvidiaConfig {
    /// Where the driver's files lie on the host: `/`, or where a driver container puts them.
    pub driver_root: PathBuf,
    /// Which sets of them containers get.
    pub capabilities: Vec<Set>,
    /// How they get there.
    pub delivery: Way,
}

/// A set of the driver's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Set {
    /// CUDA and OpenCL.
    Compute,
    /// EGL, OpenGL, Vulkan.
    Graphics,
    /// NVML and `nvidia-smi`.
    Utility,
}

/// How files get into a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// Where the host has them; `vgpu-hook` makes links and the loader's cache.
    Hook,
    /// In one folder, with `LD_LIBRARY_PATH`.
    Hookless,
}

impl NvidiaConfig {
    /// The backend's options.
    ///
    /// # Errors
    /// A sentence that says which key is wrong, and what to write.
    pub fn options(&self) -> Result<NvidiaOptions, String> {
        if !self.driver_root.is_absolute() {
            let told = self.driver_root.display();
            return Err(format!(
                "nvidia.driverRoot is {told}; write an absolute path, for example /run/nvidia/driver"
            ));
        }
        if self.capabilities.is_empty() {
            return Err(
                "nvidia.capabilities is empty, and a container would find no library; name \
                        some of compute, utility and graphics"
                    .into(),
            );
        }
        let capability = |set: &Set| match set {
            Set::Compute => Capability::Compute,
            Set::Graphics => Capability::Graphics,
            Set::Utility => Capability::Utility,
        };
        Ok(NvidiaOptions {
            driver_root: self.driver_root.clone(),
            capabilities: self.capabilities.iter().map(capability).collect(),
            delivery: match self.delivery {
                Way::Hook => Delivery::Hook,
                Way::Hookless => Delivery::Hookless,
            },
            ..NvidiaOptions::default()
        })
    }
}

impl Default for NvidiaConfig {
    fn default() -> Self {
        Self {
            driver_root: PathBuf::from("/"),
            capabilities: vec![Set::Compute, Set::Utility],
            delivery: Way::Hook,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_is_what_the_backend_does_by_itself() {
        assert_eq!(NvidiaConfig::default().options(), Ok(NvidiaOptions::default()));
    }
}
