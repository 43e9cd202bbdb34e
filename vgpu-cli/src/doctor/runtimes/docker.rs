//! Docker's settings: containers beside Kubernetes, or under cri-dockerd.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::doctor::reader::Reader;
use crate::doctor::runtimes::is_nvidia;

const FILE: &str = "/etc/docker/daemon.json";

#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(rename = "default-runtime")]
    default: Option<String>,
    #[serde(default)]
    runtimes: BTreeMap<String, Runtime>,
}

#[derive(Debug, Default, Deserialize)]
struct Runtime {
    path: Option<String>,
}

/// The default runtime, where it is NVIDIA's.
pub(crate) fn read(reader: &mut Reader<'_>) -> Option<(String, PathBuf)> {
    let file: File = reader.json(Path::new(FILE))?;
    let name = file.default?;
    let program = file.runtimes.get(&name).and_then(|runtime| runtime.path.as_deref());
    is_nvidia(&name, program).then(|| (name, FILE.into()))
}
