//! Memory limits of a container's cgroup, enforced by the kernel driver (r615, cgroup v2).
//!
//! A limit lives with the cgroup: it is set on the container's own leaf once that exists, and the
//! kernel drops it with the leaf. The soft limit does not go so cleanly: under the kernel's `dmem`
//! controller every ancestor keeps a copy of it, which only the driver takes back, and only while the
//! leaf is there. So it is set where it is needed and nowhere else, see [`soft_limit`].

mod sys;

use std::path::{Path, PathBuf};

use vgpu_core::health::Usage;
use vgpu_core::order::{Grant, Target};
use vgpu_core::scheme::MemoryGrid;
use vgpu_core::{Bytes, Confinement, Container, DeviceId, Error, ErrorKind, Result, Scheme, Size};

use crate::api::{MemoryLimits, NvmlFailure};
use crate::backend::NvidiaBackend;
use crate::convert;

pub(crate) use crate::limits::sys::LimitCalls;

/// Sizes that a limit can have: the driver takes bytes, people and `nvidia-smi` count in MiB.
pub(crate) const GRID: MemoryGrid = MemoryGrid { min: Bytes::mib(1), step: Bytes::mib(1) };

/// The first driver that has them; older ones may have the symbols in a library that is newer.
const SINCE: u32 = 615;

/// Where the kernel shows cgroups, if they are of version 2.
const CGROUPS: &str = "/sys/fs/cgroup";

impl NvidiaBackend {
    /// Whether the driver limits memory of a cgroup on this card: symbols, driver, cgroup v2 and an
    /// answer of the card itself.
    pub(crate) fn limits_memory(&self, index: u32) -> bool {
        let lacking = ["nvmlDeviceGetMemoryLimits_v1", "nvmlDeviceSetMemoryLimits_v1"];
        if lacking.iter().any(|name| self.api().missing_symbols().contains(name))
            || major(&self.driver).is_none_or(|major| major < SINCE)
            || !self.tree.host.has(Path::new(CGROUPS).join("cgroup.controllers"))
        {
            return false;
        }
        let root = self.tree.host.read_at(Path::new(CGROUPS));
        match self.api().memory_limits(index, &root) {
            Ok(_) => true,
            Err(failure) if failure.code() == Some(NOT_FOUND) => true,
            // Some drivers say of a cgroup without a limit what others say of a card without limits.
            // There is nothing to take back then, and whether it may be taken back tells the two apart.
            Err(failure) if failure.code() == Some(NOT_SUPPORTED) => {
                match self.api().set_memory_limits(index, &root, 0, None) {
                    Ok(()) => true,
                    Err(failure) => failure.code() == Some(NOT_FOUND),
                }
            }
            Err(_) => false,
        }
    }

    /// The memory limit that a grant asks for, if it asks for one.
    ///
    /// # Errors
    /// `Invalid` for a size that no limit can have, `Unsupported` where the driver has no limits.
    pub(crate) fn memory_limit(&self, grant: &Grant, index: u32) -> Result<Option<Bytes>> {
        let Grant::Shared { device, size: Size { memory: Some(memory), .. }, .. } = grant else {
            return Ok(None);
        };
        if !self.limits_memory(index) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{device} has no memory limits of cgroups now, and {memory} was granted; they \
                     need driver {SINCE}, cgroup v2 and MIG off"
                ),
            )
            .with("driver", &self.driver));
        }
        if !GRID.has(*memory) {
            let step = GRID.step;
            let why = format!("{memory} on {device} is no multiple of {step}; round it up");
            return Err(Error::new(ErrorKind::Invalid, why));
        }
        Ok(Some(*memory))
    }

    /// Sets the limit of a grant on its container and reads it back.
    pub(crate) fn limit(&self, target: &Target, container: &Container) -> Result<Confinement> {
        let device = target.grant.device();
        let index = self.cards.index(&device)?;
        match self.memory_limit(&target.grant, index)? {
            None => Ok(Confinement::NotNeeded),
            Some(memory) => self.limit_memory(&device, &target.grant.scheme(), memory, container),
        }
    }

    /// Sets a container's memory limit on a card and reads it back.
    pub(crate) fn limit_memory(
        &self,
        device: &DeviceId,
        scheme: &Scheme,
        memory: Bytes,
        container: &Container,
    ) -> Result<Confinement> {
        let index = self.cards.index(device)?;
        let cgroup = self.leaf(container)?;
        let soft = soft_limit(scheme, memory);
        let told = |failure: &NvmlFailure| refused(failure, device, container);
        self.api()
            .set_memory_limits(index, &cgroup, soft.0, Some(memory.0))
            .map_err(|failure| told(&failure))?;
        let read = self.api().memory_limits(index, &cgroup).map_err(|failure| told(&failure))?;
        if read.hard == Some(memory.0) && read.soft == soft.0 {
            return Ok(Confinement::Set);
        }
        let why = format!(
            "{memory} was set as the memory limit and the driver has {} in force (soft {}); report \
             it with `nvidia-bug-report.sh`",
            shown(read.hard),
            Bytes(read.soft)
        );
        let error = Error::new(ErrorKind::Vendor, why);
        Err(error.with("device", device).with("cgroup", container.cgroup.display()))
    }

    /// Takes the limit of a grant back.
    pub(crate) fn unlimit(&self, target: &Target, container: &Container) -> Result<()> {
        match &target.grant {
            Grant::Shared { device, size: Size { memory: Some(_), .. }, .. } => {
                self.unlimit_memory(device, container)
            }
            _ => Ok(()),
        }
    }

    /// Takes a container's memory limit on a card back; with the cgroup it is gone by itself.
    pub(crate) fn unlimit_memory(&self, device: &DeviceId, container: &Container) -> Result<()> {
        let cgroup = self.tree.host.read_at(&container.cgroup);
        if !cgroup.is_dir() {
            return Ok(());
        }
        let index = self.cards.index(device)?;
        let told = |failure: &NvmlFailure| refused(failure, device, container);
        let cleared = match self.own_limits(index, &cgroup) {
            Ok(None) => return Ok(()),
            Ok(Some(_)) => self.api().set_memory_limits(index, &cgroup, 0, None),
            Err(failure) => Err(failure),
        };
        match cleared.and_then(|()| self.own_limits(index, &cgroup)) {
            Ok(None) => Ok(()),
            Ok(Some(MemoryLimits { hard, .. })) => {
                let why = format!(
                    "the memory limit was taken back and the driver has {} in force",
                    shown(hard)
                );
                let error = Error::new(ErrorKind::Vendor, why);
                Err(error.with("device", device).with("cgroup", container.cgroup.display()))
            }
            // Where the driver has no limits any more, those that it had went with it.
            Err(failure) if failure.is_unsupported() => Ok(()),
            // It went in between.
            Err(_) if !cgroup.is_dir() => Ok(()),
            Err(failure) => Err(told(&failure)),
        }
    }

    /// Use of a card's memory by a container, and its limit.
    pub(crate) fn cgroup_usage(&self, device: &DeviceId, cgroup: &Path) -> Result<Usage> {
        let index = self.cards.index(device)?;
        match self.api().memory_limits(index, &self.tree.host.read_at(cgroup)) {
            Ok(MemoryLimits { hard, used, .. }) => Ok(Usage {
                memory: Some(Bytes(used)),
                limit: hard.map(Bytes),
                busy_ppm: None,
                processes: None,
            }),
            Err(failure) if is_unset(&failure) || failure.is_unsupported() => Err(Error::new(
                ErrorKind::NotFound,
                format!("nothing on {device} is counted for {}", cgroup.display()),
            )),
            Err(failure) => Err(convert::error(&failure).with("device", device)),
        }
    }

    /// What is set on the cgroup itself; what it shares with the one above it is that one's.
    fn own_limits(
        &self,
        index: u32,
        cgroup: &Path,
    ) -> std::result::Result<Option<MemoryLimits>, NvmlFailure> {
        let read = |path: &Path| match self.api().memory_limits(index, path) {
            Ok(MemoryLimits { soft: 0, hard: None, .. }) => Ok(None),
            Ok(limits) => Ok(Some(limits)),
            Err(failure) if is_unset(&failure) => Ok(None),
            Err(failure) => Err(failure),
        };
        let Some(own) = read(cgroup)? else { return Ok(None) };
        let above = cgroup.parent().map(read).transpose()?.flatten();
        let inherited = above.is_some_and(|above| (above.soft, above.hard) == (own.soft, own.hard));
        Ok((!inherited).then_some(own))
    }

    /// The folder of the container's own cgroup, as this process sees it.
    fn leaf(&self, container: &Container) -> Result<PathBuf> {
        let on_host = &container.cgroup;
        let bad = |kind, why: String| Err(Error::new(kind, why).with("pid", container.pid));
        if !on_host.starts_with(CGROUPS) || on_host == Path::new(CGROUPS) {
            return bad(
                ErrorKind::Invalid,
                format!(
                    "{} is no container's cgroup below {CGROUPS}; a limit there would be everybody's",
                    on_host.display()
                ),
            );
        }
        let folder = self.tree.host.read_at(on_host);
        // Every cgroup has this file, in version 1 too; a folder beside them has not.
        if !folder.join("cgroup.procs").is_file() {
            return bad(
                ErrorKind::NotFound,
                format!("there is no cgroup {}; has the container ended?", on_host.display()),
            );
        }
        if !folder.join("cgroup.controllers").is_file() {
            return bad(
                ErrorKind::Unsupported,
                format!(
                    "{} is a cgroup of version 1, and the driver limits memory under version 2 only; \
                     boot with systemd.unified_cgroup_hierarchy=1",
                    on_host.display()
                ),
            );
        }
        Ok(folder)
    }
}

/// What is kept for a container.
///
/// Under MPS all of its share: one that is beyond its soft limit may be ended when a neighbour needs
/// memory. Elsewhere nobody acts on it, and none leaves nothing behind in the cgroups above.
fn soft_limit(scheme: &Scheme, memory: Bytes) -> Bytes {
    match [Scheme::MPS, Scheme::MPS_STATIC].contains(scheme) {
        true => memory,
        false => Bytes(0),
    }
}

const NOT_SUPPORTED: i64 = 3;
const NOT_FOUND: i64 = 6;

/// Whether the driver says that a cgroup has no limit; it has two ways of saying so.
fn is_unset(failure: &NvmlFailure) -> bool {
    matches!(failure.code(), Some(NOT_FOUND | NOT_SUPPORTED))
}

fn refused(failure: &NvmlFailure, device: &DeviceId, container: &Container) -> Error {
    let error = convert::error(failure);
    let advice = match failure.code() {
        Some(NOT_FOUND) => {
            "; the cgroup has no dmem files: let its parents pass the controller on (+dmem in each \
             cgroup.subtree_control), or load the driver with RmMemacctMode=1"
        }
        _ => "",
    };
    Error { message: format!("{}{advice}", error.message), ..error }
        .with("device", device)
        .with("cgroup", container.cgroup.display())
}

fn shown(limit: Option<u64>) -> String {
    limit.map_or_else(|| "none".to_owned(), |bytes| Bytes(bytes).to_string())
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}
