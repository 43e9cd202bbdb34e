//! Runs the built command.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// What a run said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// It went well.
    pub(crate) fn good(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// Its stdout as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("no JSON ({e}): {self:?}"))
    }
}

/// The command with these words, apart from the environment of whoever runs the tests.
pub(crate) fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vgpu"));
    command.args(words).env_remove("VGPU_NVML_LIBRARY").env_remove("FAKE_NVML");
    command.env_remove("VGPU_CNDEV_LIBRARY").env_remove("FAKE_CNDEV");
    command.env_remove("VGPU_HYDMI_LIBRARY").env_remove("VGPU_ROCM_SMI_LIBRARY");
    command.env_remove("FAKE_HYDMI");
    command
}

/// Runs it.
pub(crate) fn vgpu(words: &[&str]) -> Said {
    said(&mut command(words))
}

/// Runs it with a text on stdin.
pub(crate) fn vgpu_reads(words: &[&str], text: &[u8]) -> Said {
    let mut command = command(words);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    // One that refuses early closes its end; what it says then is the test.
    let _closed = stdin.write_all(text);
    drop(stdin);
    of(child.wait_with_output().expect("it ends"))
}

/// Runs a prepared command.
pub(crate) fn said(command: &mut Command) -> Said {
    of(command.stdin(Stdio::null()).output().expect("it starts"))
}

/// A library that `cargo build --examples -p vgpu-backend-nvidia` leaves beside the tests.
pub(crate) fn fake_nvml() -> Option<PathBuf> {
    example("libfake_nvml.so")
}

/// What `cargo build --examples` of a backend leaves beside the tests.
pub(crate) fn example(name: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().expect("a test knows its own path");
    let profile = own.parent().and_then(Path::parent).expect("tests lie in target/<profile>/deps");
    let built = profile.join("examples").join(name);
    if built.exists() {
        return Some(built);
    }
    eprintln!("skipped: {} is not built", built.display());
    None
}

fn of(output: std::process::Output) -> Said {
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    let code = output.status.code().expect("it ends by itself");
    Said { code, out: text(output.stdout), err: text(output.stderr) }
}
