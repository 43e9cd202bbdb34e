//! Virtual DCUs: what there is on a card, and what may be put beside it.

use vgpu_core::{
    Bytes, ComputeShare, CreateOrder, Error, ErrorKind, Partition, PartitionId, PartitionState,
    Placement, Result, Scheme, Shape, Size,
};

use crate::backend::HygonBackend;
use crate::cards::Card;
use crate::partition::conf::VdevConf;
use crate::partition::confs::Found;
use crate::partition::{holders, no_part};

/// What an order comes to on this card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quota {
    /// 0 shares all units with others of its kind.
    pub(crate) units: u32,
    pub(crate) memory_mib: u64,
}

impl HygonBackend {
    /// Virtual DCUs of a card, made by whom ever.
    pub(crate) fn vdcus(&self, card: &Card) -> Result<Vec<Partition>> {
        let found = self.on_card(card)?;
        let mut parts: Vec<Partition> =
            found.iter().map(|found| self.part(card, found)).collect::<Result<_>>()?;
        for (number, info) in self.without_file(card)? {
            parts.push(self.fileless(card, number, &info)?);
        }
        Ok(parts)
    }

    /// Files about a card.
    pub(crate) fn on_card(&self, card: &Card) -> Result<Vec<Found>> {
        let mut found = self.confs.list()?;
        found.retain(|found| found.address.as_deref() == Some(card.address()));
        Ok(found)
    }

    /// What a file shows as a part.
    pub(crate) fn part(&self, card: &Card, found: &Found) -> Result<Partition> {
        let usable = match &found.conf {
            Ok(conf) if !wrong(card, conf) => Some(conf),
            _ => None,
        };
        let size = match usable {
            Some(conf) => Size {
                compute: card
                    .units
                    .filter(|_| conf.units() > 0)
                    .map(|of| ComputeShare { units: conf.units(), of }),
                memory: Some(Bytes::mib(conf.memory_mib)),
            },
            None => Size::ANY,
        };
        let pids = holders::of_vdcu(&self.cards.tree, card.address(), found.number);
        Ok(Partition {
            id: PartitionId::of(&card.id, &Scheme::VDCU, found.number)?,
            device: card.id.clone(),
            scheme: Scheme::VDCU,
            shape: usable.map(|_| Shape::Size(size)),
            size,
            placement: usable.map_or(Placement::Driver, |conf| placement(card, conf)),
            handle: format!("vdev{}", found.number),
            tag: None,
            state: usable.map_or(PartitionState::Broken, |_| PartitionState::Complete),
            holders: holders::counted(&pids),
        })
    }

    /// What may be made for an order beside what is there.
    ///
    /// # Errors
    /// `Exhausted`, or `Busy` where a file of this card cannot be read and so may hold anything.
    pub(crate) fn admit(&self, card: &Card, order: &CreateOrder, there: &[Found]) -> Result<Quota> {
        let Shape::Size(size) = order.shape() else {
            return Err(Error::new(ErrorKind::Invalid, "a virtual DCU has a size, not a profile"));
        };
        let confs = readable(card, there)?;
        let most = self.node(std::slice::from_ref(card))?.most.get();
        if there.len() >= most as usize {
            return Err(full(format!("{} has {most} virtual DCUs, which is all it may", card.id)));
        }
        let quota = Quota {
            units: size.compute.map_or(0, |share| share.units),
            memory_mib: memory_of(card, size, &confs)?,
        };
        self.beside(card, quota, &confs)?;
        Ok(quota)
    }

    /// Whether a quota fits beside these.
    ///
    /// # Errors
    /// `Exhausted`.
    pub(crate) fn beside(&self, card: &Card, quota: Quota, confs: &[&VdevConf]) -> Result<()> {
        let held: u64 = confs.iter().map(|conf| conf.memory_mib).sum();
        let left = card.mib().saturating_sub(held);
        if quota.memory_mib > left || quota.memory_mib == 0 {
            let asked = quota.memory_mib;
            return Err(full(format!("{asked} MiB asked, {left} MiB are left on {}", card.id)));
        }
        let sharing = confs.iter().filter(|conf| conf.units() == 0).count();
        if quota.units == 0 && sharing < confs.len() || quota.units > 0 && sharing > 0 {
            return Err(full(format!(
                "{} has virtual DCUs that share all units and one with units of its own cannot be \
                 beside them, nor the other way round; use another card",
                card.id
            )));
        }
        let taken: u32 = confs.iter().map(|conf| conf.units()).sum();
        let total = card.units.map_or(0, |units| units.get());
        if taken.saturating_add(quota.units) > total {
            let (asked, left) = (quota.units, total.saturating_sub(taken));
            return Err(full(format!("{asked} units asked, {left} of {total} are left")));
        }
        Ok(())
    }

    /// The file of a part.
    ///
    /// # Errors
    /// `NotFound`.
    pub(crate) fn found(&self, card: &Card, id: &PartitionId) -> Result<Found> {
        let number: u32 = id.local().parse().map_err(|_e| no_part(id))?;
        let found = self.confs.get(number).ok_or_else(|| no_part(id))?;
        let ours =
            found.address.as_deref() == Some(card.address()) && id.local() == number.to_string();
        if ours { Ok(found) } else { Err(no_part(id)) }
    }

    /// The new size of a part, as a quota, on the grid and beside its neighbours.
    ///
    /// # Errors
    /// `Invalid`, `Exhausted`, and as [`readable`].
    pub(crate) fn resized(
        &self,
        card: &Card,
        id: &PartitionId,
        size: &Size,
    ) -> Result<(Quota, VdevConf)> {
        let found = self.found(card, id)?;
        let mut others = self.on_card(card)?;
        others.retain(|other| other.number != found.number);
        let others = readable(card, &others)?;
        let old = match &found.conf {
            Ok(conf) if !wrong(card, conf) => conf.clone(),
            _ => return Err(broken(card, &found, fault(card, &found).unwrap_or_default())),
        };
        let off = |why: String| Err(Error::new(ErrorKind::Invalid, why).with("partition", id));
        let memory_mib = match size.memory {
            Some(Bytes(bytes)) if bytes == 0 || bytes % (1 << 20) != 0 => {
                return off(format!("{} is not a whole number of MiB", Bytes(bytes)));
            }
            Some(Bytes(bytes)) if bytes > card.memory.0 => {
                return off(format!("{} is more than the card's {}", Bytes(bytes), card.memory));
            }
            Some(Bytes(bytes)) => bytes >> 20,
            None => old.memory_mib,
        };
        let units = match (size.compute, card.units) {
            (None, _) => old.units(),
            (Some(share), Some(of)) if share.of == of && (1..=of.get()).contains(&share.units) => {
                share.units
            }
            (Some(share), _) => return off(format!("compute {share} is not of this card")),
        };
        if (units == 0) != (old.units() == 0) {
            return off("units of its own are given or taken by making it anew only".into());
        }
        let quota = Quota { units, memory_mib };
        self.beside(card, quota, &others)?;
        Ok((quota, old))
    }
}

/// What all files of a card say.
///
/// # Errors
/// `Busy`: one says nothing that can be relied on, so that nothing may be put beside it.
pub(crate) fn readable<'f>(card: &Card, there: &'f [Found]) -> Result<Vec<&'f VdevConf>> {
    let one = |found: &'f Found| match &found.conf {
        Ok(conf) if !wrong(card, conf) => Ok(conf),
        other => {
            let why = other.as_ref().err().cloned();
            Err(broken(card, found, why.unwrap_or_else(|| beyond(card))))
        }
    };
    there.iter().map(one).collect()
}

/// What is wrong with a file of a card, for a person.
pub(crate) fn fault(card: &Card, found: &Found) -> Option<String> {
    match &found.conf {
        Ok(conf) if wrong(card, conf) => Some(beyond(card)),
        Ok(_) => None,
        Err(why) => Some(why.clone()),
    }
}

/// Where a part lies, in as many words as its card needs.
pub(crate) fn placement(card: &Card, conf: &VdevConf) -> Placement {
    let words = card.units.map_or(0, |units| units.get().div_ceil(64)) as usize;
    if conf.units() == 0 {
        return Placement::Units(Vec::new());
    }
    Placement::Units(conf.mask[..words.min(2)].to_vec())
}

/// A no for want of room.
pub(crate) fn full(why: String) -> Error {
    Error::new(ErrorKind::Exhausted, why)
}

fn wrong(card: &Card, conf: &VdevConf) -> bool {
    conf.exceeds(card.units.map_or(0, |units| units.get()))
}

fn beyond(card: &Card) -> String {
    let units = card.units.map_or(0, |units| units.get());
    format!("its mask sets units that a card of {units} does not have")
}

fn broken(card: &Card, found: &Found, why: String) -> Error {
    let n = found.number;
    Error::new(
        ErrorKind::Busy,
        format!(
            "/etc/vdev/vdev{n}.conf is about {} and cannot be relied on: {why}; correct it, or \
             remove it when nobody uses it",
            card.id
        ),
    )
}

/// The quota of memory: what is asked; else, since every virtual DCU has one, the same share of
/// memory as of units, or what is left of it.
fn memory_of(card: &Card, size: &Size, confs: &[&VdevConf]) -> Result<u64> {
    if let Some(memory) = size.memory {
        return Ok(memory.0 >> 20);
    }
    let held: u64 = confs.iter().map(|conf| conf.memory_mib).sum();
    let left = card.mib().saturating_sub(held);
    match size.compute {
        Some(share) => {
            let fair = card.mib() * u64::from(share.units) / u64::from(share.of.get());
            Ok(fair.min(left))
        }
        None => Err(Error::new(
            ErrorKind::Invalid,
            "a virtual DCU with neither units nor memory limits nothing; ask for one of the two",
        )),
    }
}
