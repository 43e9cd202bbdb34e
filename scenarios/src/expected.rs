//! What a container must see.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::bench::Seen;

/// What a container must see; what is not named may be anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// The mechanism of each of its grants.
    #[serde(default)]
    pub scheme: Option<String>,
    /// The memory of each of its grants, as `claim.json` has it.
    #[serde(default)]
    pub memory: Option<String>,
    /// All its cards' nodes: a path in which `*` stands for anything, and how many nodes match it. A node that matches
    /// none is one too many.
    #[serde(default)]
    pub nodes: Option<BTreeMap<String, usize>>,
    /// Mount points that it has, among others.
    #[serde(default)]
    pub files: BTreeSet<String>,
    /// A container of the same pod with whose parts it works.
    #[serde(default)]
    pub part_of: Option<String>,
}

impl Expected {
    /// Compares with what the containers of the pod saw.
    pub(crate) fn compare(&self, container: &str, all: &BTreeMap<String, Seen>) -> Result<()> {
        let seen = &all[container];
        let schemes = grants(seen, |g| g["scheme"].as_str());
        if let Some(scheme) = &self.scheme {
            ensure!(
                !schemes.is_empty() && schemes.iter().all(|s| s == scheme),
                "expected grants by {scheme}, seen {schemes:?}"
            );
        }
        if let Some(memory) = &self.memory {
            let sizes = grants(seen, |g| g["size"]["memory"].as_str());
            ensure!(
                sizes.len() == schemes.len() && sizes.iter().all(|s| s == memory),
                "expected {memory} of memory, seen {sizes:?}"
            );
        }
        if let Some(nodes) = &self.nodes {
            compare_nodes(nodes, &seen.nodes)?;
        }
        for file in &self.files {
            ensure!(seen.files.contains(file), "expected {file} mounted, seen {:?}", seen.files);
        }
        if let Some(other) = &self.part_of {
            let theirs = all.get(other).with_context(|| format!("{other} told nothing"))?;
            let (ours, theirs) = (parts(seen), parts(theirs));
            ensure!(
                !ours.is_empty() && ours == theirs,
                "expected the parts {theirs:?} of {other}, seen {ours:?}"
            );
        }
        Ok(())
    }
}

/// The parts that a container's claim names.
pub(crate) fn parts(seen: &Seen) -> Vec<String> {
    grants(seen, |g| g["part"].as_str())
}

fn grants(seen: &Seen, field: impl Fn(&Value) -> Option<&str>) -> Vec<String> {
    let grants = seen.claim["grants"].as_array().into_iter().flatten();
    grants.filter_map(|g| field(g).map(str::to_owned)).collect()
}

fn compare_nodes(wanted: &BTreeMap<String, usize>, seen: &BTreeSet<String>) -> Result<()> {
    for (pattern, count) in wanted {
        let found = seen.iter().filter(|path| matches(pattern, path)).count();
        ensure!(found == *count, "expected {count} of the node {pattern}, seen {seen:?}");
    }
    let extra: Vec<&String> =
        seen.iter().filter(|path| !wanted.keys().any(|p| matches(p, path))).collect();
    ensure!(extra.is_empty(), "expected no other node than {:?}, seen {extra:?}", wanted.keys());
    Ok(())
}

/// Whether a path is such as a pattern, in which `*` stands for anything.
fn matches(pattern: &str, path: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == path,
        Some((head, rest)) => path.strip_prefix(head).is_some_and(|tail| {
            (0..=tail.len())
                .filter(|at| tail.is_char_boundary(*at))
                .any(|at| matches(rest, &tail[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn stars_match() {
        for (pattern, path, so) in [
            ("/dev/a", "/dev/a", true),
            ("/dev/a", "/dev/ab", false),
            ("/dev/a*", "/dev/a", true),
            ("/dev/cap*_mi*", "/dev/cap0_mi12", true),
            ("/dev/cap*_mi*", "/dev/cap0_m12", false),
            ("*b", "/dev/ab", true),
            ("*b", "/dev/abc", false),
        ] {
            assert_eq!(matches(pattern, path), so, "{pattern} {path}");
        }
    }

    #[test]
    fn each_difference_says_what_was_expected_and_seen() {
        let seen = Seen {
            nodes: ["/dev/nvidia0", "/dev/nvidia-caps/nvidia-cap3"].map(str::to_owned).into(),
            files: BTreeSet::from(["/etc/vgpu/claim.json".to_owned()]),
            claim: json!({"grants": [{"scheme": "mig", "part": "p", "size": {"memory": "18Gi"}}]}),
        };
        let other = Seen { claim: json!({"grants": [{"part": "q"}]}), ..Seen::default() };
        let all = BTreeMap::from([("a".to_owned(), seen), ("b".to_owned(), other)]);
        let expected = |text: &str| serde_json::from_str::<Expected>(text).expect("reads");
        let good = r#"{"scheme": "mig", "memory": "18Gi", "files": ["/etc/vgpu/claim.json"],
            "nodes": {"/dev/nvidia0": 1, "/dev/nvidia-caps/*": 1}}"#;
        expected(good).compare("a", &all).expect("holds");
        for (bad, word) in [
            (r#"{"scheme": "mps"}"#, "expected grants by mps, seen [\"mig\"]"),
            (r#"{"memory": "1Gi"}"#, "expected 1Gi of memory, seen [\"18Gi\"]"),
            (r#"{"nodes": {"/dev/nvidia0": 1}}"#, "expected no other node"),
            (r#"{"nodes": {"/dev/nvidia*": 1}}"#, "expected 1 of the node /dev/nvidia*"),
            (r#"{"nodes": {}}"#, "expected no other node"),
            (r#"{"files": ["/opt"]}"#, "expected /opt mounted"),
            (r#"{"part_of": "b"}"#, "expected the parts [\"q\"] of b, seen [\"p\"]"),
        ] {
            let error = expected(bad).compare("a", &all).expect_err(bad).to_string();
            assert!(error.contains(word) && error.contains("seen"), "{bad}: {error}");
        }
        let none = expected(r#"{"scheme": "mig"}"#);
        let empty = BTreeMap::from([("a".to_owned(), Seen::default())]);
        assert!(none.compare("a", &empty).is_err());
    }
}
