//! The program that CDI hooks call on the host, while a container is made.
//!
//! An OCI runtime starts it with the container's state as JSON on stdin. What it cannot do, it says in one line on
//! stderr and exits 1, so that the container does not start without what it was promised. `notice` alone promises
//! nothing and always exits 0.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::process::ExitCode;

mod agent;
mod cgroup;
mod confine;
mod devices;
mod link;
mod loader_cache;
mod notice;
mod root;
mod state;

const HELP: &str = "\
Called by an OCI runtime while a container is made, with the container's state as JSON on stdin.

Usage:
  vgpu-hook confine CLAIM --socket PATH  createRuntime: tell the agent which cgroup and PID namespace the claim's
                                         container has, and wait for its word; no answer, no start
  vgpu-hook notice CLAIM --socket PATH   createRuntime: tell the agent if the claim's container may open every device
                                         of the node; whatever comes of it, the container starts
  vgpu-hook link TARGET::LINK...         createContainer: make symbolic links inside the container's root
  vgpu-hook loader-cache DIR...          createContainer: make the container's dynamic loader search the folders
  vgpu-hook version                      print the version
  vgpu-hook help                         print this
";

/// What a command came to; the text is the one line for stderr.
type Outcome<T> = Result<T, String>;

fn main() -> ExitCode {
    let args: Vec<String> = match arguments() {
        Ok(args) => args,
        Err(why) => return refuse("vgpu-hook", &why),
    };
    let Some((command, rest)) = args.split_first() else {
        return refuse("vgpu-hook", "no command given; see vgpu-hook help");
    };
    let outcome = match command.as_str() {
        "confine" => confine::run(rest),
        "link" => link::run(rest),
        "notice" => {
            notice::run(rest);
            Ok(())
        }
        "loader-cache" => loader_cache::run(rest),
        "version" | "--version" => say(concat!("vgpu-hook ", env!("CARGO_PKG_VERSION"))),
        "help" | "--help" | "-h" => say(HELP.trim_end()),
        other => {
            return refuse(
                "vgpu-hook",
                &format!("no command is called {other:?}; see vgpu-hook help"),
            );
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => refuse(&format!("vgpu-hook {command}"), &why),
    }
}

fn arguments() -> Outcome<Vec<String>> {
    let utf8 = |arg: std::ffi::OsString| {
        arg.into_string().map_err(|arg| format!("argument {} is not UTF-8", arg.display()))
    };
    std::env::args_os().skip(1).map(utf8).collect()
}

fn refuse(who: &str, why: &str) -> ExitCode {
    complain(who, why);
    ExitCode::FAILURE
}

/// One line, whatever the message holds: runtimes show a hook's stderr as it is.
fn complain(who: &str, why: &str) {
    let line: String = why.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    // Whoever does not listen misses it; that must not become another exit code.
    let _ = writeln!(std::io::stderr(), "{who}: {line}");
}

#[expect(clippy::print_stdout, clippy::unnecessary_wraps, reason = "the answer of a command")]
fn say(text: &str) -> Outcome<()> {
    println!("{text}");
    Ok(())
}
