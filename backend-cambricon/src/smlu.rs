//! sMLU: quota instances, of a profile each, named by their claim.

use std::num::NonZeroU32;

use vgpu_core::{
    Bytes, ComputeShare, CreateOrder, DeviceId, Error, ErrorKind, Partition, PartitionId,
    PartitionState, Placement, Result, Scheme, Shape, Size, Swept,
};

use crate::api::{Quota, SmluInstance, SmluProfile};
use crate::backend::CambriconBackend;
use crate::convert;
use crate::parts::{self, Openers, no_part};

const PERCENT: NonZeroU32 = NonZeroU32::new(100).expect("100 is not 0");
const MIB: u64 = 1 << 20;

impl CambriconBackend {
    pub(crate) fn smlu_parts(&self, device: &DeviceId, index: u32) -> Result<Vec<Partition>> {
        let instances = self.smlu_instances(index)?;
        if instances.is_empty() {
            return Ok(Vec::new());
        }
        let openers = self.openers(index)?;
        instances.iter().map(|instance| part(device, instance, &openers)).collect()
    }

    pub(crate) fn create_smlu(&self, order: &CreateOrder, index: u32) -> Result<Partition> {
        let api = self.api();
        let error = |failure| convert::error(&failure).with("device", order.device());
        let Shape::Size(size) = order.shape() else {
            return Err(Error::new(ErrorKind::Invalid, "an sMLU instance is made by size"));
        };
        let quota = self.quota(index, size)?;
        let name = parts::name(order.claim())?;
        let (profile, made) = self.profile_for(order.device(), index, quota)?;
        let undo_profile = || match made {
            true => api.destroy_smlu_profile(index, profile).map_err(error),
            false => Ok(()),
        };
        let handle = match api.create_smlu(index, profile, name) {
            Ok(handle) => handle,
            Err(failure) => {
                let why = match failure.code() {
                    Some(9) => full(error(failure), quota),
                    _ => error(failure),
                };
                return Err(undone(why, undo_profile()));
            }
        };
        let listed = self.smlu_parts(order.device(), index).and_then(|parts| {
            let ours = parts.into_iter().find(|p| p.tag.as_ref() == Some(order.claim()));
            ours.ok_or_else(|| {
                let why = format!("{name} was made and is not listed");
                Error::new(ErrorKind::Vendor, why).with("device", order.device())
            })
        });
        listed.map_err(|why| {
            let undo = api.destroy_smlu(handle).map_err(error).and_then(|()| undo_profile());
            undone(why, undo)
        })
    }

    pub(crate) fn destroy_smlu(&self, id: &PartitionId, index: u32) -> Result<()> {
        let api = self.api();
        let instance = self.smlu_instance(id, index)?;
        let handle = self.smlu_handle(index, &instance)?;
        api.destroy_smlu(handle).map_err(|failure| {
            let advice = "processes hold it; end them first";
            let error = convert::error(&failure).with("partition", id);
            if failure.code() == Some(15) { error.with("to do", advice) } else { error }
        })?;
        self.drop_profile(index, &instance);
        Ok(())
    }

    pub(crate) fn resize_smlu(
        &self,
        id: &PartitionId,
        index: u32,
        size: &Size,
    ) -> Result<Partition> {
        let invalid = |why: String| Err(Error::new(ErrorKind::Invalid, why).with("partition", id));
        let instance = self.smlu_instance(id, index)?;
        let step = self.options.memory_step;
        if let Some(memory) = size.memory
            && (memory.0 == 0 || memory.0 % step.0 != 0)
        {
            return invalid(format!("{memory} is not a multiple of {step}"));
        }
        let percent = match size.compute {
            None => instance.quota.percent,
            Some(share) if share.of == PERCENT && (1..=100).contains(&share.units) => share.units,
            Some(share) => return invalid(format!("compute {share} is no percentage")),
        };
        let memory = size.memory.map_or(instance.quota.memory, |m| m.0);
        let quota = Quota { percent, memory };
        let handle = self.smlu_handle(index, &instance)?;
        self.update_smlu(id, index, handle, quota)?;
        self.drop_profile(index, &instance);
        let parts = self.smlu_parts(&id.device(), index)?;
        let now = parts.into_iter().find(|p| p.id == *id).ok_or_else(|| no_part(id))?;
        if now.size != size_of(quota) {
            let why = format!("{} was asked and taken, and {} is listed", size_of(quota), now.size);
            return Err(Error::new(ErrorKind::Vendor, why).with("partition", id));
        }
        Ok(now)
    }

    /// Has the driver change a quota, with room made for its profile where the driver has none left.
    fn update_smlu(&self, id: &PartitionId, index: u32, handle: i32, quota: Quota) -> Result<()> {
        let api = self.api();
        let error = |failure| convert::error(&failure).with("partition", id);
        match api.update_smlu(handle, quota) {
            Err(failure) if failure.code() == Some(9) => {}
            answer => return answer.map_err(error),
        }
        // One code for two things: the card is full, or it has sixteen sizes.
        let (profile, made) = self.profile_for(&id.device(), index, quota)?;
        api.update_smlu(handle, quota).map_err(|failure| {
            let why = match failure.code() {
                Some(9) => full(error(failure), quota),
                _ => error(failure),
            };
            let undo = match made {
                true => api.destroy_smlu_profile(index, profile).map_err(error),
                false => Ok(()),
            };
            undone(why, undo)
        })
    }

    /// Removes the profiles that no instance has: what a crash between profile and instance leaves.
    pub(crate) fn sweep_smlu(&self, index: u32) -> Result<Vec<Swept>> {
        let mut swept = Vec::new();
        for profile in self.unused_profiles(index)? {
            if self.is_default(index, &profile) {
                continue;
            }
            match self.api().destroy_smlu_profile(index, profile.id) {
                Ok(()) => {
                    let what = format!("smlu profile {} ({})", profile.id, profile.name);
                    swept.push(Swept { what });
                }
                // Somebody makes an instance of it right now, or it is one of the driver's own.
                Err(failure) if matches!(failure.code(), Some(5 | 10 | 14 | 15 | 16)) => {}
                Err(failure) => return Err(convert::error(&failure)),
            }
        }
        Ok(swept)
    }

    /// The instance of a part, as the driver lists it now.
    pub(crate) fn smlu_instance(&self, id: &PartitionId, index: u32) -> Result<SmluInstance> {
        let device = id.device();
        let is = |i: &SmluInstance| parts::id(&device, &Scheme::SMLU, &i.name, i.id);
        self.smlu_instances(index)?
            .into_iter()
            .find(|instance| is(instance).is_ok_and(|found| found == *id))
            .ok_or_else(|| no_part(id))
    }

    fn smlu_instances(&self, index: u32) -> Result<Vec<SmluInstance>> {
        let api = self.api();
        match api.smlu_mode(index) {
            Ok(true) => {}
            Ok(false) => return Ok(Vec::new()),
            Err(failure) if failure.is_unsupported() => return Ok(Vec::new()),
            Err(failure) => return Err(convert::error(&failure)),
        }
        match api.smlu_instances(index) {
            // The driver may say "none" so.
            Err(failure) if failure.code() == Some(14) => Ok(Vec::new()),
            listed => listed.map_err(|failure| convert::error(&failure)),
        }
    }

    fn smlu_handle(&self, index: u32, instance: &SmluInstance) -> Result<i32> {
        self.handle(index, instance.id, &instance.uuid, |handle| self.api().smlu_uuid(handle))
    }

    /// A size as the driver wants it: an axis without limit is all of the card's.
    fn quota(&self, index: u32, size: &Size) -> Result<Quota> {
        let memory = match size.memory {
            Some(memory) => memory.0,
            None => {
                let all = self.api().memory(index).map_err(|failure| convert::error(&failure))?;
                all.total.saturating_sub(all.reserved.unwrap_or(0)) / MIB * MIB
            }
        };
        Ok(Quota { percent: size.compute.map_or(100, |share| share.units), memory })
    }

    /// The profile of a size, made if there is none, and whether it was.
    fn profile_for(&self, device: &DeviceId, index: u32, quota: Quota) -> Result<(i32, bool)> {
        let api = self.api();
        let error = |failure| convert::error(&failure).with("device", device);
        let profiles = self.profiles(index)?;
        if let Some(profile) = profiles.iter().find(|p| p.quota == quota) {
            return Ok((profile.id, false));
        }
        let failure = match api.create_smlu_profile(index, quota) {
            Ok(id) => return Ok((id, true)),
            Err(failure) if failure.code() != Some(9) => return Err(error(failure)),
            Err(failure) => failure,
        };
        // The driver keeps 16: one that nobody has makes room, leftovers before the driver's own.
        let mut unused = self.unused_profiles(index)?;
        unused.sort_by_key(|profile| self.is_default(index, profile));
        for profile in unused {
            if api.destroy_smlu_profile(index, profile.id).is_ok() {
                return api.create_smlu_profile(index, quota).map(|id| (id, true)).map_err(error);
            }
        }
        let living: Vec<String> = profiles.iter().map(|p| size_of(p.quota).to_string()).collect();
        let sizes = living.len();
        Err(Error::new(
            ErrorKind::Exhausted,
            format!(
                "{} would be size {} on the card, and the driver keeps no more; ask for a size that lives there",
                size_of(quota),
                sizes + 1
            ),
        )
        .with("device", device)
        .with("sizes", living.join("; "))
        .vendor(convert::LIBRARY, failure.call, 9))
    }

    /// Removes the profile that an instance had, unless another has it too. What stays is found by `sweep`, and used
    /// again for the next instance of its size, so that a failure is none.
    fn drop_profile(&self, index: u32, instance: &SmluInstance) {
        let unused = self.unused_profiles(index).unwrap_or_default();
        let same = |p: &SmluProfile| p.id == instance.profile || p.quota == instance.quota;
        for profile in unused.into_iter().filter(same) {
            if !self.is_default(index, &profile) {
                let _kept = self.api().destroy_smlu_profile(index, profile.id);
            }
        }
    }

    fn profiles(&self, index: u32) -> Result<Vec<SmluProfile>> {
        let api = self.api();
        let ids = api.smlu_profile_ids(index).map_err(|failure| convert::error(&failure))?;
        let read = |id: i32| match api.smlu_profile(index, id) {
            Ok(profile) => Ok(Some(profile)),
            // Gone since the list was made.
            Err(failure) if matches!(failure.code(), Some(5 | 14)) => Ok(None),
            Err(failure) => Err(convert::error(&failure)),
        };
        ids.into_iter().filter_map(|id| read(id).transpose()).collect()
    }

    fn unused_profiles(&self, index: u32) -> Result<Vec<SmluProfile>> {
        if !matches!(self.api().smlu_mode(index), Ok(true)) {
            return Ok(Vec::new());
        }
        let instances = self.smlu_instances(index)?;
        let used = |p: &SmluProfile| instances.iter().any(|i| i.profile == p.id);
        Ok(self.profiles(index)?.into_iter().filter(|p| !used(p)).collect())
    }

    /// Whether a profile is one of those that the driver makes itself: all, a half and a quarter of the card.
    fn is_default(&self, index: u32, profile: &SmluProfile) -> bool {
        let Ok(memory) = self.api().memory(index) else { return false };
        let percent = profile.quota.percent;
        let share = memory.total / 100 * u64::from(percent);
        // What the driver keeps for itself is not the same on all cards.
        let near = profile.quota.memory.abs_diff(share) <= memory.total / 25;
        matches!(percent, 25 | 50 | 100) && near
    }
}

fn part(device: &DeviceId, instance: &SmluInstance, openers: &Openers) -> Result<Partition> {
    let size = size_of(instance.quota);
    Ok(Partition {
        id: parts::id(device, &Scheme::SMLU, &instance.name, instance.id)?,
        device: device.clone(),
        scheme: Scheme::SMLU,
        shape: Some(Shape::Size(size)),
        size,
        placement: Placement::Driver,
        handle: instance.uuid.clone(),
        tag: parts::tag(&instance.name),
        state: PartitionState::Complete,
        holders: openers.of(&instance.node, Some(instance.used.memory)),
    })
}

fn size_of(quota: Quota) -> Size {
    let share = ComputeShare { units: quota.percent, of: PERCENT };
    Size { compute: (quota.percent > 0).then_some(share), memory: Some(Bytes(quota.memory)) }
}

/// A full card, in words; an instance without a share of compute takes all of it.
fn full(error: Error, quota: Quota) -> Error {
    let asked = format!("{} % and {}", quota.percent, Bytes(quota.memory));
    error.with("asked", asked)
}

/// The failure, and what went wrong in undoing: what the undo left `sweep` finds.
fn undone(why: Error, undo: Result<()>) -> Error {
    match undo {
        Ok(()) => why,
        Err(second) => why.caused_by(second),
    }
}
