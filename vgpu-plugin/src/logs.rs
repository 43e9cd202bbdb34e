//! Logs, to standard error.

use std::io::Write as _;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::args::LogFormat;

/// Starts logging; `VGPU_LOG` filters it (`debug`, `info,vgpu_node=debug`). A second call does nothing.
pub(crate) fn start(format: LogFormat) {
    let (filter, mistake) = filter(std::env::var("VGPU_LOG").ok().as_deref());
    let registry = tracing_subscriber::registry().with(filter);
    let logs = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Json => registry.with(logs.json()).try_init(),
        LogFormat::Text => registry.with(logs.with_ansi(false)).try_init(),
    };
    if let Err(error) = started {
        tracing::debug!(%error, "logging was started by somebody else");
    }
    if let Some(mistake) = mistake {
        tracing::warn!(mistake, "VGPU_LOG is not understood; logging from info on");
    }
}

fn filter(asked: Option<&str>) -> (Targets, Option<String>) {
    let usual = || Targets::new().with_default(LevelFilter::INFO);
    match asked.map(str::parse) {
        None => (usual(), None),
        Some(Ok(targets)) => (targets, None),
        Some(Err(error)) => (usual(), Some(error.to_string())),
    }
}

/// Tells a person why a command failed, in one line.
pub fn complain(error: &anyhow::Error) {
    let _ = writeln!(std::io::stderr(), "vgpu-plugin: {error:#}");
}
