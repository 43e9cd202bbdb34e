//! `notice`: the agent learns that a claim's container may open every device of the node.
//!
//! Neither the kubelet nor CDI tells a plugin that a container is privileged. What the runtime will allow stands in the
//! container's `config.json`, and a hook is told where that lies.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use crate::agent::{self, Options};
use crate::devices::{self, Rule};
use crate::state::State;
use crate::{Outcome, complain};

/// For connecting, asking and being answered together: a container waits for it, and for nothing that it needs.
const PATIENCE: Duration = Duration::from_secs(1);

/// Looks, and tells the agent if there is something to tell. Never keeps a container from starting.
pub(crate) fn run(args: &[String]) {
    if let Err(why) = told(args) {
        complain("vgpu-hook notice", &format!("{why}; the container starts all the same"));
    }
}

fn told(args: &[String]) -> Outcome<()> {
    let options = Options::parse("notice", args, PATIENCE)?;
    let Some(open) = EveryDevice::of(&State::from_stdin()?)? else { return Ok(()) };
    let request = json!({
        "version": 1,
        "op": "notice",
        "claim": options.claim,
        "every_device": true,
        "container": open.container,
    });
    agent::ask(&options, &request).map_err(|why| {
        format!("the container may open every device of this node, and nobody was told: {why}")
    })
}

/// A container that may open every device of the node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct EveryDevice {
    /// Its name in the pod, as the kubelet's runtimes write it down.
    pub(crate) container: Option<String>,
}

impl EveryDevice {
    /// The container that is being made, if it is one.
    pub(crate) fn of(state: &State) -> Outcome<Option<Self>> {
        Self::parse(&state.config()?).map_err(|e| {
            format!(
                "the container's configuration in {} is not as an OCI runtime writes it: {e}",
                state.bundle.display()
            )
        })
    }

    fn parse(config: &str) -> serde_json::Result<Option<Self>> {
        let config: Config = serde_json::from_str(config)?;
        let rules = config.linux.and_then(|linux| linux.resources).and_then(|all| all.devices);
        if !devices::every_device(&rules.unwrap_or_default()) {
            return Ok(None);
        }
        let names = config.annotations.unwrap_or_default();
        let container = names.containerd.or(names.crio).filter(|name| is_label(name));
        Ok(Some(Self { container }))
    }
}

/// What is read of a configuration; the rest, which is nearly all, is passed over.
#[derive(Debug, Deserialize)]
struct Config {
    annotations: Option<Annotations>,
    linux: Option<Linux>,
}

#[derive(Debug, Default, Deserialize)]
struct Annotations {
    #[serde(rename = "io.kubernetes.cri.container-name")]
    containerd: Option<String>,
    #[serde(rename = "io.kubernetes.container.name")]
    crio: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Linux {
    resources: Option<Resources>,
}

#[derive(Debug, Deserialize)]
struct Resources {
    devices: Option<Vec<Rule>>,
}

/// As Kubernetes names containers; anything else is not passed on.
fn is_label(name: &str) -> bool {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&name.len()) && name.chars().all(fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(config: &str) -> Option<EveryDevice> {
        EveryDevice::parse(config).expect("a configuration")
    }

    #[test]
    fn what_a_configuration_allows_is_read() {
        for plain in [
            "{}",
            r#"{"linux": null}"#,
            r#"{"linux": {"resources": {}}}"#,
            r#"{"linux": {"resources": {"devices": null}}}"#,
            r#"{"linux": {"resources": {"devices": [{"allow": false, "access": "rwm"},
                {"allow": true, "type": "c", "major": 195, "minor": 0, "access": "rw"}]}}}"#,
        ] {
            assert_eq!(found(plain), None, "{plain}");
        }
        let open = |names: &str| {
            found(&format!(
                r#"{{"ociVersion": "1.2.1", "annotations": {{{names}}}, "process": {{"env": ["A=b"]}},
                    "linux": {{"resources": {{"devices": [{{"allow": true, "access": "rwm"}}]}}}}}}"#
            ))
        };
        let named = |name: &str| Some(EveryDevice { container: Some(name.to_owned()) });
        assert_eq!(open(r#""io.kubernetes.cri.container-name": "main""#), named("main"));
        assert_eq!(open(r#""io.kubernetes.container.name": "main", "x": "y""#), named("main"));
        for odd in ["", r#""io.kubernetes.cri.container-name": "a\nb""#] {
            assert_eq!(open(odd), Some(EveryDevice { container: None }), "{odd}");
        }
    }

    #[test]
    fn what_is_no_configuration_is_an_error() {
        for text in ["", "[]", "{", r#"{"linux": {"resources": {"devices": [7]}}}"#] {
            assert!(EveryDevice::parse(text).is_err(), "{text}");
        }
    }
}
