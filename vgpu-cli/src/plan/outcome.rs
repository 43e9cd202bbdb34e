//! The answers, as data; published as `docs/schemas/plan-output.json`.

use serde::Serialize;
use vgpu_core::plan::{Assignment, Refusal};
use vgpu_core::{ClaimId, Guarantees};

/// An answer for each request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Outcome {
    /// Of this form: 1.
    pub(crate) version: u32,
    /// Requests that have a place.
    pub(crate) placed: usize,
    /// Requests that have none.
    pub(crate) refused: usize,
    /// In the order of the requests.
    pub(crate) answers: Vec<Answer>,
}

impl Outcome {
    pub(crate) fn of(answers: Vec<Answer>) -> Self {
        let placed = answers.iter().filter(|answer| answer.node.is_some()).count();
        Self { version: 1, placed, refused: answers.len() - placed, answers }
    }
}

/// What became of one request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Answer {
    /// Its claim.
    pub(crate) claim: ClaimId,
    /// Where it goes; absent where it is refused.
    pub(crate) node: Option<String>,
    /// What it gets, a card each.
    pub(crate) grants: Vec<Granted>,
    /// Why not, node by node.
    pub(crate) refusals: Vec<NodeRefusal>,
}

/// What it gets on one card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Granted {
    /// The card, and what is to be done.
    #[serde(flatten)]
    pub(crate) assignment: Assignment,
    /// What is enforced, per axis.
    pub(crate) enforces: Guarantees,
}

/// Why a node cannot serve it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct NodeRefusal {
    /// The node.
    pub(crate) node: String,
    /// In one line.
    pub(crate) message: String,
    /// Card by card.
    pub(crate) refusal: Refusal,
}

impl NodeRefusal {
    pub(crate) fn of(node: &str, refusal: Refusal) -> Self {
        Self { node: node.to_owned(), message: refusal.to_string(), refusal }
    }
}
