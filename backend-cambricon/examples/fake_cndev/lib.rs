//! A stand-in for `libcndev.so`: the C ABI of the library over machines that a text describes, with a driver that keeps
//! instances.
//!
//! The scenario is named by one variable, `FAKE_CNDEV=<preset or YAML file>`, and read when the library is started; a
//! scenario may name a state file, in which instances outlive processes and through which a test changes the machine
//! while it runs. See README.md beside this file. Nothing here uses vgpu's own bindings, so that one wrong offset
//! cannot agree with itself.

#![expect(unsafe_code, reason = "a C ABI: callers hand in pointers")]

mod abi;
mod events;
mod exports;
mod exports_newer;
mod exports_parts;
mod ffi;
mod mim;
mod presets;
mod scenario;
mod smlu;
mod state;
mod world;
