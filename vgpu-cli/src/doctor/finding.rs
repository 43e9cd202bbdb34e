//! One thing that was looked at, and what is to be said of it.

use serde::Serialize;

use crate::doctor::catalogue::Check;

/// How bad it is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, strum::Display, strum::EnumIter,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub(crate) enum Severity {
    /// As it should be.
    Ok,
    /// Good to know.
    Note,
    /// Something will not work as one might expect, or may give a card out twice.
    Warning,
    /// Containers would not start, or a card is given out twice.
    Error,
}

/// What it is about, in the order in which it is told.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    strum::Display,
    strum::EnumIter,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub(crate) enum Topic {
    /// Other device plugins and DRA drivers.
    #[default]
    Plugins,
    /// The container runtime.
    Runtime,
    /// CDI specs.
    Cdi,
    /// Cards, parts and who uses them.
    Cards,
    /// What HAMi left.
    Hami,
    /// The host itself.
    Host,
    /// The agent.
    Agent,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Finding {
    /// What it is about.
    pub(crate) topic: Topic,
    /// The check's name, `DOC-CDI-2`; stays the same for good.
    pub(crate) id: &'static str,
    /// How bad it is.
    pub(crate) severity: Severity,
    /// What, in one line.
    pub(crate) what: String,
    /// Where: a path on the host, or a card.
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    pub(crate) place: Option<String>,
    /// What to do.
    #[serde(rename = "do", skip_serializing_if = "Option::is_none")]
    pub(crate) remedy: Option<String>,
}

impl Finding {
    /// What a check found; severity and topic are the check's.
    pub(crate) fn new(check: Check, what: impl AsRef<str>) -> Self {
        let row = check.row();
        Self {
            topic: row.topic,
            id: row.id,
            severity: row.severity,
            what: line(what.as_ref()),
            place: None,
            remedy: None,
        }
    }

    /// Of another topic than the check's, for checks that belong to every topic.
    #[must_use]
    pub(crate) fn about(self, topic: Topic) -> Self {
        Self { topic, ..self }
    }

    /// Where.
    #[must_use]
    pub(crate) fn at(self, place: impl ToString) -> Self {
        Self { place: Some(line(&place.to_string())), ..self }
    }

    /// What to do.
    #[must_use]
    pub(crate) fn so(self, remedy: impl AsRef<str>) -> Self {
        Self { remedy: Some(line(remedy.as_ref())), ..self }
    }
}

/// One line, whatever a file or driver had in it.
fn line(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let text: String = text.chars().map(plain).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
