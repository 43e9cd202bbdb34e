//! The program on the stand-in for NVML, whose driver outlives it: limits of containers through the
//! real hook, instances of MIG over kills.

mod limits;
mod mig;
mod node;
#[path = "../stage/mod.rs"]
mod stage;
