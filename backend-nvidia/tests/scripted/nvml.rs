//! An NVML of plain values: what is absent is not supported, and any call can be made to fail.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vgpu_backend_nvidia::{
    ComputeMode, ComputeProcess, FIELD_RECOVERY_ACTION, FailureCause, LinkEnd, MemoryInfo,
    MemoryLimits, MigMode, NvmlApi, NvmlEventSet, NvmlFailure, PciInfo, RawEvent, RemappedRows,
    TemperatureLimit, TopologyLevel, Version,
};

type Answer<T> = Result<T, NvmlFailure>;

/// What a card says; `None` is "not supported".
#[derive(Debug, Clone)]
pub(crate) struct Card {
    pub(crate) uuid: String,
    pub(crate) name: Option<String>,
    pub(crate) pci: Option<String>,
    pub(crate) memory: Option<MemoryInfo>,
    pub(crate) cores: Option<u32>,
    pub(crate) capability: Option<Version>,
    pub(crate) numa: Option<u32>,
    pub(crate) mig: Option<MigMode>,
    pub(crate) processes: Option<Vec<ComputeProcess>>,
    pub(crate) nvlinks: Vec<(String, Option<LinkEnd>)>,
    pub(crate) event_types: Option<u64>,
    pub(crate) recovery_action: Option<u64>,
    pub(crate) rows: Option<RemappedRows>,
    pub(crate) pages_pending: Option<bool>,
    pub(crate) ecc_errors: Option<u64>,
    pub(crate) temperature: Option<u32>,
    pub(crate) shutdown: Option<u32>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) cards: Vec<Card>,
    /// By call (`*` for all) and card (`None` for all and for calls of no card).
    pub(crate) fail: HashMap<(&'static str, Option<u32>), FailureCause>,
    /// What the next waits give; nothing left is a time-out.
    pub(crate) events: VecDeque<Result<RawEvent, i64>>,
    /// What was set, by card.
    pub(crate) compute_modes: HashMap<u32, ComputeMode>,
    pub(crate) sets_opened: u32,
    pub(crate) waits: u32,
    pub(crate) registered: Vec<(u32, u64)>,
    /// Cards whose calls do not return.
    pub(crate) hanging: HashSet<u32>,
    pub(crate) hung: u32,
}

/// The script; sets of events hold on to it as well.
#[derive(Debug, Default, Clone)]
pub(crate) struct Scripted(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct Set(Scripted);

pub(crate) fn uuid(index: u32) -> String {
    format!("GPU-00000000-0000-4000-8000-{index:012x}")
}

pub(crate) fn address(index: u32) -> String {
    format!("0000:{:02x}:00.0", 0x10 + index)
}

/// A sound H200.
pub(crate) fn card(index: u32) -> Card {
    Card {
        uuid: uuid(index),
        name: Some("NVIDIA H200".into()),
        pci: Some(address(index)),
        memory: Some(MemoryInfo {
            total: 141 << 30,
            reserved: Some(1 << 30),
            free: 139 << 30,
            used: 1 << 30,
        }),
        cores: Some(16_896),
        capability: Some(Version { major: 9, minor: 0 }),
        numa: Some(index / 4),
        mig: Some(MigMode { current: false, pending: false }),
        processes: Some(Vec::new()),
        nvlinks: Vec::new(),
        event_types: Some(0x1 | 0x2 | 0x8 | 0x100 | 0x4000 | 0x8000),
        recovery_action: Some(0),
        rows: Some(RemappedRows { corrected: 0, uncorrected: 0, pending: false, failed: false }),
        pages_pending: None,
        ecc_errors: Some(0),
        temperature: Some(34),
        shutdown: Some(92),
    }
}

impl Scripted {
    pub(crate) fn with(count: u32) -> Arc<Self> {
        let nvml = Self::default();
        nvml.state().cards = (0..count).map(card).collect();
        Arc::new(nvml)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn fail(&self, call: &'static str, card: Option<u32>, code: i64) {
        self.state().fail.insert((call, card), FailureCause::Code(code));
    }

    /// The card falls off the bus: every call on it says so.
    pub(crate) fn lose(&self, card: u32) {
        self.fail("*", Some(card), 15);
    }

    pub(crate) fn heal(&self) {
        let mut state = self.state();
        state.fail.clear();
        state.hanging.clear();
        self.0.changed.notify_all();
    }

    /// Waits, for as long as any machine may need, until so many calls hang.
    pub(crate) fn until_hung(&self, calls: u32) {
        let (state, timeout) = self
            .0
            .changed
            .wait_timeout_while(self.state(), Duration::from_secs(60), |s| s.hung < calls)
            .unwrap_or_else(PoisonError::into_inner);
        assert!(!timeout.timed_out(), "only {} calls hang", state.hung);
    }

    fn none<T>(&self, call: &'static str, answer: impl FnOnce(&mut State) -> T) -> Answer<T> {
        let mut state = self.state();
        let rule = [(call, None), ("*", None)].iter().find_map(|key| state.fail.get(key).cloned());
        match rule {
            Some(cause) => Err(NvmlFailure { call, cause }),
            None => Ok(answer(&mut state)),
        }
    }

    pub(crate) fn of<T>(
        &self,
        call: &'static str,
        index: u32,
        answer: impl FnOnce(&Card) -> Option<T>,
    ) -> Answer<T> {
        let mut state = self.state();
        if state.hanging.contains(&index) {
            state.hung += 1;
            self.0.changed.notify_all();
            state = self
                .0
                .changed
                .wait_while(state, |s| s.hanging.contains(&index))
                .unwrap_or_else(PoisonError::into_inner);
            state.hung -= 1;
        }
        let keys = [(call, Some(index)), (call, None), ("*", Some(index)), ("*", None)];
        let rule = keys.iter().find_map(|key| state.fail.get(key).cloned());
        let cause = match (rule, state.cards.get(index as usize)) {
            (Some(cause), _) => cause,
            (None, None) => FailureCause::Code(2),
            (None, Some(card)) => match answer(card) {
                Some(value) => return Ok(value),
                None => FailureCause::NotSupported,
            },
        };
        Err(NvmlFailure { call, cause })
    }
}

impl NvmlApi for Scripted {
    fn library(&self) -> &Path {
        Path::new("/lib/libscripted.so.1")
    }

    fn missing_symbols(&self) -> &[&'static str] {
        &["nvmlZ", "nvmlA", "nvmlZ"]
    }

    fn driver_version(&self) -> Answer<String> {
        self.none("nvmlSystemGetDriverVersion", |_| "570.124.06".to_owned())
    }

    fn cuda_driver_version(&self) -> Answer<Version> {
        self.none("nvmlSystemGetCudaDriverVersion_v2", |_| Version { major: 12, minor: 8 })
    }

    fn device_count(&self) -> Answer<u32> {
        self.none("nvmlDeviceGetCount_v2", |state| state.cards.len() as u32)
    }

    fn uuid(&self, index: u32) -> Answer<String> {
        self.of("nvmlDeviceGetUUID", index, |card| Some(card.uuid.clone()))
    }

    fn index_of(&self, uuid: &str) -> Answer<u32> {
        let call = "nvmlDeviceGetHandleByUUID";
        let at = self.none(call, |s| s.cards.iter().position(|card| card.uuid == uuid))?;
        let index = at.ok_or(NvmlFailure { call, cause: FailureCause::Code(6) })? as u32;
        self.of(call, index, |_| Some(index))
    }

    fn name(&self, index: u32) -> Answer<String> {
        self.of("nvmlDeviceGetName", index, |card| card.name.clone())
    }

    fn minor_number(&self, index: u32) -> Answer<u32> {
        self.of("nvmlDeviceGetMinorNumber", index, |_| Some(index))
    }

    fn pci_info(&self, index: u32) -> Answer<PciInfo> {
        self.of("nvmlDeviceGetPciInfo_v3", index, |card| {
            let address = card.pci.clone()?;
            Some(PciInfo { address, device_id: 0x2335_10de, subsystem_id: 0 })
        })
    }

    fn memory_info(&self, index: u32) -> Answer<MemoryInfo> {
        self.of("nvmlDeviceGetMemoryInfo_v2", index, |card| card.memory)
    }

    fn num_gpu_cores(&self, index: u32) -> Answer<u32> {
        self.of("nvmlDeviceGetNumGpuCores", index, |card| card.cores)
    }

    fn cuda_compute_capability(&self, index: u32) -> Answer<Version> {
        self.of("nvmlDeviceGetCudaComputeCapability", index, |card| card.capability)
    }

    fn numa_node(&self, index: u32) -> Answer<Option<u32>> {
        self.of("nvmlDeviceGetMemoryAffinity", index, |card| card.numa.map(Some))
    }

    fn topology_common_ancestor(&self, index: u32, other: u32) -> Answer<TopologyLevel> {
        let call = "nvmlDeviceGetTopologyCommonAncestor";
        self.of(call, other, |_| Some(()))?;
        let level =
            if index / 2 == other / 2 { TopologyLevel::Single } else { TopologyLevel::System };
        self.of(call, index, |_| Some(level))
    }

    fn nvlink_active(&self, index: u32, link: u32) -> Answer<bool> {
        let call = "nvmlDeviceGetNvLinkState";
        self.of(call, index, |card| card.nvlinks.get(link as usize).map(|_| true))
    }

    fn nvlink_remote_address(&self, index: u32, link: u32) -> Answer<String> {
        let call = "nvmlDeviceGetNvLinkRemotePciInfo_v2";
        self.of(call, index, |card| card.nvlinks.get(link as usize).map(|(to, _)| to.clone()))
    }

    fn nvlink_remote_kind(&self, index: u32, link: u32) -> Answer<LinkEnd> {
        let call = "nvmlDeviceGetNvLinkRemoteDeviceType";
        self.of(call, index, |card| card.nvlinks.get(link as usize).and_then(|(_, kind)| *kind))
    }

    fn mig_mode(&self, index: u32) -> Answer<MigMode> {
        self.of("nvmlDeviceGetMigMode", index, |card| card.mig)
    }

    fn compute_processes(&self, index: u32) -> Answer<Vec<ComputeProcess>> {
        let call = "nvmlDeviceGetComputeRunningProcesses_v3";
        self.of(call, index, |card| card.processes.clone())
    }

    fn supported_event_types(&self, index: u32) -> Answer<u64> {
        self.of("nvmlDeviceGetSupportedEventTypes", index, |card| card.event_types)
    }

    fn open_event_set(&self) -> Answer<Box<dyn NvmlEventSet>> {
        self.none("nvmlEventSetCreate", |state| state.sets_opened += 1)?;
        Ok(Box::new(Set(self.clone())))
    }

    fn field_value(&self, index: u32, field: u32) -> Answer<u64> {
        assert_eq!(field, FIELD_RECOVERY_ACTION, "no other field is read");
        self.of("nvmlDeviceGetFieldValues", index, |card| card.recovery_action)
    }

    fn remapped_rows(&self, index: u32) -> Answer<RemappedRows> {
        self.of("nvmlDeviceGetRemappedRows", index, |card| card.rows)
    }

    fn retired_pages_pending(&self, index: u32) -> Answer<bool> {
        self.of("nvmlDeviceGetRetiredPagesPendingStatus", index, |card| card.pages_pending)
    }

    fn uncorrected_ecc_errors(&self, index: u32) -> Answer<u64> {
        self.of("nvmlDeviceGetTotalEccErrors", index, |card| card.ecc_errors)
    }

    fn temperature(&self, index: u32) -> Answer<u32> {
        self.of("nvmlDeviceGetTemperature", index, |card| card.temperature)
    }

    fn set_compute_mode(&self, index: u32, mode: ComputeMode) -> Answer<()> {
        self.of("nvmlDeviceSetComputeMode", index, |_| Some(()))?;
        self.state().compute_modes.insert(index, mode);
        Ok(())
    }

    fn temperature_limit(&self, index: u32, limit: TemperatureLimit) -> Answer<u32> {
        assert_eq!(limit, TemperatureLimit::Shutdown, "no other limit is read");
        self.of("nvmlDeviceGetTemperatureThreshold", index, |card| card.shutdown)
    }

    fn memory_limits(&self, index: u32, _cgroup: &Path) -> Answer<MemoryLimits> {
        self.of("nvmlDeviceGetMemoryLimits_v1", index, |_| None)
    }

    fn set_memory_limits(
        &self,
        index: u32,
        _cgroup: &Path,
        _soft: u64,
        _hard: Option<u64>,
    ) -> Answer<()> {
        self.of("nvmlDeviceSetMemoryLimits_v1", index, |_| None)
    }
}

impl NvmlEventSet for Set {
    fn register(&mut self, index: u32, types: u64) -> Answer<()> {
        self.0.of("nvmlDeviceRegisterEvents", index, |_| Some(()))?;
        self.0.state().registered.push((index, types));
        Ok(())
    }

    /// Never waits: time is not what these tests are about.
    fn wait(&mut self, _timeout: Duration) -> Answer<Option<RawEvent>> {
        let call = "nvmlEventSetWait_v2";
        let next = self.0.none(call, |state| {
            state.waits += 1;
            state.events.pop_front()
        })?;
        match next {
            Some(Ok(event)) => Ok(Some(event)),
            Some(Err(code)) => Err(NvmlFailure { call, cause: FailureCause::Code(code) }),
            None => Ok(None),
        }
    }
}
