//! MIG: GPU instances at the planner's placement, each with one compute instance that spans it.
//!
//! A part's identity is its card, profile and place; GPU instance numbers and UUIDs change when it is made anew. A
//! crash between the two instances leaves a half, which `sweep` removes.

use std::sync::Arc;

use vgpu_core::{
    CreateOrder, DeviceId, Error, ErrorKind, Holders, ModeChange, Partition, PartitionId,
    PartitionState, Placement, Result, Scheme, Shape, Slots, Swept,
};

use crate::api::{FailureCause, NvmlFailure};
use crate::backend::NvidiaBackend;
use crate::convert;
use crate::mig::api::{GpuInstance, MAX_PROFILES, MemorySlices, MigDevice};
use crate::partition::profiles::{MigRow, MigTable};
use crate::partition::{no_part, unserved};

/// A part with what the driver calls it now.
#[derive(Debug, Clone)]
pub(crate) struct MigPart {
    pub(crate) part: Partition,
    pub(crate) gpu_instance: u32,
    /// Its compute instances; ours have one.
    pub(crate) compute_instances: Vec<u32>,
    /// The place of its MIG device in the driver's list.
    pub(crate) nth: Option<u32>,
}

impl NvidiaBackend {
    /// Puts a card into MIG mode or takes it out.
    pub(crate) fn switch_mig(&self, device: &DeviceId, index: u32, on: bool) -> Result<ModeChange> {
        let told = |failure: &NvmlFailure| convert::error(failure).with("device", device);
        let mode = match self.api().mig_mode(index) {
            Ok(mode) => mode,
            Err(failure) if failure.is_unsupported() && !on => return Ok(ModeChange::Done),
            Err(failure) if failure.is_unsupported() => return Err(unserved(device, &Scheme::MIG)),
            Err(failure) => return Err(told(&failure)),
        };
        if on && self.mig_table(device, index)?.is_none() {
            return Err(unserved(device, &Scheme::MIG));
        }
        if mode.current == on && mode.pending == on {
            return Ok(ModeChange::Done);
        }
        // Only a pending change is taken back: nothing on the card changes.
        if mode.current != on {
            self.is_idle(device, index)?;
        }
        let activation = self.api().set_mig_mode(index, on).map_err(|f| told(&f))?;
        // The card may have been reset, so its number is looked up anew.
        let index = self.cards.index(device)?;
        let now = self.api().mig_mode(index).map_err(|f| told(&f))?;
        if now.current == on {
            return Ok(ModeChange::Done);
        }
        let call = "nvmlDeviceSetMigMode";
        let cause = FailureCause::Code(i64::from(activation));
        match activation {
            16 => Ok(ModeChange::AfterReset),
            0 if now.pending == on => Ok(ModeChange::AfterReset),
            0 => Err(told(&NvmlFailure {
                call,
                cause: FailureCause::Malformed("success, and the mode is what it was".into()),
            })),
            _ => {
                // Nobody shall find another mode after some later reset.
                let back = self.api().set_mig_mode(index, mode.current);
                let error = told(&NvmlFailure { call, cause });
                Err(match back {
                    Ok(_) => error,
                    Err(failure) => error.caused_by(told(&failure)),
                })
            }
        }
    }

    /// What the driver holds on a card, in the order of its slices.
    pub(crate) fn mig_parts(&self, device: &DeviceId, index: u32) -> Result<Vec<MigPart>> {
        let told = |failure: NvmlFailure| convert::error(&failure).with("device", device);
        match self.api().mig_mode(index) {
            Ok(mode) if mode.current => {}
            Ok(_) => return Ok(Vec::new()),
            Err(failure) if failure.is_unsupported() => return Ok(Vec::new()),
            Err(failure) => return Err(told(failure)),
        }
        let Some(table) = self.mig_table(device, index)? else { return Ok(Vec::new()) };
        let devices = self.mig_devices(index).map_err(told)?;
        let holders = self.holders(index).map_err(told)?;
        let mut parts = Vec::new();
        for row in &table.rows {
            for instance in self.api().gpu_instances(index, row.id).map_err(told)? {
                let own: Vec<&(u32, MigDevice)> =
                    devices.iter().filter(|(_, d)| d.gpu_instance == instance.id).collect();
                parts.push(described(device, row, &instance, &own, &holders)?);
            }
        }
        parts.sort_by_key(|p| slots_of(&p.part));
        let names = parts.iter().map(|p| (p.gpu_instance, p.part.id.clone())).collect();
        self.cards.remember_parts(device, names);
        Ok(parts)
    }

    pub(crate) fn mig_part(&self, id: &PartitionId, index: u32) -> Result<MigPart> {
        let mut parts = self.mig_parts(&id.device(), index)?.into_iter();
        parts.find(|p| p.part.id == *id).ok_or_else(|| no_part(id))
    }

    pub(crate) fn create_mig(&self, order: &CreateOrder, index: u32) -> Result<Partition> {
        let device = order.device();
        let told = |failure: NvmlFailure| convert::error(&failure).with("device", device);
        let Some(table) = self.mig_table(device, index)? else {
            return Err(unserved(device, &Scheme::MIG));
        };
        let (Shape::Profile(profile), Placement::Slots(slots)) = (order.shape(), order.placement())
        else {
            let why = "a MIG instance is a profile at slots";
            return Err(Error::new(ErrorKind::Invalid, why).with("device", device));
        };
        let row = table.row(profile).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, format!("the driver has no profile {profile} any more"))
                .with("device", device)
        })?;
        let asked = MemorySlices { start: slots.start, size: slots.len };
        let instance = self.api().create_gpu_instance(index, row.id, asked).map_err(told)?;
        let made = self.completed(device, index, row, &instance, asked);
        let made = made.map_err(|failure| {
            let error = told(failure);
            match self.api().destroy_gpu_instance(index, instance.id) {
                Ok(()) => error,
                // What is left is a half, which `sweep` finds; the caller learns of both.
                Err(failure) => error.caused_by(told(failure)),
            }
        })?;
        self.cards.remember_part(device, instance.id, &made.part.id);
        Ok(made.part)
    }

    pub(crate) fn destroy_mig(&self, id: &PartitionId, index: u32) -> Result<()> {
        let found = self.mig_part(id, index)?;
        match found.part.holders {
            Holders::Processes(0) => {}
            Holders::Processes(n) => return Err(held(id, &format!("{n} processes hold it"))),
            Holders::Unknown => return Err(held(id, "the driver does not tell who holds it")),
        }
        let gone = |failure: NvmlFailure| match failure.code() {
            Some(6) => no_part(id),
            _ => convert::error(&failure).with("partition", id),
        };
        for compute in &found.compute_instances {
            self.api()
                .destroy_compute_instance(index, found.gpu_instance, *compute)
                .map_err(gone)?;
        }
        self.api().destroy_gpu_instance(index, found.gpu_instance).map_err(gone)?;
        self.cards.forget_part(&id.device(), found.gpu_instance);
        Ok(())
    }

    pub(crate) fn sweep_mig(
        &self,
        device: &DeviceId,
        index: u32,
        keep: &[PartitionId],
    ) -> Result<Vec<Swept>> {
        let mut swept = Vec::new();
        for half in self.mig_parts(device, index)? {
            let MigPart { part, gpu_instance, .. } = half;
            if part.state != PartitionState::Half || keep.contains(&part.id) {
                continue;
            }
            match self.api().destroy_gpu_instance(index, gpu_instance) {
                Ok(()) => {}
                // Somebody else removed it.
                Err(failure) if failure.code() == Some(6) => continue,
                Err(failure) => {
                    return Err(convert::error(&failure).with("partition", &part.id));
                }
            }
            self.cards.forget_part(device, gpu_instance);
            let what =
                format!("GPU instance {gpu_instance} ({}) without compute instance", part.id);
            swept.push(Swept { what });
        }
        Ok(swept)
    }

    /// The card's profiles; read once, since they are the model's and the driver's.
    pub(crate) fn mig_table(&self, device: &DeviceId, index: u32) -> Result<Option<Arc<MigTable>>> {
        if let Some(table) = self.cards.mig_table(device) {
            return Ok(Some(table));
        }
        let told = |failure: NvmlFailure| convert::error(&failure).with("device", device);
        let memory = self.api().memory_info(index).map_err(told)?;
        let units = convert::multiprocessors(
            self.api().num_gpu_cores(index).ok(),
            self.api().cuda_compute_capability(index).ok(),
        );
        let table = MigTable::read(self.api(), index, &memory, units).map_err(told)?;
        Ok(table.map(|table| self.cards.keep_mig_table(device, table)))
    }

    /// The part that a GPU instance is, for events; the driver is asked only for one that is new.
    pub(crate) fn part_of_instance(
        &self,
        device: &DeviceId,
        gpu_instance: u32,
    ) -> Option<PartitionId> {
        if let Some(known) = self.cards.part(device, gpu_instance) {
            return Some(known);
        }
        let index = self.cards.index(device).ok()?;
        let parts = self.mig_parts(device, index).ok()?;
        parts.into_iter().find(|p| p.gpu_instance == gpu_instance).map(|p| p.part.id)
    }

    /// Makes the compute instance that spans a GPU instance, and finds both as CUDA sees them.
    fn completed(
        &self,
        device: &DeviceId,
        index: u32,
        row: &MigRow,
        instance: &GpuInstance,
        asked: MemorySlices,
    ) -> std::result::Result<MigPart, NvmlFailure> {
        let api = self.api();
        let wrong = |call, what| NvmlFailure { call, cause: FailureCause::Malformed(what) };
        if instance.slices != asked {
            let what = format!("ordered at {asked:?}, made at {:?}", instance.slices);
            return Err(wrong("nvmlDeviceCreateGpuInstanceWithPlacement", what));
        }
        let profile = self.spanning(index, row, instance.id)?;
        let compute = api.create_compute_instance(index, instance.id, profile)?;
        let seen = self.mig_devices(index).and_then(|devices| {
            let is_it =
                |d: &MigDevice| d.gpu_instance == instance.id && d.compute_instance == compute;
            let found = devices.into_iter().find(|(_, d)| is_it(d));
            found.ok_or_else(|| {
                let what = format!("no MIG device is GPU instance {}", instance.id);
                wrong("nvmlDeviceGetMigDeviceHandleByIndex", what)
            })
        });
        let made = seen.and_then(|seen| {
            described(device, row, instance, &[&seen], &Some(Vec::new()))
                .map_err(|error| wrong("nvmlGpuInstanceGetInfo", error.message))
        });
        if made.is_err() {
            // Should this fail too, the GPU instance cannot be unmade either, and that is told.
            let _told_later = api.destroy_compute_instance(index, instance.id, compute);
        }
        made
    }

    /// The compute profile that takes all slices of a GPU instance.
    fn spanning(
        &self,
        index: u32,
        row: &MigRow,
        gpu_instance: u32,
    ) -> std::result::Result<u32, NvmlFailure> {
        let mut best: Option<(u32, u32)> = None;
        for nth in 0..MAX_PROFILES {
            match self.api().compute_instance_profile(index, gpu_instance, nth) {
                Ok(info) if info.slices == row.slices => {
                    if best.is_none_or(|(most, _)| info.multiprocessors > most) {
                        best = Some((info.multiprocessors, info.id));
                    }
                }
                Ok(_) => {}
                Err(failure) if failure.code() == Some(2) => break,
                Err(failure) if failure.code() == Some(3) => {}
                Err(failure) => return Err(failure),
            }
        }
        best.map(|(_, id)| id).ok_or_else(|| NvmlFailure {
            call: "nvmlGpuInstanceGetComputeInstanceProfileInfo",
            cause: FailureCause::Malformed(format!(
                "no compute profile spans the {} slices of {}",
                row.slices, row.profile.id
            )),
        })
    }

    fn mig_devices(&self, index: u32) -> std::result::Result<Vec<(u32, MigDevice)>, NvmlFailure> {
        let mut found = Vec::new();
        for nth in 0..self.api().max_mig_devices(index)? {
            match self.api().mig_device(index, nth) {
                Ok(device) => found.push((nth, device)),
                Err(failure) if failure.code() == Some(6) => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(found)
    }

    /// The GPU instance of each process, or nothing where the driver does not tell.
    fn holders(&self, index: u32) -> std::result::Result<Option<Vec<u32>>, NvmlFailure> {
        match self.api().compute_processes(index) {
            Ok(list) => Ok(Some(list.iter().filter_map(|p| p.gpu_instance).collect())),
            Err(failure) if failure.is_unsupported() || failure.code() == Some(4) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Nobody must be on a card whose mode is changed; the driver would only make the change pending.
    fn is_idle(&self, device: &DeviceId, index: u32) -> Result<()> {
        let busy = |what: String| {
            let why = format!("{what}; its mode is changed when nobody uses it");
            Error::new(ErrorKind::Busy, why).with("device", device)
        };
        let parts = self.mig_parts(device, index)?;
        if let Some(first) = parts.first() {
            let id = &first.part.id;
            return Err(busy(format!("{} MIG instances are on the card, {id} first", parts.len())));
        }
        match self.api().compute_processes(index) {
            Ok(list) if !list.is_empty() => {
                Err(busy(format!("{} processes are on the card", list.len())))
            }
            Ok(_) => Ok(()),
            // Then the driver alone knows, and refuses where it must.
            Err(failure) if failure.is_unsupported() || failure.code() == Some(4) => Ok(()),
            Err(failure) => Err(convert::error(&failure).with("device", device)),
        }
    }
}

fn described(
    device: &DeviceId,
    row: &MigRow,
    instance: &GpuInstance,
    own: &[&(u32, MigDevice)],
    holders: &Option<Vec<u32>>,
) -> Result<MigPart> {
    let MemorySlices { start, size } = instance.slices;
    if size == 0 || start.checked_add(size).is_none() {
        let why = format!("the driver lists a GPU instance of {size} slices from {start}");
        return Err(Error::new(ErrorKind::Vendor, why).with("device", device));
    }
    let profile = &row.profile;
    let first = own.first();
    let holders = match holders {
        None => Holders::Unknown,
        Some(list) => {
            let n = list.iter().filter(|gi| **gi == instance.id).count();
            Holders::Processes(u32::try_from(n).unwrap_or(u32::MAX))
        }
    };
    let part = Partition {
        id: PartitionId::of(device, &Scheme::MIG, format!("{}-{start}", profile.id))?,
        device: device.clone(),
        scheme: Scheme::MIG,
        shape: Some(Shape::Profile(profile.id.clone())),
        size: profile.size,
        placement: Placement::Slots(Slots::new(start, size)),
        handle: match first {
            Some((_, mig)) => mig.uuid.clone(),
            None => format!("gpu instance {}", instance.id),
        },
        tag: None,
        state: if own.is_empty() { PartitionState::Half } else { PartitionState::Complete },
        holders,
    };
    Ok(MigPart {
        part,
        gpu_instance: instance.id,
        compute_instances: own.iter().map(|(_, mig)| mig.compute_instance).collect(),
        nth: first.map(|(nth, _)| *nth),
    })
}

fn slots_of(part: &Partition) -> (u32, u32) {
    match &part.placement {
        Placement::Slots(slots) => (slots.start, slots.len),
        _ => (u32::MAX, 0),
    }
}

fn held(id: &PartitionId, why: &str) -> Error {
    Error::new(ErrorKind::Busy, format!("{why}; end the processes on it first"))
        .with("partition", id)
}
