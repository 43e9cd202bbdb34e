//! Hardware instances (HCU-MIG) through libhydmi_mig, and the registry that it keeps.

use std::fs;
use std::path::PathBuf;

use vgpu_core::{
    CreateOrder, Error, ErrorKind, ModeChange, Partition, PartitionId, PartitionState, Placement,
    ProfileId, Result, Scheme, Shape, Swept,
};

use crate::api::{CallFailure, HyDmiMig, MigHandle, MigInstance, MigProfile};
use crate::backend::HygonBackend;
use crate::cards::Card;
use crate::convert;
use crate::partition::{holders, no_part};

/// Where the library writes what it made; a container finds its own file at the same place.
pub(crate) const REGISTRY: &str = "/etc/dmi_mig_config";

/// An instance with all that the library says of it.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    handle: MigHandle,
    info: MigInstance,
    profile: MigProfile,
    /// Handle and number of its compute instance.
    compute: Option<(MigHandle, u32)>,
}

impl HygonBackend {
    pub(crate) fn mig(&self) -> Result<&dyn HyDmiMig> {
        self.mig.as_deref().ok_or_else(|| {
            let why =
                "libhydmi_mig is not loaded in this process, so that no card is cut by hardware";
            Error::new(ErrorKind::Unsupported, why)
        })
    }

    /// Parts of a card, while the node is cut.
    pub(crate) fn instances(&self, card: &Card) -> Result<Vec<Partition>> {
        if !self.is_cut()? {
            return Ok(Vec::new());
        }
        let number = self.registered(card);
        let listed = self.listed(card)?;
        listed.iter().map(|instance| self.as_part(card, number, instance)).collect()
    }

    pub(crate) fn create_instance(&self, card: &Card, order: &CreateOrder) -> Result<Partition> {
        let mig = self.mig()?;
        let (Shape::Profile(id), Placement::Slots(at)) = (order.shape(), order.placement()) else {
            let why = "a hardware instance has a profile and a place; plan it on a fresh scan";
            return Err(Error::new(ErrorKind::Invalid, why));
        };
        let profile = self.profile(card, id)?;
        if let Some(other) = self.listed(card)?.iter().find(|i| i.info.slots.overlaps(*at)) {
            let why = format!("{at} is taken by {} at {}", other.profile.name, other.info.slots);
            return Err(Error::new(ErrorKind::Exhausted, why).with("device", &card.id));
        }
        let failed = |failure: CallFailure| convert::error(&failure).with("device", &card.id);
        let handle = mig.card(card.address()).map_err(failed)?;
        let instance = mig.create_instance(handle, profile.id, *at).map_err(failed)?;
        let made = self.completed(card, mig, instance, &profile);
        made.map_err(|why| match mig.destroy_instance(instance) {
            Ok(()) => why,
            // What is left is a half, which `sweep` finds; the caller learns of both.
            Err(failure) => why.caused_by(failed(failure)),
        })
    }

    pub(crate) fn destroy_instance(&self, card: &Card, id: &PartitionId) -> Result<()> {
        let mig = self.mig()?;
        let instance = self.instance(card, id)?;
        let failed = |failure: CallFailure| convert::error(&failure).with("partition", id);
        if let Some((compute, number)) = instance.compute {
            if let Some(file) = self.file(card, instance.info.id, number) {
                let pids = holders::seeing(&self.cards.tree, &file);
                if !holders::counted(&pids).is_free() {
                    return Err(super::held(id, &pids));
                }
            }
            // The compute instance goes first.
            mig.destroy_compute(compute).map_err(failed)?;
        }
        mig.destroy_instance(instance.handle).map_err(failed)
    }

    /// Instances without a compute instance, and what dead ones left in the registry: a leftover of a
    /// number makes the library refuse that number for good.
    pub(crate) fn sweep_instances(&self, card: &Card, keep: &[PartitionId]) -> Result<Vec<Swept>> {
        let mut swept = Vec::new();
        if self.mig.is_none() || !self.is_cut()? {
            return Ok(swept);
        }
        let mig = self.mig()?;
        let number = self.registered(card);
        let mut living = Vec::new();
        for instance in self.listed(card)? {
            let part = self.as_part(card, number, &instance)?;
            let id = instance.info.id;
            match instance.compute {
                Some((_, compute)) => living.push(format!("gi{id}ci{compute}")),
                None if keep.contains(&part.id) => {}
                None => {
                    mig.destroy_instance(instance.handle)
                        .map_err(|failure| convert::error(&failure).with("partition", &part.id))?;
                    let what = format!("gpu instance {id} ({}) without compute instance", part.id);
                    swept.push(Swept { what });
                }
            }
        }
        let Some(number) = number else { return Ok(swept) };
        for name in self.cards.tree.names(format!("{REGISTRY}/ci")) {
            let stem = name.strip_suffix(".conf").unwrap_or(&name);
            let Some(rest) = stem.strip_prefix(&format!("dev{number}")) else { continue };
            // `dev1` is also the beginning of `dev10`.
            if !rest.starts_with("gi") || living.iter().any(|alive| alive == rest) {
                continue;
            }
            let path = self.cards.tree.read_at(format!("{REGISTRY}/ci/{name}"));
            let is_folder = fs::symlink_metadata(&path).is_ok_and(|m| m.is_dir());
            let gone = if is_folder { fs::remove_dir_all(&path) } else { self.disk.remove(&path) };
            gone.map_err(|e| convert::file_error("remove", &path, &e))?;
            swept.push(Swept { what: format!("{REGISTRY}/ci/{name} of no living instance") });
        }
        Ok(swept)
    }

    /// Puts every card of the node into the mode, or out of it.
    pub(crate) fn switch(&self, on: bool) -> Result<ModeChange> {
        let mig = self.mig()?;
        mig.set_system_mode(on).map_err(|failure| convert::error(&failure))?;
        match mig.system_mode().map_err(|failure| convert::error(&failure))? {
            (current, _) if current == on => Ok(ModeChange::Done),
            (_, pending) if pending == on => Ok(ModeChange::AfterReboot),
            _ => {
                let why = "the library said that the node's mode was changed, and it was not";
                Err(Error::new(ErrorKind::Vendor, why))
            }
        }
    }

    /// The file that shows an instance to a container, and its UUID.
    ///
    /// # Errors
    /// `NotFound`; `Io` where the registry does not have it.
    pub(crate) fn shown_by(&self, card: &Card, id: &PartitionId) -> Result<(String, String)> {
        let instance = self.instance(card, id)?;
        let Some((_, compute)) = instance.compute else {
            let why = format!("{id} has no compute instance, so that nothing can run in it");
            return Err(Error::new(ErrorKind::NotFound, why));
        };
        let file = self.file(card, instance.info.id, compute);
        let uuid = file.as_ref().and_then(|file| self.uuid(file));
        match (file, uuid) {
            (Some(file), Some(uuid)) => Ok((file, uuid)),
            (file, _) => {
                let file = file.unwrap_or_else(|| format!("{REGISTRY}/dev*"));
                let why = format!("{file} does not tell the instance {id}; make it anew");
                Err(Error::new(ErrorKind::Io, why))
            }
        }
    }

    fn completed(
        &self,
        card: &Card,
        mig: &dyn HyDmiMig,
        instance: MigHandle,
        profile: &MigProfile,
    ) -> Result<Partition> {
        let failed = |failure: CallFailure| convert::error(&failure).with("device", &card.id);
        let slices = profile.slices.saturating_sub(1);
        let whole = mig.compute_profile(instance, slices).map_err(failed)?;
        let compute = mig.create_compute(instance, whole).map_err(failed)?;
        let read = || {
            let info = mig.instance_info(instance)?;
            Ok((info, mig.compute_id(compute)?))
        };
        let read = read().map_err(|failure| {
            // The whole of it goes, the compute instance first.
            let _left = mig.destroy_compute(compute);
            failed(failure)
        });
        let (info, number) = read?;
        let made = Instance {
            handle: instance,
            info,
            profile: profile.clone(),
            compute: Some((compute, number)),
        };
        self.as_part(card, self.registered(card), &made)
    }

    fn listed(&self, card: &Card) -> Result<Vec<Instance>> {
        let mig = self.mig()?;
        let failed = |failure: CallFailure| convert::error(&failure).with("device", &card.id);
        let handle = mig.card(card.address()).map_err(failed)?;
        let mut listed = Vec::new();
        for (profile, _) in self.rows(card.address()) {
            for instance in mig.instances(handle, profile.id).map_err(failed)? {
                let info = mig.instance_info(instance).map_err(failed)?;
                let slices = profile.slices.saturating_sub(1);
                let whole = mig.compute_profile(instance, slices).map_err(failed)?;
                let computes = mig.computes(instance, whole).map_err(failed)?;
                let compute = match computes.first() {
                    Some(compute) => Some((*compute, mig.compute_id(*compute).map_err(failed)?)),
                    None => None,
                };
                listed.push(Instance { handle: instance, info, profile: profile.clone(), compute });
            }
        }
        listed.sort_by_key(|instance| instance.info.slots.start);
        Ok(listed)
    }

    fn instance(&self, card: &Card, id: &PartitionId) -> Result<Instance> {
        if !self.is_cut()? {
            return Err(no_part(id));
        }
        let is_it = |i: &Instance| i.local() == id.local();
        self.listed(card)?.into_iter().find(is_it).ok_or_else(|| no_part(id))
    }

    fn as_part(&self, card: &Card, number: Option<u32>, instance: &Instance) -> Result<Partition> {
        let id = ProfileId::new(instance.profile.name.as_str())?;
        let file = match (number, instance.compute) {
            (Some(n), Some((_, compute))) => Some(conf(n, instance.info.id, compute)),
            _ => None,
        };
        let table = self.table(card);
        let size = table.iter().find(|row| row.id == id).map(|row| row.size).unwrap_or_default();
        let pids = match &file {
            Some(file) => holders::seeing(&self.cards.tree, file),
            None => Ok(Vec::new()),
        };
        let uuid = file.as_ref().and_then(|file| self.uuid(file));
        let nameless = || format!("gi{}", instance.info.id);
        Ok(Partition {
            id: PartitionId::of(&card.id, &Scheme::HCU_MIG, instance.local())?,
            device: card.id.clone(),
            scheme: Scheme::HCU_MIG,
            shape: Some(Shape::Profile(id)),
            size,
            placement: Placement::Slots(instance.info.slots),
            handle: uuid.unwrap_or_else(nameless),
            tag: None,
            state: match instance.compute {
                Some(_) => PartitionState::Complete,
                None => PartitionState::Half,
            },
            holders: holders::counted(&pids),
        })
    }

    fn profile(&self, card: &Card, id: &ProfileId) -> Result<MigProfile> {
        let rows = self.rows(card.address());
        let found = rows.into_iter().find(|(row, _)| row.name == id.as_str());
        found.map(|(row, _)| row).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, format!("{} has no profile {id}; scan again", card.id))
        })
    }

    /// The registry's number of a card: of the file `devN` that holds its address.
    fn registered(&self, card: &Card) -> Option<u32> {
        let names = self.cards.tree.names(REGISTRY).into_iter();
        let numbers = names.filter_map(|name| name.strip_prefix("dev")?.parse().ok());
        numbers.into_iter().find(|number: &u32| {
            let text = self.cards.tree.text(format!("{REGISTRY}/dev{number}"));
            text.is_ok_and(|text| text.to_ascii_lowercase().contains(card.address()))
        })
    }

    fn file(&self, card: &Card, instance: u32, compute: u32) -> Option<String> {
        Some(conf(self.registered(card)?, instance, compute))
    }

    fn uuid(&self, file: &str) -> Option<String> {
        let path: PathBuf = self.cards.tree.read_at(file);
        let text = fs::read_to_string(path).ok()?;
        let last = text.lines().rev().find_map(|line| line.trim().strip_prefix("mig_uuid:"))?;
        let uuid = last.trim();
        let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if uuid.is_empty() || uuid.len() > 80 || !uuid.bytes().all(fine) {
            return None;
        }
        Some(if uuid.starts_with("MIG-") { uuid.to_owned() } else { format!("MIG-{uuid}") })
    }
}

impl Instance {
    fn local(&self) -> String {
        format!("{}-{}", self.profile.name, self.info.slots.start)
    }
}

fn conf(card: u32, instance: u32, compute: u32) -> String {
    format!("{REGISTRY}/ci/dev{card}gi{instance}ci{compute}.conf")
}
