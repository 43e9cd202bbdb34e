//! Flawed parts.

use vgpu_core::{
    ComputeShare, CreateOrder, DeviceId, Error, ErrorKind, Holders, ModeChange, ModeOrder,
    Partition, PartitionId, PartitionState, Partitioner, Placement, Shape, Size, Slots, Swept,
};

use super::{Flawed, held};
use crate::Result;
use crate::defect::Defect;
use crate::schemes::describe;

impl Partitioner for Flawed {
    fn partitions(&self, device: &DeviceId) -> Result<Vec<Partition>> {
        let listed = self.through(Some(device), |sound| sound.partitions(device));
        if self.is(Defect::Part2) && listed.as_ref().is_err_and(|e| e.kind == ErrorKind::NotFound) {
            return Ok(Vec::new());
        }
        let mut listed = listed?;
        match self.defect {
            Defect::Back1 => listed.iter_mut().for_each(forget),
            Defect::Back2 if self.nth % 2 == 1 => {
                listed.pop();
            }
            Defect::Back4 => {
                let boot = self.sound.machine.boot_id()?;
                let mut seen = held(&self.memory.listed);
                match seen.get(device.as_str()) {
                    Some((before, ghosts)) if *before != boot => {
                        let there = |p: &Partition| listed.iter().any(|l| l.id == p.id);
                        let new: Vec<_> = ghosts.iter().filter(|p| !there(p)).cloned().collect();
                        listed.extend(new);
                    }
                    _ => {
                        seen.insert(device.to_string(), (boot, listed.clone()));
                    }
                }
            }
            _ => {}
        }
        Ok(listed)
    }

    fn set_mode(&self, order: &ModeOrder) -> Result<ModeChange> {
        match self.defect {
            Defect::Part3 => self.clear(&order.device)?,
            Defect::Part4 => {
                // It does as if the right cards had been named.
                let mut order = order.clone();
                order.affected = self.affected(&order)?;
                return self.through(Some(&order.device), |sound| sound.set_mode(&order));
            }
            Defect::Part5 => {
                for device in &order.affected {
                    self.clear(device)?;
                }
            }
            _ => {}
        }
        self.through(Some(&order.device), |sound| sound.set_mode(order))
    }

    fn create(&self, order: &CreateOrder) -> Result<Partition> {
        let device = order.device();
        if self.is(Defect::Part10) && self.is_largest(order)? {
            return Err(Error::new(ErrorKind::Unsupported, "the driver does not do that"));
        }
        let made = self.through(Some(device), |sound| sound.create(order));
        match (self.defect, made) {
            (Defect::Part1, Ok(mut made)) => {
                made.handle.push('?');
                Ok(made)
            }
            (Defect::Part6, Ok(mut made)) => {
                shrink(&mut made.size);
                self.put(&made)?;
                Ok(made)
            }
            (Defect::Part7, Err(e)) => {
                self.force(order)?;
                Err(e)
            }
            (Defect::Part8, Err(mut e)) if e.kind == ErrorKind::Exhausted => {
                e.kind = ErrorKind::Vendor;
                Err(e)
            }
            (Defect::Part9, Err(e)) if e.kind == ErrorKind::Exhausted => self.force(order),
            (_, made) => made,
        }
    }

    fn resize(&self, partition: &PartitionId, size: &Size) -> Result<Partition> {
        let device = partition.device();
        let resized = self.through(Some(&device), |sound| sound.resize(partition, size));
        if !self.is(Defect::Part11) {
            return resized;
        }
        match resized {
            Err(e) if e.kind == ErrorKind::Unsupported => {
                let listed = self.sound.machine.truth(&device)?;
                listed.into_iter().find(|p| p.id == *partition).ok_or(e)
            }
            Err(e) => Err(e),
            Ok(mut made) => {
                made.handle.push('\'');
                self.put(&made)?;
                Ok(made)
            }
        }
    }

    fn destroy(&self, partition: &PartitionId) -> Result<()> {
        if self.is(Defect::Part13) {
            let truth = self.sound.machine.truth(&partition.device())?;
            if truth.iter().any(|p| p.id == *partition && p.holders != Holders::Processes(0)) {
                return self.drop_part(partition);
            }
        }
        let device = partition.device();
        let destroyed = self.through(Some(&device), |sound| sound.destroy(partition));
        let mut gone = held(&self.gone);
        if destroyed.is_ok() {
            gone.push(partition.clone());
        } else if self.is(Defect::Part12) && gone.contains(partition) {
            return Ok(());
        }
        destroyed
    }

    fn sweep(&self, device: &DeviceId, keep: &[PartitionId]) -> Result<Vec<Swept>> {
        match self.defect {
            Defect::Back3 => Ok(vec![Swept { what: "everything".into() }]),
            Defect::Part14 => {
                let mut swept = self.through(Some(device), |sound| sound.sweep(device, keep))?;
                for part in self.sound.machine.truth(device)? {
                    if part.state == PartitionState::Complete && !keep.contains(&part.id) {
                        self.drop_part(&part.id)?;
                        swept.push(Swept { what: part.id.to_string() });
                    }
                }
                Ok(swept)
            }
            _ => self.through(Some(device), |sound| sound.sweep(device, keep)),
        }
    }
}

impl Flawed {
    fn clear(&self, device: &DeviceId) -> Result<()> {
        self.sound.machine.change(|state| {
            if let Ok(card) = state.card_mut(device) {
                card.parts.clear();
                card.holders = 0;
            }
            Ok(())
        })
    }

    fn put(&self, part: &Partition) -> Result<()> {
        self.sound.machine.change(|state| {
            state.card_mut(&part.device)?.part_mut(&part.id)?.listed = part.clone();
            Ok(())
        })
    }

    fn affected(&self, order: &ModeOrder) -> Result<Vec<DeviceId>> {
        let device = self.sound.machine.describe(&order.device)?;
        let wanted = order.scheme.as_ref();
        let all = device.schemes.iter().filter(|s| s.mode.active || Some(&s.scheme) == wanted);
        let most = all.map(|s| s.mode.affects.clone()).max_by_key(Vec::len);
        Ok(most.unwrap_or_default())
    }

    /// Whether no larger part can be ordered.
    fn is_largest(&self, order: &CreateOrder) -> Result<bool> {
        let of = |state: &crate::state::State| -> Result<bool> {
            let device = describe(state, state.card(order.device())?);
            let info = device.scheme(order.scheme())?;
            Ok(match (order.shape(), &info.sizing) {
                (Shape::Profile(id), vgpu_core::Sizing::Profiles(table)) => {
                    table.last().is_some_and(|p| p.id == *id)
                }
                (Shape::Size(Size { compute: Some(share), .. }), _) => {
                    share.units == share.of.get()
                }
                _ => false,
            })
        };
        self.sound.machine.read(of)?
    }
}

/// Takes away what a part is recognised by.
fn forget(part: &mut Partition) {
    part.tag = None;
    match &mut part.placement {
        Placement::Driver => {}
        Placement::Slots(slots) => *slots = Slots::new(slots.start + 100, slots.len),
        Placement::Units(words) => words.push(1),
    }
}

fn shrink(size: &mut Size) {
    if let Some(memory) = &mut size.memory {
        memory.0 /= 2;
    } else if let Some(ComputeShare { units, .. }) = &mut size.compute {
        *units /= 2;
    }
}
