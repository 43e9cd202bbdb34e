//! What `vgpu-hook notice` costs a container: the whole process, as a runtime starts it.
//!
//! `hook_figures HOOK [CONFIG]`: the program, and a `config.json` that a runtime wrote. Without the latter, one of the size
//! that containerd writes for a pod with a hundred variables.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const ROUNDS: usize = 200;

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
    })
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
