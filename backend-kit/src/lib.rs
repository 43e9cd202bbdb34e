//! What the backends of all vendors share, and no vendor's own.
//!
//! A vendor's library is a file on a host: it is looked for, opened by handle, its functions are found
//! or missed, and it stays mapped for the life of the process. What it says is bounded. Beside it, the
//! host's own files tell of cards, drivers and nodes. `vgpu-core` has neither I/O nor FFI, so that all
//! this has its home here. A new backend starts from it; see `docs/adding-a-backend.md`.
//!
//! | module | holds |
//! | --- | --- |
//! | `sys` | [`load`]: opening, looking functions up, pinning; the only unsafe code |
//! | `symbols` | functions as types: [`Required`] is not [`Optional`] |
//! | `failure` | [`LoadFailure`]: why a library is of no use, and what to do |
//! | `bounds` | strings, counts and lists of a library, within bounds |
//! | `search` | which file is tried first, and what was [`Loaded`] already |
//! | `host`, `pci` | [`HostTree`]: files of the host below its root, and what they say of the bus |
//! | `numbers` | [`CardNumbers`]: which card has which number |
//! | `scan` | reading every card, and naming those that do not answer |
//!
//! What a vendor's codes mean, which functions it has, and by which class its cards are known stays in
//! its backend.

mod bounds;
mod failure;
mod host;
mod numbers;
mod pci;
mod scan;
mod search;
mod symbols;
mod sys;

pub use crate::bounds::{Endless, ListOf, Told, at_most, list, text};
pub use crate::failure::LoadFailure;
pub use crate::host::{HostTree, relative};
pub use crate::numbers::CardNumbers;
pub use crate::pci::{PciFunction, is_pci_address, pci_folder};
pub use crate::scan::{Listed, Unread, lost, read_cards};
pub use crate::search::{Loaded, Place, first_of};
pub use crate::symbols::{Call, Lacks, Missing, Optional, Required};
pub use crate::sys::{Finder, Pointer, load};
