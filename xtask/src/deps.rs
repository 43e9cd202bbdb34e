//! The dependency rule: who may depend on whom, and where unsafe code may be.

use std::path::Path;

use anyhow::{Result, bail};

use crate::graph::{Graph, Kind};
use crate::unsafe_code;

/// What one member of the workspace may depend on, in the program that is shipped (dev-dependencies apart).
struct Rule {
    member: &'static str,
    /// Members that it may name. Anything that is not here is an arrow in the wrong direction.
    members: &'static [&'static str],
    /// Packages that it may name, or everything.
    packages: Option<&'static [&'static str]>,
    /// Packages that may not be reached by any way.
    never: &'static [&'static str],
}

const KUBERNETES: &[&str] = &["k8s-openapi", "kube", "prost", "tonic"];
const ASYNC: &[&str] = &["k8s-openapi", "kube", "prost", "tokio", "tonic"];
const BACKENDS: &[&str] =
    &["vgpu-backend-cambricon", "vgpu-backend-hygon", "vgpu-backend-mock", "vgpu-backend-nvidia"];

const RULES: &[Rule] = &[
    Rule {
        member: "vgpu-core",
        members: &[],
        packages: Some(&["serde", "strum", "thiserror"]),
        never: ASYNC,
    },
    backend("vgpu-backend-cambricon"),
    // No vendor's: any factory of whoever calls it. Its fixture is behind a feature.
    Rule {
        member: "vgpu-backend-child",
        members: &["vgpu-conformance", "vgpu-core"],
        packages: None,
        never: ASYNC,
    },
    backend("vgpu-backend-hygon"),
    // What the vendors' backends share, below all of them; what it knows of a vendor would be known to the others.
    Rule {
        member: "vgpu-backend-kit",
        members: &["vgpu-core"],
        packages: Some(&["libloading", "vgpu-core"]),
        never: ASYNC,
    },
    // The mock is also a fixture of the suite, behind a feature that only the command line uses.
    Rule {
        member: "vgpu-backend-mock",
        members: &["vgpu-conformance", "vgpu-core"],
        packages: None,
        never: KUBERNETES,
    },
    backend("vgpu-backend-nvidia"),
    Rule { member: "vgpu-conformance", members: &["vgpu-core"], packages: None, never: ASYNC },
    Rule { member: "vgpu-node", members: &["vgpu-core"], packages: None, never: KUBERNETES },
    Rule {
        member: "vgpu-kubelet-plugin",
        members: &[],
        packages: None,
        never: &["libloading", "nvml-wrapper"],
    },
    Rule {
        member: "vgpu-plugin",
        members: &[
            "vgpu-backend-cambricon",
            "vgpu-backend-child",
            "vgpu-backend-hygon",
            "vgpu-backend-mock",
            "vgpu-backend-nvidia",
            "vgpu-core",
            "vgpu-kubelet-plugin",
            "vgpu-node",
        ],
        packages: None,
        never: &[],
    },
    // What a file says and what must come of it; it knows neither kubelet nor agent.
    Rule {
        member: "vgpu-scenarios",
        members: &[],
        packages: Some(&["anyhow", "serde", "serde_json"]),
        never: ASYNC,
    },
    Rule {
        member: "vgpu-hook",
        members: &[],
        packages: None,
        never: &["k8s-openapi", "kube", "libloading", "nvml-wrapper", "prost", "tokio", "tonic"],
    },
    Rule {
        member: "vgpu-cli",
        members: &[
            "vgpu-backend-cambricon",
            "vgpu-backend-child",
            "vgpu-backend-hygon",
            "vgpu-backend-mock",
            "vgpu-backend-nvidia",
            "vgpu-conformance",
            "vgpu-core",
            "vgpu-kubelet-plugin",
            "vgpu-node",
            "vgpu-plugin",
        ],
        packages: None,
        never: &[],
    },
    // Plays faults on the scripted machine from outside the agent, for `cluster test`.
    Rule {
        member: "vgpu-xtask",
        members: &["vgpu-backend-mock", "vgpu-core", "vgpu-scenarios"],
        packages: None,
        never: &[],
    },
];

/// What one check came to.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    rule: String,
    /// What breaks it; empty when it holds.
    broken: Vec<String>,
}

/// Prints each rule with `ok` or `FAIL` and fails if one is broken.
pub(crate) fn run(root: &Path, args: &[String]) -> Result<()> {
    if !args.is_empty() {
        bail!("deps takes nothing, not {:?}", args.join(" "));
    }
    let mut verdicts = judge(&Graph::read(root)?);
    verdicts.push(Verdict {
        rule: "unsafe code is only in sys.rs, bindings.rs and examples/".to_owned(),
        broken: unsafe_code::misplaced(root)?,
    });
    for verdict in &verdicts {
        let word = if verdict.broken.is_empty() { "ok  " } else { "FAIL" };
        crate::say(&format!("{word} {}", verdict.rule));
        for broken in &verdict.broken {
            crate::say(&format!("     {broken}"));
        }
    }
    match verdicts.iter().filter(|verdict| !verdict.broken.is_empty()).count() {
        0 => Ok(()),
        count => bail!("{count} of {} rules are broken (see above)", verdicts.len()),
    }
}

fn judge(graph: &Graph) -> Vec<Verdict> {
    let mut verdicts: Vec<Verdict> = RULES.iter().flat_map(|rule| rule.judge(graph)).collect();
    verdicts.push(backends_apart(graph));
    verdicts.push(all_known(graph));
    verdicts
}

impl Rule {
    fn judge(&self, graph: &Graph) -> Vec<Verdict> {
        let member = self.member;
        if !graph.is_member(member) {
            return vec![Verdict {
                rule: format!("{member} is a member of the workspace"),
                broken: vec![format!(
                    "{member} is not there; correct the table in xtask/src/deps.rs"
                )],
            }];
        }
        let direct = graph.direct(member, Kind::Shipped);
        let arrows = direct.iter().filter(|name| graph.is_member(name));
        let mut verdicts = vec![Verdict {
            rule: format!("{member} depends on no member but {}", list(self.members)),
            broken: arrows
                .filter(|name| !self.members.contains(&name.as_str()))
                .map(|name| format!("{member} depends on {name}"))
                .collect(),
        }];
        if let Some(packages) = self.packages {
            let extra = direct.iter().filter(|name| !packages.contains(&name.as_str()));
            verdicts.push(Verdict {
                rule: format!("{member} depends on no package but {}", list(packages)),
                broken: extra.map(|name| format!("{member} depends on {name}")).collect(),
            });
        }
        if !self.never.is_empty() {
            let ways = self.never.iter().filter_map(|name| graph.way(member, name));
            verdicts.push(Verdict {
                rule: format!("{member} reaches none of {}", list(self.never)),
                broken: ways.map(|way| way.join(" -> ")).collect(),
            });
        }
        verdicts
    }
}

const fn backend(member: &'static str) -> Rule {
    Rule { member, members: &["vgpu-backend-kit", "vgpu-core"], packages: None, never: ASYNC }
}

/// Not even in tests: what two vendors share belongs to the core, or with I/O and FFI to backend-kit.
fn backends_apart(graph: &Graph) -> Verdict {
    let pairs = BACKENDS.iter().flat_map(|one| {
        let named = graph.direct(one, Kind::Any).into_iter();
        named.filter(|name| BACKENDS.contains(&name.as_str())).map(move |other| (*one, other))
    });
    Verdict {
        rule: "no backend knows another, tests included".to_owned(),
        broken: pairs.map(|(one, other)| format!("{one} depends on {other}")).collect(),
    }
}

/// A new member gets a rule, or the table would be silent about it.
fn all_known(graph: &Graph) -> Verdict {
    let known = |name: &&String| RULES.iter().any(|rule| rule.member == name.as_str());
    Verdict {
        rule: "every member of the workspace has a rule".to_owned(),
        broken: graph
            .members()
            .filter(|name| !known(name))
            .map(|name| format!("{name} has none; add it to the table in xtask/src/deps.rs"))
            .collect(),
    }
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "(none)".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The workspace as it should be: every member with all that it may name.
    fn sound() -> Graph {
        let mut graph = Graph::default();
        for rule in RULES {
            graph.add_member(rule.member);
            for name in rule.members {
                graph.add(rule.member, name, Kind::Shipped);
            }
        }
        graph.add("vgpu-core", "serde", Kind::Shipped);
        graph.add("vgpu-kubelet-plugin", "tonic", Kind::Shipped);
        graph.add("tonic", "tokio", Kind::Shipped);
        graph.add("vgpu-node", "vgpu-backend-mock", Kind::Any);
        graph
    }

    fn broken(graph: &Graph) -> Vec<String> {
        judge(graph).into_iter().flat_map(|verdict| verdict.broken).collect()
    }

    #[test]
    fn a_sound_workspace_passes() {
        assert_eq!(broken(&sound()), Vec::<String>::new());
    }

    #[test]
    fn each_wrong_arrow_is_found() {
        for (from, to) in [
            ("vgpu-core", "vgpu-node"),
            ("vgpu-core", "serde_json"),
            ("vgpu-backend-hygon", "vgpu-node"),
            ("vgpu-backend-child", "vgpu-backend-nvidia"),
            ("vgpu-backend-kit", "vgpu-backend-nvidia"),
            ("vgpu-backend-kit", "nvml-wrapper"),
            ("vgpu-core", "vgpu-backend-kit"),
            ("vgpu-node", "vgpu-backend-kit"),
            ("vgpu-backend-mock", "vgpu-backend-nvidia"),
            ("vgpu-conformance", "vgpu-backend-mock"),
            ("vgpu-node", "tonic"),
            ("vgpu-node", "vgpu-backend-mock"),
            ("vgpu-node", "vgpu-kubelet-plugin"),
            ("vgpu-kubelet-plugin", "vgpu-core"),
            ("vgpu-hook", "tokio"),
            ("vgpu-hook", "vgpu-core"),
            ("vgpu-plugin", "vgpu-cli"),
            ("vgpu-scenarios", "vgpu-core"),
            ("vgpu-xtask", "vgpu-node"),
        ] {
            let mut graph = sound();
            graph.add(from, to, Kind::Shipped);
            assert!(!broken(&graph).is_empty(), "{from} -> {to}");
        }
    }

    #[test]
    fn a_way_round_is_found_and_shown() {
        let mut graph = sound();
        graph.add("vgpu-hook", "helper", Kind::Shipped);
        graph.add("helper", "tokio", Kind::Shipped);
        assert_eq!(broken(&graph), ["vgpu-hook -> helper -> tokio"]);
    }

    #[test]
    fn what_only_tests_use_may_be_used() {
        let mut graph = sound();
        graph.add("vgpu-node", "tonic", Kind::Any);
        assert_eq!(broken(&graph), Vec::<String>::new());
        graph.add("vgpu-backend-hygon", "vgpu-backend-nvidia", Kind::Any);
        assert_eq!(broken(&graph), ["vgpu-backend-hygon depends on vgpu-backend-nvidia"]);
    }

    #[test]
    fn a_member_without_a_rule_is_found() {
        let mut graph = sound();
        graph.add_member("vgpu-new");
        assert_eq!(broken(&graph).len(), 1);
        assert_eq!(broken(&Graph::default()).len(), RULES.len());
    }
}
