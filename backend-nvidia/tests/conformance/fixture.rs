//! A machine of the fake library as the suite wants it, and faults through the fake's control file.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};
use tempfile::TempDir;
use vgpu_backend_nvidia::{NvidiaFactory, NvidiaOptions};
use vgpu_conformance::{During, FaultPlan, Fixture, Permission, Support};
use vgpu_core::{
    Backend, BackendFactory, Container, CreateOrder, DeviceId, Error, ErrorKind, Host, Meaning,
    PartitionId, Placement, Probe, Result, Shape, Subject,
};

use crate::built::built;
use crate::mps::Mps;

/// The machine that this process's environment names.
#[derive(Debug)]
pub(crate) struct FakeNvml {
    name: String,
    factory: Arc<NvidiaFactory>,
    host: Host,
    /// Has no driver at all.
    empty: TempDir,
    control: Control,
}

/// Where the control file of a scenario in this folder is.
pub(crate) fn control_of(folder: &Path) -> PathBuf {
    folder.join("control.yaml")
}

/// Where the host's files of such a scenario are.
pub(crate) fn root_of(folder: &Path) -> PathBuf {
    folder.join("host")
}

impl FakeNvml {
    pub(crate) fn here(library: &str) -> Result<Self> {
        let scenario = std::env::var_os("FAKE_NVML").map(PathBuf::from).unwrap_or_default();
        let text = fs::read_to_string(&scenario).map_err(|e| Error::io("read", &scenario, &e))?;
        let preset = text.lines().next().and_then(|line| line.strip_prefix("preset: "));
        let folder = scenario.parent().unwrap_or(Path::new(""));
        let root = root_of(folder);
        prepare(&root, preset).map_err(|e| Error::io("prepare", &root, &e))?;
        let empty =
            tempfile::tempdir().map_err(|e| Error::io("make", &std::env::temp_dir(), &e))?;
        let host = Host { root: root.clone(), library: Some(built(library)) };
        let looked = NvidiaFactory::default();
        let driver = opened(&looked, &host)?.info().driver;
        let program = Mps::preset_of(preset.unwrap_or_default(), &driver);
        let mps = program
            .map(|program| Mps::beside(&scenario, &root, program))
            .transpose()
            .map_err(|e| Error::io("prepare", folder, &e))?;
        let mut fixture = Self {
            name: format!("{}-{}", preset.unwrap_or("machine"), library.trim_end_matches(".so")),
            factory: Arc::new(NvidiaFactory::new(options())),
            host,
            empty,
            control: Control { file: control_of(folder), mps, ..Control::default() },
        };
        let backend = fixture.open()?;
        fixture.control.no_events =
            backend.info().missing_symbols.iter().any(|symbol| symbol == "nvmlEventSetWait_v2");
        let devices = backend.scan()?.devices;
        fixture.control.cards = devices.into_iter().map(|device| device.id).collect();
        Ok(fixture)
    }
}

impl FakeNvml {
    /// Where its backends look.
    pub(crate) fn host(&self) -> &Host {
        &self.host
    }
}

/// What a backend on the machine of this environment is told, here and in a child.
pub(crate) fn options() -> NvidiaOptions {
    let scenario = std::env::var_os("FAKE_NVML").map(PathBuf::from).unwrap_or_default();
    NvidiaOptions {
        mps: Mps::options_beside(&scenario).unwrap_or_default(),
        ..NvidiaOptions::default()
    }
}

impl Fixture for FakeNvml {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&self) -> Result<Arc<dyn Backend>> {
        opened(&self.factory, &self.host)
    }

    fn permission(&self) -> Permission {
        Permission::Destructive
    }

    fn faults(&self) -> Option<&dyn FaultPlan> {
        Some(&self.control)
    }

    fn empty_host(&self) -> Option<(Arc<dyn BackendFactory>, Host)> {
        let host = Host { root: self.empty.path().to_owned(), library: None };
        Some((Arc::clone(&self.factory) as _, host))
    }

    fn container(&self) -> Option<Container> {
        Some(Container { cgroup: PathBuf::from(CGROUP), pid: std::process::id(), pid_namespace: 1 })
    }

    fn reset(&self) -> Result<Support> {
        *self.control.state() = State::default();
        self.control.mps.as_ref().map_or(Ok(()), Mps::reset)?;
        self.control.order(json!({ "do": "fresh" }))
    }
}

/// The container's cgroup, under version 2.
const CGROUP: &str = "/sys/fs/cgroup/container";

fn opened(factory: &NvidiaFactory, host: &Host) -> Result<Arc<dyn Backend>> {
    match factory.probe(host) {
        Probe::Absent(why) => Err(Error::new(ErrorKind::NotFound, why)),
        Probe::Broken(error) => Err(error),
        Probe::Ready(backend) => Ok(backend),
    }
}

/// A host with an installed driver of the preset's version.
fn prepare(root: &Path, preset: Option<&str>) -> std::io::Result<()> {
    let version = match preset {
        Some("driver-470") => "470.256.02",
        Some("driver-615") => "615.32.01",
        _ => "570.124.06",
    };
    let container = root.join(&CGROUP[1..]);
    fs::create_dir_all(&container)?;
    for cgroup in container.ancestors().take(2) {
        for file in ["cgroup.procs", "cgroup.controllers"] {
            fs::write(cgroup.join(file), "")?;
        }
    }
    let library = root.join("usr/lib/x86_64-linux-gnu");
    fs::create_dir_all(&library)?;
    for name in ["libcuda", "libnvidia-ml", "libnvidia-ptxjitcompiler"] {
        fs::write(library.join(format!("{name}.so.{version}")), "")?;
    }
    fs::create_dir_all(root.join("proc"))?;
    let devices =
        "Character devices:\n195 nvidia\n195 nvidia-modeset\n236 nvidia-caps\n511 nvidia-uvm\n";
    fs::write(root.join("proc/devices"), devices)
}

/// What the control file says, written anew with each fault.
#[derive(Debug, Default)]
struct Control {
    file: PathBuf,
    /// By NVML's number.
    cards: Vec<DeviceId>,
    no_events: bool,
    /// The control program beside the library.
    mps: Option<Mps>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    cards: BTreeMap<u32, Map<String, Value>>,
    fail: Vec<Value>,
    latency_ms: BTreeMap<String, u64>,
    events: Vec<Value>,
    /// What another tool, a mishap or the machine does; each is done once.
    orders: Vec<Value>,
}

impl Control {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn index(&self, device: &DeviceId) -> Result<u32> {
        let at = self.cards.iter().position(|id| id == device);
        at.and_then(|at| u32::try_from(at).ok()).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("the machine has no card {device}"))
        })
    }

    /// Changes keys of a card; `None` takes the change back.
    fn patch(&self, device: &DeviceId, key: &str, value: Option<Value>) -> Result<Support> {
        let index = self.index(device)?;
        {
            let mut state = self.state();
            let card = state.cards.entry(index).or_default();
            match value {
                Some(value) => drop(card.insert(key.to_owned(), value)),
                None => drop(card.remove(key)),
            }
        }
        self.write()?;
        Ok(Support::Played)
    }

    /// Has something happen, once.
    fn order(&self, mut order: Value) -> Result<Support> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        order["id"] = json!(format!("order-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        self.state().orders.push(order);
        self.write()?;
        Ok(Support::Played)
    }

    /// These calls fail on a card.
    fn fail_all(&self, device: &DeviceId, calls: &[&str], code: u32) -> Result<Support> {
        let card = self.index(device)?;
        let fail = |call| json!({ "function": call, "card": card, "code": code });
        self.state().fail.extend(calls.iter().map(fail));
        self.write()?;
        Ok(Support::Played)
    }

    /// JSON is YAML. Renamed into place, since the fake reads at any moment.
    fn write(&self) -> Result<()> {
        let text = {
            let state = self.state();
            json!({
                "cards": state.cards,
                "fail": state.fail,
                "latency_ms": state.latency_ms,
                "events": state.events,
                "orders": state.orders,
            })
            .to_string()
        };
        let new = self.file.with_extension("new");
        fs::write(&new, text).map_err(|e| Error::io("write", &new, &e))?;
        fs::rename(&new, &self.file).map_err(|e| Error::io("replace", &self.file, &e))
    }
}

impl Control {
    fn has_daemon(&self, device: &DeviceId) -> bool {
        self.mps.as_ref().is_some_and(|mps| mps.has_daemon(device))
    }
}

impl FaultPlan for Control {
    fn fail(
        &self,
        device: &DeviceId,
        during: During,
        nth: u32,
        kind: ErrorKind,
    ) -> Result<Support> {
        if let (During::Create, Some(mps), true) = (during, &self.mps, self.has_daemon(device)) {
            return mps.fail(device, nth, kind);
        }
        // The calls of each, in order.
        const USAGE: &[&str] = &[
            "nvmlDeviceGetUUID",
            "nvmlDeviceGetMemoryInfo_v2",
            "nvmlDeviceGetComputeRunningProcesses_v3",
        ];
        const CREATE: &[&str] = &[
            "nvmlDeviceCreateGpuInstanceWithPlacement",
            "nvmlGpuInstanceGetInfo",
            "nvmlGpuInstanceGetComputeInstanceProfileInfo",
            "nvmlGpuInstanceCreateComputeInstance",
            "nvmlComputeInstanceGetInfo_v2",
            "nvmlDeviceGetMigDeviceHandleByIndex",
        ];
        let calls = match during {
            During::Create => CREATE,
            During::Usage => USAGE,
        };
        let call = match nth.checked_sub(1).and_then(|at| calls.get(at as usize)) {
            Some(call) => call,
            // Beyond its last call a create just succeeds.
            None if during == During::Create => return Ok(Support::Played),
            None => return Ok(Support::Declined("usage makes three calls".into())),
        };
        let code = match kind {
            ErrorKind::Busy => 19,
            ErrorKind::Exhausted => 20,
            ErrorKind::Lost => 15,
            ErrorKind::Permission => 4,
            ErrorKind::Vendor => 999,
            other => return Ok(Support::Declined(format!("no code of NVML is {other}"))),
        };
        self.fail_all(device, &[call], code)
    }

    /// The call after the last one fails, and so does whatever would undo.
    fn interrupt(&self, device: &DeviceId, after: u32) -> Result<Support> {
        if self.has_daemon(device) {
            return Ok(Support::Declined(
                "a program is not interrupted; tests/mps kills us".into(),
            ));
        }
        let calls: &[&str] = match after {
            0 => &["nvmlDeviceCreateGpuInstanceWithPlacement"],
            1 => &["nvmlGpuInstanceCreateComputeInstance", "nvmlGpuInstanceDestroy"],
            2 => &[
                "nvmlComputeInstanceGetInfo_v2",
                "nvmlComputeInstanceDestroy",
                "nvmlGpuInstanceDestroy",
            ],
            _ => &[],
        };
        self.fail_all(device, calls, 999)
    }

    fn hang(&self, device: &DeviceId) -> Result<Support> {
        let call = format!("nvmlDeviceGetUUID@{}", self.index(device)?);
        // A child that was ended while it hung did not say that it does so no more.
        let _none = fs::remove_file(self.file.with_extension("slow"));
        self.state().latency_ms.insert(call, 3_600_000);
        self.write()?;
        Ok(Support::Played)
    }

    fn is_hanging(&self) -> Result<bool> {
        let file = self.file.with_extension("slow");
        Ok(fs::read_to_string(&file).unwrap_or_default().contains('@'))
    }

    fn heal(&self) -> Result<()> {
        {
            let mut state = self.state();
            state.fail.clear();
            state.latency_ms.clear();
        }
        self.mps.as_ref().map_or(Ok(()), Mps::heal)?;
        self.write()
    }

    fn lose(&self, device: &DeviceId) -> Result<Support> {
        self.patch(device, "state", Some(json!("lost")))
    }

    fn restore(&self, device: &DeviceId) -> Result<Support> {
        self.patch(device, "state", None)
    }

    fn condition(&self, device: &DeviceId, meaning: Meaning) -> Result<Support> {
        let action = match meaning {
            Meaning::Good => None,
            Meaning::NeedsReboot => Some(json!(2)),
            Meaning::NeedsReset => Some(json!(1)),
            Meaning::Suspect => Some(json!(3)),
            other => return Ok(Support::Declined(format!("no reading of a card is {other}"))),
        };
        self.patch(device, "recovery_action", action)
    }

    fn hold(&self, subject: &Subject, processes: u32) -> Result<Support> {
        if let (Subject::Part(part), Some(mps)) = (subject, &self.mps)
            && mps.has_daemon(&part.device())
        {
            return mps.hold(part, processes);
        }
        let (device, slice) = match subject {
            Subject::Device(device) => (device.clone(), None),
            Subject::Part(part) => (part.device(), Some(place(part).1)),
            _ => return Ok(Support::Declined("only cards and parts are held".into())),
        };
        let held: Vec<Value> = (0..processes)
            .map(|n| json!({ "pid": 4000 + n, "used_mib": 1, "slice": slice }))
            .collect();
        self.patch(&device, "processes", (processes > 0).then(|| json!(held)))
    }

    fn foreign(&self, order: &CreateOrder) -> Result<Option<PartitionId>> {
        let (Shape::Profile(profile), Placement::Slots(slots)) = (order.shape(), order.placement())
        else {
            return Ok(None);
        };
        let card = self.index(order.device())?;
        let make = json!({ "do": "make", "card": card, "profile": profile, "slice": slots.start });
        let _played = self.order(make)?;
        let local = format!("{profile}-{}", slots.start);
        PartitionId::of(order.device(), order.scheme(), local).map(Some)
    }

    fn vanish(&self, part: &PartitionId) -> Result<Support> {
        if let Some(mps) = self.mps.as_ref().filter(|mps| mps.has_daemon(&part.device())) {
            return mps.vanish(part);
        }
        let card = self.index(&part.device())?;
        self.order(json!({ "do": "vanish", "card": card, "slice": place(part).1 }))
    }

    fn event(&self, device: &DeviceId, meaning: Meaning) -> Result<Support> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        if self.no_events {
            return Ok(Support::Declined("this library has no function to wait".into()));
        }
        let (event_type, data) = match meaning {
            Meaning::Changed => (0x100, 0),
            Meaning::Lost => (0x8, 79),
            Meaning::NeedsReset => (0x8, 95),
            Meaning::Suspect => (0x8, 94),
            Meaning::TenantFault => (0x8, 31),
            other => return Ok(Support::Declined(format!("no event of a card is {other}"))),
        };
        let card = self.index(device)?;
        let id = format!("event-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let event = json!({ "id": id, "card": card, "type": event_type, "data": data });
        self.state().events.push(event);
        self.write()?;
        Ok(Support::Played)
    }

    fn replace_driver(&self) -> Result<Support> {
        const CALLS: &[&str] = &[
            "nvmlDeviceGetCount_v2",
            "nvmlDeviceGetHandleByIndex_v2",
            "nvmlDeviceGetHandleByUUID",
            "nvmlDeviceGetUUID",
            "nvmlEventSetWait_v2",
            "nvmlSystemGetDriverVersion",
        ];
        let fail = |call| json!({ "function": call, "code": 18 });
        self.state().fail.extend(CALLS.iter().map(fail));
        self.write()?;
        Ok(Support::Played)
    }

    fn reboot(&self) -> Result<Support> {
        self.mps.as_ref().map_or(Ok(()), Mps::reboot)?;
        self.order(json!({ "do": "reboot" }))
    }
}

/// Profile and first slice of a part, as its id has them.
fn place(part: &PartitionId) -> (&str, u32) {
    let (profile, slice) = part.local().rsplit_once('-').unwrap_or((part.local(), "0"));
    (profile, slice.parse().unwrap_or(u32::MAX))
}
