//! Who depends on whom, from `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Packages by name; versions of one name are one.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    members: BTreeSet<String>,
    /// In what is shipped: normal and build dependencies.
    shipped: BTreeMap<String, BTreeSet<String>>,
    /// Those, and what only tests use.
    any: BTreeMap<String, BTreeSet<String>>,
}

/// Which dependencies count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Any,
    Shipped,
}

impl Graph {
    /// Asks cargo about the workspace at `root`, with every feature: an optional arrow is one too.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["metadata", "--format-version", "1", "--all-features"])
            .current_dir(root)
            .output()
            .context("cannot run cargo metadata")?;
        if !output.status.success() {
            bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let metadata = serde_json::from_slice(&output.stdout);
        Self::parse(&metadata.context("cargo metadata printed no JSON")?)
            .context("cargo metadata printed what this does not know")
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = &String> {
        self.members.iter()
    }

    pub(crate) fn is_member(&self, name: &str) -> bool {
        self.members.contains(name)
    }

    /// The packages that this one names itself.
    pub(crate) fn direct(&self, name: &str, kind: Kind) -> BTreeSet<String> {
        let arrows = if kind == Kind::Any { &self.any } else { &self.shipped };
        arrows.get(name).cloned().unwrap_or_default()
    }

    /// A shortest way from one package to another in what is shipped.
    pub(crate) fn way(&self, from: &str, to: &str) -> Option<Vec<String>> {
        let mut ways = vec![vec![from.to_owned()]];
        let mut seen = BTreeSet::from([from.to_owned()]);
        while !ways.is_empty() {
            let mut longer = Vec::new();
            for way in ways {
                for next in self.direct(way.last()?, Kind::Shipped) {
                    let mut way = way.clone();
                    way.push(next.clone());
                    if next == to {
                        return Some(way);
                    }
                    if seen.insert(next) {
                        longer.push(way);
                    }
                }
            }
            ways = longer;
        }
        None
    }

    /// Adds an arrow; one that is shipped counts for tests too.
    pub(crate) fn add(&mut self, from: &str, to: &str, kind: Kind) {
        let arrows = [Some(&mut self.any), (kind == Kind::Shipped).then_some(&mut self.shipped)];
        for arrows in arrows.into_iter().flatten() {
            arrows.entry(from.to_owned()).or_default().insert(to.to_owned());
        }
    }

    pub(crate) fn add_member(&mut self, name: &str) {
        self.members.insert(name.to_owned());
    }

    fn parse(metadata: &Value) -> Option<Self> {
        let packages = metadata.get("packages")?.as_array()?;
        let names: BTreeMap<&str, &str> = packages
            .iter()
            .map(|package| Some((package.get("id")?.as_str()?, package.get("name")?.as_str()?)))
            .collect::<Option<_>>()?;
        let mut graph = Self::default();
        for id in metadata.get("workspace_members")?.as_array()? {
            graph.add_member(names.get(id.as_str()?)?);
        }
        for node in metadata.get("resolve")?.get("nodes")?.as_array()? {
            let from = names.get(node.get("id")?.as_str()?)?;
            for arrow in node.get("deps")?.as_array()? {
                let to = names.get(arrow.get("pkg")?.as_str()?)?;
                let kinds = arrow.get("dep_kinds")?.as_array()?;
                let only_tests = kinds
                    .iter()
                    .all(|kind| kind.get("kind").and_then(Value::as_str) == Some("dev"));
                graph.add(from, to, if only_tests { Kind::Any } else { Kind::Shipped });
            }
        }
        Some(graph)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn metadata_becomes_arrows() {
        let metadata = json!({
            "packages": [
                { "id": "i1", "name": "a" }, { "id": "i2", "name": "b" }, { "id": "i3", "name": "c" },
            ],
            "workspace_members": ["i1"],
            "resolve": { "nodes": [
                { "id": "i1", "deps": [
                    { "pkg": "i2", "dep_kinds": [{ "kind": "dev" }, { "kind": null }] },
                    { "pkg": "i3", "dep_kinds": [{ "kind": "dev" }] },
                ] },
                { "id": "i2", "deps": [{ "pkg": "i3", "dep_kinds": [{ "kind": "build" }] }] },
                { "id": "i3", "deps": [] },
            ] },
        });
        let graph = Graph::parse(&metadata).expect("it is metadata");
        assert!(graph.is_member("a") && !graph.is_member("b"));
        assert_eq!(graph.direct("a", Kind::Shipped), BTreeSet::from(["b".to_owned()]));
        assert_eq!(graph.direct("a", Kind::Any).len(), 2);
        assert_eq!(graph.way("a", "c").map(|way| way.join(" ")).as_deref(), Some("a b c"));
        assert_eq!(graph.way("c", "a"), None);
        assert!(Graph::parse(&json!({ "packages": [] })).is_none());
    }
}
