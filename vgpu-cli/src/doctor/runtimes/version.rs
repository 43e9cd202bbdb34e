//! Which runtime answers, and what becomes of CDI names there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use vgpu_kubelet_plugin::{CdiSupport, RuntimeVersion};

use crate::doctor::catalogue::Check;
use crate::doctor::finding::Finding;
use crate::doctor::places::Places;
use crate::doctor::runtimes::{Facts, Settings};

/// For one question to the runtime.
const PATIENCE: Duration = Duration::from_secs(5);

/// From containerd's form 3 on, it is containerd 2.
const FORM_OF_CONTAINERD_2: i64 = 3;

/// Who answers on the runtime's socket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Asked {
    /// This one.
    Answers(RuntimeVersion),
    /// There is no socket.
    #[default]
    Nobody,
    /// There is a socket, and this is why there is no answer.
    Silent(PathBuf, String),
}

/// Asks for the version, as the agent does.
pub(crate) fn ask(places: &Places) -> Asked {
    let usual = RuntimeVersion::USUAL.iter().map(|path| Path::new("/").join(path));
    let socket = match &places.runtime_endpoint {
        Some(named) => Some(named.clone()),
        None => usual.into_iter().find(|path| places.tree.has(path)),
    };
    let Some(socket) = socket else { return Asked::Nobody };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let answer = runtime.map_err(|e| e.to_string()).and_then(|runtime| {
        let found = places.tree.find(&socket);
        runtime.block_on(RuntimeVersion::ask(&found, PATIENCE)).map_err(|e| e.to_string())
    });
    match answer {
        Ok(version) => Asked::Answers(version),
        Err(why) => Asked::Silent(socket, why),
    }
}

/// Whether CDI names are resolved.
pub(crate) fn judge(facts: &Facts) -> Vec<Finding> {
    match &facts.asked {
        Asked::Answers(runtime) => of_version(runtime, &facts.runtimes),
        Asked::Nobody if facts.runtimes.is_empty() => {
            let what = "no container runtime is found; whether it resolves CDI names is not known";
            let remedy = "name its CRI socket with --runtime-endpoint";
            vec![Finding::new(Check::CdiUnknown, what).so(remedy)]
        }
        Asked::Nobody => facts.runtimes.iter().filter_map(of_files).collect(),
        Asked::Silent(socket, why) => {
            let what = format!("which version the runtime has is not known: {why}");
            let unknown = Finding::new(Check::CdiUnknown, what)
                .at(socket.display())
                .so("start the runtime, or run as root");
            let off = facts.runtimes.iter().filter_map(switched_off);
            std::iter::once(unknown).chain(off).collect()
        }
    }
}

fn of_version(runtime: &RuntimeVersion, files: &[Settings]) -> Vec<Finding> {
    let RuntimeVersion { name, version } = runtime;
    let settings = files.iter().find(|s| s.name == name);
    let on = settings.and_then(|s| s.enable_cdi);
    let found = match runtime.cdi() {
        CdiSupport::Silent => {
            let what = format!(
                "{name} {version} ignores CDI names silently: containers would start without their devices"
            );
            let remedy = "use containerd 2.0 (1.7 with enable_cdi), or CRI-O 1.23, or newer";
            Some(Finding::new(Check::RuntimeTooOld, what).so(remedy))
        }
        CdiSupport::IfConfigured if on != Some(true) => {
            let what = format!(
                "{name} {version} resolves CDI names only where it is told to, and it is not"
            );
            let finding = Finding::new(Check::CdiOff, what)
                .so("set enable_cdi = true in the CRI plugin's part, and restart it");
            Some(match settings {
                Some(settings) => finding.at(settings.file.display()),
                None => finding,
            })
        }
        CdiSupport::Unknown => {
            let what = format!("whether {name} {version} resolves CDI names is not known");
            Some(Finding::new(Check::CdiUnknown, what).so("look into its documentation"))
        }
        CdiSupport::On if name == "containerd" && always_on(version) => None,
        CdiSupport::IfConfigured | CdiSupport::On => settings.and_then(switched_off),
    };
    found.into_iter().collect()
}

/// From 2.4 on containerd passes over `enable_cdi`.
fn always_on(version: &str) -> bool {
    let mut numbers =
        version.trim_start_matches('v').split('.').map_while(|n| n.parse::<u32>().ok());
    matches!((numbers.next(), numbers.next()), (Some(major), Some(minor)) if (major, minor) >= (2, 4))
}

/// Without an answer, the file's form tells containerd 2 from those before it.
fn of_files(settings: &Settings) -> Option<Finding> {
    if let Some(off) = switched_off(settings) {
        return Some(off);
    }
    let is_new = settings.version.is_some_and(|form| form >= FORM_OF_CONTAINERD_2);
    if settings.name != "containerd" || is_new || settings.enable_cdi == Some(true) {
        return None;
    }
    let what = "whether containerd resolves CDI names is not known: it does not run, and only containerd 2 does so \
                without enable_cdi = true";
    let remedy = "start it and look again, or set enable_cdi = true";
    Some(Finding::new(Check::CdiUnknown, what).at(settings.file.display()).so(remedy))
}

fn switched_off(settings: &Settings) -> Option<Finding> {
    if settings.enable_cdi != Some(false) {
        return None;
    }
    let what = format!(
        "{} is told not to resolve CDI names: containers would start without their devices",
        settings.name
    );
    let remedy = "set enable_cdi = true (or leave it out from containerd 2.0 on), and restart it";
    Some(Finding::new(Check::CdiOff, what).at(settings.file.display()).so(remedy))
}
