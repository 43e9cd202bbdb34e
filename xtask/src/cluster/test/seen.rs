//! What a container sees, as it told.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// Where vendors have their nodes.
const VENDORS: [&str; 5] = ["/dev/nvidia", "/dev/kfd", "/dev/mkfd", "/dev/dri/", "/dev/cambricon"];

/// What a container sees.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Path and number of each character device.
    pub(crate) nodes: BTreeMap<String, String>,
    /// What came of opening each vendor's node: `ok`, or why not.
    pub(crate) opens: BTreeMap<String, String>,
    pub(crate) env: BTreeMap<String, String>,
    /// Mount point and options.
    pub(crate) mounts: BTreeMap<String, String>,
    /// `claim.json`, null where there is none.
    pub(crate) claim: Value,
}

impl Seen {
    /// Reads a log in which the probe has come to its end; the last one where it ran several times.
    pub(crate) fn parse(log: &str) -> Result<Option<Self>> {
        let Some((told, _)) = log.rsplit_once("=== end") else { return Ok(None) };
        let told = told.rfind("=== nodes").map_or(told, |at| &told[at..]);
        let mut seen = Self::default();
        for section in told.split("=== ").filter(|s| !s.is_empty()) {
            let (name, text) = section.split_once('\n').unwrap_or((section, ""));
            let pairs = |separator: char| {
                text.lines()
                    .filter_map(|l| l.split_once(separator))
                    .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
                    .collect()
            };
            match name {
                "nodes" => seen.nodes = pairs(' '),
                "opens" => seen.opens = pairs(' '),
                "env" => seen.env = pairs('='),
                "mounts" => seen.mounts = text.lines().filter_map(mount).collect(),
                "claim" if text.trim().starts_with('{') => {
                    seen.claim = serde_json::from_str(text)
                        .with_context(|| format!("claim.json is no JSON: {text}"))?;
                }
                "claim" => {}
                other => bail!("the probe told of {other:?}"),
            }
        }
        Ok(Some(seen))
    }

    /// The claim's id.
    pub(crate) fn claim_id(&self) -> Result<&str> {
        self.claim["claim"].as_str().context("the container sees no claim")
    }

    /// The one grant's field, as text.
    pub(crate) fn grant(&self, field: &str) -> Result<String> {
        let grants = self.claim["grants"].as_array().context("the claim has no grants")?;
        ensure!(grants.len() == 1, "the claim has {} grants", grants.len());
        let value = &grants[0][field];
        Ok(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    }

    /// Nodes of any card.
    pub(crate) fn cards(&self) -> Vec<&str> {
        let of_a_vendor = |n: &&String| VENDORS.iter().any(|v| n.starts_with(v));
        self.nodes.keys().filter(of_a_vendor).map(String::as_str).collect()
    }

    /// Compares with the CDI spec that the runtime was given: all of it, and no card besides.
    pub(crate) fn matches(&self, spec: &Value) -> Result<()> {
        let edits = &spec["devices"][0]["containerEdits"];
        let list = |key: &str| edits[key].as_array().cloned().unwrap_or_default();
        let mut promised = Vec::new();
        for node in list("deviceNodes") {
            let path = node["path"].as_str().context("a node without a path")?.to_owned();
            ensure!(self.nodes.contains_key(&path), "the container lacks the node {path}");
            if let (Some(major), Some(minor)) = (node["major"].as_u64(), node["minor"].as_u64()) {
                let number = format!("{major:x}:{minor:x}");
                ensure!(
                    self.nodes[&path] == number,
                    "{path} is {}, and {number} was promised",
                    self.nodes[&path]
                );
            }
            let opened = self.opens.get(&path).map_or("never tried", String::as_str);
            // Nobody drives the numbers of a capability here; what matters is that the cgroup lets it pass.
            ensure!(
                !opened.contains("not permitted") && (opened == "ok" || node["major"].is_u64()),
                "{path} cannot be opened: {opened}"
            );
            promised.push(path);
        }
        for path in self.cards() {
            ensure!(
                promised.iter().any(|p| p == path),
                "the container sees {path}, which nobody gave it"
            );
        }
        for mount in list("mounts") {
            let path = mount["containerPath"].as_str().context("a mount without a path")?;
            let options =
                self.mounts.get(path).with_context(|| format!("{path} is not mounted"))?;
            let wanted = mount["options"].as_array().cloned().unwrap_or_default();
            for flag in ["ro", "rw", "nosuid", "nodev", "noexec"] {
                let promised = wanted.iter().any(|o| o == flag);
                ensure!(
                    !promised || options.split(',').any(|o| o == flag),
                    "{path} is mounted {options}, not {flag}"
                );
            }
        }
        for pair in list("env") {
            let (key, value) =
                pair.as_str().and_then(|p| p.split_once('=')).context("an env of another form")?;
            ensure!(
                self.env.get(key).is_some_and(|v| v == value),
                "{key} is {:?}, and {value:?} was promised",
                self.env.get(key)
            );
        }
        Ok(())
    }
}

/// Mount point and options of a line of mountinfo.
fn mount(line: &str) -> Option<(String, String)> {
    let mut fields = line.split_whitespace().skip(4);
    Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LOG: &str = "=== nodes
/dev/null 1:3
=== end
=== nodes
/dev/null 1:3
/dev/nvidia0 a:e5
/dev/nvidia-caps/nvidia-cap3 eb:3
=== opens
/dev/nvidia0 ok
/dev/nvidia-caps/nvidia-cap3 sh: can't open: No such device or address
=== env
A=b=c
=== mounts
90 80 0:1 / /etc/vgpu/claim.json ro,nosuid,nodev - ext4 /dev/vda rw
=== claim
{\"claim\": \"c1\", \"grants\": [{\"scheme\": \"mig\"}]}
=== end
";

    fn spec() -> Value {
        json!({"devices": [{"containerEdits": {
            "deviceNodes": [
                {"path": "/dev/nvidia0"},
                {"path": "/dev/nvidia-caps/nvidia-cap3", "major": 235, "minor": 3},
            ],
            "mounts": [{"containerPath": "/etc/vgpu/claim.json", "options": ["ro", "nodev"]}],
            "env": ["A=b=c"],
        }}]})
    }

    #[test]
    fn the_last_word_counts() {
        assert!(Seen::parse("=== nodes\n").expect("reads").is_none());
        let seen = Seen::parse(LOG).expect("reads").expect("is whole");
        assert_eq!(seen.cards().len(), 2);
        assert_eq!(seen.claim_id().expect("a claim"), "c1");
        assert_eq!(seen.grant("scheme").expect("a grant"), "mig");
        seen.matches(&spec()).expect("matches");
    }

    #[test]
    fn each_difference_is_told() {
        for (from, to, word) in [
            ("/dev/nvidia0 a:e5\n", "", "lacks"),
            ("/dev/nvidia0 ok", "/dev/nvidia0 sh: Operation not permitted", "cannot be opened"),
            ("eb:3", "eb:4", "eb:3 was promised"),
            ("ro,nosuid", "rw,nosuid", "not ro"),
            ("/etc/vgpu/claim.json ro", "/etc/other ro", "is not mounted"),
            ("A=b=c", "A=b", "was promised"),
            ("/dev/nvidia0 a:e5\n", "/dev/nvidia0 a:e5\n/dev/nvidia1 a:e5\n", "nobody gave"),
        ] {
            let log = LOG.replace(from, to);
            let seen = Seen::parse(&log).expect("reads").expect("is whole");
            let error = seen.matches(&spec()).expect_err(word).to_string();
            assert!(error.contains(word), "{word}: {error}");
        }
    }
}
