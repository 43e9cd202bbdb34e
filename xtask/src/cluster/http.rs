//! HTTP/1.1 over a Unix socket, as much of it as `kubectl proxy` speaks.
//!
//! One request a connection: the answers are read by their length, in chunks, or to the end.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// One request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'r> {
    pub(crate) method: &'r str,
    pub(crate) path: &'r str,
    /// The body and its type.
    pub(crate) body: Option<(&'r str, &'r [u8])>,
    /// How long the peer may say nothing.
    pub(crate) patience: Duration,
}

/// An answer whose body is still to be read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    body: Body,
}

impl Answer {
    /// The whole body.
    pub(crate) fn text(self) -> Result<String> {
        let mut bytes = Vec::new();
        let mut body = self.body;
        body.read_to_end(&mut bytes).context("the answer broke off")?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The body as it comes.
    pub(crate) fn lines(self) -> BufReader<Body> {
        BufReader::new(self.body)
    }
}

/// Sends a request and reads the answer's head.
pub(crate) fn send(socket: &Path, request: &Request<'_>) -> Result<Answer> {
    let mut stream = UnixStream::connect(socket)
        .with_context(|| format!("cannot connect to {}", socket.display()))?;
    stream.set_read_timeout(Some(request.patience))?;
    let (kind, body) = request.body.unwrap_or(("", &[]));
    let mut head = format!(
        "{} {} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json, */*\r\nConnection: close\r\n",
        request.method, request.path
    );
    if request.body.is_some() {
        head.push_str(&format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    answer(BufReader::new(stream)).with_context(|| format!("{} {}", request.method, request.path))
}

fn answer(mut reader: BufReader<UnixStream>) -> Result<Answer> {
    let first = line(&mut reader)?;
    let status = first.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    let status = status.with_context(|| format!("{first:?} is no answer"))?;
    let mut rest = Rest::ToEnd;
    loop {
        let header = line(&mut reader)?;
        if header.is_empty() {
            return Ok(Answer { status, body: Body { reader, rest } });
        }
        let (name, value) =
            header.split_once(':').with_context(|| format!("{header:?} is no header"))?;
        match (name.to_ascii_lowercase().as_str(), value.trim()) {
            ("content-length", length) => rest = Rest::Bytes(length.parse()?),
            ("transfer-encoding", "chunked") => rest = Rest::Chunks { left: 0, ended: false },
            _ => {}
        }
    }
}

/// A body, taken out of its framing.
#[derive(Debug)]
pub(crate) struct Body {
    reader: BufReader<UnixStream>,
    rest: Rest,
}

#[derive(Debug)]
enum Rest {
    Bytes(u64),
    Chunks { left: u64, ended: bool },
    ToEnd,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = match &mut self.rest {
            Rest::ToEnd => return self.reader.read(buffer),
            Rest::Bytes(left) => left,
            Rest::Chunks { ended: true, .. } => return Ok(0),
            Rest::Chunks { left, ended } => {
                if *left == 0 {
                    *left = chunk(&mut self.reader)?;
                    *ended = *left == 0;
                }
                left
            }
        };
        if *left == 0 {
            return Ok(0);
        }
        let most = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.reader.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        *left -= read as u64;
        if *left == 0 && matches!(self.rest, Rest::Chunks { .. }) {
            // The line end behind a chunk.
            line(&mut self.reader).map_err(std::io::Error::other)?;
        }
        Ok(read)
    }
}

/// The length of the next chunk; 0 is the last.
fn chunk(reader: &mut BufReader<UnixStream>) -> std::io::Result<u64> {
    let mut text = String::new();
    reader.read_line(&mut text)?;
    let digits = text.trim().split(';').next().unwrap_or_default();
    u64::from_str_radix(digits, 16)
        .map_err(|e| std::io::Error::other(format!("{text:?} is no chunk's length: {e}")))
}

fn line(reader: &mut BufReader<UnixStream>) -> Result<String> {
    let mut text = String::new();
    ensure!(reader.read_line(&mut text)? > 0, "the peer closed the connection");
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    /// What a client reads of such an answer.
    fn read(answer: &'static str) -> Result<(u16, String)> {
        let dir = tempfile::tempdir().expect("a folder");
        let socket = dir.path().join("s");
        let listener = UnixListener::bind(&socket).expect("binds");
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut asked = BufReader::new(stream.try_clone().expect("clones"));
            while !line(&mut asked).expect("a header").is_empty() {}
            stream.write_all(answer.as_bytes()).expect("answers");
        });
        let request =
            Request { method: "GET", path: "/", body: None, patience: Duration::from_secs(30) };
        let got = send(&socket, &request).and_then(|a| Ok((a.status, a.text()?)));
        server.join().expect("the server ends");
        got
    }

    #[test]
    fn bodies_are_read_in_each_framing() {
        let chunked = "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n\
                       4\r\nhead\r\n5;x=y\r\n and \r\n4\r\ntail\r\n0\r\n\r\n";
        assert_eq!(read(chunked).expect("reads"), (201, "head and tail".into()));
        let sized = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcdef";
        assert_eq!(read(sized).expect("reads"), (200, "abc".into()));
        assert_eq!(read("HTTP/1.1 404 Not Found\r\n\r\nno").expect("reads"), (404, "no".into()));
    }

    #[test]
    fn a_broken_answer_is_an_error() {
        assert!(read("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc").is_err());
        assert!(read("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nabc").is_err());
        assert!(read("nonsense\r\n\r\n").is_err());
        assert!(read("").is_err());
    }
}
