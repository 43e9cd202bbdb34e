//! The program on the stand-in for NVML, whose driver outlives it: limits of containers through the
//! real hook, instances of MIG over kills, daemons of MPS, lost cards and replaced drivers.

mod driver;
mod limits;
mod mig;
mod mps;
mod node;
#[path = "../stage/mod.rs"]
mod stage;
