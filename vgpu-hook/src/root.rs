//! A container's root, entered one step at a time, so that nothing in the image leads out of it.
//!
//! An image may hold any symbolic link. Each name of a path is opened by itself and never followed; a link is read and
//! its names walked in the same way; `..` goes back along the way that was come, and no further than the root.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::{Errno, Result as SysResult};

use crate::Outcome;
use crate::state::bounded;

/// Links on one way; Linux allows as many.
const MAX_LINKS: u32 = 40;
/// The files that are read here are lists of folders.
const MAX_TEXT: u64 = 1 << 20;

/// The root of a container that is being made.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) path: PathBuf,
    fd: OwnedFd,
}

/// What to do about a folder that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    Make,
    Report,
}

/// A folder in the root, and a name in it.
struct Place {
    folder: OwnedFd,
    name: Vec<u8>,
}

impl Root {
    pub(crate) fn open(path: PathBuf) -> Outcome<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, &path, flags, Mode::empty())
            .map_err(|e| format!("cannot open the container's root {}: {e}", path.display()))?;
        Ok(Self { path, fd })
    }

    /// Whether there is anything of that name, after links.
    pub(crate) fn has(&self, path: &str) -> bool {
        let found = self.locate(path, Missing::Report);
        found.is_ok_and(|place| {
            rustix::fs::statat(&place.folder, place.name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
        })
    }

    /// The names in a folder, sorted; none where there is no such folder.
    pub(crate) fn names(&self, path: &str) -> Outcome<Vec<String>> {
        let folder = match self.walk(path, Missing::Report) {
            Ok(folder) => folder,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
            Err(e) => return Err(self.failed("list", path, e)),
        };
        let listed = || {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let readable = rustix::fs::openat(&folder, ".", flags, Mode::empty())?;
            let entries = rustix::fs::Dir::read_from(readable)?;
            let name = |entry: SysResult<rustix::fs::DirEntry>| {
                Ok(entry?.file_name().to_string_lossy().into_owned())
            };
            entries.map(name).collect::<SysResult<Vec<String>>>()
        };
        let mut names = listed().map_err(|e| self.failed("list", path, e))?;
        names.sort_unstable();
        Ok(names)
    }

    /// The text of a plain file; `None` where there is none.
    pub(crate) fn read(&self, path: &str) -> Outcome<Option<String>> {
        let opened = self.locate(path, Missing::Report).and_then(|place| {
            // An image may have a pipe there, which must not make this wait.
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&place.folder, place.name, flags, Mode::empty())?;
            let kind = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
            if kind == FileType::RegularFile { Ok(file) } else { Err(Errno::INVAL) }
        });
        let file = match opened {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(self.failed("read", path, e)),
        };
        let text = bounded(file, MAX_TEXT);
        text.map(Some).map_err(|e| format!("cannot read {path} in {}: {e}", self.path.display()))
    }

    /// Puts a file with this text in the place of what is there, and makes the folders above it.
    pub(crate) fn write(&self, path: &str, text: &str) -> Outcome<()> {
        let written = || {
            let place = self.locate(path, Missing::Make)?;
            let new = free_name(&place.folder);
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let mode = Mode::from_raw_mode(0o644);
            let mut file = File::from(rustix::fs::openat(&place.folder, &new, flags, mode)?);
            let done = file
                .write_all(text.as_bytes())
                .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))
                .and_then(|()| {
                    rustix::fs::renameat(&place.folder, &new, &place.folder, place.name)
                });
            if done.is_err() {
                // Whatever comes of it, the first error is the one to tell.
                let _ = rustix::fs::unlinkat(&place.folder, &new, AtFlags::empty());
            }
            done
        };
        written().map_err(|e| self.failed("write", path, e))
    }

    /// Makes a symbolic link, in the place of another link; anything else that is there stays and is an error.
    pub(crate) fn link(&self, target: &str, path: &str) -> Outcome<()> {
        let made = || {
            let (above, name) = split(path).ok_or(Errno::INVAL)?;
            let folder = self.walk(above, Missing::Make)?;
            match rustix::fs::readlinkat(&folder, name, Vec::new()) {
                Ok(old) if old.as_bytes() == target.as_bytes() => return Ok(()),
                Ok(_) | Err(Errno::NOENT) => {}
                // Not a link.
                Err(Errno::INVAL) => return Err(Errno::EXIST),
                Err(e) => return Err(e),
            }
            let new = free_name(&folder);
            rustix::fs::symlinkat(target, &folder, &new)?;
            rustix::fs::renameat(&folder, &new, &folder, name).inspect_err(|_| {
                let _ = rustix::fs::unlinkat(&folder, &new, AtFlags::empty());
            })
        };
        made().map_err(|e| match e {
            Errno::EXIST => format!(
                "cannot link {path} to {target} in {}: the image has a file or folder there, which is left alone",
                self.path.display()
            ),
            e => self.failed("make the link", path, e),
        })
    }

    /// Where a path ends, with a link at its end followed too; what it names need not be there.
    fn locate(&self, path: &str, missing: Missing) -> SysResult<Place> {
        let mut path = path.as_bytes().to_vec();
        let mut base = None;
        for _ in 0..=MAX_LINKS {
            let at = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
            let name = path.split_off(at);
            if name.is_empty() || name == b"." || name == b".." {
                return Err(Errno::ISDIR);
            }
            let folder = self.walk_from(base.take(), &path, missing)?;
            let Ok(target) = rustix::fs::readlinkat(&folder.last, name.as_slice(), Vec::new())
            else {
                return Ok(Place { folder: folder.last, name });
            };
            path = target.into_bytes();
            base = Some(folder);
        }
        Err(Errno::LOOP)
    }

    fn walk(&self, path: &str, missing: Missing) -> SysResult<OwnedFd> {
        Ok(self.walk_from(None, path.as_bytes(), missing)?.last)
    }

    /// Walks from a folder, or from the root where there is none or the path starts there.
    fn walk_from(&self, from: Option<Way>, path: &[u8], missing: Missing) -> SysResult<Way> {
        let start =
            || Ok::<_, Errno>(Way { above: Vec::new(), last: self.fd.try_clone().map_err(errno)? });
        let mut way = match from {
            Some(way) if !path.starts_with(b"/") => way,
            _ => start()?,
        };
        let mut names = reversed(path);
        let mut links = 0;
        while let Some(name) = names.pop() {
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    if let Some(above) = way.above.pop() {
                        way.last = above;
                    }
                    continue;
                }
                _ => {}
            }
            let next = step(&way.last, &name, missing)?;
            match FileType::from_raw_mode(rustix::fs::fstat(&next)?.st_mode) {
                FileType::Directory => way.above.push(std::mem::replace(&mut way.last, next)),
                FileType::Symlink => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP);
                    }
                    // The link that was opened is read, whatever has its name by now.
                    let target = rustix::fs::readlinkat(&next, "", Vec::new())?.into_bytes();
                    if target.starts_with(b"/") {
                        way = start()?;
                    }
                    names.extend(reversed(&target));
                }
                _ => return Err(Errno::NOTDIR),
            }
        }
        Ok(way)
    }

    fn failed(&self, what: &str, path: &str, e: Errno) -> String {
        format!("cannot {what} {path} in {}: {e}", self.path.display())
    }
}

/// A folder, and those that were come through from the root to it.
struct Way {
    above: Vec<OwnedFd>,
    last: OwnedFd,
}

fn step(folder: &OwnedFd, name: &[u8], missing: Missing) -> SysResult<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(folder, name, flags, Mode::empty()) {
        Err(Errno::NOENT) if missing == Missing::Make => {
            match rustix::fs::mkdirat(folder, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e),
            }
            rustix::fs::openat(folder, name, flags, Mode::empty())
        }
        other => other,
    }
}

/// The names of a path, last first.
fn reversed(path: &[u8]) -> Vec<Vec<u8>> {
    path.rsplit(|byte| *byte == b'/').map(<[u8]>::to_vec).collect()
}

/// A path's folder and its last name.
fn split(path: &str) -> Option<(&str, &str)> {
    let (above, name) = path.rsplit_once('/')?;
    (!matches!(name, "" | "." | "..")).then_some((above, name))
}

/// A name for what is renamed when it is whole. Hooks of one container run one after another, so whatever has it was
/// left by a crash.
fn free_name(folder: &OwnedFd) -> String {
    let name = format!(".vgpu-hook-{}", std::process::id());
    // Most often there is nothing; what cannot be removed is told by the step that comes next.
    let _ = rustix::fs::unlinkat(folder, &name, AtFlags::empty());
    name
}

fn errno(e: std::io::Error) -> Errno {
    Errno::from_io_error(&e).unwrap_or(Errno::IO)
}
