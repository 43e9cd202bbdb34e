//! Making and unmaking parts: sMLU and MIM instances.

use vgpu_core::partition::Partitioner;
use vgpu_core::{
    CreateOrder, DeviceId, Error, ErrorKind, ModeChange, ModeOrder, Partition, PartitionId, Result,
    Scheme, Size, Swept,
};

use crate::backend::CambriconBackend;
use crate::parts::{no_part, unserved};

impl Partitioner for CambriconBackend {
    fn partitions(&self, device: &DeviceId) -> Result<Vec<Partition>> {
        let listed = self.cards.index(device).and_then(|index| self.parts_of(device, index));
        listed.map_err(|e| e.during("partitions"))
    }

    fn set_mode(&self, order: &ModeOrder) -> Result<ModeChange> {
        let index = self.cards.index(&order.device);
        index.and_then(|index| self.change_mode(order, index)).map_err(|e| e.during("set_mode"))
    }

    fn create(&self, order: &CreateOrder) -> Result<Partition> {
        self.make(order).map_err(|e| e.during("create"))
    }

    fn resize(&self, partition: &PartitionId, size: &Size) -> Result<Partition> {
        self.change(partition, size).map_err(|e| e.during("resize"))
    }

    fn destroy(&self, partition: &PartitionId) -> Result<()> {
        self.unmake(partition).map_err(|e| e.during("destroy"))
    }

    fn sweep(&self, device: &DeviceId, _keep: &[PartitionId]) -> Result<Vec<Swept>> {
        // Only profiles without an instance are halves; a part to keep has an instance.
        let swept = self.cards.index(device).and_then(|index| self.sweep_smlu(index));
        swept.map_err(|e| e.during("sweep"))
    }
}

impl CambriconBackend {
    /// All parts of a card, in whichever mode it is.
    pub(crate) fn parts_of(&self, device: &DeviceId, index: u32) -> Result<Vec<Partition>> {
        let mut parts = self.smlu_parts(device, index)?;
        if parts.is_empty() {
            parts = self.mim_parts(device, index)?;
        }
        parts.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(parts)
    }

    fn make(&self, order: &CreateOrder) -> Result<Partition> {
        let index = self.cards.index(order.device())?;
        match order.scheme() {
            scheme if *scheme == Scheme::SMLU => self.create_smlu(order, index),
            scheme if *scheme == Scheme::MIM => self.create_mim(order, index),
            other => Err(unserved(order.device(), other)),
        }
    }

    fn change(&self, id: &PartitionId, size: &Size) -> Result<Partition> {
        let index = self.cards.index(&id.device())?;
        let cannot = |why: &str| Error::new(ErrorKind::Unsupported, why).with("partition", id);
        match id.scheme() {
            scheme if scheme == Scheme::SMLU => self.resize_smlu(id, index, size),
            scheme if scheme == Scheme::MIM => {
                self.mim_instance(id, index)?;
                Err(cannot("a MIM instance keeps its size; make a new one"))
            }
            _ => Err(no_part(id)),
        }
    }

    fn unmake(&self, id: &PartitionId) -> Result<()> {
        let index = self.cards.index(&id.device())?;
        match id.scheme() {
            scheme if scheme == Scheme::SMLU => self.destroy_smlu(id, index),
            scheme if scheme == Scheme::MIM => self.destroy_mim(id, index),
            _ => Err(no_part(id)),
        }
    }
}
