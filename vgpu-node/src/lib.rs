//! One node: its inventory, offers, claims and ledger, the lanes to its drivers, and its health.
//! Knows no Kubernetes.

pub mod health;
pub mod inventory;
pub mod lanes;
pub mod ledger;
pub mod points;
pub mod publish;
