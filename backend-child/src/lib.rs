//! Any backend in a process of its own: a vendor's library that forks, hangs or crashes hurts
//! nobody else.
//!
//! [`ChildFactory`] is the agent's side: a [`BackendFactory`](vgpu_core::BackendFactory) over a
//! command. [`serve`] is the child's: a program that answers over its standard input and output with
//! any factory. A vendor from elsewhere ships
//!
//! ```no_run
//! # use vgpu_core::{BackendFactory, Host, Probe, Vendor};
//! # #[derive(Debug)]
//! # struct AcmeFactory;
//! # impl BackendFactory for AcmeFactory {
//! #     fn vendor(&self) -> Vendor { Vendor::new("acme") }
//! #     fn probe(&self, _: &Host) -> Probe { Probe::Absent("no card".into()) }
//! # }
//! fn main() -> std::process::ExitCode {
//!     vgpu_backend_child::serve(AcmeFactory, env!("CARGO_PKG_VERSION"))
//! }
//! ```
//!
//! What crosses the pipe is written down in `docs/child-protocol.md`.
//!
//! | module | holds |
//! | --- | --- |
//! | `factory`, `options` | how a child is found and how it is told to behave |
//! | `transport`, `backoff` | a child that is started anew when it has ended |
//! | `link`, `pump` | one living child: calls that wait, and the thread that hears it |
//! | `process` | the process itself: started, limited, killed, reaped |
//! | `words` | what it says on standard error, line by line and bounded |
//! | `frame`, `protocol` | the messages |
//! | `serve` | the child's side |

mod backoff;
mod factory;
#[cfg(feature = "conformance")]
mod fixture;
mod frame;
mod link;
mod options;
mod process;
mod protocol;
mod pump;
mod serve;
mod transport;
mod words;

pub use factory::ChildFactory;
#[cfg(feature = "conformance")]
pub use fixture::ChildFixture;
pub use options::{ChildOptions, Replaced};
pub use protocol::{FRAME_LIMIT, PROTOCOL};
pub use serve::{serve, serve_on};
