//! The line to the agent: one question, one answer, within a time.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde_json::Value;

use crate::Outcome;

/// Longest answer that is read, line end included.
const MAX_ANSWER: usize = 64 << 10;

/// Sends one line to the agent and waits for its yes.
pub(crate) fn ask(options: &Options, request: &Value) -> Outcome<()> {
    let answer = Line::open(&options.socket, options.timeout)?.ask(request)?;
    understand(&answer, &options.socket)
}

/// Which claim is meant, and where the agent is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) claim: String,
    pub(crate) socket: PathBuf,
    /// For connecting, asking and being answered together. Hidden, for tests: `--timeout-ms`.
    pub(crate) timeout: Duration,
    /// Hidden, for tests: `--proc`.
    pub(crate) proc: PathBuf,
}

impl Options {
    pub(crate) fn parse(command: &str, args: &[String], timeout: Duration) -> Outcome<Self> {
        let (mut claim, mut socket) = (None, None);
        let mut timeout = timeout;
        let mut proc = PathBuf::from("/proc");
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--proc" => proc = PathBuf::from(value()?),
                "--socket" => socket = Some(PathBuf::from(value()?)),
                "--timeout-ms" => {
                    let text = value()?;
                    let milliseconds = text.parse().ok().filter(|number| *number > 0);
                    let milliseconds = milliseconds
                        .ok_or_else(|| format!("--timeout-ms {text:?} is no number above 0"))?;
                    timeout = Duration::from_millis(milliseconds);
                }
                flag if flag.starts_with('-') => return Err(format!("unknown option {flag}")),
                text if claim.is_none() => claim = Some(checked_claim(text)?),
                extra => return Err(format!("one claim at a time, and {extra:?} is a second")),
            }
        }
        Ok(Self {
            claim: claim
                .ok_or_else(|| format!("which claim? vgpu-hook {command} CLAIM --socket PATH"))?,
            socket: socket.ok_or("which agent? --socket PATH names its socket")?,
            timeout,
            proc,
        })
    }
}

/// The connection to the agent, with the time that is left.
struct Line<'a> {
    stream: UnixStream,
    socket: &'a Path,
    deadline: Instant,
    timeout: Duration,
}

impl<'a> Line<'a> {
    fn open(socket: &'a Path, timeout: Duration) -> Outcome<Self> {
        let deadline = Instant::now() + timeout;
        let failed = |e: rustix::io::Errno| {
            format!(
                "cannot reach the vgpu agent at {}: {e}; check that the agent runs on this node",
                socket.display()
            )
        };
        let address = SocketAddrUnix::new(socket).map_err(failed)?;
        let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(failed)?;
        // Connecting blocks too, while the agent's queue is full.
        set_socket_timeout(&fd, Timeout::Send, Some(timeout)).map_err(failed)?;
        connect(&fd, &address).map_err(failed)?;
        let agent = socket_peercred(&fd).map_err(failed)?.uid;
        if !agent.is_root() && agent != rustix::process::geteuid() {
            return Err(format!(
                "what listens at {} runs as user {}, neither root nor this user; it is not trusted",
                socket.display(),
                agent.as_raw()
            ));
        }
        Ok(Self { stream: UnixStream::from(fd), socket, deadline, timeout })
    }

    /// Sends one line and waits for one.
    fn ask(mut self, request: &Value) -> Outcome<String> {
        let mut line = request.to_string();
        line.push('\n');
        let left = self.left()?;
        self.stream.set_write_timeout(Some(left)).map_err(|e| self.broken(&e))?;
        self.stream.write_all(line.as_bytes()).map_err(|e| self.broken(&e))?;
        let mut answer = Vec::new();
        let mut chunk = [0_u8; 4096];
        loop {
            let left = self.left()?;
            self.stream.set_read_timeout(Some(left)).map_err(|e| self.broken(&e))?;
            let length = match self.stream.read(&mut chunk) {
                Ok(0) => return Err(self.gone()),
                Ok(length) => length,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(self.broken(&e)),
            };
            answer.extend_from_slice(&chunk[..length]);
            if let Some(end) = answer.iter().position(|byte| *byte == b'\n') {
                answer.truncate(end);
                return String::from_utf8(answer).map_err(|_bytes| {
                    format!(
                        "the vgpu agent at {} answered what is not UTF-8",
                        self.socket.display()
                    )
                });
            }
            if answer.len() > MAX_ANSWER {
                return Err(format!(
                    "the vgpu agent at {} answered more than {MAX_ANSWER} bytes without a line end",
                    self.socket.display()
                ));
            }
        }
    }

    /// The time that is left, of which 0 would mean "for ever" to the socket.
    fn left(&self) -> Outcome<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(self.late()) } else { Ok(left) }
    }

    fn broken(&self, error: &std::io::Error) -> String {
        match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => self.late(),
            _ => format!("the line to the vgpu agent at {} broke: {error}", self.socket.display()),
        }
    }

    fn gone(&self) -> String {
        format!("the vgpu agent at {} hung up without an answer", self.socket.display())
    }

    fn late(&self) -> String {
        format!(
            "the vgpu agent at {} did not answer within {} ms",
            self.socket.display(),
            self.timeout.as_millis()
        )
    }
}

/// `{"ok":true}`, or `{"ok":false,"error":"…"}`; anything else is no yes.
fn understand(answer: &str, socket: &Path) -> Outcome<()> {
    let value: Value = serde_json::from_str(answer).unwrap_or(Value::Null);
    match (value.get("ok").and_then(Value::as_bool), value.get("error").and_then(Value::as_str)) {
        (Some(true), _) => Ok(()),
        (Some(false), why) => {
            Err(format!("the vgpu agent refuses: {}", why.unwrap_or("it does not say why")))
        }
        (None, _) => Err(format!(
            "the vgpu agent at {} answered {answer:?}, which is neither yes nor no",
            socket.display()
        )),
    }
}

/// A claim's name goes into a line and perhaps into paths on the other side.
fn checked_claim(text: &str) -> Outcome<String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    if text.is_empty() || text.len() > 253 || !text.chars().all(fine) {
        return Err(format!(
            "claim {text:?} is not 1 to 253 letters, digits, '-', '_', '.' and ':'"
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Duration = Duration::from_secs(10);

    fn parse(args: &[&str]) -> Outcome<Options> {
        Options::parse(
            "confine",
            &args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>(),
            TEN,
        )
    }

    #[test]
    fn options_are_read_in_any_order() {
        let expected = Options {
            claim: "c-1".to_owned(),
            socket: "/run/s".into(),
            timeout: TEN,
            proc: "/proc".into(),
        };
        assert_eq!(parse(&["c-1", "--socket", "/run/s"]).as_ref(), Ok(&expected));
        assert_eq!(parse(&["--socket", "/run/s", "c-1"]), Ok(expected));
    }

    #[test]
    fn bad_options_are_refused() {
        for args in [
            &[][..],
            &["c"],
            &["--socket", "/s"],
            &["c", "--socket"],
            &["c", "d", "--socket", "/s"],
            &["c\n", "--socket", "/s"],
            &["", "--socket", "/s"],
            &["c", "--socket", "/s", "--timeout-ms", "0"],
            &["c", "--socket", "/s", "--nonsense"],
        ] {
            assert!(parse(args).is_err(), "{args:?}");
        }
    }

    #[test]
    fn only_a_yes_is_a_yes() {
        let path = Path::new("/s");
        assert_eq!(understand(r#"{"ok":true}"#, path), Ok(()));
        let refused = understand(r#"{"ok":false,"error":"no such claim"}"#, path);
        assert_eq!(refused, Err("the vgpu agent refuses: no such claim".to_owned()));
        for answer in ["", "true", "{}", r#"{"ok":"true"}"#, r#"{"ok":1}"#, "ok"] {
            assert!(understand(answer, path).is_err(), "{answer}");
        }
    }
}
