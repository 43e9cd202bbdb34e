//! `loader-cache`: the container's dynamic loader finds the libraries that were mounted into it.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::root::Root;
use crate::state::State;

/// Read first, by its name, so that the driver's libraries win over what an image brings.
const OUR_FOLDERS: &str = "/etc/ld.so.conf.d/00-vgpu.conf";
const CONFIGURATION: &str = "/etc/ld.so.conf";
const INCLUDE_ALL: &str = "include /etc/ld.so.conf.d/*.conf";
/// What musl searches where it has no list.
const MUSL_DEFAULT: &str = "/lib\n/usr/local/lib\n/usr/lib\n";
/// Ubuntu's `ldconfig` is a script; the program has another name.
const LDCONFIGS: &[&str] =
    &["/sbin/ldconfig.real", "/usr/sbin/ldconfig.real", "/sbin/ldconfig", "/usr/sbin/ldconfig"];
/// Longer than any image needs, and short enough to say so before the runtime gives up on the hook.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, PartialEq, Eq)]
struct Options {
    folders: Vec<String>,
    /// Hidden, for tests and odd hosts: `--ldconfig PATH`.
    ldconfig: Option<PathBuf>,
}

pub(crate) fn run(args: &[String]) -> Outcome<()> {
    let options = Options::parse(args)?;
    let root = Root::open(State::from_stdin()?.root()?)?;
    let musl = musl_lists(&root)?;
    for list in &musl {
        let old = root.read(list)?.unwrap_or_else(|| MUSL_DEFAULT.to_owned());
        root.write(list, &with_folders(&old, &options.folders))?;
    }
    // An image whose only loader is musl's has no use for glibc's cache.
    if !musl.is_empty() && !has_glibc(&root)? {
        return Ok(());
    }
    let ours = root.read(OUR_FOLDERS)?.unwrap_or_default();
    root.write(OUR_FOLDERS, &with_folders(&ours, &options.folders))?;
    let configuration = root.read(CONFIGURATION)?;
    if let Some(text) = with_include(configuration.as_deref().unwrap_or_default()) {
        root.write(CONFIGURATION, &text)?;
    }
    match options.program() {
        Some(program) => refresh(&program, &root.path),
        None => {
            eprintln!(
                "vgpu-hook loader-cache: this host has no ldconfig ({}), so the container's cache stays as it is; its \
                 programs find the libraries only through LD_LIBRARY_PATH",
                LDCONFIGS.join(", ")
            );
            Ok(())
        }
    }
}

impl Options {
    fn parse(args: &[String]) -> Outcome<Self> {
        let (mut folders, mut ldconfig) = (Vec::new(), None);
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--ldconfig" => {
                    ldconfig = Some(args.next().ok_or("--ldconfig needs a value")?.into());
                }
                flag if flag.starts_with('-') => return Err(format!("unknown option {flag}")),
                folder => folders.push(checked_folder(folder)?),
            }
        }
        if folders.is_empty() {
            return Err("which folders? vgpu-hook loader-cache DIR...".to_owned());
        }
        Ok(Self { folders, ldconfig })
    }

    fn program(&self) -> Option<PathBuf> {
        let usual = || LDCONFIGS.iter().map(PathBuf::from).find(|path| path.exists());
        self.ldconfig.clone().or_else(usual)
    }
}

/// The list of each musl loader in the root, by its architecture: `/lib/ld-musl-x86_64.so.1` reads
/// `/etc/ld-musl-x86_64.path`.
fn musl_lists(root: &Root) -> Outcome<Vec<String>> {
    let list = |name: &String| {
        let architecture = name.strip_prefix("ld-musl-")?.strip_suffix(".so.1")?;
        Some(format!("/etc/ld-musl-{architecture}.path"))
    };
    Ok(root.names("/lib")?.iter().filter_map(list).collect())
}

fn has_glibc(root: &Root) -> Outcome<bool> {
    let is_loader = |name: &String| name.starts_with("ld-linux");
    for folder in ["/lib", "/lib64"] {
        if root.names(folder)?.iter().any(is_loader) {
            return Ok(true);
        }
    }
    Ok(root.has("/etc/ld.so.cache"))
}

/// A list of folders, one a line, with ours at the end if they are not there yet: another vendor's hook may have been
/// here for the same container.
fn with_folders(list: &str, folders: &[String]) -> String {
    // musl also takes colons.
    let mut lines: Vec<&str> = list.split(['\n', ':']).filter(|line| !line.is_empty()).collect();
    for folder in folders {
        if !lines.contains(&folder.as_str()) {
            lines.push(folder);
        }
    }
    lines.join("\n") + "\n"
}

/// The loader's configuration with our list read, or `None` where it reads it already.
fn with_include(text: &str) -> Option<String> {
    let reads_ours = |line: &str| {
        let mut words = line.split_whitespace();
        words.next() == Some("include")
            && words.any(|pattern| {
                matches!(pattern, "/etc/ld.so.conf.d/*.conf" | "ld.so.conf.d/*.conf" | OUR_FOLDERS)
            })
    };
    if text.lines().any(reads_ours) {
        return None;
    }
    Some(if text.is_empty() {
        format!("{INCLUDE_ALL}\n")
    } else {
        // Only ours: what else lies in that folder, the image has chosen not to read.
        format!("include {OUR_FOLDERS}\n{text}")
    })
}

/// Runs the host's program, which changes its root to the container's before it reads anything there.
fn refresh(program: &Path, root: &Path) -> Outcome<()> {
    let mut child = Command::new(program)
        .arg("-r")
        .arg(root)
        .args(["-f", CONFIGURATION, "-C", "/etc/ld.so.cache"])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot run {}: {e}", program.display()))?;
    let words = child.stderr.take().map(|pipe| thread::spawn(move || first_words(pipe)));
    let start = Instant::now();
    let status = loop {
        let ended = child.try_wait().map_err(|e| format!("lost {}: {e}", program.display()))?;
        if let Some(status) = ended {
            break status;
        }
        if start.elapsed() > PATIENCE {
            // A kill that fails has nothing left to end.
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!(
                "{} was not done with {} after {} s",
                program.display(),
                root.display(),
                PATIENCE.as_secs()
            ));
        }
        thread::sleep(Duration::from_millis(5));
    };
    if status.success() {
        return Ok(());
    }
    let words = words.and_then(|thread| thread.join().ok()).unwrap_or_default();
    Err(format!("{} failed on {} ({status}): {words}", program.display(), root.display()))
}

/// The start of what a program said; the rest is read and dropped, so that the program is not held up.
fn first_words(mut pipe: impl Read) -> String {
    let mut bytes = Vec::new();
    // What cannot be read is not there to be told.
    let _ = pipe.by_ref().take(500).read_to_end(&mut bytes);
    let _ = std::io::copy(&mut pipe, &mut std::io::sink());
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

/// A folder becomes a line of the loader's lists.
fn checked_folder(text: &str) -> Outcome<String> {
    let is_plain = !text.chars().any(|c| c.is_control() || c == ':' || c.is_whitespace());
    if !text.starts_with('/') || !is_plain || text.split('/').any(|name| name == "..") {
        return Err(format!(
            "folder {text:?} is not an absolute path without \"..\", ':' and white space"
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_added_once() {
        let ours = ["/a".to_owned(), "/b".to_owned()];
        assert_eq!(with_folders("", &ours), "/a\n/b\n");
        assert_eq!(with_folders("/b\n/c", &ours), "/b\n/c\n/a\n");
        assert_eq!(with_folders("/lib:/usr/lib\n", &ours), "/lib\n/usr/lib\n/a\n/b\n");
    }

    #[test]
    fn the_list_is_read_by_the_configuration() {
        assert_eq!(with_include("").as_deref(), Some("include /etc/ld.so.conf.d/*.conf\n"));
        for reads in ["include /etc/ld.so.conf.d/*.conf\n", "/x\ninclude ld.so.conf.d/*.conf"] {
            assert_eq!(with_include(reads), None, "{reads}");
        }
        let other = "# include /etc/ld.so.conf.d/*.conf\n/opt/lib\n";
        let expected = format!("include /etc/ld.so.conf.d/00-vgpu.conf\n{other}");
        assert_eq!(with_include(other), Some(expected.clone()));
        assert_eq!(with_include(&expected), None);
    }

    #[test]
    fn folders_are_plain() {
        assert_eq!(checked_folder("/usr/lib64"), Ok("/usr/lib64".to_owned()));
        for bad in ["", "lib", "/a:/b", "/a\n/b", "/a b", "/a/../b"] {
            assert!(checked_folder(bad).is_err(), "{bad}");
        }
    }
}
