//! From the command line to the daemon of the pipe folder, and what comes back.

use std::env;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

/// What a command came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Answer {
    exit: u8,
    text: String,
}

impl Answer {
    pub(crate) fn fine(text: impl Into<String>) -> Self {
        Self { exit: 0, text: text.into() }
    }

    pub(crate) fn refused(text: impl Into<String>) -> Self {
        Self::exits(1, text)
    }

    pub(crate) fn exits(exit: u8, text: impl Into<String>) -> Self {
        Self { exit, text: text.into() }
    }

    pub(crate) fn is_fine(&self) -> bool {
        self.exit == 0
    }

    pub(crate) fn print(&self) -> ExitCode {
        if !self.text.is_empty() {
            // Whoever asked may have gone.
            let _gone = writeln!(io::stdout(), "{}", self.text.trim_end());
        }
        ExitCode::from(self.exit)
    }
}

/// Asks the daemon of the pipe folder.
pub(crate) fn ask(command: &str) -> Answer {
    let none = || Answer::refused("Cannot find MPS control daemon process");
    let Ok(mut stream) = UnixStream::connect(pipe().join("control")) else { return none() };
    let sent = stream.write_all(command.as_bytes()).and_then(|()| stream.shutdown(Shutdown::Write));
    let mut text = String::new();
    if sent.is_err() || stream.read_to_string(&mut text).is_err() {
        return none();
    }
    serde_json::from_str(&text).unwrap_or_else(|_cut_off| none())
}

/// The pipe folder, by variable or the usual one.
pub(crate) fn pipe() -> PathBuf {
    let named = env::var_os("CUDA_MPS_PIPE_DIRECTORY").map(PathBuf::from);
    named.unwrap_or_else(|| PathBuf::from("/tmp/nvidia-mps"))
}
