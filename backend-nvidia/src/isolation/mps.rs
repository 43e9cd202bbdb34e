//! What a container of an MPS part gets beside the card: its own door to the daemon, and no other.

use std::path::Path;

use vgpu_core::edits::{ClaimFile, ContainerEdits, Mount, MountMode};
use vgpu_core::{Error, ErrorKind, Grant, Partition, PartitionState, Result, Scheme, Target};

use crate::backend::NvidiaBackend;
use crate::mps::{self, SHARE_FILE};
use crate::partition;

/// Where a container finds the daemon, and where its loader of CUDA looks without a variable.
const PIPE: &str = "/tmp/nvidia-mps";

impl NvidiaBackend {
    /// # Errors
    /// `NotFound` for a part that is not there or only half, `Busy` while its daemon is down.
    pub(super) fn mps_edits(&self, part: &Partition) -> Result<ContainerEdits> {
        if part.state != PartitionState::Complete {
            return Err(partition::no_part(&part.id));
        }
        let running = self.daemon(&part.device, &part.scheme)?;
        let namespace = running.has_namespaces().then_some(&*part.handle);
        let writable = |host: &Path, container: &str| Mount {
            host: host.to_owned(),
            container: container.into(),
            mode: MountMode::Writable,
        };
        let mut edits = ContainerEdits {
            mounts: vec![
                writable(&running.folders.pipe_on_host(namespace), PIPE),
                writable(running.folders.shm_on_host(), "/dev/shm"),
            ],
            files: vec![ClaimFile {
                container: SHARE_FILE.into(),
                text: format!("{}\n{}\n", part.id, part.size),
            }],
            env: vec![("CUDA_MPS_PIPE_DIRECTORY".into(), PIPE.into())],
            ..ContainerEdits::default()
        };
        if part.scheme == Scheme::MPS_STATIC {
            let chosen = format!("{}/{}", part.device, part.handle);
            edits.files.push(ClaimFile {
                container: "/etc/vgpu/mps/sm-partition".into(),
                text: format!("{chosen}\n"),
            });
            edits.env.push(("CUDA_MPS_SM_PARTITION".into(), chosen));
        } else if namespace.is_none() {
            edits.env.extend(mps::tighter(&part.size));
        }
        Ok(edits)
    }
}

/// A client has one daemon, so that a container has one share.
///
/// # Errors
/// `Invalid` for two.
pub(super) fn one_at_most(targets: &[Target]) -> Result<()> {
    let of_mps = |target: &&Target| match &target.grant {
        Grant::Part(part) => partition::mps::is_mps(&part.scheme()),
        Grant::Shared { .. } | Grant::Whole(_) => false,
    };
    match targets.iter().filter(of_mps).count() {
        0 | 1 => Ok(()),
        n => {
            let why =
                format!("a container can be a client of one MPS daemon, and {n} were granted");
            Err(Error::new(ErrorKind::Invalid, why))
        }
    }
}
