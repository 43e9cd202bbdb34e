//! Asking a daemon through the control program: one run of it a command, bounded in time and size.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use vgpu_core::{Error, ErrorKind, Result};

use crate::mps::program::NAME;

/// The one server of a daemon with named ones.
pub(crate) const SERVER: &str = "vgpu";

/// The most that is read of an answer.
const MOST: u64 = 1 << 20;

/// What the environment of the agent must not say to a daemon or to the program.
pub(crate) const UNSET: &[&str] = &[
    "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE",
    "CUDA_MPS_CLIENT_PRIORITY",
    "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT",
    "CUDA_MPS_PROTOCOL_VERSION",
    "CUDA_MPS_SM_PARTITION",
];

/// The program, and the folder of the daemon that it asks.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    program: PathBuf,
    pipe: PathBuf,
    patience: Duration,
}

impl Control {
    pub(crate) fn new(program: &Path, pipe: PathBuf, patience: Duration) -> Self {
        Self { program: program.to_owned(), pipe, patience }
    }

    /// For asking the program itself, with a folder in which no daemon is.
    pub(crate) fn alone(program: &Path, patience: Duration) -> Self {
        Self::new(program, PathBuf::from("/dev/null/no-daemon"), patience)
    }

    /// What the program says to these arguments, whatever it thinks of them.
    pub(crate) fn says(&self, args: &[&str]) -> Result<String> {
        self.run(args, None).map(|(_, text)| text)
    }

    /// A command of the interactive shell (protocol 2), which tells mistakes in words.
    pub(crate) fn shell(&self, command: &str) -> Result<String> {
        let (status, text) = self.run(&[], Some(command))?;
        match status.success() {
            true => Ok(text),
            false => Err(refused(command, status, &text)),
        }
    }

    /// A module's verb (protocol 3).
    pub(crate) fn verb(&self, args: &[&str]) -> Result<String> {
        let (status, text) = self.run(args, None)?;
        match status.success() {
            true => Ok(text),
            false => Err(refused(&args.join(" "), status, &text)),
        }
    }

    fn run(&self, args: &[&str], input: Option<&str>) -> Result<(ExitStatus, String)> {
        let mut command = Command::new(&self.program);
        command.args(args).env("CUDA_MPS_PIPE_DIRECTORY", &self.pipe);
        for name in UNSET {
            command.env_remove(name);
        }
        let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| Error::io("run", &self.program, &e))?;
        if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
            // A program that does not listen tells why by itself.
            let _unheard = stdin.write_all(text.as_bytes()).and_then(|()| stdin.write_all(b"\n"));
        }
        let said = [piped(child.stdout.take()), piped(child.stderr.take())];
        let what = input.map_or_else(|| args.join(" "), str::to_owned);
        let status = self.wait(&mut child, &what)?;
        let text: Vec<String> = said.into_iter().map(|t| t.join().unwrap_or_default()).collect();
        Ok((status, text.join("\n").trim().to_owned()))
    }

    fn wait(&self, child: &mut Child, what: &str) -> Result<ExitStatus> {
        match ended(child, self.patience) {
            Ok(Some(status)) => Ok(status),
            Ok(None) => {
                // It may end between the two, which is as good.
                let _gone = child.kill().and_then(|()| child.wait().map(drop));
                let why = format!("{NAME} did not answer {what:?} within {:?}", self.patience);
                Err(Error::new(ErrorKind::InDoubt, why).with("pipe", self.pipe.display()))
            }
            Err(e) => Err(Error::io("wait for", &self.program, &e)),
        }
    }
}

/// Waits for a process, at most so long.
pub(crate) fn ended(child: &mut Child, patience: Duration) -> std::io::Result<Option<ExitStatus>> {
    let until = Instant::now() + patience;
    let mut pause = Duration::from_micros(500);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= until {
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// What the program answered, where that is not what was asked for; it ends well all the same.
pub(crate) fn unexpected(command: &str, text: &str) -> Error {
    failure(command, -1, text)
}

fn refused(command: &str, status: ExitStatus, text: &str) -> Error {
    failure(command, status.code().map_or(-1, i64::from), text)
}

fn failure(command: &str, code: i64, text: &str) -> Error {
    let call: Vec<&str> =
        command.split_whitespace().take_while(|word| !word.starts_with("--")).take(2).collect();
    let said: String = text.chars().take(300).collect();
    let why = format!("{NAME} refused {command:?}: {said}");
    Error::new(kind(text), why).vendor(NAME, &call.join(" "), code)
}

/// The program has words only.
fn kind(text: &str) -> ErrorKind {
    let text = text.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if has(&["active clients", "busy", "in use"]) {
        ErrorKind::Busy
    } else if has(&["permi", "not allowed"]) {
        ErrorKind::Permission
    } else if has(&["invalid_resource_configuration", "not enough", "no free"]) {
        ErrorKind::Exhausted
    } else if has(&["cannot find mps control daemon"]) {
        ErrorKind::NotFound
    } else {
        ErrorKind::Vendor
    }
}

fn piped(from: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(from) = from {
            // What was read until it broke is all there is.
            let _broken = from.take(MOST).read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_command_and_code() {
        let error = failure("namespace create n0 --server=vgpu", 7, "it has active clients");
        assert_eq!(error.kind, ErrorKind::Busy);
        let vendor = error.vendor.expect("kept");
        assert_eq!((vendor.library.as_str(), vendor.code), (NAME, 7));
        assert_eq!(vendor.call, "namespace create");
    }

    #[test]
    fn a_program_that_hangs_is_given_up() {
        let control = Control::alone(Path::new("/bin/sh"), Duration::from_millis(50));
        let error = control.shell("sleep 1000").expect_err("it hangs");
        assert_eq!(error.kind, ErrorKind::InDoubt);
    }
}
