//! The container runtime: whether it resolves our CDI names, and whether it hands out cards by itself.

mod containerd;
mod crio;
mod docker;
mod nvidia;
mod version;

use std::path::{Path, PathBuf};

use crate::backends::Name;
use crate::doctor::catalogue::Check;
use crate::doctor::finding::{Finding, Topic};
use crate::doctor::places::Places;
use crate::doctor::reader::Reader;

pub(crate) use version::{Asked, ask};

/// What the runtimes' files say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// Who answers on the CRI socket.
    pub(crate) asked: Asked,
    /// One for each runtime that is configured.
    pub(crate) runtimes: Vec<Settings>,
    /// NVIDIA's container runtime.
    pub(crate) nvidia: nvidia::Settings,
    /// `default-runtime` of docker, and its file.
    pub(crate) docker: Option<(String, PathBuf)>,
    /// OCI hooks that put cards into containers by their environment.
    pub(crate) hooks: Vec<PathBuf>,
}

/// What a runtime that the kubelet uses is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `containerd` or `cri-o`.
    pub(crate) name: &'static str,
    /// Its main file.
    pub(crate) file: PathBuf,
    /// Of the file's form; containerd 1 writes 1 and 2, containerd 2 writes 3 and more.
    pub(crate) version: Option<i64>,
    /// Whether CDI is switched on or off.
    pub(crate) enable_cdi: Option<bool>,
    /// Where it looks for specs, if it is told.
    pub(crate) cdi_dirs: Option<Vec<String>>,
    /// The runtime of containers that name none.
    pub(crate) default: Option<String>,
    /// Names of runtimes that are NVIDIA's.
    pub(crate) nvidia: Vec<String>,
}

/// Reads what is configured; `asked` is who answers.
pub(crate) fn read(reader: &mut Reader<'_>, asked: Asked) -> Facts {
    let mut runtimes = containerd::read(reader);
    runtimes.extend(crio::read(reader));
    Facts {
        asked,
        runtimes,
        nvidia: nvidia::read(reader),
        docker: docker::read(reader),
        hooks: crio::hooks(reader),
    }
}

/// What of it keeps devices from containers, or gives them to all.
pub(crate) fn judge(facts: &Facts, places: &Places) -> Vec<Finding> {
    let mut found = version::judge(facts);
    for settings in &facts.runtimes {
        found.extend(directories(settings, &places.cdi_dir));
    }
    if places.serves(Name::Nvidia) {
        found.extend(nvidia::judge(facts));
    }
    if found.is_empty() {
        let what = "the runtime resolves our CDI names and hands out no card by itself";
        found.push(Finding::new(Check::Fine(Topic::Runtime), what));
    }
    found
}

fn directories(settings: &Settings, ours: &Path) -> Option<Finding> {
    let usual = || ["/etc/cdi", "/var/run/cdi"].map(str::to_owned).to_vec();
    let dirs = settings.cdi_dirs.clone().unwrap_or_else(usual);
    if dirs.iter().any(|dir| plain(Path::new(dir)) == plain(ours)) {
        return None;
    }
    let what = format!(
        "{} looks for CDI specs in {} and not in {}: containers of ours would not start",
        settings.name,
        if dirs.is_empty() { "no folder".to_owned() } else { dirs.join(", ") },
        ours.display()
    );
    let remedy = format!(
        "add {} to cdi_spec_dirs, or give the agent one of these as --cdi-dir",
        ours.display()
    );
    Some(Finding::new(Check::CdiDirUnread, what).at(settings.file.display()).so(remedy))
}

/// `/var/run` is `/run` everywhere.
fn plain(dir: &Path) -> PathBuf {
    let dir: PathBuf = dir.components().collect();
    match dir.strip_prefix("/var/run") {
        Ok(rest) => Path::new("/run").join(rest),
        Err(_) => dir,
    }
}

/// Whether a runtime is NVIDIA's, by its name or by its program.
fn is_nvidia(name: &str, program: Option<&str>) -> bool {
    let program = program.and_then(|p| p.rsplit('/').next()).unwrap_or_default();
    program.starts_with("nvidia-container-runtime") || (program.is_empty() && name == "nvidia")
}
