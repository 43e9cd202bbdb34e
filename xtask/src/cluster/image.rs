//! A pod image from one static program: an OCI archive, made without any registry.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::cluster::process::output;

/// What pods run, and what holds their sandbox.
pub(crate) const IMAGE: &str = "vgpu.dev/busybox:1";

/// The same with our agent and the machine's libraries that it needs.
pub(crate) const AGENT_IMAGE: &str = "vgpu.dev/agent:1";

/// Names under which the one program is found.
const APPLETS: [&str; 18] = [
    "cat", "date", "dd", "echo", "env", "find", "grep", "id", "ls", "mount", "ps", "readlink",
    "sed", "sh", "sleep", "stat", "test", "true",
];

/// What goes into an image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Contents<'c> {
    pub(crate) name: &'c str,
    pub(crate) busybox: &'c Path,
    /// Programs for `/bin`, with the libraries that `ldd` names.
    pub(crate) programs: &'c [&'c Path],
}

/// Writes an archive that `ctr images import` takes.
pub(crate) fn write(contents: &Contents<'_>, archive: &Path, scratch: &Path) -> Result<()> {
    let root = scratch.join("rootfs");
    let layout = scratch.join("layout");
    let blobs = layout.join("blobs/sha256");
    for dir in [&root.join("bin"), &root.join("tmp"), &blobs] {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let program = root.join("bin/busybox");
    fs::copy(contents.busybox, &program).context("cannot copy busybox")?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    for program in contents.programs {
        add_program(&root, program)?;
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
    entry["annotations"] = json!({"io.containerd.image.name": contents.name});
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    fs::write(layout.join("index.json"), serde_json::to_vec(&index)?)?;
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    pack(&layout, archive)
}

/// A program with all that its loader looks for, where it looks.
fn add_program(root: &Path, program: &Path) -> Result<()> {
    let name = program.file_name().context("a program has a name")?;
    fs::copy(program, root.join("bin").join(name))
        .with_context(|| format!("cannot copy {}", program.display()))?;
    // A static program has none, and ldd says so by failing.
    let libraries = output("ldd", [program]).unwrap_or_default();
    for path in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        let inside = root.join(path.trim_start_matches('/'));
        let folder = inside.parent().expect("a library lies in a folder");
        fs::create_dir_all(folder)?;
        fs::copy(path, &inside).with_context(|| format!("cannot copy {path}"))?;
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_digest_is_of_its_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let (program, archive) = (dir.path().join("program"), dir.path().join("image.tar"));
        fs::write(&program, "not a program").expect("writes");
        // The test itself stands for a program with libraries.
        let own = std::env::current_exe().expect("this test's program");
        let contents = Contents { name: IMAGE, busybox: &program, programs: &[&own] };
        write(&contents, &archive, &dir.path().join("scratch")).expect("makes an archive");
        let out = dir.path().join("out");
        fs::create_dir(&out).expect("makes");
        let paths = [archive.as_os_str(), "-C".as_ref(), out.as_os_str()];
        output("tar", ["-xf".as_ref()].into_iter().chain(paths)).expect("unpacks");
        let blob = |object: &Value| {
            let digest = object["digest"].as_str().expect("a digest").trim_start_matches("sha256:");
            let file = out.join("blobs/sha256").join(digest);
            let bytes = fs::read(&file).expect("a blob");
            assert_eq!(super::digest(&file).expect("a digest"), digest);
            assert_eq!(object["size"], bytes.len());
            bytes
        };
        let json = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).expect("JSON");
        let index = json(fs::read(out.join("index.json")).expect("an index"));
        let manifest = json(blob(&index["manifests"][0]));
        let layer = blob(&manifest["layers"][0]);
        let config = json(blob(&manifest["config"]));
        let unpacked = out.join("layer.tar");
        fs::write(&unpacked, layer).expect("writes");
        let diff_id = format!("sha256:{}", digest(&unpacked).expect("a digest"));
        assert_eq!(config["rootfs"]["diff_ids"][0], diff_id);
        let names = output("tar", ["-tf".as_ref(), unpacked.as_os_str()]).expect("lists");
        assert!(names.lines().any(|n| n == "./bin/sh"), "{names}");
        assert!(names.lines().any(|n| n.contains("libc.so")), "{names}");
    }
}
