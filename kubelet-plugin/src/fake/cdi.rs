//! What a container runtime does with CDI names: find each in the spec files, now.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::fake::pod::ResolvedDevice;

/// Resolves names as a runtime does when it creates a container; the error is its text.
pub(crate) fn resolve(
    folders: &[PathBuf],
    names: &[String],
) -> Result<Vec<ResolvedDevice>, String> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let specs: Vec<Vec<Spec>> = folders.iter().map(|folder| read(folder)).collect();
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for name in names {
        // A later folder has precedence; within one folder a name in two files is a conflict and unusable.
        let candidates = specs
            .iter()
            .rev()
            .map(|specs| specs.iter().filter_map(|spec| spec.device(name)).collect::<Vec<_>>());
        let mut candidates = candidates.filter(|found| !found.is_empty());
        match candidates.next() {
            Some(mut devices) if devices.len() == 1 => found.extend(devices.pop()),
            _ => missing.push(name.as_str()),
        }
    }
    if missing.is_empty() {
        return Ok(found);
    }
    Err(format!(
        "failed to create containerd container: CDI device injection failed: unresolvable CDI devices {}",
        missing.join(", ")
    ))
}

struct Spec {
    file: PathBuf,
    content: Value,
}

impl Spec {
    fn device(&self, name: &str) -> Option<ResolvedDevice> {
        let kind = self.content.get("kind")?.as_str()?;
        let short = name.strip_prefix(kind)?.strip_prefix('=')?;
        let devices = self.content.get("devices")?.as_array()?;
        let device =
            devices.iter().find(|d| d.get("name").and_then(Value::as_str) == Some(short))?;
        Some(ResolvedDevice {
            name: name.to_owned(),
            file: self.file.clone(),
            spec_edits: self.content.get("containerEdits").cloned().unwrap_or(Value::Null),
            device_edits: device.get("containerEdits").cloned().unwrap_or(Value::Null),
        })
    }
}

/// Every readable spec in a folder; a file that is not one is passed over, as runtimes do.
fn read(folder: &Path) -> Vec<Spec> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let files = entries.flatten().map(|entry| entry.path());
    let json = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    json.filter_map(|file| {
        let bytes = std::fs::read(&file).ok()?;
        match serde_json::from_slice(&bytes) {
            Ok(content) => Some(Spec { file, content }),
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "not a CDI spec");
                None
            }
        }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(env: &str) -> String {
        format!(
            r#"{{"cdiVersion":"0.5.0","kind":"vgpu.dev/slot","devices":[{{"name":"a","containerEdits":{{"env":["{env}"]}}}}]}}"#
        )
    }

    #[test]
    fn later_folders_win_and_conflicts_lose() {
        let root = tempfile::tempdir().unwrap();
        let folders = [root.path().join("etc"), root.path().join("run"), root.path().join("none")];
        let names = ["vgpu.dev/slot=a".to_owned()];
        for folder in &folders[..2] {
            std::fs::create_dir(folder).unwrap();
        }
        let error = resolve(&folders, &names).unwrap_err();
        assert!(error.ends_with("unresolvable CDI devices vgpu.dev/slot=a"), "{error}");

        std::fs::write(folders[0].join("a.json"), spec("FROM=etc")).unwrap();
        let edits = |env| serde_json::json!({ "env": [env] });
        assert_eq!(resolve(&folders, &names).unwrap()[0].device_edits, edits("FROM=etc"));

        std::fs::write(folders[1].join("a.json"), spec("FROM=run")).unwrap();
        std::fs::write(folders[1].join("half.json"), "{").unwrap();
        std::fs::write(folders[1].join("b.json.tmp"), spec("FROM=tmp")).unwrap();
        assert_eq!(resolve(&folders, &names).unwrap()[0].device_edits, edits("FROM=run"));

        std::fs::write(folders[1].join("b.json"), spec("FROM=other")).unwrap();
        assert!(resolve(&folders, &names).is_err());
    }
}
