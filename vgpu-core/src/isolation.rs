//! Showing a grant to a container, and only that.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::edits::ContainerEdits;
use crate::error::Result;
use crate::order::Target;

/// Shows a grant to a container, and only that.
pub trait Isolation {
    /// The edits for one container's grants of this vendor, all at once.
    ///
    /// # Contract
    /// - `ISO-1`: it reads and never writes: asked twice it answers the same, and the parts stay.
    /// - `ISO-2`: the edits render to a valid CDI device.
    /// - `ISO-3`: two claims never share a writable mount or a claim file's path on the host, unless
    ///   both are of one trust domain on one card.
    /// - `ISO-4`: no limit rests on env: without env, two parts of one card still differ.
    /// - `ISO-5`: an unknown device or part is `NotFound`, never somebody else's edits.
    /// - `ISO-6`: a whole card shows its own nodes and no other card's.
    ///
    /// # Errors
    /// `NotFound`, `Lost`, `Io` (the host lacks a node or library that the grant needs).
    fn edits(&self, targets: &[Target]) -> Result<ContainerEdits>;

    /// Sets and reads back what can only be set on a living container.
    ///
    /// Called before the container's first process runs, and again as repair.
    ///
    /// # Contract
    /// - `ISO-7`: `Set` means that the limit in force equals the grant, also when repeated; a grant
    ///   whose scheme limits nothing on the container is `NotNeeded`.
    ///
    /// # Errors
    /// `Busy`, `NotFound`, `Permission`, `Unsupported`.
    fn confine(&self, target: &Target, container: &Container) -> Result<Confinement>;

    /// Takes it back before the cgroup goes.
    ///
    /// # Contract
    /// - `ISO-8`: afterwards no limit is in force; where there was none it succeeds.
    ///
    /// # Errors
    /// `Permission`, `Lost`.
    fn unconfine(&self, target: &Target, container: &Container) -> Result<()>;
}

/// A container, as our hook or the reconciler found it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its leaf cgroup, absolute on the host (v2), or its v1 path.
    pub cgroup: PathBuf,
    /// Its first process, seen from the host.
    pub pid: u32,
    /// Inode of its PID namespace; equal to the host's means no isolation for sMLU.
    pub pid_namespace: u64,
}

impl Container {
    /// Inode of the first PID namespace of a Linux kernel, the host's: a constant of the kernel.
    pub const HOST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;
}

/// What a limit on a living container came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confinement {
    /// This grant needs none.
    NotNeeded,
    /// Set and read back.
    Set,
}
