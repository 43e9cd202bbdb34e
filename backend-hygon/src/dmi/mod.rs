//! libhydmi: virtual DCUs by the vendor's library.

mod bindings;
mod sys;

pub(crate) use crate::dmi::sys::LIBRARY;
pub use crate::dmi::sys::LoadedDmi;
