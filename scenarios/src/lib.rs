//! Scenarios as files, played on the in-process kubelet and on a real one alike.
//!
//! A file says what is done to a node with our agent on it, and what must come of it. [`play`] is the one reader and the
//! one judge; a [`Bench`] is the node that it is done to. `vgpu-plugin/tests/scenarios.rs` has the bench on the
//! in-process kubelet, `cargo xtask cluster test` the one on the real kubelet, containerd and runc. A file that holds on
//! one and not on the other is a mistake of the in-process kubelet.
//!
//! The README beside the files tells their form. [`cambricon`] is what both have of a node that is no file's.

mod bench;
pub mod cambricon;
mod expected;
mod file;
mod play;

pub use crate::bench::{Bench, Ran, Seen};
pub use crate::expected::Expected;
pub use crate::file::{Pod, Program, Requests, Scenario, Step, all, folder, offers};
pub use crate::play::play;
