//! What a container needs to compute on its cards, and on no other.
//!
//! Whole cards and turns are shown by edits; a share of memory is limited on the living container,
//! where the driver can (`limits`). A turn shows less than a whole card: no `nvidia-uvm-tools` (it
//! reads other processes of one user), no `nvidia-modeset`, no display nodes, no daemons' programs.
//! A MIG instance shows as little, and its own two capability nodes: without them the card's node
//! gives no compute.
//!
//! # A stand-in for the library
//! A library that was named, on a host where the kernel has no NVIDIA driver and there is no driver
//! library, can only be a stand-in (`fake_nvml`). Edits then carry the nodes that a driver would
//! have, so that they can be looked at on any machine; everywhere else a missing node or library is
//! an error.

mod files;
mod libraries;
mod mps;
mod nodes;
mod sets;

use std::path::Path;

use vgpu_core::edits::{ContainerEdits, DeviceNode, Hook, HookAction, HookStage};
use vgpu_core::isolation::Isolation;
use vgpu_core::order::{Grant, Target};
use vgpu_core::{
    Confinement, Container, DeviceId, Error, ErrorKind, PartitionId, PartitionState, Result, Scheme,
};

use crate::api::NvmlFailure;
use crate::backend::NvidiaBackend;
use crate::convert;
use crate::isolation::libraries::Libraries;
use crate::mps::Look;
use crate::partition;

pub(crate) use crate::isolation::nodes::Nodes;
pub use crate::isolation::sets::{Capability, Delivery};

/// The card that a grant is on, and which GPU and compute instance of it.
struct Granted {
    index: u32,
    mig: Option<(u32, u32)>,
}

impl Isolation for NvidiaBackend {
    fn edits(&self, targets: &[Target]) -> Result<ContainerEdits> {
        self.shown(targets).map_err(|e| e.during("edits"))
    }

    fn confine(&self, target: &Target, container: &Container) -> Result<Confinement> {
        let granted = self.granted(&target.grant);
        granted.and_then(|_index| self.limit(target, container)).map_err(|e| e.during("confine"))
    }

    fn unconfine(&self, target: &Target, container: &Container) -> Result<()> {
        self.unlimit(target, container).map_err(|e| e.during("unconfine"))
    }
}

impl NvidiaBackend {
    fn shown(&self, targets: &[Target]) -> Result<ContainerEdits> {
        if targets.is_empty() {
            return Ok(ContainerEdits::default());
        }
        mps::one_at_most(targets)?;
        let granted: Vec<Granted> =
            targets.iter().map(|target| self.granted(&target.grant)).collect::<Result<_>>()?;
        let version = self.api().driver_version().map_err(|failure| convert::error(&failure))?;
        let asked = &self.options.capabilities;
        let libraries = Libraries::find(&self.tree, &version, asked);
        let nodes = Nodes::new(&self.tree);
        let stand_in = self.named && libraries.is_empty() && !nodes.kernel_has_driver();
        if !stand_in {
            libraries.check(&self.tree, &version, asked)?;
        }
        // What is meant for one tenant alone is shown only to one that shares no card at all.
        let exclusive = targets.iter().all(|target| matches!(target.grant, Grant::Whole(_)));
        let mut edits = libraries.edits(self.options.delivery);
        edits.nodes = nodes.control(exclusive, stand_in)?;
        // A runtime of NVIDIA's would take an absent variable for "all cards", and inject them.
        edits.env.insert(0, ("NVIDIA_VISIBLE_DEVICES".into(), "void".into()));
        edits.mounts.extend(files::mounts(&self.tree, &version, asked, exclusive));
        for (target, granted) in targets.iter().zip(granted) {
            if self.memory_limit(&target.grant, granted.index)?.is_some() {
                let hook = Hook {
                    stage: HookStage::CreateRuntime,
                    action: HookAction::Confine(target.claim.clone()),
                };
                edits = edits.merge(ContainerEdits { hooks: vec![hook], ..Default::default() })?;
            }
            if let Grant::Part(part) = &target.grant
                && partition::mps::is_mps(&part.scheme())
            {
                edits = edits.merge(self.mps_edits(&self.mps_part(part)?)?)?;
            }
            let whole = matches!(target.grant, Grant::Whole(_));
            edits = edits.merge(self.card(&nodes, granted, whole, stand_in)?)?;
        }
        Ok(edits)
    }

    /// What a grant is on, if this backend could have given it.
    fn granted(&self, grant: &Grant) -> Result<Granted> {
        let device = grant.device();
        let index = self.cards.index(&device)?;
        match grant {
            Grant::Part(part) if partition::mps::is_mps(&part.scheme()) => {
                return self.mps_part(part).map(|_| Granted { index, mig: None });
            }
            Grant::Part(part) => return self.granted_part(part, index),
            Grant::Shared { scheme, .. } if *scheme != Scheme::TIME_SLICE => {
                return Err(partition::unserved(&device, scheme));
            }
            Grant::Shared { size, .. } if size.compute.is_some() => {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    format!("a turn on {device} has no compute size, and {size} was asked"),
                ));
            }
            Grant::Shared { .. } | Grant::Whole(_) => {}
        }
        if !matches!(self.mps.look(&device)?, Look::None) {
            return Err(in_mps_mode(&device));
        }
        match self.api().mig_mode(index) {
            Ok(mig) if mig.current => Err(in_mig_mode(&device)),
            Ok(_) => Ok(Granted { index, mig: None }),
            Err(failure) if failure.is_unsupported() => Ok(Granted { index, mig: None }),
            Err(failure) => Err(of_card(&failure, &device)),
        }
    }

    fn granted_part(&self, part: &PartitionId, index: u32) -> Result<Granted> {
        if part.scheme() != Scheme::MIG {
            return Err(partition::no_part(part));
        }
        let found = self.mig_part(part, index)?;
        match (found.part.state, found.compute_instances.first()) {
            (PartitionState::Complete, Some(compute)) => {
                Ok(Granted { index, mig: Some((found.gpu_instance, *compute)) })
            }
            // It is there, and is nothing that could be given.
            _ => Err(partition::no_part(part)),
        }
    }

    fn card(
        &self,
        nodes: &Nodes<'_>,
        granted: Granted,
        whole: bool,
        stand_in: bool,
    ) -> Result<ContainerEdits> {
        let error = |failure| convert::error(&failure);
        let Granted { index, mig } = granted;
        let minor = self.api().minor_number(index).map_err(error)?;
        let mut edits = ContainerEdits::default();
        edits.nodes.push(nodes.card(minor, stand_in)?);
        if let Some((gpu, compute)) = mig {
            edits.nodes.push(nodes.capability(minor, gpu, None, stand_in)?);
            edits.nodes.push(nodes.capability(minor, gpu, Some(compute), stand_in)?);
        }
        // Instances do not draw, but for profiles of their own.
        let draws = self.options.capabilities.contains(&Capability::Graphics) && mig.is_none();
        if whole || draws {
            let address = match self.api().pci_info(index) {
                Ok(pci) => Some(pci.address),
                Err(failure) if failure.is_unsupported() => None,
                Err(failure) => return Err(error(failure)),
            };
            let display = address.iter().flat_map(|address| nodes.display(address));
            // A share draws without a display: its own card's node for rendering, and no other.
            let shown = |node: &DeviceNode| whole || nodes::renders(node);
            edits.nodes.extend(display.filter(shown));
        }
        Ok(edits)
    }
}

fn in_mps_mode(device: &DeviceId) -> Error {
    Error::new(
        ErrorKind::Invalid,
        format!("{device} is given through its MPS daemon only, neither whole nor in turns"),
    )
}

fn in_mig_mode(device: &DeviceId) -> Error {
    Error::new(
        ErrorKind::Invalid,
        format!("{device} is in MIG mode, so that neither it nor a turn on it can compute"),
    )
}

fn of_card(failure: &NvmlFailure, device: &DeviceId) -> Error {
    convert::error(failure).with("device", device)
}

/// A path of the host in words.
fn shown(path: &Path) -> String {
    path.display().to_string()
}
