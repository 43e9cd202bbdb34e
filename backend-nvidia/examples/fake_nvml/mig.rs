//! MIG as the driver keeps it: modes, GPU instances, compute instances, and who is on them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::abi::{INVALID_ARGUMENT, NOT_FOUND, NOT_SUPPORTED};
use crate::abi_mig::{IN_USE, INSUFFICIENT_RESOURCES, RESET_REQUIRED};
use crate::mig_tables::{self, Profile};
use crate::scenario::{Card, Mig, Process};
use crate::world::Answer;

/// MIG of the whole machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct MigState {
    pub(crate) cards: BTreeMap<u32, CardMig>,
    /// How many compute instances were ever made: each has a UUID of its own.
    made: u64,
    /// Orders of the control file that were carried out.
    pub(crate) done: BTreeSet<String>,
}

/// One card's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct CardMig {
    /// Once it was changed; before, the scenario's.
    pub(crate) mode: Option<Mode>,
    pub(crate) instances: Vec<Instance>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mode {
    /// 1 is on; a scenario may say what cannot be.
    pub(crate) current: u32,
    pub(crate) pending: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Instance {
    pub(crate) id: u32,
    pub(crate) profile_id: u32,
    pub(crate) start: u32,
    pub(crate) size: u32,
    pub(crate) computes: Vec<Compute>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Compute {
    pub(crate) id: u32,
    pub(crate) profile_id: u32,
    pub(crate) slices: u32,
    pub(crate) uuid: String,
}

/// Slices of the compute profiles, by their place in the driver's list, which is also their id.
pub(crate) const COMPUTE_SLICES: [u32; 9] = [1, 2, 3, 4, 7, 8, 6, 1, 2];

impl MigState {
    pub(crate) fn mode(&self, index: u32, card: &Card) -> Answer<Mode> {
        let Mig { current, pending } = card.mig.ok_or(NOT_SUPPORTED)?;
        let first = Mode { current, pending };
        Ok(self.card(index).and_then(|card| card.mode).unwrap_or(first))
    }

    /// Answers with the activation status.
    pub(crate) fn set_mode(&mut self, index: u32, card: &Card, on: u32) -> Answer<u32> {
        let mode = self.mode(index, card)?;
        let occupied = !self.instances(index).is_empty() || !card.processes.is_empty();
        let (current, status) = match mode.current == on {
            true => (on, 0),
            false if occupied => (mode.current, IN_USE),
            false if card.needs_reset() => (mode.current, RESET_REQUIRED),
            false => (on, 0),
        };
        self.cards.entry(index).or_default().mode = Some(Mode { current, pending: on });
        Ok(status)
    }

    pub(crate) fn create(
        &mut self,
        index: u32,
        card: &Card,
        profile: &Profile,
        (start, size): (u32, u32),
    ) -> Answer<u32> {
        if self.mode(index, card)?.current != 1 {
            return Err(NOT_SUPPORTED);
        }
        if !profile.places.contains(&(start, size)) {
            return Err(INVALID_ARGUMENT);
        }
        let table = card.profiles();
        let there = self.instances(index);
        let of = |i: &Instance| table.iter().find(|p| p.id == i.profile_id);
        let overlaps = |i: &Instance| i.start < start + size && start < i.start + i.size;
        let alike = there.iter().filter(|i| i.profile_id == profile.id).count();
        let used = |at: usize| -> u32 {
            there.iter().filter_map(of).map(|p| p.engines[at]).sum::<u32>() + profile.engines[at]
        };
        let has = |at: usize| table.iter().map(|p| p.engines[at]).max().unwrap_or(0);
        let compute: u32 =
            there.iter().filter_map(of).map(|p| p.slices).sum::<u32>() + profile.slices;
        let full = there.iter().any(overlaps)
            || alike as u64 >= u64::from(profile.instances)
            || (0..5).any(|at| used(at) > has(at))
            || compute > table.iter().map(|p| p.slices).max().unwrap_or(0);
        if full {
            return Err(INSUFFICIENT_RESOURCES);
        }
        let id = lowest_free(1, there.iter().map(|i| i.id));
        let instance = Instance { id, profile_id: profile.id, start, size, computes: Vec::new() };
        let card = self.cards.entry(index).or_default();
        card.instances.push(instance);
        card.instances.sort_by_key(|i| (i.start, i.id));
        Ok(id)
    }

    pub(crate) fn destroy(&mut self, index: u32, card: &Card, id: u32) -> Answer<()> {
        let instance = self.instance(index, id)?;
        if !instance.computes.is_empty() || on(&card.processes, instance).next().is_some() {
            return Err(IN_USE);
        }
        self.remove(index, id);
        Ok(())
    }

    pub(crate) fn create_compute(
        &mut self,
        index: u32,
        card: &Card,
        id: u32,
        profile_id: u32,
    ) -> Answer<u32> {
        let (made, number) = (self.made, u64::from(index));
        let instance = self.instance_mut(index, id)?;
        let slices = card.profiles().iter().find(|p| p.id == instance.profile_id).map(|p| p.slices);
        let slices = slices.ok_or(NOT_FOUND)?;
        let asked = COMPUTE_SLICES.get(profile_id as usize).copied().ok_or(INVALID_ARGUMENT)?;
        if instance.computes.iter().map(|c| c.slices).sum::<u32>() + asked > slices {
            return Err(INSUFFICIENT_RESOURCES);
        }
        let compute = lowest_free(0, instance.computes.iter().map(|c| c.id));
        let uuid = format!("MIG-{number:08x}-{id:04x}-5000-8000-{made:012x}");
        instance.computes.push(Compute { id: compute, profile_id, slices: asked, uuid });
        self.made += 1;
        Ok(compute)
    }

    pub(crate) fn destroy_compute(
        &mut self,
        index: u32,
        card: &Card,
        id: u32,
        compute: u32,
    ) -> Answer<()> {
        let instance = self.instance(index, id)?;
        instance.computes.iter().find(|c| c.id == compute).ok_or(NOT_FOUND)?;
        if on(&card.processes, instance).any(|p| p.ci.is_none_or(|ci| ci == compute)) {
            return Err(IN_USE);
        }
        self.instance_mut(index, id)?.computes.retain(|c| c.id != compute);
        Ok(())
    }

    pub(crate) fn instances(&self, index: u32) -> &[Instance] {
        self.card(index).map_or(&[], |card| &card.instances)
    }

    pub(crate) fn instance(&self, index: u32, id: u32) -> Answer<&Instance> {
        self.instances(index).iter().find(|i| i.id == id).ok_or(NOT_FOUND)
    }

    /// All compute instances of a card, in the order in which they are MIG devices.
    pub(crate) fn devices(&self, index: u32) -> impl Iterator<Item = (&Instance, &Compute)> {
        self.instances(index).iter().flat_map(|i| i.computes.iter().map(move |c| (i, c)))
    }

    /// The card is reset: what was pending is in effect, and no instance is left.
    pub(crate) fn reset(&mut self, index: u32, card: &Card) {
        if let Ok(mode) = self.mode(index, card) {
            let settled = Mode { current: mode.pending, pending: mode.pending };
            self.cards.insert(index, CardMig { mode: Some(settled), instances: Vec::new() });
        }
    }

    /// Another tool's doing, or a mishap: whatever holds it, it is gone.
    pub(crate) fn remove(&mut self, index: u32, id: u32) {
        if let Some(card) = self.cards.get_mut(&index) {
            card.instances.retain(|i| i.id != id);
        }
    }

    fn card(&self, index: u32) -> Option<&CardMig> {
        self.cards.get(&index)
    }

    fn instance_mut(&mut self, index: u32, id: u32) -> Answer<&mut Instance> {
        let card = self.cards.get_mut(&index).ok_or(NOT_FOUND)?;
        card.instances.iter_mut().find(|i| i.id == id).ok_or(NOT_FOUND)
    }
}

impl Card {
    /// The profiles that the card has: its model's, then the scenario's own, which win.
    pub(crate) fn profiles(&self) -> Vec<Profile> {
        let mut table = self.mig_table.map(mig_tables::of).unwrap_or_default();
        table.retain(|p| self.mig_profiles.iter().all(|own| own.nth != p.nth));
        table.extend(self.mig_profiles.iter().cloned());
        table
    }

    /// Whether a change of its mode waits for a reset: cards before Hopper.
    pub(crate) fn needs_reset(&self) -> bool {
        self.compute_capability.is_none_or(|[major, _]| major < 9)
    }
}

/// The processes on a GPU instance.
pub(crate) fn on<'p>(
    processes: &'p [Process],
    instance: &Instance,
) -> impl Iterator<Item = &'p Process> {
    let (id, start) = (instance.id, instance.start);
    processes.iter().filter(move |p| p.gi == Some(id) || p.slice == Some(start))
}

fn lowest_free(from: u32, taken: impl Iterator<Item = u32>) -> u32 {
    let taken: Vec<u32> = taken.collect();
    (from..).find(|n| !taken.contains(n)).unwrap_or(u32::MAX)
}
