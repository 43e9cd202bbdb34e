//! The stand-in for libcndev as 3.9 shipped it: the same machines, fewer functions (see `exports_newer.rs`), and older
//! forms of some (`exports_older.rs`).
//!
//! A scenario can make a function answer "not supported", but only a second library can lack the symbol.

#![expect(unsafe_code, reason = "a C ABI: callers hand in pointers")]
#![expect(dead_code, reason = "what only the newer functions use")]

mod abi;
mod events;
mod exports;
mod exports_older;
mod exports_parts;
mod ffi;
mod mim;
mod presets;
mod scenario;
mod smlu;
mod state;
mod world;
