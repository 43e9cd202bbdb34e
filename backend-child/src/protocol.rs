//! The messages, as JSON; `docs/child-protocol.md` is the same in words.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use vgpu_core::wire::{Call, Reply};
use vgpu_core::{BackendInfo, Error, Host, Vendor};

/// The version of the protocol that this crate speaks.
pub const PROTOCOL: u32 = 1;

/// The longest frame in bytes, without its length, in either direction.
pub const FRAME_LIMIT: usize = 16 << 20;

/// So many calls are in the child at once; lanes need far fewer.
pub(crate) const IN_FLIGHT: usize = 64;

/// What the agent sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Asked {
    /// A call of the backend.
    Call { id: u64, call: Call },
    /// The first frame.
    Hello { protocol: u32 },
    /// To look and load; the backend that it finds answers all later calls.
    Probe { id: u64, host: Place },
}

/// What the child sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answered {
    /// A call went wrong.
    Failed { id: u64, error: Error },
    /// Its first frame, and the answer to hello.
    Hello { protocol: u32, vendor: Vendor, version: String },
    /// What a probe found.
    Probed { id: u64, probe: Found },
    /// A call went well.
    Replied { id: u64, reply: Reply },
}

/// Where a backend looks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) root: PathBuf,
    #[serde(default)]
    pub(crate) library: Option<PathBuf>,
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Found {
    Absent(String),
    Broken(Error),
    Ready(BackendInfo),
}

/// A message of which only the id could be read.
#[derive(Debug, Deserialize)]
pub(crate) struct Unknown {
    pub(crate) id: u64,
}

impl From<&Host> for Place {
    fn from(host: &Host) -> Self {
        // The child's folder is another. The name of a library alone is searched for.
        let whole = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let library = host.library.as_ref().map(|library| match library.components().count() {
            1 => library.clone(),
            _ => whole(library),
        });
        Self { root: whole(&host.root), library }
    }
}

impl From<Place> for Host {
    fn from(place: Place) -> Self {
        Self { root: place.root, library: place.library }
    }
}

/// Whether a call changes something: how it ended is in doubt when its child ends first.
pub(crate) fn changes(call: &Call) -> bool {
    match call {
        Call::Confine(..)
        | Call::Create(_)
        | Call::Destroy(_)
        | Call::Resize(..)
        | Call::SetMode(_)
        | Call::Sweep(..)
        | Call::Unconfine(..) => true,
        Call::Check(_)
        | Call::Edits(_)
        | Call::Info
        | Call::Partitions(_)
        | Call::Scan
        | Call::Topology
        | Call::Usage(_)
        | Call::Wait(_) => false,
        // Of a newer core: the careful answer.
        _ => true,
    }
}

/// The name of a call, as operations are named.
pub(crate) fn name(call: &Call) -> &'static str {
    match call {
        Call::Check(_) => "check",
        Call::Confine(..) => "confine",
        Call::Create(_) => "create",
        Call::Destroy(_) => "destroy",
        Call::Edits(_) => "edits",
        Call::Info => "info",
        Call::Partitions(_) => "partitions",
        Call::Resize(..) => "resize",
        Call::Scan => "scan",
        Call::SetMode(_) => "set_mode",
        Call::Sweep(..) => "sweep",
        Call::Topology => "topology",
        Call::Unconfine(..) => "unconfine",
        Call::Usage(_) => "usage",
        Call::Wait(_) => "wait",
        _ => "call",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_found_from_another_folder() {
        let here = std::env::current_dir().expect("a folder");
        let host = Host { root: "tree".into(), library: Some("lib/libacme.so".into()) };
        let place = Place::from(&host);
        assert_eq!(place.root, here.join("tree"));
        assert_eq!(place.library, Some(here.join("lib/libacme.so")));
        let host = Host { root: "/".into(), library: Some("libacme.so.1".into()) };
        let place = Place::from(&host);
        assert_eq!((place.root.to_str(), place.library), (Some("/"), host.library));
    }
}
