//! Whether the container runtime resolves CDI names; where it does not, nothing is registered.

use std::path::{Path, PathBuf};
use std::time::Duration;

use vgpu_kubelet_plugin::{CdiSupport, RuntimeVersion};

/// For one question to the runtime.
const LIMIT: Duration = Duration::from_secs(5);

/// Between two questions to a runtime that is away, or too old.
const AGAIN: Duration = Duration::from_secs(10);

/// Waits until the runtime is one that resolves CDI names, saying why as long as it is not.
///
/// Containers would otherwise start without their devices, and nobody would be told.
pub(crate) async fn resolves_cdi(socket: Option<&Path>, host_root: &Path) {
    let Some(socket) = socket.map(PathBuf::from).or_else(|| usual(host_root)) else {
        tracing::warn!(
            "no container runtime was found; whether it resolves CDI names is not known \
             (name its socket with --runtime-endpoint)"
        );
        return;
    };
    let mut told = String::new();
    loop {
        let why = match RuntimeVersion::ask(&socket, LIMIT).await {
            Ok(runtime) => match judge(&runtime) {
                Ok(()) => return,
                Err(why) => why,
            },
            Err(error) => error.to_string(),
        };
        if told != why {
            tracing::error!(why, "nothing is registered with the kubelet");
            told = why;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn judge(runtime: &RuntimeVersion) -> Result<(), String> {
    let RuntimeVersion { name, version } = runtime;
    match runtime.cdi() {
        CdiSupport::On => tracing::info!(name, version, "the container runtime resolves CDI names"),
        CdiSupport::IfConfigured => tracing::warn!(
            name,
            version,
            "this container runtime resolves CDI names only with enable_cdi = true in its configuration"
        ),
        CdiSupport::Silent => {
            return Err(format!(
                "{name} {version} ignores CDI names silently: containers would start without their \
                 devices; use containerd 2.0 (1.7 with enable_cdi), or CRI-O 1.23, or newer"
            ));
        }
        CdiSupport::Unknown => {
            tracing::warn!(
                name,
                version,
                "whether this container runtime resolves CDI names is not known"
            );
        }
    }
    Ok(())
}

fn usual(host_root: &Path) -> Option<PathBuf> {
    RuntimeVersion::USUAL.iter().map(|path| host_root.join(path)).find(|path| path.exists())
}
