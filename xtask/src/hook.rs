//! Builds `vgpu-hook` so that it runs on any Linux: static, whatever C library the host has.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::say;

/// Builds it for the machine that this runs on, tries it, and says where it lies.
pub(crate) fn run(root: &Path, args: &[String]) -> Result<()> {
    let release = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => true,
        ["--debug"] => false,
        _ => bail!("only --debug can be given"),
    };
    let program = build(root, release)?;
    let bytes =
        std::fs::read(&program).with_context(|| format!("cannot read {}", program.display()))?;
    if let Some(loader) = loader(&bytes).context("cargo built no ELF file of 64 bits")? {
        bail!("{} is not static: it needs {loader}", program.display());
    }
    let said = said(Command::new(&program).arg("version").env_clear())?;
    let version = said.strip_prefix("vgpu-hook ").map(str::trim_end);
    let version = version.with_context(|| format!("`vgpu-hook version` said {said:?}"))?;
    say(&format!("static vgpu-hook {version}, {} KiB: {}", bytes.len() >> 10, program.display()));
    Ok(())
}

/// The target is named although it is the host's own: what is built for it lies in a folder of its own, and no other
/// build puts a dynamic program in its place.
fn build(root: &Path, release: bool) -> Result<PathBuf> {
    let target = host(root)?;
    let output = said(
        cargo(root)
            .args(["rustc", "--quiet", "--package", "vgpu-hook", "--bin", "vgpu-hook"])
            .args(["--target", &target, "--message-format", "json-render-diagnostics"])
            .args(release.then_some("--release"))
            .args(["--", "-C", "target-feature=+crt-static"]),
    )?;
    let messages = output.lines().rev().filter_map(|line| serde_json::from_str(line).ok());
    let mut programs = messages.filter_map(|message: serde_json::Value| {
        Some(PathBuf::from(message.get("executable")?.as_str()?))
    });
    programs.next().context("cargo named no program")
}

/// The machine that rustc builds for where it is told nothing.
fn host(root: &Path) -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let text = said(Command::new(rustc).arg("-vV").current_dir(root))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("`rustc -vV` names no host")
}

fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

/// What a command that went well wrote; its complaints go to the terminal.
fn said(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    ensure!(output.status.success(), "{command:?} ended with {}", output.status);
    String::from_utf8(output.stdout).context("what it wrote is not UTF-8")
}

/// The loader that a program asks for, `PT_INTERP`; an error where these are no headers of a program.
fn loader(bytes: &[u8]) -> Result<Option<String>> {
    const PT_INTERP: u64 = 3;
    ensure!(bytes.starts_with(b"\x7fELF\x02\x01"), "it begins otherwise");
    let number = |at: u64, length: usize| -> Result<u64> {
        let piece = slice(bytes, at, length as u64)?;
        Ok(piece.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for index in 0..count {
        let header = table.saturating_add(index * size);
        if number(header, 4)? == PT_INTERP {
            let name = slice(bytes, number(header + 8, 8)?, number(header + 32, 8)?)?;
            return Ok(Some(String::from_utf8_lossy(name).trim_end_matches('\0').to_owned()));
        }
    }
    Ok(None)
}

fn slice(bytes: &[u8], at: u64, length: u64) -> Result<&[u8]> {
    let (from, to) = (usize::try_from(at)?, usize::try_from(at.saturating_add(length))?);
    bytes.get(from..to).context("its headers are cut off")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loader_is_seen_and_no_headers_are_an_error() {
        let own =
            std::fs::read(std::env::current_exe().expect("a test knows its path")).expect("read");
        let found = loader(&own).expect("a program");
        assert_eq!(
            found.is_some(),
            cfg!(all(target_env = "gnu", not(target_feature = "crt-static")))
        );
        let mut program = vec![0; 64 + 56];
        program[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (program[32], program[54], program[56]) = (64, 56, 1);
        (program[64], program[64 + 8], program[64 + 32]) = (1, 120, 7);
        program.extend(b"/lib/x\0");
        assert_eq!(loader(&program).expect("a program"), None);
        program[64] = 3;
        assert_eq!(loader(&program).expect("a program").as_deref(), Some("/lib/x"));
        for cut in 0..program.len() {
            assert!(loader(&program[..cut]).is_err(), "{cut}");
        }
        assert!(loader(b"#!/bin/sh").is_err());
    }
}
