//! Virtual DCUs by libhydmi. It picks the units and does not say which virtual DCU it made, so that each
//! step is read back from the driver's own file: the card, the mask, and that no neighbour has it.

use std::sync::PoisonError;

use vgpu_core::{
    CreateOrder, Error, ErrorKind, Holders, Partition, PartitionId, PartitionState, Placement,
    Result, Scheme, Size,
};

use crate::api::{CallFailure, DmiInfo, HyDmi, MAX_VDCUS};
use crate::backend::HygonBackend;
use crate::cards::Card;
use crate::partition::by_file::overlap;
use crate::partition::confs::Found;
use crate::partition::{no_part, vdcu};
use crate::{convert, host};

impl HygonBackend {
    pub(crate) fn create_by_library(
        &self,
        dmi: &dyn HyDmi,
        card: &Card,
        order: &CreateOrder,
    ) -> Result<Partition> {
        // One at a time: what is new afterwards is ours.
        let _one = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.confs.list()?;
        let of_card = |found: &&Found| found.address.as_deref() == Some(card.address());
        let there: Vec<Found> = before.iter().filter(of_card).cloned().collect();
        let quota = self.admit(card, order, &there)?;
        let device = self.device_of(dmi, card)?;
        let memory = u32::try_from(quota.memory_mib).map_err(|e| too_large(card, e))?;
        let called = dmi.create(device, quota.units, memory);
        let mut new = self.confs.list()?;
        new.retain(|found| before.iter().all(|old| old.number != found.number));
        let made = match (called, new.as_slice()) {
            (Err(failure), _) => Err(of(card, &failure)),
            (Ok(()), [one]) => self.checked(card, one, quota.units, &there),
            (Ok(()), []) => Err(unseen(card, "and no file of it is in /etc/vdev")),
            (Ok(()), many) => Err(unseen(card, &format!("and {} new files are there", many.len()))),
        };
        made.map_err(|why| {
            // Whatever was made is not what was ordered: nothing of it may stay.
            let fileless = if new.is_empty() { self.fileless_on(dmi, device) } else { Vec::new() };
            let numbers = new.iter().map(|found| found.number).chain(fileless);
            numbers.fold(why, |why, number| match dmi.destroy(number) {
                Ok(()) => why,
                Err(failure) => why.caused_by(convert::error(&failure)),
            })
        })
    }

    pub(crate) fn resize_by_library(
        &self,
        dmi: &dyn HyDmi,
        card: &Card,
        id: &PartitionId,
        size: &Size,
    ) -> Result<Partition> {
        let found = self.found(card, id)?;
        let (quota, old) = self.resized(card, id, size)?;
        let number = found.number;
        let memory = u32::try_from(quota.memory_mib).map_err(|e| too_large(card, e))?;
        let units = (quota.units != old.units()).then_some(quota.units);
        let memory = (quota.memory_mib != old.memory_mib).then_some(memory);
        dmi.update(number, units, memory).map_err(|failure| of(card, &failure))?;
        let mut there = self.on_card(card)?;
        there.retain(|found| found.number != number);
        let changed = self.confs.get(number).ok_or_else(|| no_part(id))?;
        self.checked(card, &changed, quota.units, &there).map_err(|why| {
            // Back to what it was, which was good.
            let back = u32::try_from(old.memory_mib).ok();
            match dmi.update(number, Some(old.units()), back) {
                Ok(()) => why,
                Err(failure) => why.caused_by(convert::error(&failure)),
            }
        })
    }

    pub(crate) fn destroy_by_library(
        &self,
        dmi: &dyn HyDmi,
        card: &Card,
        number: u32,
    ) -> Result<()> {
        match dmi.destroy(number) {
            Ok(()) => Ok(()),
            // A file without an object behind it: one that was made by file.
            Err(failure) if convert::error(&failure).kind == ErrorKind::NotFound => {
                self.confs.remove(number)
            }
            Err(failure) => Err(of(card, &failure)),
        }
    }

    /// Virtual DCUs of a card that the library has and no file tells: half-made ones.
    pub(crate) fn without_file(&self, card: &Card) -> Result<Vec<(u32, DmiInfo)>> {
        let Some(dmi) = &self.dmi else { return Ok(Vec::new()) };
        let count = match dmi.vdevice_count() {
            Ok(count) => count as usize,
            Err(failure) if convert::is_unsupported(&failure) => return Ok(Vec::new()),
            Err(failure) => return Err(of(card, &failure)),
        };
        let files = self.confs.list()?;
        if count <= files.len() {
            return Ok(Vec::new());
        }
        let device = self.device_of(&**dmi, card)?;
        let without = |number: &u32| files.iter().all(|found| found.number != *number);
        let numbers = (0..MAX_VDCUS).filter(without);
        let told = numbers.filter_map(|number| Some((number, dmi.vdevice_info(number).ok()?)));
        Ok(told.filter(|(_, info)| info.device == device).collect())
    }

    /// One of them, as a part that is only good to destroy.
    pub(crate) fn fileless(&self, card: &Card, number: u32, _info: &DmiInfo) -> Result<Partition> {
        Ok(Partition {
            id: PartitionId::of(&card.id, &Scheme::VDCU, number)?,
            device: card.id.clone(),
            scheme: Scheme::VDCU,
            shape: None,
            size: Size::ANY,
            placement: Placement::Driver,
            handle: format!("vdev{number}"),
            tag: None,
            state: PartitionState::Half,
            // Without a file no container was ever shown it.
            holders: Holders::Processes(0),
        })
    }

    /// The library's number of a card. It counts the vendor's cards in ROCm SMI's order, or, where that
    /// is not there, of their addresses; either is only believed where the counts are the same and
    /// what is made turns out to lie on the card.
    pub(crate) fn device_of(&self, dmi: &dyn HyDmi, card: &Card) -> Result<u32> {
        let ours = host::cards(&self.cards.tree);
        let order: Vec<String> = match &self.cards.smi {
            Some(smi) => {
                let count = smi.api.device_count().map_err(|failure| of(card, &failure))?;
                (0..count).filter_map(|n| smi.address(n)).filter(|a| ours.contains(a)).collect()
            }
            None => ours,
        };
        let count = dmi.device_count().map_err(|failure| of(card, &failure))?;
        let at = order.iter().position(|address| address == card.address());
        let device =
            at.and_then(|at| u32::try_from(at).ok()).filter(|_| order.len() == count as usize);
        let Some(device) = device else {
            let why = format!(
                "libhydmi counts {count} cards and the host shows {}, so that which of them is {} \
                 cannot be told; is a card lost?",
                order.len(),
                card.id
            );
            return Err(Error::new(ErrorKind::Vendor, why));
        };
        match (dmi.device_info(device), card.units) {
            (Ok(info), Some(units)) if info.units != units.get() => Err(Error::new(
                ErrorKind::Vendor,
                format!(
                    "libhydmi's card {device} has {} units and {} has {units}: not the same card",
                    info.units, card.id
                ),
            )),
            _ => Ok(device),
        }
    }

    /// What was made, if it is what was ordered and nobody else's.
    fn checked(&self, card: &Card, made: &Found, units: u32, there: &[Found]) -> Result<Partition> {
        let number = made.number;
        if made.address.as_deref() != Some(card.address()) {
            let on = made.address.as_deref().unwrap_or("no card");
            return Err(unseen(card, &format!("and vdev{number}.conf is about {on}")));
        }
        if let Some(why) = vdcu::fault(card, made) {
            return Err(unseen(card, &format!("and of vdev{number}.conf, {why}")));
        }
        let Ok(conf) = &made.conf else { return Err(unseen(card, "and its file cannot be read")) };
        if conf.units() != units {
            let has = conf.units();
            return Err(unseen(card, &format!("with {has} units where {units} were asked")));
        }
        let taken = there.iter().filter_map(|found| found.conf.as_ref().ok());
        if let Some(other) = taken.into_iter().find(|other| overlap(other, conf)) {
            let other = other.vdev;
            return Err(unseen(card, &format!("on units that are vdev{other}'s already")));
        }
        self.part(card, made)
    }

    /// Half-made ones of a library's card, by number.
    fn fileless_on(&self, dmi: &dyn HyDmi, device: u32) -> Vec<u32> {
        let files = self.confs.list().unwrap_or_default();
        let without = |number: &u32| files.iter().all(|found| found.number != *number);
        let is_there = |number: &u32| dmi.vdevice_info(*number).is_ok_and(|i| i.device == device);
        (0..MAX_VDCUS).filter(without).filter(is_there).collect()
    }
}

fn of(card: &Card, failure: &CallFailure) -> Error {
    convert::error(failure).with("device", &card.id)
}

fn unseen(card: &Card, why: &str) -> Error {
    Error::new(
        ErrorKind::Vendor,
        format!(
            "libhydmi said that it made a virtual DCU on {}, {why}; it was taken back",
            card.id
        ),
    )
}

fn too_large(card: &Card, error: std::num::TryFromIntError) -> Error {
    Error::new(ErrorKind::Invalid, format!("the quota is too large: {error}"))
        .with("device", &card.id)
}
