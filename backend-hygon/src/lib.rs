//! Hygon DCUs and HCUs: this version only looks whether a card is there.
//!
//! No vendor library is loaded yet, so no card is served. [`HygonFactory`] says so: `Absent` where the
//! PCI bus shows no card, `Broken` with the addresses where it does, since "nothing there" would be a
//! lie.

mod factory;
mod pci;

pub use crate::factory::HygonFactory;
