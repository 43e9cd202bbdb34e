//! What a container needs to compute on its cards, and on no other.
//!
//! Nothing is limited on a living container: a virtual DCU and a hardware instance are told by a file
//! that the tenant cannot write. Never shown: `/dev/mem` and debugfs, which the vendor's own toolkit
//! hands out, and other cards' nodes.

mod nodes;

use vgpu_core::edits::{ClaimFile, ContainerEdits, Mount, MountMode};
use vgpu_core::isolation::Isolation;
use vgpu_core::order::{Grant, Target};
use vgpu_core::{
    Confinement, Container, DeviceId, Error, ErrorKind, PartitionId, Result, Scheme, Size,
};

use crate::backend::HygonBackend;
use crate::cards::Card;
use crate::partition::{self, IN_CONTAINER};

impl Isolation for HygonBackend {
    fn edits(&self, targets: &[Target]) -> Result<ContainerEdits> {
        self.shown(targets).map_err(|e| e.during("edits"))
    }

    fn confine(&self, target: &Target, _container: &Container) -> Result<Confinement> {
        self.granted(&target.grant).map_err(|e| e.during("confine"))?;
        Ok(Confinement::NotNeeded)
    }

    // No limit was set, so that none is in force, whatever became of the card.
    fn unconfine(&self, _target: &Target, _container: &Container) -> Result<()> {
        Ok(())
    }
}

impl HygonBackend {
    fn shown(&self, targets: &[Target]) -> Result<ContainerEdits> {
        if targets.is_empty() {
            return Ok(ContainerEdits::default());
        }
        let part = targets.iter().find(|target| matches!(target.grant, Grant::Part(_)));
        if let (Some(part), true) = (part, targets.len() > 1) {
            let (why, part) =
                ("a container has one part of a Hygon card and then nothing else", &part.grant);
            return Err(Error::new(ErrorKind::Invalid, why).with("part", format!("{part:?}")));
        }
        let mut edits = ContainerEdits {
            nodes: nodes::common(&self.cards.tree)?,
            mounts: self.libraries(),
            ..ContainerEdits::default()
        };
        for target in targets {
            let card = self.granted(&target.grant)?;
            let own = ContainerEdits {
                nodes: nodes::of_card(&self.cards.tree, &card)?,
                ..ContainerEdits::default()
            };
            edits = edits.merge(own)?;
            if let Grant::Part(part) = &target.grant {
                edits = edits.merge(self.part_edits(&card, part)?)?;
            }
        }
        Ok(edits)
    }

    /// The card that a grant is on, if this backend could have given it.
    fn granted(&self, grant: &Grant) -> Result<Card> {
        let device = grant.device();
        let card = self.card(&device)?;
        match grant {
            Grant::Part(part) => self.existing(part).map(drop)?,
            Grant::Shared { scheme, .. } if *scheme != Scheme::TIME_SLICE => {
                return Err(partition::unserved(&device, scheme));
            }
            Grant::Shared { size, .. } if *size != Size::ANY => {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    format!("a turn on {device} has no size, and {size} was asked; ask for any"),
                ));
            }
            Grant::Shared { .. } | Grant::Whole(_) if self.is_cut()? => return Err(cut(&device)),
            Grant::Shared { .. } | Grant::Whole(_) => {}
        }
        Ok(card)
    }

    fn part_edits(&self, card: &Card, part: &PartitionId) -> Result<ContainerEdits> {
        if part.scheme() == Scheme::HCU_MIG {
            let (file, uuid) = self.shown_by(card, part)?;
            return Ok(ContainerEdits {
                mounts: vec![mount(&file, &file)],
                env: vec![("DMI_MIG_VISIBLE_DEVICE".into(), uuid)],
                ..ContainerEdits::default()
            });
        }
        let found = self.found(card, part)?;
        let conf = match (partition::fault(card, &found), found.conf) {
            (None, Ok(conf)) => conf.of_container(),
            (why, _) => {
                let why = why.unwrap_or_default();
                let why = format!("vdev{}.conf cannot be relied on: {why}", found.number);
                return Err(Error::new(ErrorKind::Io, why).with("partition", part));
            }
        };
        // The runtime reads the only file that there is; one of the driver's making is known by its
        // number, one of ours by being the first.
        let number = if self.dmi.is_some() { found.number } else { 0 };
        let container = format!("{IN_CONTAINER}/vdev{number}.conf").into();
        let files = vec![ClaimFile { container, text: conf.to_string() }];
        Ok(ContainerEdits { files, ..ContainerEdits::default() })
    }

    /// The driver's own folder, where the host has it. The runtime on it is the image's.
    fn libraries(&self) -> Vec<Mount> {
        const FOLDERS: [&str; 2] = ["/opt/hyhal", "/opt/hygondriver"];
        let here = FOLDERS.into_iter().filter(|folder| self.cards.tree.has(folder));
        here.map(|folder| mount(folder, folder)).collect()
    }
}

fn mount(host: &str, container: &str) -> Mount {
    Mount { host: host.into(), container: container.into(), mode: MountMode::ReadOnly }
}

fn cut(device: &DeviceId) -> Error {
    Error::new(
        ErrorKind::Invalid,
        format!("{device} is cut into hardware instances, so that only those can compute"),
    )
}
