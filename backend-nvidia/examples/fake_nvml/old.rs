//! The stand-in for NVML as an old driver ships it: the same machines, fewer functions (see `exports_newer.rs`).
//!
//! A scenario can make a function answer "function not found", but only a second library can lack the symbol.

#![expect(unsafe_code, reason = "a C ABI: callers hand in pointers")]
#![expect(dead_code, reason = "what only the newer functions use")]

mod abi;
mod abi_mig;
mod die;
mod exports;
mod exports_compute;
mod exports_mig;
mod ffi;
mod hide;
mod limits;
mod mig;
mod mig_tables;
mod orders;
mod presets;
mod scenario;
mod store;
mod world;
