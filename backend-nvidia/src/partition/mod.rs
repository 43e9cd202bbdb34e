//! Making and unmaking driver objects: here by scheme to the file that knows it.

mod mig;

use vgpu_core::partition::Partitioner;
use vgpu_core::{
    CreateOrder, DeviceId, Error, ErrorKind, ModeChange, ModeOrder, Partition, PartitionId, Result,
    Scheme, Size, Swept,
};

use crate::backend::NvidiaBackend;

impl Partitioner for NvidiaBackend {
    fn partitions(&self, device: &DeviceId) -> Result<Vec<Partition>> {
        self.cards.index(device)?;
        Ok(Vec::new())
    }

    fn set_mode(&self, order: &ModeOrder) -> Result<ModeChange> {
        let device = &order.device;
        let index = self.cards.index(device)?;
        if let Some(other) = order.scheme.as_ref().filter(|scheme| !is_default_mode(scheme)) {
            return Err(unserved(device, other));
        }
        if order.affected != [device.clone()] {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("the order affects {:?}, and the mode is {device}'s alone", order.affected),
            ));
        }
        self.leave_mig(device, index)
    }

    fn create(&self, order: &CreateOrder) -> Result<Partition> {
        self.cards.index(order.device())?;
        Err(unserved(order.device(), order.scheme()))
    }

    fn resize(&self, partition: &PartitionId, _size: &Size) -> Result<Partition> {
        self.cards.index(&partition.device())?;
        Err(no_part(partition))
    }

    fn destroy(&self, partition: &PartitionId) -> Result<()> {
        self.cards.index(&partition.device())?;
        Err(no_part(partition))
    }

    fn sweep(&self, device: &DeviceId, _keep: &[PartitionId]) -> Result<Vec<Swept>> {
        self.cards.index(device)?;
        Ok(Vec::new())
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
        format!(
            "{device} cannot be split by {scheme}; it has {} and {}",
            Scheme::WHOLE,
            Scheme::TIME_SLICE
        ),
    )
}

/// Whether a scheme needs no mode of its own: the card is in it unless it is in another.
fn is_default_mode(scheme: &Scheme) -> bool {
    [Scheme::WHOLE, Scheme::TIME_SLICE].contains(scheme)
}
