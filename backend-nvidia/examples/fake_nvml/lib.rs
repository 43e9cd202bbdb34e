//! A stand-in for `libnvidia-ml.so.1`: the C ABI of NVML over machines that a text describes.
//!
//! The scenario is named by one variable, `FAKE_NVML=<preset or YAML file>`, and read when NVML is started; the
//! scenario may name a control file through which a test changes the machine while it runs. See README.md beside
//! this file. Nothing here uses vgpu's own bindings, so that one wrong offset cannot agree with itself.

#![expect(unsafe_code, reason = "a C ABI: callers hand in pointers")]

mod abi;
mod abi_mig;
mod die;
mod exports;
mod exports_compute;
mod exports_limits;
mod exports_mig;
mod exports_newer;
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
