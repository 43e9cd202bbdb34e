//! What the runtime says about the container, and where its root is.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::Outcome;

/// The OCI state, as far as hooks need it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// The container's first process, seen from the host; a runtime gives it to hooks of a made container.
    pub(crate) pid: Option<u32>,
    /// The folder with the container's `config.json`.
    pub(crate) bundle: PathBuf,
}

const CONFIG: &str = "config.json";

/// A state is a few hundred bytes; annotations make it some more.
const MAX_STATE: u64 = 1 << 20;
/// A configuration has every mount and environment variable of a container.
const MAX_CONFIG: u64 = 16 << 20;

impl State {
    pub(crate) fn from_stdin() -> Outcome<Self> {
        let text = bounded(std::io::stdin().lock(), MAX_STATE)
            .map_err(|e| format!("cannot read the container's state from stdin: {e}"))?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Outcome<Self> {
        let state: Value = serde_json::from_str(text).map_err(|e| {
            format!("stdin is not a container's state as an OCI runtime writes it: {e}")
        })?;
        let bundle = state.get("bundle").and_then(Value::as_str).ok_or(
            "the container's state on stdin has no \"bundle\"; was this called by an OCI runtime?",
        )?;
        if !bundle.starts_with('/') {
            return Err(format!(
                "the bundle in the container's state, {bundle:?}, is not absolute"
            ));
        }
        let pid = state.get("pid").and_then(Value::as_u64);
        let pid = pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
        Ok(Self { pid, bundle: PathBuf::from(bundle) })
    }

    /// The text of the container's configuration.
    pub(crate) fn config(&self) -> Outcome<String> {
        let path = self.bundle.join(CONFIG);
        File::open(&path).and_then(|file| bounded(file, MAX_CONFIG)).map_err(|e| {
            format!("cannot read the container's configuration {}: {e}", path.display())
        })
    }

    /// The container's root on the host, from its bundle.
    pub(crate) fn root(&self) -> Outcome<PathBuf> {
        let path = self.bundle.join(CONFIG);
        let text = self.config()?;
        let config: Value = serde_json::from_str(&text).map_err(|e| {
            format!("the container's configuration {} is no JSON: {e}", path.display())
        })?;
        let root = config.pointer("/root/path").and_then(Value::as_str).filter(|p| !p.is_empty());
        let root = root.ok_or_else(|| format!("{} names no root.path", path.display()))?;
        // A relative root is relative to the bundle; joining an absolute one gives that.
        Ok(self.bundle.join(Path::new(root)))
    }
}

/// Reads a text of at most `limit` bytes.
pub(crate) fn bounded(from: impl Read, limit: u64) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    from.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(std::io::Error::other(format!("more than {limit} bytes")));
    }
    String::from_utf8(bytes).map_err(|_bytes| std::io::Error::other("not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read() {
        let text = r#"{"ociVersion":"1.2.0","id":"c1","status":"created","pid":77,"bundle":"/b"}"#;
        assert_eq!(State::parse(text), Ok(State { pid: Some(77), bundle: "/b".into() }));
        let none = r#"{"status":"creating","pid":0,"bundle":"/b"}"#;
        assert_eq!(State::parse(none).map(|state| state.pid), Ok(None));
    }

    #[test]
    fn what_is_no_state_is_refused() {
        for text in ["", "null", "{", "{}", r#"{"bundle":7}"#, r#"{"bundle":"rel"}"#] {
            assert!(State::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn too_much_is_refused() {
        assert!(bounded(std::io::repeat(b'x'), 1000).is_err());
        assert_eq!(bounded(&b"1234"[..], 4).ok().as_deref(), Some("1234"));
    }
}
