//! NVML's calls about MIG: the safe trait, the C side, and the loaded library behind the one with the other.

pub(crate) mod api;
mod loaded;
pub(crate) mod sys;
