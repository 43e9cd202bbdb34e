//! The CDI (Container Device Interface) form of [`ContainerEdits`](crate::edits::ContainerEdits).
//!
//! Our own small types, because what we write must be the *least* that a loader needs: runtimes of
//! today carry CDI libraries from 0.5 to 1.1, refuse a field that they do not know and refuse a
//! version above their own. [`render()`] therefore declares the [`minimum`] version of what it says,
//! and [`validate()`] refuses what any loader would, before the file exists.
//!
//! # On disk
//!
//! This module does no I/O; whoever writes a spec keeps these rules:
//!
//! 1. Write every [`ClaimFile`] of [`files`] first: a spec is the promise that they exist.
//! 2. Name the spec [`file_name`], `<vendor>-<class>_<name>.json`, in the dynamic folder
//!    (`/var/run/cdi`), never in a folder below it. Loaders read `.json` and `.yaml` only, and one
//!    device in two files of one folder makes **both** unusable, so a claim has one file name.
//! 3. Write the text to [`temp_name`] in the same folder (loaders skip its ending), `fsync` it,
//!    rename it into place, `fsync` the folder. Mode 0644, owner root.
//! 4. Withdraw (unlink) the spec before anything that it names is destroyed.
//!
//! [`ClaimFile`]: crate::edits::ClaimFile

mod audit;
mod name;
mod render;
mod spec;
mod validate;
mod validate_edits;
mod version;

pub use audit::audit;
pub use name::{Kind, QualifiedName, claim_of, file_name, temp_name};
pub use render::{HOOK_TIMEOUT_S, RenderOptions, files, render};
pub use spec::{Device, Edits, HookSpec, IntelRdt, MountSpec, NetDevice, Node, Spec};
pub use validate::validate;
pub use version::{Version, minimum};
