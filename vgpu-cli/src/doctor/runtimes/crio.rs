//! CRI-O's settings, and the OCI hooks that it runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::doctor::reader::Reader;
use crate::doctor::runtimes::{Settings, is_nvidia};

const MAIN: &str = "/etc/crio/crio.conf";
const MORE: &str = "/etc/crio/crio.conf.d";
const HOOKS: [&str; 2] = ["/etc/containers/oci/hooks.d", "/usr/share/containers/oci/hooks.d"];

#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(default)]
    crio: Crio,
}

#[derive(Debug, Default, Deserialize)]
struct Crio {
    #[serde(default)]
    runtime: Section,
}

#[derive(Debug, Default, Deserialize)]
struct Section {
    default_runtime: Option<String>,
    cdi_spec_dirs: Option<Vec<String>>,
    #[serde(default)]
    runtimes: BTreeMap<String, Runtime>,
}

#[derive(Debug, Default, Deserialize)]
struct Runtime {
    runtime_path: Option<String>,
}

/// What the main file and those that are dropped in come to; later names win.
pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Settings> {
    let mut files = vec![PathBuf::from(MAIN)];
    files.extend(reader.paths(Path::new(MORE)));
    let mut settings: Option<Settings> = None;
    for path in files {
        let Some(file) = reader.toml::<File>(&path) else { continue };
        let section = file.crio.runtime;
        let settings = settings.get_or_insert_with(|| Settings {
            name: "cri-o",
            file: path.clone(),
            ..Settings::default()
        });
        if section.default_runtime.is_some() || section.cdi_spec_dirs.is_some() {
            settings.file = path;
        }
        settings.default = section.default_runtime.or(settings.default.take());
        settings.cdi_dirs = section.cdi_spec_dirs.or(settings.cdi_dirs.take());
        for (name, runtime) in section.runtimes {
            if is_nvidia(&name, runtime.runtime_path.as_deref()) {
                settings.nvidia.push(name);
            }
        }
    }
    settings
}

/// Hooks of NVIDIA's container library: they look at every container's environment.
pub(crate) fn hooks(reader: &mut Reader<'_>) -> Vec<PathBuf> {
    let is_nvidia = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.contains("nvidia") && name.ends_with(".json")
    };
    HOOKS.iter().flat_map(|folder| reader.paths(Path::new(folder))).filter(is_nvidia).collect()
}
