//! A loaded libcndev: it is started, started anew when the driver was, and its cards' handles are kept.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vgpu_backend_kit::at_most;

use crate::api::{
    CardHealth, CndevApi, CndevEvents, CndevFailure, EccCounters, FailureCause, LoadFailure,
    MAX_CARDS, MAX_INSTANCES, MAX_LINKS, MAX_PLACEMENTS, MAX_PROCESSES, MemoryInfo, MimInstance,
    MimProfile, PciInfo, Process, Quota, RawEvent, Relation, Repair, SmluInstance, SmluProfile,
};
use crate::bindings::{cndevMimMode_t, cndevSMLUMode_t};
use crate::decode;
use crate::symbols::malformed;
use crate::sys::{EventSet, Handle, LIBRARY, read, read_required, unmake, write};
use crate::table::Table;

type Answer<T> = Result<T, CndevFailure>;

/// libcndev, loaded and started, for the rest of the process's life.
#[derive(Debug, Clone)]
pub struct LoadedCndev {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    library: OsString,
    table: Table,
    /// The driver's version when the library was first started, where it can be told.
    driver: Option<String>,
    life: Mutex<Life>,
}

#[derive(Debug, Default)]
struct Life {
    /// How often the library was started.
    starts: u64,
    handles: BTreeMap<u32, Handle>,
    /// The driver is another than at the first start: nobody is served until it is that one again.
    replaced: bool,
}

impl LoadedCndev {
    /// Loads and starts a library: a path, or a name for the loader to search.
    ///
    /// # Errors
    ///
    /// [`LoadFailure`]: it cannot be opened, is not libcndev, or does not start.
    pub fn load(library: impl AsRef<OsStr>) -> Result<Self, LoadFailure> {
        let library = library.as_ref().to_owned();
        let table = Table::open(&library)?;
        table.init().map_err(|failure| LoadFailure::Start {
            library: library.to_string_lossy().into_owned(),
            wanted: LIBRARY,
            failure,
        })?;
        let driver = version(&table).ok();
        let life = Mutex::new(Life { starts: 1, ..Life::default() });
        Ok(Self { inner: Arc::new(Inner { library, table, driver, life }) })
    }

    fn with<T>(&self, call: impl Fn(&Table) -> Answer<T>) -> Answer<T> {
        self.inner.with(call)
    }

    fn on<T>(&self, index: u32, call: impl Fn(&Table, Handle) -> Answer<T>) -> Answer<T> {
        let once = || self.inner.with(|table| call(table, self.inner.handle(index)?));
        match once() {
            // The handle may be of before the card was reset.
            Err(failure) if failure.code() == Some(6) => {
                self.inner.life().handles.remove(&index);
                once()
            }
            answer => answer,
        }
    }
}

impl Inner {
    /// Calls; a library that says that it was not started is started and asked again, once. Such a call had no
    /// effect, so that it may be made twice.
    fn with<T>(&self, call: impl Fn(&Table) -> Answer<T>) -> Answer<T> {
        let (seen, replaced) = {
            let life = self.life();
            (life.starts, life.replaced)
        };
        if replaced {
            self.restart(seen)?;
        }
        match call(&self.table) {
            Err(failure) if failure.wants_start() => {
                // Why it cannot be started says more than that it must be.
                self.restart(seen)?;
                call(&self.table)
            }
            answer => answer,
        }
    }

    /// Starts the library anew, unless somebody did since `seen`. Handles of before mean nothing afterwards.
    fn restart(&self, seen: u64) -> Answer<()> {
        let mut life = self.life();
        if life.starts != seen && !life.replaced {
            return Ok(());
        }
        life.handles.clear();
        // A library that was never started, or cannot be ended, is started all the same.
        let _ended = self.table.release();
        self.table.init().map_err(|failure| match failure.code() {
            // It was new enough before.
            Some(2) => self.replaced("older than the library bears".to_owned()),
            _ => failure,
        })?;
        life.starts += 1;
        life.replaced = false;
        if let (Some(was), Ok(now)) = (&self.driver, version(&self.table))
            && *was != now
        {
            life.replaced = true;
            return Err(self.replaced(now));
        }
        Ok(())
    }

    fn replaced(&self, now: String) -> CndevFailure {
        let was = self.driver.clone().unwrap_or_else(|| "another".to_owned());
        CndevFailure { call: "cndevInit", cause: FailureCause::Replaced { was, now } }
    }

    fn handle(&self, index: u32) -> Answer<Handle> {
        if let Some(handle) = self.life().handles.get(&index) {
            return Ok(*handle);
        }
        let handle = self.table.handle_by_index(index)?;
        self.life().handles.insert(index, handle);
        Ok(handle)
    }

    fn index_of(&self, handle: Handle) -> Option<u32> {
        self.life().handles.iter().find(|(_, known)| **known == handle).map(|(index, _)| *index)
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        // It is whole after every statement, so a panic elsewhere does not spoil it.
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Methods that read one thing of a card: a structure, and how it is decoded.
macro_rules! readings {
    ($($name:ident -> $out:ty = $field:ident, |$call:ident, $value:ident| $decode:expr;)*) => {$(
        fn $name(&self, index: u32) -> Answer<$out> {
            self.on(index, |table, device| {
                let $call = table.$field.name;
                let $value = read(&table.$field, device)?;
                $decode
            })
        }
    )*};
}

impl CndevApi for LoadedCndev {
    readings! {
        pci_info -> PciInfo = pci, |call, pci| decode::pci(call, &pci);
        numa_node -> Option<u32> = numa, |_call, node| Ok(u32::try_from(node.nodeId).ok());
        busy_percent -> u32 = utilization, |call, used| {
            decode::count(call, "percent", used.averageCoreUtilization.into())
        };
        heartbeat -> u32 = heartbeat, |_call, beats| Ok(beats.heartbeatCount);
        is_prohibited -> bool = compute_mode, |_call, mode| Ok(mode.mode == 2);
        ecc -> EccCounters = ecc, |_call, errors| Ok(decode::ecc(&errors));
        repair -> Repair = repair, |_call, repair| Ok(decode::repair(&repair));
        mim_mode -> bool = mim_mode, |call, mode| decode::flag(call, "MIM mode", mode.mimMode);
        smlu_mode -> bool = smlu_mode, |call, mode| decode::flag(call, "sMLU mode", mode.smluMode);
        smlu_profile_ids -> Vec<i32> = smlu_profile_ids, |call, ids| {
            let count = decode::count(call, "profiles", ids.count.into())?;
            let ids = ids.profileId.get(..count as usize);
            ids.map(<[i32]>::to_vec).ok_or_else(|| malformed(call, format!("{count} profiles")))
        };
    }

    fn library(&self) -> &Path {
        Path::new(&self.inner.library)
    }

    fn missing_symbols(&self) -> &[&'static str] {
        self.inner.table.missing()
    }

    fn driver_version(&self) -> String {
        self.inner.driver.clone().unwrap_or_else(|| "unknown".to_owned())
    }

    fn device_count(&self) -> Answer<u32> {
        let count = self.with(Table::device_count)?;
        at_most(count, "cards", MAX_CARDS).map_err(|what| malformed("cndevGetDeviceCount", what))
    }

    fn uuid(&self, index: u32) -> Answer<String> {
        self.on(index, |table, device| {
            let call = table.uuid.call().name;
            decode::uuid(call, &read_required(&table.uuid, device)?.uuid)
        })
    }

    fn is_at(&self, index: u32, address: &str) -> Answer<bool> {
        self.on(index, |table, device| match table.handle_by_pci(address) {
            Ok(handle) => Ok(handle == device),
            Err(failure) if matches!(failure.code(), Some(5 | 14)) => Ok(false),
            Err(failure) => Err(failure),
        })
    }

    fn minor_number(&self, index: u32) -> Answer<u32> {
        self.on(index, Table::minor)
    }

    fn name(&self, index: u32) -> Answer<String> {
        self.on(index, Table::name)
    }

    fn cores(&self, index: u32) -> Answer<u32> {
        self.on(index, |table, device| {
            let of = match table.core_count.is_there() {
                true => &table.core_count,
                false => &table.cluster_count,
            };
            decode::count(of.name, "cores", read(of, device)?.count.into())
        })
    }

    fn memory(&self, index: u32) -> Answer<MemoryInfo> {
        self.on(index, |table, device| {
            let (newer, older) = (&table.memory, &table.memory_v1);
            if !newer.is_there() && older.is_there() {
                let m = read(older, device)?;
                return decode::memory(
                    older.name,
                    m.physicalMemoryTotal,
                    None,
                    m.physicalMemoryUsed,
                );
            }
            let m = read(newer, device)?;
            let reserved = Some(m.reservedMemory);
            decode::memory(newer.name, m.physicalMemoryTotal, reserved, m.physicalMemoryUsed)
        })
    }

    fn processes(&self, index: u32) -> Answer<Vec<Process>> {
        let list = self.on(index, |table, device| table.processes(device, MAX_PROCESSES))?;
        Ok(list.iter().map(decode::process).collect())
    }

    fn health(&self, index: u32) -> Answer<CardHealth> {
        self.on(index, |table, device| match read(&table.health, device) {
            Ok(health) => decode::health(table.health.name, &health),
            Err(failure) if failure.is_unsupported() && table.health_v1.is_there() => {
                Ok(decode::health_v1(&read(&table.health_v1, device)?))
            }
            Err(failure) => Err(failure),
        })
    }

    fn supported_event_types(&self, index: u32) -> Answer<u64> {
        self.on(index, Table::event_types)
    }

    fn open_events(&self) -> Answer<Box<dyn CndevEvents>> {
        let set = self.with(Table::events)?;
        Ok(Box::new(Events { inner: Arc::clone(&self.inner), set }))
    }

    fn relation(&self, index: u32, other: u32) -> Answer<Relation> {
        self.on(index, |table, device| {
            let relation = table.relation(device, self.inner.handle(other)?)?;
            decode::relation(relation)
                .ok_or_else(|| malformed(table.relation.name, format!("relation {relation}")))
        })
    }

    fn link_ports(&self, index: u32) -> Answer<u32> {
        self.on(index, |table, device| {
            let ports = table.link_ports(device)?;
            let counted = decode::count(table.link_ports.name, "ports", ports.into())?;
            if counted > MAX_LINKS {
                return Err(malformed(table.link_ports.name, format!("{counted} ports")));
            }
            Ok(counted)
        })
    }

    fn link_up(&self, index: u32, port: u32) -> Answer<bool> {
        self.on(index, |table, device| table.link_up(device, signed(port)))
    }

    fn link_remote(&self, index: u32, port: u32) -> Answer<String> {
        self.on(index, |table, device| {
            let remote = table.link_remote(device, signed(port))?;
            decode::uuid(table.link_remote.name, &remote.uuid)
        })
    }

    fn set_mim_mode(&self, index: u32, on: bool) -> Answer<()> {
        let mode = cndevMimMode_t { version: 0, mimMode: i32::from(on) };
        self.on(index, |table, device| write(&table.set_mim_mode, device, mode))
    }

    fn mim_profile(&self, index: u32, number: u32) -> Answer<MimProfile> {
        self.on(index, |table, device| {
            let profile = table.mim_profile(device, signed(number))?;
            decode::mim_profile(table.mim_profile.name, &profile)
        })
    }

    fn mim_placements(&self, index: u32, profile: i32) -> Answer<Vec<(u32, u32)>> {
        self.on(index, |table, device| {
            let places = table.mim_placements(device, profile, MAX_PLACEMENTS)?;
            places.iter().map(|at| decode::place(table.mim_placements.name, at)).collect()
        })
    }

    fn mim_most(&self, index: u32, profile: i32) -> Answer<u32> {
        self.on(index, |table, device| {
            let most = table.mim_most(device, profile)?;
            decode::count(table.mim_most.name, "instances", most.into())
        })
    }

    fn create_mim(&self, index: u32, profile: i32, place: (u32, u32), name: &str) -> Answer<i32> {
        let place = (signed(place.0), signed(place.1));
        self.on(index, |table, device| table.create_mim(device, profile, place, name))
    }

    fn mim_instances(&self, index: u32) -> Answer<Vec<MimInstance>> {
        self.on(index, |table, device| {
            let list = table.mim_list(device, MAX_INSTANCES)?;
            list.iter().map(|info| decode::mim_instance(table.mim_list.name, info)).collect()
        })
    }

    fn mim_uuid(&self, handle: i32) -> Answer<String> {
        self.with(|table| {
            let info = read(&table.mim_info, handle)?;
            decode::uuid(table.mim_info.name, &info.uuid)
        })
    }

    fn destroy_mim(&self, handle: i32) -> Answer<()> {
        self.with(|table| unmake(&table.destroy_mim, handle))
    }

    fn set_smlu_mode(&self, index: u32, on: bool) -> Answer<()> {
        let mode = cndevSMLUMode_t { version: 0, smluMode: i32::from(on) };
        self.on(index, |table, device| write(&table.set_smlu_mode, device, mode))
    }

    fn smlu_profile(&self, index: u32, profile: i32) -> Answer<SmluProfile> {
        self.on(index, |table, device| {
            let profile = table.smlu_profile(device, profile)?;
            decode::smlu_profile(table.smlu_profile.name, &profile)
        })
    }

    fn create_smlu_profile(&self, index: u32, quota: Quota) -> Answer<i32> {
        self.on(index, |table, device| {
            table.create_smlu_profile(device, quota.percent, quota.memory)
        })
    }

    fn destroy_smlu_profile(&self, index: u32, profile: i32) -> Answer<()> {
        self.on(index, |table, device| table.destroy_smlu_profile(device, profile))
    }

    fn create_smlu(&self, index: u32, profile: i32, name: &str) -> Answer<i32> {
        self.on(index, |table, device| table.create_smlu(device, profile, name))
    }

    fn smlu_instances(&self, index: u32) -> Answer<Vec<SmluInstance>> {
        self.on(index, |table, device| {
            let list = table.smlu_list(device, MAX_INSTANCES)?;
            list.iter().map(|info| decode::smlu_instance(table.smlu_list.name, info)).collect()
        })
    }

    fn smlu_uuid(&self, handle: i32) -> Answer<String> {
        self.with(|table| {
            let info = read(&table.smlu_info, handle)?;
            decode::uuid(table.smlu_info.name, &info.uuid)
        })
    }

    fn update_smlu(&self, handle: i32, quota: Quota) -> Answer<()> {
        self.with(|table| table.update_smlu(handle, quota.percent, quota.memory))
    }

    fn destroy_smlu(&self, handle: i32) -> Answer<()> {
        self.with(|table| unmake(&table.destroy_smlu, handle))
    }

    fn slots(&self, index: u32) -> Vec<i32> {
        let minor = self.minor_number(index).ok().and_then(|n| i32::try_from(n).ok());
        let handle = self.on(index, |_, device| Ok(device)).ok();
        let mut slots: Vec<i32> =
            [Some(signed(index)), minor, handle].into_iter().flatten().collect();
        slots.dedup();
        slots
    }
}

/// A set of events that knows which handle is which card.
#[derive(Debug)]
struct Events {
    inner: Arc<Inner>,
    set: EventSet,
}

impl CndevEvents for Events {
    fn register(&mut self, index: u32, types: u64) -> Answer<()> {
        let device = self.inner.handle(index)?;
        self.set.register(device, types)
    }

    fn wait(&mut self, timeout: Duration) -> Answer<Option<RawEvent>> {
        let Some(event) = self.set.wait(timeout)? else { return Ok(None) };
        Ok(Some(RawEvent {
            index: self.inner.index_of(event.device),
            event_type: event.eventType,
            data: event.eventData,
            // All ones, or 0, where the event is of no instance.
            instance: Some(event.mluInstanceId).filter(|id| *id != 0 && *id != u32::MAX),
        }))
    }
}

/// The driver's version: its own call, or what the first card says.
fn version(table: &Table) -> Answer<String> {
    let (major, minor, build) = match table.driver_version() {
        Err(failure) if failure.is_unsupported() => {
            let device = table.handle_by_index(0)?;
            let v = read(&table.versions, device)?;
            (v.driverMajorVersion, v.driverMinorVersion, v.driverBuildVersion)
        }
        told => told?,
    };
    Ok(format!("{major}.{minor}.{build}"))
}

/// Numbers of cards and ports are far below 2^31.
fn signed(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
