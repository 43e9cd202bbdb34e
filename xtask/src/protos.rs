//! Rust code for the kubelet's protocols, from our own .proto files, without protoc.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

const PROTO_DIR: &str = "kubelet-plugin/proto";
const OUTPUT_DIR: &str = "kubelet-plugin/src/gen";

/// Each file is compiled alone, because two of the kubelet's protocols call their package `v1`.
const PROTOS: &[Proto] = &[
    Proto {
        file: "deviceplugin_v1beta1.proto",
        package: "v1beta1",
        output: "device_plugin_v1beta1.rs",
    },
    Proto { file: "podresources_v1.proto", package: "v1", output: "pod_resources_v1.rs" },
    Proto { file: "runtime_v1.proto", package: "runtime.v1", output: "runtime_v1.rs" },
];

struct Proto {
    file: &'static str,
    package: &'static str,
    output: &'static str,
}

/// Writes the Rust code of every protocol, or with `--check` only says whether the committed code is what the .proto
/// files give.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let check = match args {
        [] => false,
        [flag] if flag == "--check" => true,
        _ => bail!("protos takes nothing or --check, not {:?}", args.join(" ")),
    };
    let root = crate::workspace_root();
    let mut drifted = Vec::new();
    for proto in PROTOS {
        let output = root.join(OUTPUT_DIR).join(proto.output);
        let made = generate(&root.join(PROTO_DIR), proto)?;
        if !check {
            write(&output, &made)?;
        } else if fs::read_to_string(&output).ok().as_deref() != Some(made.as_str()) {
            drifted.push(format!("{OUTPUT_DIR}/{}", proto.output));
        }
    }
    ensure!(
        drifted.is_empty(),
        "{} is not what {PROTO_DIR} gives; run `cargo xtask protos` and commit the result",
        drifted.join(" and ")
    );
    crate::say(if check { "protos: up to date" } else { "protos: written" });
    Ok(())
}

/// The text that belongs into the committed file.
fn generate(proto_dir: &Path, proto: &Proto) -> Result<String> {
    let descriptors = protox::compile([proto_dir.join(proto.file)], [proto_dir])
        .map_err(|error| anyhow::anyhow!("{}: {error:?}", proto.file))?;
    let scratch = Scratch::new(proto.package)?;
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        .out_dir(&scratch.0)
        .compile_fds(descriptors)
        .with_context(|| format!("cannot generate code for {}", proto.file))?;
    let made = scratch.0.join(format!("{}.rs", proto.package));
    fs::read_to_string(&made).with_context(|| format!("cannot read {}", made.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// A folder of this process's own that goes away with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(label: &str) -> Result<Self> {
        let path =
            std::env::temp_dir().join(format!("vgpu-xtask-protos-{label}-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left in the folder for temporary files is not worth an error.
        let _ = fs::remove_dir_all(&self.0);
    }
}
