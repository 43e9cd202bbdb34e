//! Why not, card by card: what a pod's author reads in the Event.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::guarantee::Enforcement;
use crate::id::{DeviceId, ProfileId};
use crate::scheme::{Change, Scheme};

/// Why a request cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{}", Told(self))]
pub struct Refusal {
    /// Cards asked for.
    pub asked: usize,
    /// Cards that would do.
    pub found: usize,
    /// What is wrong with the request itself, whatever the cards.
    pub request: Option<String>,
    /// One reason for every card that will not do.
    pub reasons: Vec<Reason>,
}

impl Refusal {
    /// A request that no machine could serve.
    pub fn of_request(why: impl Into<String>) -> Self {
        Self { asked: 0, found: 0, request: Some(why.into()), reasons: Vec::new() }
    }
}

/// Why one card will not do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The card.
    pub device: DeviceId,
    /// Why.
    pub why: Why,
}

/// The reasons there are, from the one nearest to fitting to the farthest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Why {
    /// All of it fits, but not now.
    #[error("no room for {asked} under {scheme}")]
    NoRoom {
        /// Scheme that would serve.
        scheme: Scheme,
        /// What was asked, rounded.
        asked: String,
    },
    /// The scheme's limit of claims is reached.
    #[error("all {max} claims of {scheme} are taken")]
    NoSlot {
        /// Scheme.
        scheme: Scheme,
        /// Its limit.
        max: u32,
    },
    /// Too many different sizes live on the card.
    #[error("{scheme} allows {max} different sizes at once and this would be another")]
    TooManySizes {
        /// Scheme.
        scheme: Scheme,
        /// Its limit.
        max: u32,
    },
    /// Another tenant group is on it.
    #[error("shared with trust domain {with}")]
    OtherDomain {
        /// Which.
        with: String,
    },
    /// The card is used under another scheme.
    #[error("in use under {by}")]
    InUse {
        /// Which.
        by: Scheme,
    },
    /// The card is not in the scheme's mode.
    #[error("not in {scheme} mode; entering it asks for: {needs}")]
    WrongMode {
        /// Scheme.
        scheme: Scheme,
        /// What entering asks for.
        needs: Change,
    },
    /// A guarantee is too weak.
    #[error("{scheme} enforces {axis} at level {has}, {asked} was asked")]
    EnforcesLess {
        /// Scheme.
        scheme: Scheme,
        /// Axis.
        axis: String,
        /// What it has.
        has: Enforcement,
        /// What was asked.
        asked: Enforcement,
    },
    /// No profile of that name.
    #[error("{scheme} has no profile {profile}")]
    NoProfile {
        /// Scheme.
        scheme: Scheme,
        /// Asked for.
        profile: ProfileId,
    },
    /// The scheme cannot give such a size on any such card, even an empty one.
    #[error("{scheme} cannot: {why}")]
    Cannot {
        /// Scheme.
        scheme: Scheme,
        /// Why.
        why: String,
    },
    /// None of the schemes asked for is there.
    #[error("has none of the schemes asked for")]
    NoScheme,
    /// The selector leaves it out.
    #[error("not selected")]
    NotSelected,
}

impl Why {
    /// How far from fitting; a smaller one is the better thing to tell.
    pub(crate) fn distance(&self) -> u8 {
        match self {
            Self::NoRoom { .. } => 0,
            Self::NoSlot { .. } => 1,
            Self::TooManySizes { .. } => 2,
            Self::OtherDomain { .. } => 3,
            Self::InUse { .. } => 4,
            Self::WrongMode { .. } => 5,
            Self::EnforcesLess { .. } => 6,
            Self::Cannot { .. } => 7,
            Self::NoProfile { .. } => 8,
            Self::NoScheme => 9,
            Self::NotSelected => 10,
        }
    }
}

struct Told<'r>(&'r Refusal);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let r = self.0;
        if let Some(why) = &r.request {
            return f.write_str(why);
        }
        write!(f, "{} of {} cards fit", r.found, r.asked)?;
        let told: Vec<String> = r
            .reasons
            .iter()
            .filter(|reason| reason.why != Why::NotSelected)
            .map(|reason| format!("{}: {}", reason.device, reason.why))
            .collect();
        if told.is_empty() {
            return write!(f, ": no card is selected");
        }
        write!(f, "; {}", told.join("; "))
    }
}
