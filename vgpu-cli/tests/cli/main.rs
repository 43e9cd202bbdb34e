//! The command `vgpu` from outside: every command, its answers against the published schemas, and its
//! mistakes.

mod child;
mod conformance;
mod devices;
mod doctor;
mod edits;
mod hygon;
mod mistakes;
mod nvidia;
mod partition;
mod plan;
mod schema;
mod support;
