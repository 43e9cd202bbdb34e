//! Logs, to standard error.

use std::io::Write as _;

use tracing_subscriber::EnvFilter;

use crate::args::LogFormat;

/// Starts logging; `VGPU_LOG` filters it (`debug`, `vgpu_node=debug`). A second call does nothing.
pub(crate) fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_env("VGPU_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    let started = match format {
        LogFormat::Json => logs.json().try_init(),
        LogFormat::Text => logs.with_ansi(false).try_init(),
    };
    if let Err(error) = started {
        tracing::debug!(%error, "logging was started by somebody else");
    }
}

/// Tells a person why a command failed, in one line.
pub fn complain(error: &anyhow::Error) {
    let _ = writeln!(std::io::stderr(), "vgpu-plugin: {error:#}");
}
