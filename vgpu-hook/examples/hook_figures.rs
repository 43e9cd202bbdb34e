//! What `vgpu-hook notice` and `confine` cost a container: the whole process, as a runtime starts it. The agent is a stand-in
//! that says yes at once.
//!
//! `hook_figures HOOK [CONFIG]`: the program, and a `config.json` that a runtime wrote. Without the latter, one of the size
//! that containerd writes for a pod with a hundred variables.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const ROUNDS: usize = 300;

fn main() -> std::io::Result<()> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let hook = args.next().expect("usage: hook_figures HOOK [CONFIG]");
    let config = args.next().map_or_else(|| Ok(made()), fs::read)?;
    let bundle = tempfile::tempdir()?;
    fs::write(bundle.path().join("config.json"), &config)?;
    let state = json!({"ociVersion": "1.2.1", "id": "c", "status": "creating", "pid": 1, "bundle": bundle.path()});
    let state = state.to_string();
    tell("a process that does nothing (vgpu-hook version)", || run(&hook, &["version"], ""))?;
    let notice = ["notice", "vgpu-0", "--socket", "/nonexistent/hook.sock"];
    tell(&format!("notice, a configuration of {} bytes", config.len()), || {
        run(&hook, &notice, &state)
    })?;
    let proc = processes(bundle.path())?;
    let socket = bundle.path().join("hook.sock");
    agree(UnixListener::bind(&socket)?);
    let [socket, proc] = [&socket, &proc].map(|path| path.to_str().expect("a temporary folder"));
    let confine = ["confine", "vgpu-0", "--socket", socket, "--proc", proc];
    tell("confine, an agent that says yes", || run(&hook, &confine, &state))
}

/// The container's first process, as `/proc` shows it on a host with cgroup v2.
fn processes(folder: &Path) -> std::io::Result<PathBuf> {
    let proc = folder.join("proc");
    fs::create_dir_all(proc.join("1/ns"))?;
    fs::create_dir(proc.join("self"))?;
    fs::write(proc.join("1/cgroup"), "0::/kubepods.slice/c.scope\n")?;
    symlink("pid:[4026532777]", proc.join("1/ns/pid"))?;
    let mount = "31 24 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n";
    fs::write(proc.join("self/mountinfo"), mount)?;
    Ok(proc)
}

/// Answers every line; ends with the process.
fn agree(listener: UnixListener) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).expect("a line");
            stream.write_all(b"{\"ok\":true}\n").expect("it waits for it");
        }
    });
}

#[expect(clippy::print_stdout, reason = "its answer")]
fn tell(what: &str, mut act: impl FnMut() -> std::io::Result<Duration>) -> std::io::Result<()> {
    let mut times = (0..ROUNDS).map(|_| act()).collect::<std::io::Result<Vec<_>>>()?;
    times.sort_unstable();
    let ms = |at: usize| times[at].as_secs_f64() * 1e3;
    println!("{what}: {:.2} / {:.2} / {:.2} ms, n={ROUNDS}", ms(0), ms(ROUNDS / 2), ms(ROUNDS - 1));
    Ok(())
}

fn run(hook: &Path, args: &[&str], stdin: &str) -> std::io::Result<Duration> {
    let began = Instant::now();
    let mut child = Command::new(hook)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().expect("piped").write_all(stdin.as_bytes())?;
    let output = child.wait_with_output()?;
    let took = began.elapsed();
    // Of a container that may open everything it would have said that nobody was told.
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    Ok(took)
}

fn made() -> Vec<u8> {
    let env: Vec<String> =
        (0..100).map(|n| format!("SERVICE_{n}_PORT=tcp://10.96.0.{n}:443")).collect();
    let mount = |n: usize| {
        json!({"destination": format!("/data/{n}"), "type": "bind", "source": format!("/var/lib/kubelet/{n}"),
               "options": ["rbind", "rprivate", "rw"]})
    };
    let names: Vec<String> = (0..400).map(|n| format!("syscall_{n}")).collect();
    let config = json!({
        "ociVersion": "1.2.1",
        "process": {"args": ["sh"], "cwd": "/", "env": env},
        "root": {"path": "rootfs"},
        "mounts": (0..40).map(mount).collect::<Vec<Value>>(),
        "linux": {
            "resources": {"devices": [
                {"allow": false, "access": "rwm"},
                {"allow": true, "type": "c", "major": 195, "minor": 0, "access": "rw"},
            ]},
            "seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}]},
        },
    });
    config.to_string().into_bytes()
}
