//! One node: its inventory, offers, claims and ledger, the lanes to its drivers, and its health.
//! Knows no Kubernetes.
//!
//! | module | holds |
//! | --- | --- |
//! | [`offer`], [`slots`] | what is offered, laid over the cards as ids |
//! | [`listing`], [`prefer`] | what the kubelet is told, and which ids a container should get |
//! | [`claim`], [`node`] | claims and the node that has them; `fits`, `identify`, `prepare`, `release`, `reconcile`, `containers`, `notice`, `republish`, `adopt` act on it |
//! | [`pool`] | layouts: parts made ahead and kept so |
//! | [`absence`] | when the kubelet's silence is proof that a pod is gone |
//! | [`ledger`] | the journal that survives a crash |
//! | [`lanes`], [`inventory`] | calls to drivers that may hang, and what they say is there |
//! | [`health`] | from events to usable or not |
//! | [`publish`] | CDI specs and claim files, written and withdrawn |
//! | [`status`] | who holds what, for people |
//! | [`watch`] | the threads that follow the hardware |
//! | [`points`] | where tests end the agent |

pub mod absence;
mod adopt;
pub mod claim;
mod containers;
mod fits;
pub mod health;
mod identify;
pub mod inventory;
pub mod lanes;
pub mod ledger;
pub mod listing;
mod modes;
mod needs;
pub mod node;
mod notice;
pub mod offer;
pub mod points;
pub mod pool;
pub mod prefer;
mod prepare;
pub mod publish;
mod reconcile;
mod release;
mod republish;
mod resize;
pub mod slots;
pub mod status;
pub mod watch;

pub use absence::KubeletView;
pub use adopt::Allocated;
pub use identify::{CheckpointClaim, Prepare};
pub use node::{Allocation, Node, NodeOptions};
pub use offer::{Offer, ResourceName};
pub use pool::CardLayout;
pub use status::ClaimStatus;
pub use watch::Watch;
