//! Making the programs from their Go modules, with the ordinary Go client.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

use crate::cluster::args::Args;
use crate::cluster::assets::{BUILT, Built, default_out, missing, on_path};

/// Makes what is not there yet.
pub(crate) fn run(root: &Path, args: &Args) -> Result<()> {
    let out = args.out.clone().unwrap_or_else(default_out);
    ensure!(
        !out.starts_with(root),
        "--out {} lies in the source tree; half a gigabyte of programs belongs outside",
        out.display()
    );
    let lacking = missing(&out);
    let wanted: Vec<&Built> =
        BUILT.iter().filter(|b| args.force || lacking.contains(&b.name)).collect();
    if wanted.is_empty() {
        crate::say(&format!("cluster build: everything is in {}", out.display()));
        return Ok(());
    }
    let go = on_path("go").context("there is no Go toolchain; install Go 1.26 or newer")?;
    std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let mut failed = Vec::new();
    for built in wanted {
        let began = Instant::now();
        match make(&go, root, built, &out, args.jobs) {
            Ok(version) => crate::say(&format!(
                "{:<24} {version}  {:.0} s",
                built.name,
                began.elapsed().as_secs_f64()
            )),
            Err(error) => {
                crate::say(&format!("{:<24} could not be made: {error:#}", built.name));
                failed.push(built.name);
            }
        }
    }
    ensure!(failed.is_empty(), "not made: {}", failed.join(", "));
    crate::say(&format!("cluster build: all in {}", out.display()));
    Ok(())
}

/// Builds one program and gives the version of its module.
fn make(go: &Path, root: &Path, built: &Built, out: &Path, jobs: u32) -> Result<String> {
    let module = root.join("xtask/cluster/tools").join(built.module);
    let version = version(go, &module, built.package)?;
    // Half a program must not pass for one: the name is given when it is whole.
    let half = out.join(format!(".{}.half", built.name));
    let status = go_command(go, &module)
        .args(["build", "-trimpath", "-p", &jobs.to_string()])
        .arg("-ldflags")
        .arg(format!("-s -w {}", stamp(built, &version)))
        .arg("-o")
        .arg(&half)
        .arg(built.package)
        .env("GOMAXPROCS", jobs.to_string())
        .status()
        .context("cannot run go")?;
    ensure!(status.success(), "go build ended with {status}");
    std::fs::rename(&half, out.join(built.name))
        .with_context(|| format!("cannot put {} into {}", built.name, out.display()))?;
    Ok(version)
}

fn go_command(go: &Path, module: &Path) -> Command {
    let mut command = Command::new(go);
    command
        .current_dir(module)
        .env("CGO_ENABLED", "0")
        // The versions are those of the committed go.mod and go.sum, or it fails.
        .env("GOFLAGS", "-mod=readonly -buildvcs=false");
    command
}

/// The version of the module that holds the package.
fn version(go: &Path, module: &Path, package: &str) -> Result<String> {
    let asked = go_command(go, module)
        .args(["list", "-f", "{{.Module.Version}}", package])
        .output()
        .context("cannot run go")?;
    let text = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
    if !asked.status.success() || text.is_empty() {
        bail!("go list does not know {package}: {}", String::from_utf8_lossy(&asked.stderr).trim());
    }
    Ok(text)
}

/// What a program says of its own version; without it kubelet and apiserver call themselves v0.0.0.
fn stamp(built: &Built, version: &str) -> String {
    match built.module {
        "containerd" => format!(
            "-X github.com/containerd/containerd/v2/version.Version={}",
            version.trim_start_matches('v')
        ),
        "kubernetes" => {
            let (major, minor) = major_minor(version);
            ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"]
                .map(|package| {
                    format!(
                        "-X {package}.gitVersion={version} -X {package}.gitMajor={major} \
                         -X {package}.gitMinor={minor}"
                    )
                })
                .join(" ")
        }
        _ => String::new(),
    }
}

fn major_minor(version: &str) -> (&str, &str) {
    let mut parts = version.trim_start_matches('v').split('.');
    (parts.next().unwrap_or("0"), parts.next().unwrap_or("0"))
}
