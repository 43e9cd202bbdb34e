//! A real one-node Kubernetes in a box of namespaces, and our agent tried on it.

use std::path::PathBuf;

use anyhow::{Result, bail};

mod api;
mod args;
mod assets;
mod build;
mod cgroups;
mod churn;
mod config;
mod http;
mod image;
mod node;
mod process;
mod test;
mod up;

use crate::cluster::args::Args;

pub(crate) const HELP: &str = "\
A real one-node Kubernetes in a box of namespaces, and our agent tried on it (root only).

Usage: cargo xtask cluster <build|up|down|test> [options]

  build  make kubelet, the control plane, etcd and containerd from their Go modules; takes a quarter of an hour
           --out DIR     where to [default: /var/cache/vgpu-cluster/bin]
           --jobs N      packages compiled at once [default: 1]
           --force       also what is there already
  up     start the node and say how to reach it
  down   end it; no process, mount, cgroup or sysctl of it stays
  test   start a node of its own, run the scenarios on it, end it
           --only WORD   only scenarios whose name holds the word; may be given again
           --bin DIR     a folder as cargo's target/debug, with all that is tried [default: built with cargo]
           --agent FILE  another vgpu-plugin than that
           --hook FILE   another vgpu-hook
           --release     build a release
           --times N     run all of them N times [default: 1]
           --keep        leave the node up, and the pods of a failed scenario
           --list        only say which scenarios there are

up, down and test take
           --dir DIR     the node's folder [default: /var/tmp/vgpu-cluster]; not below /var/lib, /run or /dev

Programs are taken from KUBEBUILDER_ASSETS where all of them lie there, else from --out of `build`;
KUBELET, CONTAINERD and RUNC name single ones.
docs/cluster.md tells the rest.
";

pub(crate) fn run(root: &std::path::Path, args: &[String]) -> Result<()> {
    let Some((what, rest)) = args.split_first() else {
        bail!("cluster: build, up, down or test?\n\n{HELP}");
    };
    if matches!(what.as_str(), "help" | "--help" | "-h") {
        crate::say(HELP.trim_end());
        return Ok(());
    }
    let args = Args::parse(rest)?;
    match what.as_str() {
        "build" => build::run(root, &args),
        "up" => up::up(&args),
        "down" => up::down(&args),
        "test" => test::run(root, &args),
        other => bail!("cluster does not know {other:?}\n\n{HELP}"),
    }
}

pub(crate) const CHURN_HELP: &str = "\
Pods made and removed on a real node for a long time, and whether the agent takes more and more (root only).

Usage: cargo xtask churn [options]

  --minutes N   [default: 30]
  --csv FILE    where the samples go [default: docs/churn.csv]
  and --dir, --out, --bin, --agent, --hook, --release, --keep as of `cluster test`

Exit 1 if a pod does not run, or if resident memory, open files, threads, the journal or what lies on the disk grow:
after the first sixth of the time, the median of the last third lies above that of the first by more than the
column's bound (5 % and 512 KiB of memory, 8 files or threads, 64 KiB of journal, 16 claims, specs or folders).
";

/// `cargo xtask churn`.
pub(crate) fn churn(root: &std::path::Path, words: &[String]) -> Result<()> {
    if words.first().is_some_and(|w| matches!(w.as_str(), "help" | "--help" | "-h")) {
        crate::say(CHURN_HELP.trim_end());
        return Ok(());
    }
    churn::run(root, &Args::parse(words)?)
}

/// Where the node keeps everything.
pub(crate) fn default_dir() -> PathBuf {
    PathBuf::from("/var/tmp/vgpu-cluster")
}
