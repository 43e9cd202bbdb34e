//! The node agent as a library: [`run`] serves a node with any set of backends, so that an
//! out-of-tree vendor links its own.
//!
//! | module | holds |
//! | --- | --- |
//! | [`args`], [`backends`], [`config`] | what it is told |
//! | [`children`] | backends in processes of their own |
//! | [`agent`] | the agent: node, kubelet, signals, until its end |
//! | `resource`, `kubelet` | one resource as the kubelet sees it, and what the kubelet knows |
//! | [`hook`] | where the hook program is, and whether it runs |
//! | [`sockets`], `notice` | for the hook program and for `vgpu claims` |
//! | `runtime` | whether the container runtime resolves CDI names |
//! | `metrics`, `http` | what Prometheus reads |
//! | `sys` | what the C library is told |

pub mod agent;
pub mod args;
pub mod backends;
pub mod children;
pub mod config;
mod dry_run;
pub mod hook;
mod http;
mod kubelet;
mod lists;
mod logs;
mod metrics;
mod notice;
pub mod nvidia;
mod program;
mod resource;
mod runtime;
pub mod sockets;
mod sys;

pub use agent::{Agent, AgentOptions, RuntimeCheck, run};
pub use dry_run::check_config;
pub use logs::complain;
pub use program::start;
