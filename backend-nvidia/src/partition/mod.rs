//! Making and unmaking driver objects: here by scheme to the file that knows it.

pub(crate) mod mig;
pub(crate) mod mps;
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
        let mut parts: Vec<Partition> = mig.into_iter().map(|found| found.part).collect();
        parts.extend(self.mps_parts(device)?);
        Ok(parts)
    }

    fn set_mode(&self, order: &ModeOrder) -> Result<ModeChange> {
        let device = &order.device;
        let index = self.cards.index(device)?;
        let daemon = order.scheme.as_ref().filter(|scheme| mps::is_mps(scheme));
        let to_mig = match &order.scheme {
            Some(scheme) if *scheme == Scheme::MIG => true,
            Some(other) if !is_default_mode(other) && daemon.is_none() => {
                return Err(unserved(device, other));
            }
            _ => false,
        };
        if order.affected != [device.clone()] {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("the order affects {:?}, and the mode is {device}'s alone", order.affected),
            ));
        }
        if let Some(scheme) = daemon {
            return self.enter_mps(order, scheme, index);
        }
        self.leave_mps(device, index)?;
        self.switch_mig(device, index, to_mig)
    }

    fn create(&self, order: &CreateOrder) -> Result<Partition> {
        let index = self.cards.index(order.device())?;
        match order.scheme() {
            scheme if *scheme == Scheme::MIG => self.create_mig(order, index),
            scheme if mps::is_mps(scheme) => self.create_mps(order, index),
            other => Err(unserved(order.device(), other)),
        }
    }

    fn resize(&self, partition: &PartitionId, _size: &Size) -> Result<Partition> {
        let index = self.cards.index(&partition.device())?;
        match partition.scheme() {
            scheme if scheme == Scheme::MIG => drop(self.mig_part(partition, index)?),
            scheme if mps::is_mps(&scheme) => drop(self.mps_part(partition)?),
            _ => return Err(no_part(partition)),
        }
        let why = format!("{partition} keeps its size; make another part, and destroy this one");
        Err(Error::new(ErrorKind::Unsupported, why))
    }

    fn destroy(&self, partition: &PartitionId) -> Result<()> {
        let index = self.cards.index(&partition.device())?;
        match partition.scheme() {
            scheme if scheme == Scheme::MIG => self.destroy_mig(partition, index),
            scheme if mps::is_mps(&scheme) => self.destroy_mps(partition, index),
            _ => Err(no_part(partition)),
        }
    }

    fn sweep(&self, device: &DeviceId, keep: &[PartitionId]) -> Result<Vec<Swept>> {
        let index = self.cards.index(device)?;
        let mut swept = self.sweep_mig(device, index, keep)?;
        swept.extend(self.sweep_mps(device, index, keep)?);
        Ok(swept)
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
