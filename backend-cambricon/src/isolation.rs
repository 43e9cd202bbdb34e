//! What a container needs to compute on its cards or instances, and on no others: device nodes, nothing else.
//! The vendor's libraries come with the container's image.
//!
//! An instance is bound to a PID namespace: the runtime in the container opens the instance's node first, and the
//! driver then takes every process of that namespace for its tenant. So sMLU grants call our hook, and the node
//! refuses a container without a namespace of its own.
//!
//! # A stand-in for the library
//! A library that was named, on a host where the kernel has no Cambricon driver, can only be a stand-in
//! (`fake_cndev`). Edits then carry the nodes that a driver would have, so that they can be looked at on any
//! machine; everywhere else a missing node is an error.

use vgpu_core::edits::{ContainerEdits, DeviceNode, Hook, HookAction, HookStage};
use vgpu_core::isolation::Isolation;
use vgpu_core::order::{Grant, Target};
use vgpu_core::{
    Confinement, Container, DeviceId, Error, ErrorKind, PartitionId, Result, Scheme, Size,
};

use crate::backend::CambriconBackend;
use crate::parts::{no_part, unserved};
use crate::{convert, host};

impl Isolation for CambriconBackend {
    fn edits(&self, targets: &[Target]) -> Result<ContainerEdits> {
        let mut all = ContainerEdits::default();
        for target in targets {
            let edits = self.shown(target).and_then(|edits| all.merge(edits));
            all = edits.map_err(|e| e.during("edits"))?;
        }
        Ok(all)
    }

    fn confine(&self, target: &Target, container: &Container) -> Result<Confinement> {
        self.granted(&target.grant).map_err(|e| e.during("confine"))?;
        let keyed = target.grant.scheme() == Scheme::SMLU;
        if keyed && container.pid_namespace == Container::HOST_PID_NAMESPACE {
            let why = "an sMLU instance isolates by PID namespace; run the pod without hostPID";
            let error = Error::new(ErrorKind::Permission, why).with("claim", &target.claim);
            return Err(error.during("confine"));
        }
        Ok(Confinement::NotNeeded)
    }

    // No limit was set, so that none is in force, whatever became of the card.
    fn unconfine(&self, _target: &Target, _container: &Container) -> Result<()> {
        Ok(())
    }
}

/// A grant, as the driver has it now.
enum Granted {
    /// The card's number for the library.
    Card(u32),
    /// The same, the instance's own node, and its node for communication where it has one.
    Instance(u32, String, String),
}

impl CambriconBackend {
    fn shown(&self, target: &Target) -> Result<ContainerEdits> {
        let stand_in = self.named && !host::has_driver(&self.tree);
        let mut edits = ContainerEdits::default();
        match self.granted(&target.grant)? {
            Granted::Card(index) => {
                let n = self.number(index, None)?;
                edits.nodes.push(self.needed(&format!("/dev/cambricon_dev{n}"), stand_in)?);
                let usual = ["/dev/cambricon_ctl".to_owned(), format!("/dev/cambricon_ipcm{n}")];
                edits.nodes.extend(usual.iter().filter_map(|path| self.found(path, stand_in)));
                edits
                    .nodes
                    .extend(other_nodes(n).iter().filter_map(|path| self.found(path, false)));
                let messages = host::message_nodes(&self.tree);
                edits.nodes.extend(messages.iter().filter_map(|path| self.found(path, false)));
            }
            Granted::Instance(index, node, ipcm) => {
                let n = self.number(index, Some(&node))?;
                let ipcm = match ipcm.is_empty() {
                    true => format!("/dev/cambricon_ipcm{n}"),
                    false => ipcm,
                };
                edits.nodes.push(self.needed(&format!("/dev/cambricon_dev{n}"), stand_in)?);
                edits.nodes.extend(self.found(&ipcm, stand_in));
                edits.nodes.push(self.needed(&node, stand_in)?);
            }
        }
        if target.grant.scheme() == Scheme::SMLU {
            edits.hooks.push(Hook {
                stage: HookStage::CreateRuntime,
                action: HookAction::Confine(target.claim.clone()),
            });
        }
        Ok(edits)
    }

    /// What a grant is on, if this backend could have given it.
    fn granted(&self, grant: &Grant) -> Result<Granted> {
        let device = grant.device();
        let index = self.cards.index(&device)?;
        match grant {
            Grant::Part(part) => self.instance(part, index),
            Grant::Shared { scheme, .. } if *scheme != Scheme::TIME_SLICE => {
                Err(unserved(&device, scheme))
            }
            Grant::Shared { size, .. } if *size != Size::ANY => Err(Error::new(
                ErrorKind::Invalid,
                format!("a turn on {device} has no size, and {size} was asked; ask for any"),
            )),
            Grant::Shared { .. } | Grant::Whole(_) => {
                self.undivided(&device, index)?;
                Ok(Granted::Card(index))
            }
        }
    }

    fn instance(&self, part: &PartitionId, index: u32) -> Result<Granted> {
        let (node, ipcm) = match part.scheme() {
            scheme if scheme == Scheme::SMLU => {
                (self.smlu_instance(part, index)?.node, String::new())
            }
            scheme if scheme == Scheme::MIM => {
                let instance = self.mim_instance(part, index)?;
                (instance.node, instance.ipcm_node)
            }
            _ => return Err(no_part(part)),
        };
        for path in [&node, &ipcm].into_iter().filter(|path| !path.is_empty()) {
            if !path.starts_with("/dev/cambr") || path.contains("..") {
                let why = format!("the driver says that the node of {part} is {path:?}");
                return Err(Error::new(ErrorKind::Vendor, why));
            }
        }
        if node.is_empty() {
            let why = format!("the driver names no node for {part}");
            return Err(Error::new(ErrorKind::Vendor, why));
        }
        Ok(Granted::Instance(index, node, ipcm))
    }

    /// In sMLU and MIM mode the driver lets nobody open a card who has no instance.
    fn undivided(&self, device: &DeviceId, index: u32) -> Result<()> {
        let modes = [("sMLU", self.api().smlu_mode(index)), ("MIM", self.api().mim_mode(index))];
        for (name, mode) in modes {
            match mode {
                Ok(false) => {}
                Ok(true) => {
                    let why =
                        format!("{device} is in {name} mode, so that nobody can have it undivided");
                    return Err(Error::new(ErrorKind::Invalid, why));
                }
                Err(failure) if failure.is_unsupported() => {}
                Err(failure) => return Err(convert::error(&failure).with("device", device)),
            }
        }
        Ok(())
    }

    /// The number in the names of the card's nodes: as the library tells it, else as an instance's node says it,
    /// else, as the vendor's own plugin has it for old libraries, the card's index.
    fn number(&self, index: u32, node: Option<&str>) -> Result<u32> {
        let in_name = |node: &str| {
            let digits: String =
                node.split("cap_dev").nth(1)?.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        };
        match self.api().minor_number(index) {
            Ok(number) => Ok(number),
            Err(failure) if failure.is_unsupported() => Ok(node.and_then(in_name).unwrap_or(index)),
            Err(failure) => Err(convert::error(&failure)),
        }
    }

    fn needed(&self, path: &str, stand_in: bool) -> Result<DeviceNode> {
        self.found(path, stand_in).ok_or_else(|| {
            Error::new(
                ErrorKind::Io,
                format!("the host has no {path}; load the driver there, `modprobe cambricon-drv`"),
            )
            .with("read below", self.tree.root().display())
        })
    }

    fn found(&self, path: &str, stand_in: bool) -> Option<DeviceNode> {
        host::node(&self.tree, path).or_else(|| stand_in.then(|| DeviceNode::at(path)))
    }
}

/// Nodes that some drivers have besides.
fn other_nodes(n: u32) -> [String; 6] {
    [
        "/dev/cambricon_gdr".to_owned(),
        format!("/dev/cambr-msgq:{n}"),
        format!("/dev/cambr-rpc:{n}"),
        format!("/dev/cmsg_ctrl{n}"),
        format!("/dev/commu{n}"),
        format!("/dev/ttyMS{n}"),
    ]
}
