//! Making and unmaking driver objects: here by scheme to the file that knows it.

pub(crate) mod mig;
pub(crate) mod profiles;

use vgpu_core::partition::Partitioner;
use vgpu_core::{
    CreateOrder, DeviceId, Error, ErrorKind, ModeChange, ModeOrder, Partition, PartitionId, Result,
    Scheme, Size, Swept,
};

use crate::backend::NvidiaBackend;

impl Partitioner for NvidiaBackend {
    fn partitions(&self, device: &DeviceId) -> Result<Vec<Partition>> {
        let index = self.cards.index(device)?;
        let mig = self.mig_parts(device, index)?;
        Ok(mig.into_iter().map(|found| found.part).collect())
    }

    fn set_mode(&self, order: &ModeOrder) -> Result<ModeChange> {
        let device = &order.device;
        let index = self.cards.index(device)?;
        let to_mig = match &order.scheme {
            Some(scheme) if *scheme == Scheme::MIG => true,
            Some(other) if !is_default_mode(other) => return Err(unserved(device, other)),
            _ => false,
        };
        if order.affected != [device.clone()] {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("the order affects {:?}, and the mode is {device}'s alone", order.affected),
            ));
        }
        self.switch_mig(device, index, to_mig)
    }

    fn create(&self, order: &CreateOrder) -> Result<Partition> {
        let index = self.cards.index(order.device())?;
        match order.scheme() {
            scheme if *scheme == Scheme::MIG => self.create_mig(order, index),
            other => Err(unserved(order.device(), other)),
        }
    }

    fn resize(&self, partition: &PartitionId, _size: &Size) -> Result<Partition> {
        let index = self.cards.index(&partition.device())?;
        if partition.scheme() != Scheme::MIG {
            return Err(no_part(partition));
        }
        self.mig_part(partition, index)?;
        let why = format!("{partition} keeps its size; make another part, and destroy this one");
        Err(Error::new(ErrorKind::Unsupported, why))
    }

    fn destroy(&self, partition: &PartitionId) -> Result<()> {
        let index = self.cards.index(&partition.device())?;
        match partition.scheme() {
            scheme if scheme == Scheme::MIG => self.destroy_mig(partition, index),
            _ => Err(no_part(partition)),
        }
    }

    fn sweep(&self, device: &DeviceId, keep: &[PartitionId]) -> Result<Vec<Swept>> {
        let index = self.cards.index(device)?;
        self.sweep_mig(device, index, keep)
    }
}

/// That a part is not there.
pub(crate) fn no_part(partition: &PartitionId) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no part {partition}; scan again"))
}

/// That a scheme is none of this card's.
pub(crate) fn unserved(device: &DeviceId, scheme: &Scheme) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("{device} cannot be split by {scheme}; `vgpu devices` shows how it can"),
    )
}

/// Whether a scheme needs no mode of its own: the card is in it unless it is in another.
fn is_default_mode(scheme: &Scheme) -> bool {
    [Scheme::WHOLE, Scheme::TIME_SLICE].contains(scheme)
}
