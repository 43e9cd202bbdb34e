//! ROCm SMI: loaded by handle, asked by PCI address.

mod bindings;
mod index;
mod sys;

pub(crate) use crate::smi::index::Smi;
#[cfg(test)]
pub(crate) use crate::smi::sys::LIBRARY;
pub use crate::smi::sys::LoadedSmi;
