//! Files and folders, whole or not there, with their permissions whatever the umask is.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use vgpu_core::error::{Error, Result};

/// A folder that everybody can read and only its owner can write.
pub(super) fn make_folder(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path).map_err(|e| Error::io("make", path, &e))?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
        .map_err(|e| Error::io("open to readers", path, &e))
}

/// A file in place of one that may be there: at no time half of it has that name, and a container
/// that has the old one mounted keeps it.
pub(super) fn replace(path: &Path, text: &str, mode: u32) -> Result<()> {
    let half = path.with_added_extension("tmp");
    write(&half, text, mode)?;
    rename(&half, path)
}

/// A file with all its bytes; what was there under this name is replaced.
pub(super) fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    // A new file: one that is there may have other permissions, or be a link to somewhere.
    remove(path)?;
    let written = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())
    };
    written().map_err(|e| {
        // Room on a full disk; what cannot be removed now is removed by the next start.
        drop(fs::remove_file(path));
        Error::io("write", path, &e)
    })
}

/// Another name for a file.
pub(super) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|e| Error::io("put into place", to, &e))
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io("remove", path, &e)),
        _ => Ok(()),
    }
}

/// Removes a folder and all in it, if it is there.
pub(super) fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io("remove", path, &e)),
        _ => Ok(()),
    }
}

/// The names in a folder, sorted; none where there is no folder.
pub(super) fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("list", folder, &e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| Error::io("list", folder, &e))?;
        // A name that is not UTF-8 is none of ours.
        names.extend(entry.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}
