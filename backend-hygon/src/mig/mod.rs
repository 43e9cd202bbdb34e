//! libhydmi_mig: hardware instances through names that are also NVML's.

mod bindings;
mod sys;

pub use crate::mig::sys::LoadedMig;
pub(crate) use crate::mig::sys::{LIBRARY, PROFILES};
