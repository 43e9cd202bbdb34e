//! NVIDIA's container runtime: whether a container gets cards by its environment.

use std::path::Path;

use serde::Deserialize;

use crate::doctor::catalogue::Check;
use crate::doctor::finding::Finding;
use crate::doctor::reader::Reader;
use crate::doctor::runtimes::Facts;

const FILE: &str = "/etc/nvidia-container-runtime/config.toml";

/// What the runtime is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Whether a container without privileges gets the cards that its environment names.
    pub(crate) takes_env: bool,
}

impl Default for Settings {
    fn default() -> Self {
        // So it is where nobody says otherwise.
        Self { takes_env: true }
    }
}

#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(rename = "accept-nvidia-visible-devices-envvar-when-unprivileged")]
    takes_env: Option<bool>,
}

/// Reads its file; what is not said, or cannot be read, counts as its default.
pub(crate) fn read(reader: &mut Reader<'_>) -> Settings {
    let file: Option<File> = reader.toml(Path::new(FILE));
    Settings { takes_env: file.and_then(|f| f.takes_env).unwrap_or(true) }
}

/// Where it gives cards to containers that nobody gave any.
pub(crate) fn judge(facts: &Facts) -> Vec<Finding> {
    let refuse = format!(
        "set accept-nvidia-visible-devices-envvar-when-unprivileged = false in {FILE}, or make another runtime the default"
    );
    let mut found = Vec::new();
    for settings in &facts.runtimes {
        let at = settings.file.display();
        let name = settings.name;
        let default = settings.default.as_ref();
        let is_default = default.is_some_and(|d| d == "nvidia" || settings.nvidia.contains(d));
        match (is_default, facts.nvidia.takes_env) {
            (true, true) => {
                let what = format!(
                    "{name} starts every container with NVIDIA's runtime, which gives all cards to each that has \
                     NVIDIA_VISIBLE_DEVICES=all; CUDA's images have it"
                );
                found.push(Finding::new(Check::NvidiaByDefault, what).at(&at).so(&refuse));
            }
            (true, false) => {
                let what = format!(
                    "{name} starts every container with NVIDIA's runtime; privileged ones still get all cards by \
                     NVIDIA_VISIBLE_DEVICES"
                );
                found.push(Finding::new(Check::NvidiaPrivileged, what).at(&at));
            }
            (false, true) if !settings.nvidia.is_empty() => {
                let what = format!(
                    "pods whose runtime class is {} get all cards by NVIDIA_VISIBLE_DEVICES=all, whatever vgpu gave out",
                    settings.nvidia.join(" or ")
                );
                let remedy = format!(
                    "set accept-nvidia-visible-devices-envvar-when-unprivileged = false in {FILE}, or forbid the runtime class"
                );
                found.push(Finding::new(Check::NvidiaByName, what).at(&at).so(remedy));
            }
            (false, _) => {}
        }
    }
    if facts.nvidia.takes_env {
        found.extend(facts.hooks.iter().map(|hook| {
            let what = "an OCI hook of NVIDIA's gives all cards to containers that have NVIDIA_VISIBLE_DEVICES=all";
            let remedy = "remove the hook; vgpu's specs need none of NVIDIA's programs";
            Finding::new(Check::OciHook, what).at(hook.display()).so(remedy)
        }));
        found.extend(facts.docker.iter().map(|(name, file)| {
            let what = format!(
                "docker starts every container with {name}, and gives all cards to each that has NVIDIA_VISIBLE_DEVICES=all"
            );
            Finding::new(Check::DockerDefault, what).at(file.display()).so(&refuse)
        }));
    }
    found
}
