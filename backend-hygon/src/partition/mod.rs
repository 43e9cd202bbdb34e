//! Making and unmaking parts: virtual DCUs by file or by library, and hardware instances.

mod by_file;
mod by_library;
mod conf;
mod confs;
mod holders;
mod instances;
mod vdcu;

use vgpu_core::partition::Partitioner;
use vgpu_core::{
    CreateOrder, DeviceId, Error, ErrorKind, ModeChange, ModeOrder, Partition, PartitionId,
    PartitionState, Result, Scheme, Size, Swept,
};

use crate::backend::HygonBackend;

pub(crate) use crate::partition::confs::Confs;
pub(crate) use crate::partition::holders::{IN_CONTAINER, of_card as processes_of_card, of_vdcu};
pub(crate) use crate::partition::vdcu::fault;

impl Partitioner for HygonBackend {
    fn partitions(&self, device: &DeviceId) -> Result<Vec<Partition>> {
        self.parts(device).map_err(|e| e.during("partitions"))
    }

    fn set_mode(&self, order: &ModeOrder) -> Result<ModeChange> {
        self.change_mode(order).map_err(|e| e.during("set_mode"))
    }

    fn create(&self, order: &CreateOrder) -> Result<Partition> {
        let create = || {
            let card = self.card(order.device())?;
            let cut = self.is_cut()?;
            match (order.scheme(), &self.dmi) {
                (scheme, _) if *scheme == Scheme::HCU_MIG => self.create_instance(&card, order),
                (scheme, _) if *scheme != Scheme::VDCU => Err(unserved(&card.id, scheme)),
                _ if cut => {
                    let why = "the node was cut into hardware instances meanwhile; scan again";
                    Err(Error::new(ErrorKind::Busy, why))
                }
                (_, Some(dmi)) => self.create_by_library(&**dmi, &card, order),
                (_, None) => self.create_by_file(&card, order),
            }
        };
        create().map_err(|e: Error| e.during("create"))
    }

    fn resize(&self, partition: &PartitionId, size: &Size) -> Result<Partition> {
        let resize = || {
            let card = self.card(&partition.device())?;
            match (partition.scheme(), &self.dmi) {
                (scheme, _) if scheme == Scheme::HCU_MIG => {
                    let why = "a hardware instance cannot change its size; make another";
                    Err(Error::new(ErrorKind::Unsupported, why).with("partition", partition))
                }
                (scheme, _) if scheme != Scheme::VDCU => Err(no_part(partition)),
                (_, Some(dmi)) => self.resize_by_library(&**dmi, &card, partition, size),
                (_, None) => self.resize_by_file(&card, partition, size),
            }
        };
        resize().map_err(|e: Error| e.during("resize"))
    }

    fn destroy(&self, partition: &PartitionId) -> Result<()> {
        let destroy = || {
            let card = self.card(&partition.device())?;
            let scheme = partition.scheme();
            if scheme == Scheme::HCU_MIG {
                return self.destroy_instance(&card, partition);
            }
            if scheme != Scheme::VDCU {
                return Err(no_part(partition));
            }
            let listed = self.vdcus(&card)?;
            let part = listed.into_iter().find(|part| part.id == *partition);
            let part = part.ok_or_else(|| no_part(partition))?;
            if !part.holders.is_free() {
                return Err(held(
                    partition,
                    &of_vdcu(&self.cards.tree, card.address(), number(&part)?),
                ));
            }
            match &self.dmi {
                Some(dmi) => self.destroy_by_library(&**dmi, &card, number(&part)?),
                None => self.confs.remove(number(&part)?),
            }
        };
        destroy().map_err(|e: Error| e.during("destroy"))
    }

    fn sweep(&self, device: &DeviceId, keep: &[PartitionId]) -> Result<Vec<Swept>> {
        let sweep = || {
            let card = self.card(device)?;
            let mut swept = self.sweep_instances(&card, keep)?;
            let drafts = self.confs.sweep(card.address())?;
            swept.extend(drafts.into_iter().map(|name| Swept { what: format!("draft {name}") }));
            for half in self.vdcus(&card)?.iter().filter(|p| p.state == PartitionState::Half) {
                if let (Some(dmi), false) = (&self.dmi, keep.contains(&half.id)) {
                    self.destroy_by_library(&**dmi, &card, number(half)?)?;
                    swept.push(Swept { what: format!("virtual DCU {} without a file", half.id) });
                }
            }
            Ok(swept)
        };
        sweep().map_err(|e: Error| e.during("sweep"))
    }
}

impl HygonBackend {
    pub(crate) fn parts(&self, device: &DeviceId) -> Result<Vec<Partition>> {
        let card = self.card(device)?;
        let mut parts = self.vdcus(&card)?;
        parts.extend(self.instances(&card)?);
        Ok(parts)
    }

    /// A part that is there.
    ///
    /// # Errors
    /// `Lost`, `NotFound`.
    pub(crate) fn existing(&self, id: &PartitionId) -> Result<Partition> {
        let parts = self.parts(&id.device())?;
        parts.into_iter().find(|part| part.id == *id).ok_or_else(|| no_part(id))
    }

    fn change_mode(&self, order: &ModeOrder) -> Result<ModeChange> {
        let card = self.card(&order.device)?;
        let (cards, _) = self.cards.look();
        let node = self.node(&cards)?;
        let device = self.describe(&card, &node);
        let wanted = match &order.scheme {
            None => false,
            Some(scheme) => {
                device.scheme(scheme)?;
                *scheme == Scheme::HCU_MIG
            }
        };
        // A change of this mode is one of the whole node.
        let affects = if wanted || node.cut { node.all } else { vec![card.id.clone()] };
        let same = order.affected.len() == affects.len()
            && affects.iter().all(|device| order.affected.contains(device));
        if !same {
            let list =
                |ids: &[DeviceId]| ids.iter().map(DeviceId::as_str).collect::<Vec<_>>().join(" ");
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "the mode of {} changes [{}], and the order names [{}]; empty and name exactly \
                     those",
                    card.id,
                    list(&affects),
                    list(&order.affected)
                ),
            ));
        }
        if wanted == node.cut {
            return Ok(ModeChange::Done);
        }
        for id in &affects {
            let parts = self.parts(id)?;
            if !parts.is_empty() {
                let why = format!("{} parts are on {id}; destroy them first", parts.len());
                return Err(Error::new(ErrorKind::Busy, why));
            }
        }
        let processes = holders::of_node(&self.cards.tree);
        if processes > 0 {
            let why = format!("{processes} processes have /dev/kfd open; end them first");
            return Err(Error::new(ErrorKind::Busy, why));
        }
        self.switch(wanted)
    }
}

/// That a part is not there.
pub(crate) fn no_part(partition: &PartitionId) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no part {partition}; scan again"))
}

/// That a scheme keeps no objects here.
pub(crate) fn unserved(device: &DeviceId, scheme: &Scheme) -> Error {
    Error::new(ErrorKind::Unsupported, format!("{device} has no parts of {scheme} to be made"))
}

/// That processes hold a part, or may.
fn held(partition: &PartitionId, pids: &std::result::Result<Vec<u32>, ()>) -> Error {
    let why = match pids {
        Ok(pids) => format!("processes {pids:?} hold {partition}; end them first"),
        Err(()) => format!(
            "whether {partition} is held cannot be told: a process that uses the cards is not seen \
             from here; run this program in the host's PID namespace"
        ),
    };
    Error::new(ErrorKind::Busy, why)
}

fn number(part: &Partition) -> Result<u32> {
    part.id.local().parse().map_err(|_e| no_part(&part.id))
}
