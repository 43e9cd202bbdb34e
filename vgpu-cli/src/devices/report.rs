//! What was found, as data; published as `docs/schemas/devices.json`.

use serde::{Deserialize, Serialize};
use vgpu_core::{BackendInfo, Device, Error, Link, Lost, Partition};

use crate::failure::told;

/// Everything that was found. `vgpu plan` takes it as a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Report {
    /// Of this form: 1.
    pub(crate) version: u32,
    /// One for each backend that was asked.
    pub(crate) backends: Vec<Found>,
}

impl Report {
    pub(crate) fn of(backends: Vec<Found>) -> Self {
        Self { version: 1, backends }
    }

    /// Whether a backend is broken; lost cards of one that works do not make it so.
    pub(crate) fn is_broken(&self) -> bool {
        self.backends.iter().any(|found| found.state == State::Broken)
    }

    /// Every card, in order.
    pub(crate) fn devices(&self) -> impl Iterator<Item = &Device> {
        self.backends.iter().flat_map(|found| &found.devices)
    }
}

/// What became of one backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Found {
    /// Its name.
    pub(crate) backend: String,
    /// Whether it works.
    pub(crate) state: State,
    /// Why not; absent where it works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// The error behind the reason, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<Error>,
    /// What is loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) info: Option<BackendInfo>,
    /// Cards that answered.
    #[serde(default)]
    pub(crate) devices: Vec<Device>,
    /// Cards that are there and did not answer.
    #[serde(default)]
    pub(crate) lost: Vec<Lost>,
    /// How near the cards are to one another; a pair that is not listed is unknown.
    #[serde(default)]
    pub(crate) links: Vec<Link>,
    /// Parts that are on the cards, whoever made them.
    #[serde(default)]
    pub(crate) partitions: Vec<Partition>,
    /// What could not be read of cards that answered otherwise.
    #[serde(default)]
    pub(crate) unread: Vec<Unread>,
}

impl Found {
    /// One of which nothing but its state is known.
    pub(crate) fn new(backend: impl Into<String>, state: State) -> Self {
        Self {
            backend: backend.into(),
            state,
            reason: None,
            error: None,
            info: None,
            devices: Vec::new(),
            lost: Vec::new(),
            links: Vec::new(),
            partitions: Vec::new(),
            unread: Vec::new(),
        }
    }

    pub(crate) fn absent(backend: impl Into<String>, why: String) -> Self {
        Self { reason: Some(why), ..Self::new(backend, State::Absent) }
    }

    pub(crate) fn broken(backend: impl Into<String>, error: Error) -> Self {
        Self { reason: Some(told(&error)), error: Some(error), ..Self::new(backend, State::Broken) }
    }
}

/// Whether a backend works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub(crate) enum State {
    /// Neither card nor library.
    Absent,
    /// Card or library is there, and they do not work together.
    Broken,
    /// It answers.
    Ready,
}

/// Something that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Unread {
    /// What: `topology`, or `partitions of GPU-…`.
    pub(crate) what: String,
    /// Why.
    pub(crate) error: Error,
}
