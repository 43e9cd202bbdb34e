//! A pod image from one static program: an OCI archive, made without any registry.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::cluster::process::output;

/// What pods run, and what holds their sandbox.
pub(crate) const IMAGE: &str = "vgpu.dev/busybox:1";

/// Names under which the one program is found.
const APPLETS: [&str; 18] = [
    "cat", "date", "dd", "echo", "env", "find", "grep", "id", "ls", "mount", "ps", "readlink",
    "sed", "sh", "sleep", "stat", "test", "true",
];

/// Writes an archive that `ctr images import` takes.
pub(crate) fn write(busybox: &Path, archive: &Path, scratch: &Path) -> Result<()> {
    let root = scratch.join("rootfs");
    let layout = scratch.join("layout");
    let blobs = layout.join("blobs/sha256");
    for dir in [&root.join("bin"), &root.join("tmp"), &blobs] {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let program = root.join("bin/busybox");
    fs::copy(busybox, &program).context("cannot copy busybox")?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    let layer = scratch.join("layer.tar");
    pack(&root, &layer)?;
    let diff_id = digest(&layer)?;
    let layer = blob(&blobs, &fs::read(&layer)?, scratch)?;
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {"Entrypoint": ["/bin/sleep", "2147483647"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff_id}")]},
    });
    let config = blob(&blobs, &serde_json::to_vec(&config)?, scratch)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
        "layers": [layer.descriptor("application/vnd.oci.image.layer.v1.tar")],
    });
    let manifest = blob(&blobs, &serde_json::to_vec(&manifest)?, scratch)?;
    let mut entry = manifest.descriptor("application/vnd.oci.image.manifest.v1+json");
    entry["annotations"] = json!({"io.containerd.image.name": IMAGE});
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    fs::write(layout.join("index.json"), serde_json::to_vec(&index)?)?;
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    pack(&layout, archive)
}

/// A file in the layout, named by its digest.
struct Blob {
    digest: String,
    size: usize,
}

impl Blob {
    fn descriptor(&self, media_type: &str) -> serde_json::Value {
        json!({"mediaType": media_type, "digest": format!("sha256:{}", self.digest), "size": self.size})
    }
}

fn blob(blobs: &Path, bytes: &[u8], scratch: &Path) -> Result<Blob> {
    let new = scratch.join("blob");
    fs::write(&new, bytes)?;
    let digest = digest(&new)?;
    fs::rename(&new, blobs.join(&digest))?;
    Ok(Blob { digest, size: bytes.len() })
}

fn digest(file: &Path) -> Result<String> {
    let text = output("sha256sum", [file])?;
    let word = text.split_whitespace().next().context("sha256sum printed nothing")?;
    Ok(word.to_owned())
}

fn pack(dir: &Path, archive: &Path) -> Result<()> {
    let (archive, dir) = (archive.as_os_str(), dir.as_os_str());
    output(
        "tar",
        [
            "--owner=0".as_ref(),
            "--group=0".as_ref(),
            "-cf".as_ref(),
            archive,
            "-C".as_ref(),
            dir,
            ".".as_ref(),
        ],
    )?;
    Ok(())
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
