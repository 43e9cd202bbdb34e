//! The cases, by part of the contract.

pub(crate) mod discovery;
pub(crate) mod faults;
pub(crate) mod health;
pub(crate) mod isolation;
pub(crate) mod mode;
pub(crate) mod partition;
pub(crate) mod restart;
pub(crate) mod room;
