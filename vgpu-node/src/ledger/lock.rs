//! One agent to a state folder.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use vgpu_core::error::{Error, ErrorKind, Result};

/// Takes the lock of a folder; the kernel gives it back when the file is closed, also after a crash.
///
/// # Errors
/// `Busy` if another process still has it after `wait`.
pub(super) fn lock(dir: &Path, wait: Duration) -> Result<File> {
    let path = dir.join("lock");
    let mut options = OpenOptions::new();
    let file = options
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .map_err(|e| Error::io("open", &path, &e))?;
    let until = Instant::now() + wait;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < until => {
                thread::sleep(Duration::from_millis(20).min(wait));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(taken(dir)),
            Err(e) => return Err(Error::io("lock", &path, &e.into())),
        }
    }
}

fn taken(dir: &Path) -> Error {
    Error::new(
        ErrorKind::Busy,
        format!(
            "another agent uses the state folder {}; end it, or give this one a folder of its own",
            dir.display()
        ),
    )
}
