//! Virtual DCUs as files of ours: the planner's mask, checked once more against all that is there.

use vgpu_core::{CreateOrder, Error, ErrorKind, Partition, PartitionId, Placement, Result, Size};

use crate::backend::HygonBackend;
use crate::cards::Card;
use crate::host;
use crate::partition::conf::VdevConf;
use crate::partition::confs::Found;
use crate::partition::{no_part, vdcu};

/// Pipes of one card are numbered below this.
const PIPES: u32 = 20;

impl HygonBackend {
    pub(crate) fn create_by_file(&self, card: &Card, order: &CreateOrder) -> Result<Partition> {
        let all = self.confs.list()?;
        let there: Vec<Found> = all
            .iter()
            .filter(|found| found.address.as_deref() == Some(card.address()))
            .cloned()
            .collect();
        let quota = self.admit(card, order, &there)?;
        let confs = vdcu::readable(card, &there)?;
        let mask = mask_of(order)?;
        let conf = VdevConf {
            address: card.address().to_owned(),
            mask,
            count: quota.units,
            memory_mib: quota.memory_mib,
            device: self.number_of(card),
            vdev: 0,
            pipe: (0..PIPES)
                .find(|pipe| confs.iter().all(|conf| conf.pipe != *pipe))
                .ok_or_else(|| vdcu::full(format!("all {PIPES} pipes of {} are taken", card.id)))?,
            enabled: true,
        };
        // The planner saw to both; a stale view of the card must not become two tenants on one unit.
        if conf.exceeds(card.units.map_or(0, |units| units.get())) || conf.units() != quota.units {
            let why = format!("the mask {mask:x?} is not {} units of {}", quota.units, card.id);
            return Err(Error::new(ErrorKind::Invalid, why));
        }
        if let Some(other) = confs.iter().find(|other| overlap(other, &conf)) {
            let why = format!("units of the mask {mask:x?} are vdev{}'s; plan again", other.vdev);
            return Err(vdcu::full(why));
        }
        let number = self.confs.make(&all, |number| VdevConf { vdev: number, ..conf.clone() })?;
        let made = self.confs.get(number).ok_or_else(|| {
            let why =
                format!("vdev{number}.conf was written and is gone; does another tool clear it?");
            Error::new(ErrorKind::Io, why)
        })?;
        self.part(card, &made)
    }

    pub(crate) fn resize_by_file(
        &self,
        card: &Card,
        id: &PartitionId,
        size: &Size,
    ) -> Result<Partition> {
        let found = self.found(card, id)?;
        let (quota, old) = self.resized(card, id, size)?;
        if quota.units != old.units() {
            let why = "the planner places its units, so that compute stays as it is";
            return Err(Error::new(ErrorKind::Invalid, why).with("partition", id));
        }
        let conf = VdevConf { memory_mib: quota.memory_mib, ..old };
        self.confs.replace(found.number, &conf)?;
        let changed = self.confs.get(found.number).ok_or_else(|| no_part(id))?;
        self.part(card, &changed)
    }

    /// The card's place among the node's, as the host's copy has it.
    pub(crate) fn number_of(&self, card: &Card) -> u32 {
        let cards = host::cards(&self.cards.tree);
        let at = cards.iter().position(|address| address == card.address());
        at.and_then(|at| u32::try_from(at).ok()).unwrap_or(0)
    }
}

/// Whether two virtual DCUs have a unit in common.
pub(crate) fn overlap(one: &VdevConf, other: &VdevConf) -> bool {
    one.mask.iter().zip(other.mask).any(|(a, b)| a & b != 0)
}

fn mask_of(order: &CreateOrder) -> Result<[u64; 2]> {
    let Placement::Units(words) = order.placement() else {
        let why = "the order does not say which units; plan it on a fresh scan";
        return Err(Error::new(ErrorKind::Invalid, why));
    };
    let mut mask = [0; 2];
    if words.len() > mask.len() {
        let why = format!("a mask of {} words, and a file has two", words.len());
        return Err(Error::new(ErrorKind::Invalid, why));
    }
    mask[..words.len()].copy_from_slice(words);
    Ok(mask)
}
