//! The contract of the core traits as executable cases: one for each clause.
//!
//! A [`Fixture`] says how a backend is opened, what may be done to it, and which faults can be
//! played. [`run`] tries every case on every card and scheme that the backend declares;
//! `conformance_tests!` makes the same a `harness = false` test (feature `harness`); [`cli`] holds
//! the commands of a conformance tool.
//!
//! Cases assume nothing that only a mock fulfils: without [`Permission::Destructive`] nothing is
//! made or changed, without a [`FaultPlan`] no fault is expected, and what cannot be tried is
//! skipped with its reason. A declared way to split a card whose cases were all skipped is
//! *unproven*, which is not a pass.

mod case;
mod cases;
pub mod cli;
mod context;
mod fixture;
#[cfg(feature = "harness")]
mod harness;
mod human;
mod orders;
mod report;
mod run;
mod scene;
mod wire;

pub use crate::case::{Case, Scope, cases};
pub use crate::context::{Context, Outcome, Stop};
pub use crate::fixture::{During, FaultPlan, Fixture, Permission, Support};
#[cfg(feature = "harness")]
pub use crate::harness::{built_example, test_main};
pub use crate::report::{
    Capability, Card, Counts, Entry, HostFacts, Library, Report, Run, SUITE, Verdict,
};
pub use crate::run::{Cards, Select, run, run_one, with_each_case};
pub use crate::wire::{Loopback, Wire, Wired};
