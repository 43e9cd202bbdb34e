//! What a command says, and how it is said: stdout, stderr, exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::failure::Failure;

/// A command's outcome.
pub(crate) type Done = Result<Answer, Failure>;

/// What a command says when it went as it should.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// For stdout; ends with a newline unless it is empty.
    pub(crate) text: String,
    /// For stderr, a line each.
    pub(crate) notes: Vec<String>,
    /// The exit code.
    pub(crate) code: u8,
}

impl Answer {
    /// A text for stdout.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// Data for stdout, as JSON.
    pub(crate) fn json(data: &impl serde::Serialize) -> Self {
        let text = serde_json::to_string_pretty(data)
            .expect("our reports have text keys and no number that JSON lacks");
        Self::text(text + "\n")
    }

    /// The same with another exit code.
    #[must_use]
    pub(crate) fn exits(mut self, code: u8) -> Self {
        self.code = code;
        self
    }
}

/// Says it and ends.
pub(crate) fn finish(done: Done) -> ExitCode {
    match done {
        Ok(answer) => {
            answer.notes.iter().for_each(|note| say_aside(note));
            say(&answer.text, answer.code)
        }
        Err(failure) => {
            say_aside(&failure.to_string());
            ExitCode::from(failure.code)
        }
    }
}

/// Says what is wrong with the call, in one line; help and version as they are.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;

    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => return say(&text, 0),
        // `vgpu` alone: the help is the answer, and the call is a mistake.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            say_raw(&text);
            return ExitCode::from(2);
        }
        _ => {}
    }
    // The hint where to look comes in paragraphs; the first ones say what is wrong.
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"))
        .collect();
    let what = lines.join("; ").replace("; [", " [").replace(":; ", ": ");
    let what = what.strip_prefix("error: ").unwrap_or(&what);
    finish(Err(Failure::input(what).so("`vgpu help` and `vgpu COMMAND --help` say what there is")))
}

/// Writes to stdout. Whoever reads no further (`| head`) wants no more, which is no failure.
fn say(text: &str, code: u8) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::from(code),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(code),
        Err(e) => {
            say_aside(&format!("cannot write to stdout: {e}; look where it leads to"));
            ExitCode::from(1)
        }
    }
}

fn say_aside(line: &str) {
    say_raw(&format!("vgpu: {line}\n"));
}

fn say_raw(text: &str) {
    // Where stderr is closed there is nobody to tell.
    let _closed = io::stderr().lock().write_all(text.as_bytes());
}
