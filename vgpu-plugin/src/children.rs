//! Backends in processes of their own: what the configuration says of them, and the agent's own
//! program as a child.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use serde::{Deserialize, Serialize};
use vgpu_backend_child::{ChildFactory, ChildOptions, serve};
use vgpu_core::{BackendFactory, Bytes, Host, Vendor};

use crate::args::ServeArgs;
use crate::backends::{BackendArgs, Choice, Name};
use crate::config::NodeConfig;

/// The hidden word by which this program is a backend and nothing else.
const SUBCOMMAND: &str = "backend";

/// No library starts with less.
const LEAST_MEMORY: Bytes = Bytes::mib(64);

/// Where one vendor's backend runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct BackendConfig {
    /// In which process. With `command` it is a child; without, the agent's own, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessKind>,
    /// The program of a vendor from elsewhere, and its arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// How much address space the child may have; no limit if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
    /// How long a call may take before the child is killed, in seconds; 60 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_seconds: Option<u32>,
}

/// In which process a backend runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProcessKind {
    /// One of its own.
    Child,
    /// The agent's.
    InProcess,
}

impl BackendConfig {
    /// Whether it runs in a child.
    pub fn is_child(&self) -> bool {
        self.command.is_some() || self.process == Some(ProcessKind::Child)
    }

    /// What is wrong with it, and what to write instead.
    pub(crate) fn check(&self, vendor: &str) -> Result<(), String> {
        let here = format!("backends.{vendor}");
        let named = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if vendor.is_empty() || vendor.len() > 32 || !vendor.chars().all(named) {
            return Err(format!(
                "{here}: a vendor's name has small letters, digits and -, up to 32"
            ));
        }
        match &self.command {
            Some(_) if self.process == Some(ProcessKind::InProcess) => {
                return Err(format!(
                    "{here}: a command runs in a process of its own; remove process"
                ));
            }
            Some(words) if !words.first().is_some_and(|word| Path::new(word).is_absolute()) => {
                return Err(format!(
                    "{here}.command starts with no absolute path; name the program"
                ));
            }
            _ => {}
        }
        if !self.is_child() && (self.memory.is_some() || self.call_seconds.is_some()) {
            return Err(format!(
                "{here}: memory and callSeconds are for a child; write process: child, or remove them"
            ));
        }
        if self.memory.is_some_and(|memory| memory < LEAST_MEMORY) {
            return Err(format!("{here}.memory must be at least {LEAST_MEMORY}"));
        }
        if self.call_seconds.is_some_and(|seconds| seconds == 0 || seconds > 3_600) {
            return Err(format!("{here}.callSeconds must be from 1 to 3600"));
        }
        Ok(())
    }

    /// `own` are the words by which this program has the same backends as now.
    fn options(&self, vendor: &str, own: &[OsString]) -> ChildOptions {
        let options = match self.command.as_deref().and_then(<[_]>::split_first) {
            Some((program, arguments)) => ChildOptions::new(program).arguments(arguments),
            None => {
                let words = [OsString::from(SUBCOMMAND), vendor.into()];
                ChildOptions::own(words.into_iter().chain(own.iter().cloned()))
            }
        };
        let call = self.call_seconds.map(|seconds| Duration::from_secs(seconds.into()));
        ChildOptions { memory: self.memory, call: call.unwrap_or(options.call), ..options }
    }
}

/// Puts vendors into children as the configuration says, and adds those that it brings.
///
/// The factories of the children are also returned by themselves, so that they can be ended.
///
/// # Errors
/// A vendor that this agent does not serve and for which no command is given.
pub fn place(
    mut choices: Vec<Choice>,
    config: &NodeConfig,
    own: &BackendArgs,
) -> anyhow::Result<(Vec<Choice>, Vec<Arc<ChildFactory>>)> {
    // As they are now: a child that is started anew reads no file that was changed meanwhile.
    let mut words = own.again();
    words.extend(ServeArgs::again(&config.nvidia)?);
    let mut configured = config.backends.clone();
    // What crashes there or forks never does in the agent's own process, unless somebody wants it so.
    if own.serves(Name::Hygon) && own.look.wants_child(Name::Hygon) {
        let hygon = configured.entry(Name::Hygon.to_string()).or_default();
        if hygon.command.is_none() {
            hygon.process.get_or_insert(ProcessKind::Child);
        }
    }
    let mut children = Vec::new();
    for (vendor, config) in &configured {
        let at = choices.iter().position(|c| c.factory.vendor().as_str() == vendor);
        if at.is_none() && config.command.is_none() {
            let served: Vec<String> =
                choices.iter().map(|c| c.factory.vendor().to_string()).collect();
            bail!(
                "backends.{vendor}: this agent serves no such vendor, only {}; correct the name, \
                 or give a command",
                served.join(", ")
            );
        }
        if !config.is_child() {
            continue;
        }
        let options = config.options(vendor, &words);
        let child = Arc::new(ChildFactory::new(Vendor::new(vendor.clone()), options));
        children.push(child.clone());
        match at {
            Some(at) => choices[at].factory = child,
            None => {
                let host = Host { root: own.look.host_root.clone(), library: None };
                choices.push(Choice { factory: child, host });
            }
        }
    }
    Ok((choices, children))
}

/// Is the backend of one of these vendors and nothing else, until the agent ends.
///
/// # Errors
/// A vendor that is none of them.
pub fn be_backend(choices: Vec<Choice>, vendor: &str) -> anyhow::Result<ExitCode> {
    let chosen = choices.into_iter().find(|c| c.factory.vendor().as_str() == vendor);
    let Some(chosen) = chosen else { bail!("there is no backend of {vendor} in this program") };
    Ok(serve(chosen.factory, env!("CARGO_PKG_VERSION")))
}
