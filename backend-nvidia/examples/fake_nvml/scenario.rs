//! What a scenario and a control file may say, as types; README.md tells it in words.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::die::Death;
use crate::limits::{Outside, Way};
use crate::mig_tables::{Model, Profile};
use crate::orders::Order;
use crate::presets;

/// Keys of a card by which a patch replaces them; `null` takes one away.
pub(crate) type Patch = Map<String, Value>;

/// A machine and what is wrong with it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scenario {
    pub(crate) driver_version: String,
    pub(crate) cuda_version: i32,
    /// What starting NVML answers; 0 is success.
    pub(crate) init: u32,
    /// What is claimed, if not the number of cards.
    pub(crate) device_count: Option<u32>,
    pub(crate) cards: Vec<Card>,
    pub(crate) latency_ms: BTreeMap<String, u64>,
    pub(crate) lacks: Vec<String>,
    pub(crate) fail: Vec<Fail>,
    pub(crate) events: Vec<Event>,
    pub(crate) control: Option<PathBuf>,
    pub(crate) unterminated: Vec<Text>,
    pub(crate) cgroup_limits: Way,
    /// Functions that the library does not have at all.
    pub(crate) hidden: Vec<String>,
    /// Whether the caller passes for root.
    pub(crate) privileged: bool,
    /// Where the driver's state is kept, if it is to outlive the process.
    pub(crate) state: Option<PathBuf>,
    /// Where the host's files are written that tell of instances.
    pub(crate) host_root: Option<PathBuf>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Card {
    pub(crate) name: String,
    pub(crate) uuid: String,
    /// `dddd:bb:dd.f`.
    pub(crate) pci: String,
    pub(crate) minor: u32,
    pub(crate) memory: MemorySpec,
    #[serde(default)]
    pub(crate) pci_device_id: u32,
    #[serde(default)]
    pub(crate) pci_subsystem_id: u32,
    #[serde(default)]
    pub(crate) cores: Option<u32>,
    #[serde(default)]
    pub(crate) compute_capability: Option<[i32; 2]>,
    #[serde(default)]
    pub(crate) numa: Option<u32>,
    /// Cards of one number share a PCI switch.
    #[serde(default)]
    pub(crate) pci_switch: Option<u32>,
    #[serde(default)]
    pub(crate) mig: Option<Mig>,
    #[serde(default)]
    pub(crate) mig_table: Option<Model>,
    /// Profiles besides, or in place of, those of the table.
    #[serde(default)]
    pub(crate) mig_profiles: Vec<Profile>,
    #[serde(default)]
    pub(crate) nvlinks: Vec<NvLink>,
    #[serde(default)]
    pub(crate) processes: Vec<Process>,
    /// Claimed with success instead of the true number of processes.
    #[serde(default)]
    pub(crate) claimed_processes: Option<u32>,
    #[serde(default)]
    pub(crate) state: State,
    /// What looking the card up answers; 0 is success.
    #[serde(default)]
    pub(crate) handle_code: u32,
    #[serde(default)]
    pub(crate) supported_events: u64,
    #[serde(default)]
    pub(crate) recovery_action: Option<u32>,
    #[serde(default)]
    pub(crate) remapped_rows: Option<Rows>,
    #[serde(default)]
    pub(crate) retired_pending: Option<bool>,
    #[serde(default)]
    pub(crate) ecc_uncorrected: Option<u64>,
    #[serde(default)]
    pub(crate) temperature: Option<u32>,
    #[serde(default)]
    pub(crate) shutdown_temperature: Option<u32>,
    #[serde(default)]
    pub(crate) slowdown_temperature: Option<u32>,
    #[serde(default)]
    pub(crate) unterminated: Vec<Text>,
    /// Written as the name instead of `name`, byte by byte.
    #[serde(default)]
    pub(crate) name_bytes: Option<Vec<u8>>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MemorySpec {
    pub(crate) total_mib: u64,
    #[serde(default)]
    pub(crate) reserved_mib: u64,
    #[serde(default)]
    pub(crate) used_mib: u64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mig {
    pub(crate) current: u32,
    pub(crate) pending: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NvLink {
    /// PCI address of the other end.
    pub(crate) remote: String,
    #[serde(default)]
    pub(crate) kind: LinkKind,
    #[serde(default = "yes")]
    pub(crate) active: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LinkKind {
    #[default]
    Gpu,
    Npu,
    Switch,
    Unknown,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Absent: the driver may not tell.
    #[serde(default)]
    pub(crate) used_mib: Option<u64>,
    #[serde(default)]
    pub(crate) gi: Option<u32>,
    #[serde(default)]
    pub(crate) ci: Option<u32>,
    /// In place of `gi`: the first slice of the GPU instance.
    #[serde(default)]
    pub(crate) slice: Option<u32>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Lost,
    #[default]
    Ok,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rows {
    pub(crate) corrected: u32,
    pub(crate) uncorrected: u32,
    pub(crate) pending: bool,
    pub(crate) failed: bool,
}

/// A string that is written without its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Text {
    DriverVersion,
    Name,
    Uuid,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fail {
    pub(crate) function: String,
    /// From 1; absent: every call.
    pub(crate) nth: Option<u64>,
    /// Absent: whichever card, and calls that are of none.
    pub(crate) card: Option<u32>,
    pub(crate) code: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Event {
    /// In a control file: each id is delivered once.
    #[serde(default)]
    pub(crate) id: String,
    pub(crate) card: u32,
    #[serde(rename = "type")]
    pub(crate) event_type: u64,
    pub(crate) data: u64,
    pub(crate) gi: Option<u32>,
    pub(crate) ci: Option<u32>,
    /// Not before so many milliseconds after NVML was started.
    pub(crate) after_ms: Option<u64>,
    /// Not before the nth wait, from 1, of the process.
    pub(crate) on_wait: Option<u64>,
}

/// A control file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Control {
    pub(crate) cards: BTreeMap<u32, Patch>,
    pub(crate) events: Vec<Event>,
    pub(crate) latency_ms: BTreeMap<String, u64>,
    pub(crate) fail: Vec<Fail>,
    /// Carried out whenever the text of the file changes.
    pub(crate) cgroup_limits: Vec<Outside>,
    pub(crate) die: Vec<Death>,
    pub(crate) orders: Vec<Order>,
}

/// A scenario file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Document {
    preset: Option<String>,
    driver_version: Option<String>,
    cuda_version: Option<i32>,
    init: Option<u32>,
    device_count: Option<u32>,
    cards: Option<Vec<Card>>,
    patch: BTreeMap<u32, Patch>,
    latency_ms: BTreeMap<String, u64>,
    lacks: Vec<String>,
    fail: Vec<Fail>,
    events: Vec<Event>,
    control: Option<PathBuf>,
    unterminated: Vec<Text>,
    cgroup_limits: Option<Way>,
    hidden: Vec<String>,
    privileged: Option<bool>,
    state: Option<PathBuf>,
    host_root: Option<PathBuf>,
}

impl Scenario {
    /// A preset's name, or the path of a YAML file. Where the driver's state is kept, and the host's files, may come from variables
    /// of their own, so that a preset can be played over several processes.
    pub(crate) fn named(name: &str) -> Result<Self, String> {
        let mut scenario = Self::found(name)?;
        let given = |name| std::env::var_os(name).filter(|text| !text.is_empty());
        scenario.state = scenario.state.or_else(|| given("FAKE_NVML_STATE").map(PathBuf::from));
        let root = || given("FAKE_NVML_HOST_ROOT").map(PathBuf::from);
        scenario.host_root = scenario.host_root.or_else(root);
        Ok(scenario)
    }

    fn found(name: &str) -> Result<Self, String> {
        if let Some(preset) = presets::find(name) {
            return Ok(preset);
        }
        let path = Path::new(name);
        let text = std::fs::read_to_string(path).map_err(|e| {
            format!(
                "FAKE_NVML={name} is no preset ({}) and no file: {e}",
                presets::NAMES.join(", ")
            )
        })?;
        let document: Document =
            serde_saphyr::from_str(&text).map_err(|e| format!("{name} is no scenario: {e}"))?;
        document.scenario().map_err(|e| format!("{name}: {e}"))
    }
}

impl Card {
    /// The card with some of its keys replaced.
    pub(crate) fn patched(&self, patch: &Patch) -> Result<Self, String> {
        let mut value = serde_json::to_value(self).map_err(|e| e.to_string())?;
        let keys = value.as_object_mut().ok_or("a card is not a map")?;
        for (key, new) in patch {
            // `null` is what an absent key is, so that a default comes back.
            if new.is_null() {
                keys.remove(key);
            } else {
                keys.insert(key.clone(), new.clone());
            }
        }
        serde_json::from_value(value).map_err(|e| e.to_string())
    }
}

impl Document {
    fn scenario(self) -> Result<Scenario, String> {
        let mut base = match &self.preset {
            Some(name) => {
                presets::find(name).ok_or_else(|| format!("no preset is called {name}"))?
            }
            None => presets::empty(),
        };
        base.driver_version = self.driver_version.unwrap_or(base.driver_version);
        base.cuda_version = self.cuda_version.unwrap_or(base.cuda_version);
        base.init = self.init.unwrap_or(base.init);
        base.device_count = self.device_count.or(base.device_count);
        base.cards = self.cards.unwrap_or(base.cards);
        for (index, patch) in &self.patch {
            let card = usize::try_from(*index).ok().and_then(|index| base.cards.get_mut(index));
            let card = card.ok_or_else(|| format!("patch of card {index}, which is not there"))?;
            *card = card.patched(patch).map_err(|e| format!("patch of card {index}: {e}"))?;
        }
        base.latency_ms.extend(self.latency_ms);
        base.lacks.extend(self.lacks);
        base.fail.extend(self.fail);
        base.events.extend(self.events);
        base.control = self.control.or(base.control);
        base.unterminated.extend(self.unterminated);
        base.cgroup_limits = self.cgroup_limits.unwrap_or(base.cgroup_limits);
        base.hidden.extend(self.hidden);
        base.privileged = self.privileged.unwrap_or(base.privileged);
        base.state = self.state.or(base.state);
        base.host_root = self.host_root.or(base.host_root);
        Ok(base)
    }
}

impl Event {
    /// One that says nothing but its type.
    pub(crate) fn of(card: u32, event_type: u64) -> Self {
        let (gi, ci, after_ms, on_wait) = (None, None, None, None);
        Self { id: String::new(), card, event_type, data: 0, gi, ci, after_ms, on_wait }
    }
}

impl Control {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(text).map_err(|e| e.to_string())
    }
}

fn yes() -> bool {
    true
}
