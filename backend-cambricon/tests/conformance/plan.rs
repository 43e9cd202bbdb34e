//! Faults, through the state that the fake library shares with us.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use vgpu_conformance::{During, FaultPlan, Support};
use vgpu_core::{
    CreateOrder, DeviceId, Error, ErrorKind, Meaning, PartitionId, Placement, Result, Scheme,
    Shape, Subject,
};

use crate::control::Control;

/// The machine's faults.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) control: Control,
    /// By the library's number.
    pub(crate) cards: Vec<DeviceId>,
    pub(crate) no_events: bool,
    pub(crate) root: PathBuf,
}

impl Plan {
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Value) -> T) -> Result<T> {
        self.control.change(change).map_err(|e| Error::io("change", &self.control.file, &e))
    }

    fn index(&self, device: &DeviceId) -> Result<usize> {
        self.cards.iter().position(|id| id == device).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("the machine has no card {device}"))
        })
    }

    /// Sets a key of a card.
    fn set(&self, device: &DeviceId, key: &str, value: Value) -> Result<Support> {
        let index = self.index(device)?;
        self.change(|state| state["cards"][index][key] = value)?;
        Ok(Support::Played)
    }

    /// Processes that have a part's node open.
    fn processes(&self, count: u32, node: Option<&str>) -> Result<Vec<u32>> {
        static NEXT: AtomicU64 = AtomicU64::new(4000);
        let mut pids = Vec::new();
        for _ in 0..count {
            let pid = NEXT.fetch_add(1, Ordering::Relaxed);
            let files = self.root.join(format!("proc/{pid}/fd"));
            let failed = |e: std::io::Error| Error::io("prepare", &files, &e);
            fs::create_dir_all(&files).map_err(failed)?;
            if let Some(node) = node {
                std::os::unix::fs::symlink(node, files.join("3")).map_err(failed)?;
            }
            pids.push(u32::try_from(pid).unwrap_or(u32::MAX));
        }
        Ok(pids)
    }
}

fn push(to: &mut Value, new: Value) {
    if let Some(all) = to.as_array_mut() {
        all.push(new);
    }
}

/// Calls of a create whose failure must make it fail, in their order.
const SMLU_CREATE: &[&str] = &[
    "cndevGetSMluProfileIdInfo",
    "cndevGetSMluProfileInfo",
    "cndevCreateSMluProfileInfo",
    "cndevCreateSMluInstanceByProfileId",
    "cndevGetAllSMluInstanceInfo",
    "cndevGetProcessInfo",
];
const MIM_CREATE: &[&str] = &[
    "cndevCreateMluInstanceByProfileIdWithPlacement",
    "cndevGetAllMluInstanceInfo",
    "cndevGetProcessInfo",
];
const USAGE: &[&str] = &["cndevGetUUID", "cndevGetProcessInfo"];

impl FaultPlan for Plan {
    fn fail(
        &self,
        device: &DeviceId,
        during: During,
        nth: u32,
        kind: ErrorKind,
    ) -> Result<Support> {
        let code = match kind {
            ErrorKind::AlreadyExists => 16,
            ErrorKind::Busy => 15,
            ErrorKind::Exhausted => 9,
            ErrorKind::Lost => 18,
            ErrorKind::Permission => 13,
            ErrorKind::Vendor => 7,
            other => return Ok(Support::Declined(format!("no code of the library is {other}"))),
        };
        let index = self.index(device)?;
        self.change(|state| {
            let mim = state["cards"][index]["mode"] == json!("mim");
            let calls = match during {
                During::Create if mim => MIM_CREATE,
                During::Create => SMLU_CREATE,
                During::Usage => USAGE,
            };
            // Beyond the last call nothing fails, and the operation succeeds.
            if let Some(call) = (nth as usize).checked_sub(1).and_then(|at| calls.get(at)) {
                state["fail"] = json!([{ "function": call, "card": index, "code": code }]);
            }
        })?;
        Ok(Support::Played)
    }

    fn interrupt(&self, device: &DeviceId, after: u32) -> Result<Support> {
        self.set(device, "crash_after", json!(after))
    }

    fn hang(&self, device: &DeviceId) -> Result<Support> {
        let call = format!("cndevGetUUID@{}", self.index(device)?);
        self.change(|state| state["latency_ms"][call] = json!(3_600_000))?;
        Ok(Support::Played)
    }

    fn is_hanging(&self) -> Result<bool> {
        let slow = self.control.file.with_extension("slow");
        Ok(fs::read_to_string(slow).unwrap_or_default().contains('@'))
    }

    fn heal(&self) -> Result<()> {
        self.change(|state| {
            state["fail"] = json!([]);
            state["latency_ms"] = json!({});
            for card in state["cards"].as_array_mut().into_iter().flatten() {
                card["crash_after"] = Value::Null;
            }
        })
    }

    fn lose(&self, device: &DeviceId) -> Result<Support> {
        self.set(device, "lost", json!(true))
    }

    fn restore(&self, device: &DeviceId) -> Result<Support> {
        self.set(device, "lost", json!(false))
    }

    fn condition(&self, device: &DeviceId, meaning: Meaning) -> Result<Support> {
        let (state, repair) = match meaning {
            Meaning::Good => (4, false),
            Meaning::NeedsReboot => (7, false),
            Meaning::NeedsReset => (4, true),
            Meaning::Resetting => (6, false),
            other => return Ok(Support::Declined(format!("no reading of a card is {other}"))),
        };
        let index = self.index(device)?;
        self.change(|machine| {
            let card = &mut machine["cards"][index];
            card["driver_state"] = json!(state);
            card["repair_pending"] = json!(repair);
            // A library without the repair status says it so.
            card["good"] = json!(!(repair && self.no_events));
        })?;
        Ok(Support::Played)
    }

    fn hold(&self, subject: &Subject, processes: u32) -> Result<Support> {
        match subject {
            Subject::Device(device) => {
                let pids = self.processes(processes, None)?;
                self.set(device, "holders", json!(pids))
            }
            Subject::Part(part) => {
                let index = self.index(&part.device())?;
                let local = part.local().to_owned();
                let found = self.change(|state| {
                    let instances = state["cards"][index]["instances"].as_array().cloned();
                    let mine = instances.into_iter().flatten().position(|i| i["name"] == *local);
                    let id = mine.map(|at| state["cards"][index]["instances"][at]["id"].clone());
                    mine.zip(id)
                })?;
                let Some((at, id)) = found else {
                    return Ok(Support::Declined(format!("no instance is named {local}")));
                };
                let minor = if self.cards.len() == 8 { index ^ 1 } else { index };
                let node = format!("/dev/cambricon-caps/cap_dev{minor}_mi{id}");
                let pids = self.processes(processes, Some(&node))?;
                self.change(|state| {
                    state["cards"][index]["instances"][at]["holders"] = json!(pids)
                })?;
                Ok(Support::Played)
            }
            _ => Ok(Support::Declined("only cards and parts are held".into())),
        }
    }

    fn foreign(&self, order: &CreateOrder) -> Result<Option<PartitionId>> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let device = order.device();
        let index = self.index(device)?;
        let name = format!("other-tool-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let (memory, percent) = match order.shape() {
            Shape::Size(size) => (size.memory.map(|m| m.0), size.compute.map(|c| c.units)),
            Shape::Profile(_) => (None, None),
        };
        let start = match order.placement() {
            Placement::Slots(slots) => slots.start,
            _ => 0,
        };
        self.change(|state| {
            let card = &mut state["cards"][index];
            let profile = match (memory, percent) {
                (Some(memory), Some(percent)) => {
                    let id = 100;
                    let new = json!({ "id": id, "percent": percent, "memory": memory });
                    let known = card["profiles"].as_array().cloned().unwrap_or_default();
                    let same = known
                        .iter()
                        .find(|p| p["percent"] == json!(percent) && p["memory"] == json!(memory));
                    match same {
                        Some(same) => same["id"].clone(),
                        None => {
                            push(&mut card["profiles"], new);
                            json!(id)
                        }
                    }
                }
                // The smallest profile of every preset.
                _ => json!(16),
            };
            let taken: Vec<i64> = card["instances"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|i| i["id"].as_i64())
                .collect();
            let id = (1..).find(|id| !taken.contains(id)).unwrap_or(1);
            let new = json!({ "id": id, "name": name, "profile": profile, "start": start });
            push(&mut card["instances"], new);
        })?;
        PartitionId::of(device, order.scheme(), name).map(Some)
    }

    fn vanish(&self, part: &PartitionId) -> Result<Support> {
        let index = self.index(&part.device())?;
        let known = [Scheme::SMLU, Scheme::MIM].contains(&part.scheme());
        self.change(|state| {
            if let Some(all) = state["cards"][index]["instances"].as_array_mut() {
                all.retain(|i| i["name"] != json!(part.local()));
            }
        })?;
        match known {
            true => Ok(Support::Played),
            false => Ok(Support::Declined("there are no such parts".into())),
        }
    }

    fn event(&self, device: &DeviceId, meaning: Meaning) -> Result<Support> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        if self.no_events {
            return Ok(Support::Declined("this library has no function to wait".into()));
        }
        match meaning {
            Meaning::Suspect => {}
            // What an XID means the card itself says.
            Meaning::NeedsReset => match self.condition(device, meaning)? {
                Support::Played => {}
                declined @ Support::Declined(_) => return Ok(declined),
            },
            other => {
                return Ok(Support::Declined(format!("what an XID means is not public: {other}")));
            }
        }
        let card = self.index(device)?;
        let id = format!("event-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let event = json!({ "id": id, "card": card, "data": 7 });
        self.change(|state| push(&mut state["events"], event))?;
        Ok(Support::Played)
    }

    fn replace_driver(&self) -> Result<Support> {
        let done = self.control.restart_driver(Some([9, 9, 9]));
        done.map_err(|e| Error::io("change", &self.control.file, &e))?;
        Ok(Support::Played)
    }

    fn reboot(&self) -> Result<Support> {
        self.change(|state| {
            for card in state["cards"].as_array_mut().into_iter().flatten() {
                card["mode"] = json!("default");
                card["profiles"] = json!([]);
                card["instances"] = json!([]);
            }
            let starts = state["starts"].as_u64().unwrap_or(1);
            state["starts"] = json!(starts + 1);
        })?;
        Ok(Support::Played)
    }
}
