//! The control program: where it is, whether it runs here, what it can do.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use vgpu_core::{Error, ErrorKind, Result};

use crate::host::DriverTree;
use crate::mps::MpsOptions;
use crate::mps::control::Control;

/// The program's usual name.
pub(crate) const NAME: &str = "nvidia-cuda-mps-control";

/// Where it is installed, below the driver's root.
const FOLDERS: &[&str] = &["/usr/bin", "/usr/local/nvidia/bin", "/usr/local/bin", "/opt/bin"];

/// The version that first had static partitions, major * 1000 + minor * 10.
const STATIC_SINCE: u32 = 13_010;

/// A control program that runs here, and what it can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    /// Whether it has servers with namespaces (protocol 3).
    pub(crate) namespaces: bool,
    /// Whether a daemon of it can hold static partitions.
    pub(crate) static_partitions: bool,
}

/// A program as it was looked at: another file at its place is looked at anew.
#[derive(Debug)]
pub(crate) struct Known {
    path: PathBuf,
    changed: SystemTime,
    program: Program,
}

pub(crate) fn find(
    tree: &DriverTree,
    options: &MpsOptions,
    known: &Mutex<Option<Known>>,
) -> Result<Program> {
    let path = match &options.program {
        Some(named) => named.clone(),
        None => installed(tree)?,
    };
    let said = |e: std::io::Error| Error::io("use", &path, &e);
    let changed = fs::metadata(&path).and_then(|m| m.modified()).map_err(said)?;
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = known.as_ref().filter(|k| k.path == path && k.changed == changed) {
        return Ok(known.program.clone());
    }
    runs_here(&path)?;
    let program = look(path.clone(), options)?;
    *known = Some(Known { path, changed, program: program.clone() });
    Ok(program)
}

fn installed(tree: &DriverTree) -> Result<PathBuf> {
    let place = |folder: &&str| tree.of_driver(&Path::new(folder).join(NAME));
    let Some(on_host) = FOLDERS.iter().map(place).find(|place| tree.host.has(place)) else {
        let why = format!(
            "there is no {NAME} below {}; install the driver's compute utilities, or name it",
            tree.host.read_at(tree.driver_root()).display()
        );
        return Err(Error::new(ErrorKind::NotFound, why).with("folders", FOLDERS.join(", ")));
    };
    if !tree.host.is_own() {
        let why = format!(
            "{} is the host's own and this process sees the host's files elsewhere; run it on the \
             host, or name a {NAME} that runs here",
            on_host.display()
        );
        return Err(Error::new(ErrorKind::Unsupported, why));
    }
    Ok(on_host)
}

/// Whether the file can be run by this machine at all, so that what is wrong is told in one sentence.
fn runs_here(path: &Path) -> Result<()> {
    let said = |e: std::io::Error| Error::io("read", path, &e);
    let wrong = |kind, why: String| Err(Error::new(kind, why).with("path", path.display()));
    let mut file = File::open(path).map_err(said)?;
    let metadata = file.metadata().map_err(said)?;
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        return wrong(ErrorKind::Permission, format!("{} is no program", path.display()));
    }
    let mut head = [0_u8; 20];
    let mut read = 0;
    while read < head.len() {
        match file.read(&mut head[read..]).map_err(said)? {
            0 => break,
            n => read += n,
        }
    }
    if head.starts_with(b"#!") {
        return Ok(());
    }
    let machine = (head.starts_with(b"\x7fELF") && read == head.len())
        .then(|| u16::from_le_bytes([head[18], head[19]]));
    match machine {
        Some(machine) if machine == OWN_MACHINE => Ok(()),
        Some(machine) => wrong(
            ErrorKind::Unsupported,
            format!(
                "{} is a program for another machine (ELF machine {machine}, this is \
                 {OWN_MACHINE}); name the {NAME} of the installed driver",
                path.display()
            ),
        ),
        None => wrong(
            ErrorKind::Unsupported,
            format!("{} is neither an ELF program nor a script", path.display()),
        ),
    }
}

/// `e_machine` of this process.
const OWN_MACHINE: u16 = if cfg!(target_arch = "x86_64") { 62 } else { 183 };

/// Asks the program what it can do, with a pipe folder that no daemon has: a program follows the
/// protocol of the daemon that it finds.
fn look(path: PathBuf, options: &MpsOptions) -> Result<Program> {
    let control = Control::alone(&path, options.patience);
    let version = control.says(&["-v"])?;
    let help = control.says(&["-p", "3", "-h"])?;
    let word = |word: &str| help.split_whitespace().any(|w| w == word);
    let namespaces = word("server") && word("namespace");
    let static_partitions = number(&version).is_some_and(|n| n >= STATIC_SINCE);
    Ok(Program { path, namespaces, static_partitions })
}

/// The version in what `-v` says, 13010 for 13.1; older programs have no such option.
fn number(text: &str) -> Option<u32> {
    let digits = |c: char| !c.is_ascii_digit();
    text.split(digits).filter_map(|n| n.parse().ok()).find(|n| (1_000..1_000_000).contains(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_wherever_it_stands() {
        assert_eq!(number("CUDA MPS binary version: 13010"), Some(13_010));
        assert_eq!(number("13040\n"), Some(13_040));
        assert_eq!(number("usage: nvidia-cuda-mps-control [-d | -f]"), None);
        assert_eq!(number("version 99999999999999"), None);
    }

    #[test]
    fn a_program_of_another_machine_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("program");
        let mut text = b"\x7fELF\x02\x01\x01".to_vec();
        text.resize(18, 0);
        text.extend([243, 0]);
        for (head, mode, kind, word) in [
            (text.clone(), 0o755, ErrorKind::Unsupported, "another machine"),
            (b"MZ".to_vec(), 0o755, ErrorKind::Unsupported, "neither"),
            (text, 0o644, ErrorKind::Permission, "no program"),
        ] {
            fs::write(&path, head).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
            let e = runs_here(&path).expect_err(word);
            assert_eq!(e.kind, kind);
            assert!(e.message.contains(word), "{e}");
        }
        fs::write(&path, "#!/bin/sh\n").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
        runs_here(&path).expect("a script runs");
    }
}
