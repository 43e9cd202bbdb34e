//! Chores of the workspace: regenerate bindings and protos, check for drift, check the dependency rule.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};

mod bindings;
mod cluster;
mod deps;
mod graph;
mod hook;
mod protos;
mod unsafe_code;

const HELP: &str = "\
Chores of the vgpu workspace.

Usage: cargo xtask <chore>

Chores:
  bindings [--check]  write the bindings to vendor libraries from our headers, or only compare (needs libclang;
                      without it --check is skipped with a word)
  churn <...>         pods come and go on that node for half an hour; exit 1 if the agent grows; see `churn help`
  cluster <...>       a real one-node Kubernetes and our agent on it: build, up, down, test; see `cluster help`
  deps                check the dependency rule: who may depend on whom, and where unsafe code may be
  hook [--debug]      build vgpu-hook static, so that it runs on any Linux, try it, and say where it lies
  protos [--check]    write the Rust code of the kubelet's protocols from our .proto files, or only compare
  help                this text
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(args: &[String]) -> Result<()> {
    let Some((chore, rest)) = args.split_first() else {
        bail!("no chore named\n\n{HELP}");
    };
    match chore.as_str() {
        "bindings" => bindings::run(&workspace_root(), rest),
        "churn" => cluster::churn(&workspace_root(), rest),
        "cluster" => cluster::run(&workspace_root(), rest),
        "deps" => deps::run(&workspace_root(), rest),
        "hook" => hook::run(&workspace_root(), rest),
        "protos" => protos::run(rest),
        "help" | "--help" | "-h" => {
            say(HELP.trim_end());
            Ok(())
        }
        other => bail!("no chore is called {other:?}\n\n{HELP}"),
    }
}

/// The folder that holds the workspace's manifest: the parent of this crate's.
fn workspace_root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().expect("this crate lies in a folder of the workspace").to_path_buf()
}

/// One line for the person at the terminal.
#[expect(clippy::print_stdout, reason = "a chore's result goes to its caller's terminal")]
fn say(line: &str) {
    println!("{line}");
}
