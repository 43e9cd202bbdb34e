//! The program as a runtime calls it, and the trees it works on.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A container that is being made: a bundle with a root, and a `/proc` to look into.
#[derive(Debug)]
pub(crate) struct Bundle {
    pub(crate) folder: TempDir,
}

/// How a call ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) ok: bool,
    pub(crate) stderr: String,
    pub(crate) stdout: String,
}

impl Bundle {
    pub(crate) fn new() -> Self {
        let bundle = Self { folder: tempfile::tempdir().expect("a folder") };
        fs::create_dir(bundle.root()).expect("a root");
        bundle.write("config.json", &json!({ "root": { "path": "rootfs" } }).to_string());
        bundle
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.path().join("rootfs")
    }

    /// Writes a file, named from the bundle, and the folders above it.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().expect("below the bundle")).expect("folders");
        fs::write(path, text).expect("a file");
    }

    /// The container is `main` of its pod, and has these device rules.
    pub(crate) fn allow(&self, rules: &Value) {
        let config = json!({
            "ociVersion": "1.2.1",
            "process": { "args": ["sh"], "env": ["PATH=/bin"], "cwd": "/" },
            "root": { "path": "rootfs" },
            "annotations": { "io.kubernetes.cri.container-name": "main" },
            "linux": { "namespaces": [{ "type": "pid" }], "resources": { "devices": rules } },
        });
        self.write("config.json", &config.to_string());
    }

    pub(crate) fn symlink(&self, target: &str, path: &str) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().expect("below the bundle")).expect("folders");
        symlink(target, path).expect("a link");
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    pub(crate) fn readlink(&self, path: &str) -> String {
        let target =
            fs::read_link(self.path().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        target.to_string_lossy().into_owned()
    }

    /// Everything in the bundle beside the root and what a test put there, as names.
    pub(crate) fn outside(&self) -> Vec<String> {
        let names = fs::read_dir(self.path())
            .expect("the bundle")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    /// A process in a cgroup of v2, as `/proc` shows it.
    pub(crate) fn process(&self, pid: u32) -> PathBuf {
        self.write(&format!("proc/{pid}/cgroup"), "0::/kubepods.slice/c.scope\n");
        self.symlink("pid:[4026532777]", &format!("proc/{pid}/ns/pid"));
        let mount = "31 24 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n";
        self.write("proc/self/mountinfo", mount);
        self.path().join("proc")
    }

    pub(crate) fn state(&self, pid: u32) -> Value {
        json!({
            "ociVersion": "1.2.0", "id": "c", "status": "creating", "pid": pid, "bundle": self.path(),
        })
    }

    /// Calls the program with this container's state.
    pub(crate) fn call(&self, args: &[&str]) -> Ended {
        call(args, &self.state(77).to_string())
    }
}

/// Serves one connection: reads a line, hands the stream on, and returns the line.
pub(crate) fn agent(
    socket: &Path,
    answer: impl FnOnce(&mut UnixStream) + Send + 'static,
) -> JoinHandle<Value> {
    let listener = UnixListener::bind(socket).expect("a socket");
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).expect("a line");
        answer(&mut stream);
        serde_json::from_str(&line).expect("JSON")
    })
}

pub(crate) fn says(text: &'static str) -> impl FnOnce(&mut UnixStream) + Send {
    move |stream| {
        // The other side may have had enough.
        let _ = stream.write_all(text.as_bytes());
    }
}

/// Calls the program with a text on stdin.
pub(crate) fn call(args: &[&str], stdin: &str) -> Ended {
    let mut child = Command::new(env!("CARGO_BIN_EXE_vgpu-hook"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // A program that refuses its arguments does not read, and the pipe may be broken by then.
    let _ = child.stdin.take().expect("piped").write_all(stdin.as_bytes());
    let output = child.wait_with_output().expect("the program ends");
    Ended {
        ok: output.status.success(),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
    }
}

impl Ended {
    #[track_caller]
    pub(crate) fn succeeded(&self) {
        assert!(self.ok, "{}", self.stderr);
        assert_eq!(self.stderr, "");
    }

    /// Went on, with one line that says `what`.
    #[track_caller]
    pub(crate) fn went_on_saying(&self, what: &str) {
        assert!(self.ok, "it kept the container from starting: {}", self.stderr);
        assert_eq!(self.stderr.lines().count(), 1, "one line: {}", self.stderr);
        assert!(self.stderr.contains(what), "{what:?} is not in {}", self.stderr);
    }

    /// Failed with exit status not 0 and one line that says `what`.
    #[track_caller]
    pub(crate) fn failed_with(&self, what: &str) {
        assert!(!self.ok, "it went well");
        assert_eq!(self.stderr.lines().count(), 1, "one line: {}", self.stderr);
        assert!(self.stderr.starts_with("vgpu-hook"), "{}", self.stderr);
        assert!(self.stderr.contains(what), "{what:?} is not in {}", self.stderr);
    }
}
