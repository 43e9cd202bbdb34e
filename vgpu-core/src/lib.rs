//! The vendor-neutral core of vgpu: what a machine has, how it can be split, what each way really
//! enforces, and the traits that a vendor implements.
//!
//! Everything here is plain data or pure arithmetic: no I/O, no async, no Kubernetes, no FFI. Every
//! public type is serde, so that a backend can live in another process ([`wire`]).
//!
//! | module | holds |
//! | --- | --- |
//! | [`id`], [`size`], [`guarantee`] | names, units and levels as types |
//! | [`device`], [`scheme`] | a scan: cards, and the ways to split them |
//! | [`order`], [`partition`], [`isolation`], [`health`], [`backend`] | what a vendor is asked for, and the traits |
//! | [`ownership`] | how ours are told from others' after a crash |
//! | [`plan`] | from a request to decided orders |
//! | [`edits`], [`cdi`] | what changes in a container, and its CDI form |
//! | [`clause`] | the contract as a list; the conformance suite has one case for each |
//! | [`wire`] | every call and reply as data |

pub mod backend;
pub mod cdi;
pub mod clause;
pub mod device;
pub mod edits;
pub mod error;
pub mod guarantee;
pub mod health;
pub mod id;
pub mod isolation;
pub mod order;
pub mod ownership;
pub mod partition;
pub mod plan;
pub mod scheme;
pub mod size;
pub mod wire;

pub use backend::{Backend, BackendExt, BackendFactory, BackendInfo, Host, Probe};
pub use device::{Device, Discovery, Link, LinkKind, Lost, Scan};
pub use edits::ContainerEdits;
pub use error::{Error, ErrorKind, Result, VendorCode};
pub use guarantee::{Axis, ComputeKind, Enforcement, Guarantees, Minimum, Per, Proof};
pub use health::{Event, Health, Meaning, Subject, Usage};
pub use id::{ClaimId, CounterId, DeviceId, PartitionId, ProfileId, SlotId, TrustDomain, Vendor};
pub use isolation::{Confinement, Container, Isolation};
pub use order::{CreateOrder, Grant, ModeChange, ModeOrder, Placement, Shape, Target};
pub use partition::{Holders, Partition, PartitionState, Partitioner, Swept};
pub use scheme::{
    Change, Form, ModeInfo, Need, Ownership, PlacedBy, Profile, Range, Scheme, SchemeInfo, Sizing,
    Slots,
};
pub use size::{Bytes, ComputeShare, Size};
