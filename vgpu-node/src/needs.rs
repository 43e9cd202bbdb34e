//! What a grant asks of the container that starts on it, beside its edits.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use vgpu_core::id::DeviceId;
use vgpu_core::{Container, Error, ErrorKind, Need, Result};

use crate::claim::{ClaimRecord, Claims};

/// Refuses a container that lacks what a grant of the claim needs.
///
/// # Errors
/// `Permission` for the host's PID namespace, `Invalid` for one that a living container of another
/// claim on the card has too (`shareProcessNamespace`). The runtime shows the message, so that it
/// becomes an event of the pod.
pub(crate) fn met(
    record: &ClaimRecord,
    container: &Container,
    claims: &Claims,
    root: &Path,
) -> Result<()> {
    let needy = record.grants.iter().filter(|g| g.needs.contains(&Need::OwnPidNamespace));
    for grant in needy {
        let device = grant.device();
        let scheme = &grant.held.scheme;
        let refusal = |kind, why: String| {
            Err(Error::new(kind, why).with("claim", &record.claim).with("device", device))
        };
        if is_hosts(container.pid_namespace, root) {
            return refusal(
                ErrorKind::Permission,
                format!(
                    "{scheme} tells containers apart by their PID namespace, and this one is in the \
                     host's; run the pod without hostPID"
                ),
            );
        }
        if let Some(other) = beside(record, device, container, claims, root) {
            return refusal(
                ErrorKind::Invalid,
                format!(
                    "{scheme} tells containers apart by their PID namespace, and {} on the same card \
                     has this one too; run the pod without shareProcessNamespace, or ask for the \
                     card in one container only",
                    whose(other)
                ),
            );
        }
    }
    Ok(())
}

/// Another claim on the card, with that need, whose container lives in the same namespace.
fn beside<'c>(
    record: &ClaimRecord,
    device: &DeviceId,
    container: &Container,
    claims: &'c Claims,
    root: &Path,
) -> Option<&'c ClaimRecord> {
    let others = claims.iter().map(|claim| &claim.record).filter(|r| r.claim != record.claim);
    others
        .filter(|other| {
            let needs = |g: &&crate::claim::GrantRecord| g.needs.contains(&Need::OwnPidNamespace);
            other.grants.iter().filter(needs).any(|g| g.device() == device)
        })
        .find(|other| {
            let theirs = other.container.as_ref();
            theirs.is_some_and(|c| c.pid_namespace == container.pid_namespace && lives(c, root))
        })
}

/// Whether a container's first process is still in the namespace that it was confined in. The kernel
/// gives the inode of a namespace that is gone to a new one, so a container that ended says nothing.
fn lives(container: &Container, root: &Path) -> bool {
    match namespace(container.pid, root) {
        Ok(inode) => inode == container.pid_namespace,
        // What may not be read is taken for alive: refusing a start harms less than two tenants in one.
        Err(e) => e.kind() != io::ErrorKind::NotFound,
    }
}

/// The kernel's first namespace, or that of the host's first process where the host is itself nested.
fn is_hosts(inode: u64, root: &Path) -> bool {
    inode == Container::HOST_PID_NAMESPACE || namespace(1, root).is_ok_and(|hosts| hosts == inode)
}

pub(crate) fn namespace(pid: u32, root: &Path) -> io::Result<u64> {
    fs::metadata(root.join(format!("proc/{pid}/ns/pid"))).map(|namespace| namespace.ino())
}

fn whose(record: &ClaimRecord) -> String {
    match &record.holder {
        Some(h) => format!("container {} of pod {}/{}", h.container, h.namespace, h.pod),
        None => format!("claim {}", record.claim),
    }
}
