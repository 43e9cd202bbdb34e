//! The apiserver, through `kubectl proxy`.
//!
//! Plain JSON over plain HTTP: the kube crate would make this crate of chores, which every check builds, a matter of
//! minutes, and would ask for TLS into a network that is not ours to reach.

use std::io::BufRead as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::cluster::http::{Answer, Request, send};

/// How long the apiserver may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// The apiserver.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    socket: PathBuf,
}

impl Api {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// An object, if it is there.
    pub(crate) fn find(&self, path: &str) -> Result<Option<Value>> {
        let answer = self.ask("GET", path, None)?;
        if answer.status == 404 {
            return Ok(None);
        }
        parse(path, answer).map(Some)
    }

    /// An object that must be there.
    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        parse(path, self.ask("GET", path, None)?)
    }

    /// A text, such as a log.
    pub(crate) fn text(&self, path: &str) -> Result<String> {
        let answer = self.ask("GET", path, None)?;
        let status = answer.status;
        let text = answer.text()?;
        if status != 200 {
            bail!("GET {path} gave {status}: {}", text.trim());
        }
        Ok(text)
    }

    /// Makes an object.
    pub(crate) fn create(&self, path: &str, object: &Value) -> Result<Value> {
        let body = serde_json::to_vec(object)?;
        parse(path, self.ask("POST", path, Some(("application/json", &body)))?)
    }

    /// Puts an object in the place of the one it was read from.
    pub(crate) fn replace(&self, path: &str, object: &Value) -> Result<Value> {
        let body = serde_json::to_vec(object)?;
        parse(path, self.ask("PUT", path, Some(("application/json", &body)))?)
    }

    /// Asks for an object's end; one that is gone already is well.
    pub(crate) fn delete(&self, path: &str) -> Result<()> {
        let answer = self.ask("DELETE", path, None)?;
        if answer.status == 404 {
            return Ok(());
        }
        parse(path, answer).map(drop)
    }

    /// Changes as they come, until `seen` has an answer.
    ///
    /// # Errors
    /// `seen` fails, the watch ends, or nothing comes for a minute.
    pub(crate) fn watch<T>(
        &self,
        path: &str,
        mut seen: impl FnMut(&Value) -> Result<Option<T>>,
    ) -> Result<T> {
        let answer = self.ask("GET", path, None)?;
        if answer.status != 200 {
            let status = answer.status;
            bail!("GET {path} gave {status}: {}", answer.text()?.trim());
        }
        for line in answer.lines().lines() {
            let line = line.with_context(|| format!("watching {path}"))?;
            let change: Value = serde_json::from_str(&line)
                .with_context(|| format!("{line:?} of {path} is no change"))?;
            if let Some(answer) = seen(&change)? {
                return Ok(answer);
            }
        }
        bail!("the watch of {path} ended")
    }

    fn ask(&self, method: &str, path: &str, body: Option<(&str, &[u8])>) -> Result<Answer> {
        send(&self.socket, &Request { method, path, body, patience: PATIENCE })
    }
}

fn parse(path: &str, answer: Answer) -> Result<Value> {
    let status = answer.status;
    let text = answer.text()?;
    if !(200..300).contains(&status) {
        // The apiserver's own words are in the message.
        let said = serde_json::from_str::<Value>(&text).ok();
        let said = said.as_ref().and_then(|v| v["message"].as_str()).unwrap_or(&text);
        bail!("{path} gave {status}: {said}");
    }
    serde_json::from_str(&text).with_context(|| format!("the answer of {path} is no JSON"))
}
