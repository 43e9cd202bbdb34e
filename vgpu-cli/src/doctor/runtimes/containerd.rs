//! containerd's settings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::doctor::reader::Reader;
use crate::doctor::runtimes::{Settings, is_nvidia};

/// The main file where it usually lies, and where distributions of Kubernetes put it.
const FILES: [&str; 4] = [
    "/etc/containerd/config.toml",
    "/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
    "/var/lib/rancher/rke2/agent/etc/containerd/config.toml",
    "/var/snap/microk8s/current/args/containerd.toml",
];

/// The CRI plugin by its name in each form of the file.
const CRI: [&str; 3] = ["io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri", "cri"];

#[derive(Debug, Default, Deserialize)]
struct File {
    version: Option<i64>,
    #[serde(default)]
    imports: Vec<String>,
    #[serde(default)]
    plugins: BTreeMap<String, toml::Value>,
}

#[derive(Debug, Default, Deserialize)]
struct Cri {
    enable_cdi: Option<bool>,
    cdi_spec_dirs: Option<Vec<String>>,
    #[serde(default)]
    containerd: Runtimes,
}

#[derive(Debug, Default, Deserialize)]
struct Runtimes {
    default_runtime_name: Option<String>,
    #[serde(default)]
    runtimes: BTreeMap<String, Runtime>,
}

#[derive(Debug, Default, Deserialize)]
struct Runtime {
    #[serde(default)]
    options: Options,
}

#[derive(Debug, Default, Deserialize)]
struct Options {
    #[serde(rename = "BinaryName")]
    binary_name: Option<String>,
}

/// What each main file and its imports come to.
pub(crate) fn read(reader: &mut Reader<'_>) -> Vec<Settings> {
    FILES.iter().filter_map(|file| of(reader, Path::new(file))).collect()
}

fn of(reader: &mut Reader<'_>, path: &Path) -> Option<Settings> {
    let file: File = reader.toml(path)?;
    let mut settings = Settings {
        name: "containerd",
        file: path.to_owned(),
        version: Some(file.version.unwrap_or(1)),
        ..Settings::default()
    };
    let imports: Vec<PathBuf> =
        file.imports.iter().flat_map(|import| imported(reader, path, import)).collect();
    add(reader, &mut settings, path, file);
    for import in imports.into_iter().filter(|import| import != path) {
        // An import's own imports are not followed: nobody writes them, and they could go round.
        if let Some(file) = reader.toml::<File>(&import) {
            add(reader, &mut settings, &import, file);
        }
    }
    Some(settings)
}

/// What a file says wins over what those before it said.
fn add(reader: &mut Reader<'_>, settings: &mut Settings, path: &Path, mut file: File) {
    for name in CRI {
        let Some(value) = file.plugins.remove(name) else { continue };
        let Some(cri) = reader.made(path, value.try_into::<Cri>()) else { continue };
        settings.enable_cdi = cri.enable_cdi.or(settings.enable_cdi);
        settings.cdi_dirs = cri.cdi_spec_dirs.or(settings.cdi_dirs.take());
        settings.default = cri.containerd.default_runtime_name.or(settings.default.take());
        for (name, runtime) in cri.containerd.runtimes {
            if is_nvidia(&name, runtime.options.binary_name.as_deref()) {
                settings.nvidia.push(name);
            }
        }
    }
}

/// The files of an import: one, or those of a folder whose names fit a pattern with one `*`.
fn imported(reader: &mut Reader<'_>, main: &Path, import: &str) -> Vec<PathBuf> {
    let beside = main.parent().unwrap_or(Path::new("/"));
    let whole = beside.join(import);
    let Some(pattern) = whole.file_name().and_then(|n| n.to_str()) else { return Vec::new() };
    let Some((head, tail)) = pattern.split_once('*') else { return vec![whole] };
    let folder = whole.parent().unwrap_or(Path::new("/"));
    let fits = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.len() >= head.len() + tail.len() && name.starts_with(head) && name.ends_with(tail)
    };
    reader.paths(folder).into_iter().filter(fits).collect()
}
