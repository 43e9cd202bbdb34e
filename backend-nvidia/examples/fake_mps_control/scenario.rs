//! What the machine's MPS is like (`FAKE_MPS`), and what goes wrong with it (the control file).

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// What the program can do; a preset's name or a YAML file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Scenario {
    /// A preset to start from.
    pub(crate) preset: Option<String>,
    /// What `-v` says, major * 1000 + minor * 10; a program that is too old says usage.
    pub(crate) version: Option<u32>,
    /// Whether protocol 3 is there: named servers and namespaces.
    pub(crate) namespaces: bool,
    /// Whether `-S` is there.
    pub(crate) static_partitions: bool,
    /// Chunks of a card.
    pub(crate) chunks: u32,
    /// Multiprocessors of a chunk.
    pub(crate) sms_per_chunk: u32,
    /// What a start is refused with.
    pub(crate) start_fails: Option<String>,
    /// The control file.
    pub(crate) control: Option<PathBuf>,
}

/// Every preset, as it is named in `FAKE_MPS`.
pub(crate) const PRESETS: &[&str] = &["legacy", "static", "namespaces", "refuses"];

impl Scenario {
    /// What `FAKE_MPS` names; `namespaces` where it names nothing.
    pub(crate) fn named() -> Result<Self, String> {
        let name = env::var("FAKE_MPS").unwrap_or_else(|_unset| "namespaces".into());
        if let Some(preset) = Self::preset(&name) {
            return Ok(preset);
        }
        let text = fs::read_to_string(&name).map_err(|e| {
            format!("{name} is neither one of {} nor a file: {e}", PRESETS.join(", "))
        })?;
        let told: Self = serde_saphyr::from_str(&text).map_err(|e| format!("{name}: {e}"))?;
        let Some(preset) = told.preset.clone() else { return Ok(told) };
        let base = Self::preset(&preset).ok_or(format!("{name}: there is no preset {preset}"))?;
        Ok(Self {
            version: told.version.or(base.version),
            namespaces: base.namespaces,
            static_partitions: base.static_partitions,
            chunks: if told.chunks == 0 { base.chunks } else { told.chunks },
            sms_per_chunk: if told.sms_per_chunk == 0 {
                base.sms_per_chunk
            } else {
                told.sms_per_chunk
            },
            start_fails: told.start_fails.or(base.start_fails),
            control: told.control,
            preset: None,
        })
    }

    fn preset(name: &str) -> Option<Self> {
        let none = Self { chunks: 16, sms_per_chunk: 8, ..Self::default() };
        let with_static = Self { version: Some(13_010), static_partitions: true, ..none.clone() };
        Some(match name {
            "legacy" => none,
            "static" => with_static,
            "namespaces" => Self { version: Some(13_040), namespaces: true, ..with_static },
            "refuses" => {
                Self { start_fails: Some("Failed to start: out of luck".into()), ..with_static }
            }
            _ => return None,
        })
    }
}

/// What the control file says now.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Control {
    pub(crate) clients: Vec<Client>,
    pub(crate) fail: Vec<Fail>,
    /// By the first words of the command.
    pub(crate) latency_ms: BTreeMap<String, u64>,
    /// Whether a client's fault has brought the servers down to FAULT.
    pub(crate) fault: bool,
}

/// A client process.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Client {
    pub(crate) pid: u32,
    /// The card's daemon, by the end of its pipe folder's path or the card's id; any without.
    #[serde(default)]
    pub(crate) card: Option<String>,
    #[serde(default)]
    pub(crate) namespace: Option<String>,
    #[serde(default)]
    pub(crate) partition: Option<String>,
}

/// A command that is refused.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fail {
    /// The first words of the command.
    pub(crate) command: String,
    #[serde(default)]
    pub(crate) card: Option<String>,
    pub(crate) text: String,
    /// The exit code of the program that asked.
    #[serde(default = "one")]
    pub(crate) exit: u8,
}

fn one() -> u8 {
    1
}

impl Control {
    /// Read anew at every command; a file that is not there says nothing.
    pub(crate) fn read(file: Option<&Path>) -> Self {
        let Some(text) = file.and_then(|file| fs::read_to_string(file).ok()) else {
            return Self::default();
        };
        match serde_saphyr::from_str(&text) {
            Ok(control) => control,
            Err(e) => {
                eprintln!("fake_mps_control: the control file says nothing: {e}");
                Self::default()
            }
        }
    }
}
