//! The node's configuration file: YAML, versioned, unknown fields refused.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vgpu_core::{Error, ErrorKind, Result};
use vgpu_node::{CardLayout, Offer};

use crate::children::BackendConfig;
use crate::nvidia::NvidiaConfig;

/// The only version that this agent reads.
pub const API_VERSION: &str = "vgpu.dev/v1alpha1";

/// The kind of document.
pub const KIND: &str = "NodeConfig";

/// A configuration file is a few kilobytes; what is larger than this is not one.
const SIZE_LIMIT: u64 = 1 << 20;

/// What a node offers, and how its agent behaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NodeConfig {
    /// `vgpu.dev/v1alpha1`.
    pub api_version: String,
    /// `NodeConfig`.
    pub kind: String,
    /// What is offered to the cluster.
    pub offers: Vec<Offer>,
    /// The parts that cards shall have, made ahead; pooled offers take them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layouts: Vec<CardLayout>,
    /// How often things are looked at.
    #[serde(default)]
    pub poll: Poll,
    /// NVIDIA's driver, as containers get it.
    #[serde(default)]
    pub nvidia: NvidiaConfig,
    /// Where backends run, by vendor; those that are not named run in the agent's own process.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub backends: BTreeMap<String, BackendConfig>,
}

/// How often things are looked at, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Poll {
    /// Cards and their health.
    pub hardware_seconds: u32,
    /// The kubelet's list of pods.
    pub kubelet_seconds: u32,
}

impl Default for Poll {
    fn default() -> Self {
        Self { hardware_seconds: 10, kubelet_seconds: 5 }
    }
}

impl Poll {
    /// Between two looks at the cards.
    pub fn hardware(self) -> Duration {
        Duration::from_secs(self.hardware_seconds.into())
    }

    /// Between two looks at the kubelet's list.
    pub fn kubelet(self) -> Duration {
        Duration::from_secs(self.kubelet_seconds.into())
    }
}

impl NodeConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// `Io` or `NotFound` for a file that cannot be read, `Invalid` for one that makes no sense; each
    /// names the file, and the line where there is one.
    pub fn read(path: &Path) -> Result<Self> {
        let length = std::fs::metadata(path).map_err(|e| Error::io("read", path, &e))?.len();
        if length > SIZE_LIMIT {
            let why = format!(
                "{} has {length} bytes; a configuration has at most {SIZE_LIMIT}",
                path.display()
            );
            return Err(Error::new(ErrorKind::Invalid, why));
        }
        let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, &e))?;
        Self::parse(&text).map_err(|e| e.with("file", path.display()))
    }

    /// Parses a text.
    ///
    /// # Errors
    /// `Invalid`, with what is wrong, where, and what to write instead.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |why: String| Error::new(ErrorKind::Invalid, why);
        let config: Self = serde_saphyr::from_str(text).map_err(|e| {
            // The parser adds an excerpt of the file below its sentence; one line is enough.
            let told = e.to_string();
            let why = told.lines().next().unwrap_or_default().to_owned();
            invalid(format!("the configuration is not right: {why}"))
        })?;
        if config.api_version != API_VERSION {
            return Err(invalid(format!(
                "apiVersion is {:?}; this agent reads {API_VERSION}",
                config.api_version
            )));
        }
        if config.kind != KIND {
            return Err(invalid(format!("kind is {:?}; write {KIND}", config.kind)));
        }
        for (key, seconds) in [
            ("poll.hardwareSeconds", config.poll.hardware_seconds),
            ("poll.kubeletSeconds", config.poll.kubelet_seconds),
        ] {
            if seconds == 0 || seconds > 3_600 {
                return Err(invalid(format!("{key} is {seconds}; it must be from 1 to 3600")));
            }
        }
        config.nvidia.options().map_err(invalid)?;
        for (vendor, backend) in &config.backends {
            backend.check(vendor).map_err(invalid)?;
        }
        let mut names: Vec<&str> = config.offers.iter().map(|o| o.resource.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|w| w[0] == w[1]) {
            return Err(invalid(format!("two offers are named {}; rename one", twice[0])));
        }
        if let Some(empty) = config.layouts.iter().find(|layout| layout.parts.is_empty()) {
            return Err(invalid(format!(
                "a layout of {} has no parts; write parts: [{{profile: 1g.10gb, count: 7}}], or remove it",
                empty.scheme
            )));
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
apiVersion: vgpu.dev/v1alpha1
kind: NodeConfig
offers:
- resource: vgpu.dev/gpu
  kind: whole
  select: {vendors: [nvidia]}
- resource: vgpu.dev/mlu-mem
  kind: unit
  unit: 1Gi
  largest: 16
  select: {vendors: [cambricon]}
  minimum: {memory: driver}
  domain: team-a
  policy: spread
- resource: vgpu.dev/mig
  kind: slice
  profile: 1g.10gb
  lifecycle: pooled
layouts:
- select: {models: [NVIDIA H100 80GB HBM3]}
  scheme: mig
  parts: [{profile: 3g.40gb, count: 1}, {profile: 1g.10gb, count: 4}]
nvidia:
  driverRoot: /run/nvidia/driver
  capabilities: [compute, graphics]
  delivery: hookless
backends:
  nvidia: {process: child, memory: 2Gi, callSeconds: 120}
  hygon: {process: in-process}
  acme: {command: [/opt/acme/vgpu-backend, --quiet]}
";

    #[test]
    fn a_good_file_parses() {
        let config = NodeConfig::parse(GOOD).expect("parses");
        assert_eq!((config.offers.len(), config.layouts.len()), (3, 1));
        assert_eq!(config.poll, Poll::default());
        let options = config.nvidia.options().expect("sound");
        assert_eq!(options.driver_root, Path::new("/run/nvidia/driver"));
        assert_eq!(options.delivery, vgpu_backend_nvidia::Delivery::Hookless);
        assert!(config.backends["nvidia"].is_child() && config.backends["acme"].is_child());
        assert!(!config.backends["hygon"].is_child());
    }

    #[test]
    fn each_mistake_is_told() {
        for (change, to, word) in [
            ("v1alpha1", "v2", "apiVersion"),
            ("kind: NodeConfig", "kind: Pod", "NodeConfig"),
            ("largest: 16", "larges: 16", "larges"),
            ("unit: 1Gi", "unit: 1", "unit"),
            ("unit: 1Gi", "unit: \"1\"", "no unit"),
            ("minimum: {memory: driver}", "minimum: {memory: strong}", "strong"),
            ("resource: vgpu.dev/mlu-mem", "resource: vgpu.dev/gpu", "two offers"),
            ("vendors: [nvidia]", "vendors: [nvidia", "not right"),
            ("driverRoot: /run", "driverRoot: run", "absolute"),
            ("[compute, graphics]", "[]", "capabilities"),
            ("[compute, graphics]", "[video]", "video"),
            ("delivery: hookless", "delivery: none", "none"),
            ("offers:", "poll: {hardwareSeconds: 0}\noffers:", "hardwareSeconds"),
            ("offers:", "colour: red\noffers:", "colour"),
            (
                "parts: [{profile: 3g.40gb, count: 1}, {profile: 1g.10gb, count: 4}]",
                "parts: []",
                "no parts",
            ),
            ("count: 4", "count: 0", "nonzero"),
            ("  scheme: mig\n", "", "scheme"),
            ("kind: slice\n  profile: 1g.10gb", "kind: whole", "lifecycle pooled"),
            ("process: child", "process: thread", "in-process"),
            ("memory: 2Gi", "memory: 2", "memory"),
            ("memory: 2Gi", "memory: 2Mi", "at least 64Mi"),
            ("callSeconds: 120", "callSeconds: 0", "callSeconds"),
            ("process: child, memory", "memory", "write process: child"),
            ("in-process}", "in-process, command: [/bin/x]}", "in a process of its own"),
            ("[/opt/acme/vgpu-backend", "[vgpu-backend", "absolute"),
            ("[/opt/acme/vgpu-backend, --quiet]", "[]", "command"),
            ("  acme:", "  Acme Corp:", "small letters"),
        ] {
            assert!(GOOD.contains(change), "{change}");
            let e = NodeConfig::parse(&GOOD.replacen(change, to, 1)).expect_err(to);
            assert!(e.to_string().contains(word), "{to}: {e}");
        }
    }
}
