//! What a file says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::expected::Expected;

/// How many of which resource a container asks for.
pub type Requests = BTreeMap<String, u32>;

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scenario {
    /// The file's name without its ending.
    pub name: String,
    /// What it shows, in a sentence.
    pub about: String,
    /// What is done and what must come of it, in order.
    pub steps: Vec<Step>,
}

/// One step of a file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// The node comes to have exactly so many of these resources to give.
    Allocatable(BTreeMap<String, u64>),
    /// Pods end, and are gone.
    Delete(Vec<String>),
    /// A program is killed, with no chance to say goodbye.
    Kill(Program),
    /// A card falls off the bus; by its place on the machine, from 0.
    Lose(usize),
    /// A pod passes the scheduler, and the kubelet refuses it for good.
    Refused {
        /// The pod.
        pod: Pod,
        /// What its status must say, among other things.
        because: String,
    },
    /// A lost card is there again.
    Restore(usize),
    /// A pod comes to run.
    Run {
        /// The pod.
        pod: Pod,
        /// What each of its containers sees.
        #[serde(default)]
        sees: BTreeMap<String, Expected>,
    },
    /// A program that was killed is started again.
    Start(Program),
    /// Pods run on untouched: same containers, claims, ids, parts and specs.
    Unchanged(Vec<String>),
}

/// A pod; its containers run a program that tells what it sees.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pod {
    /// The name.
    pub name: String,
    /// Containers that run to their end before the others, in alphabetical order.
    #[serde(default)]
    pub init: BTreeMap<String, Requests>,
    /// Containers that run beside each other until the pod is deleted.
    pub containers: BTreeMap<String, Requests>,
}

/// What can be killed and started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    /// Ours.
    Agent,
    /// Theirs.
    Kubelet,
}

impl Scenario {
    /// Reads a file's text.
    ///
    /// # Errors
    /// Where it is not as the README says, with line and column; and a pod, container or expectation that makes no sense.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            about: String,
            steps: Vec<Step>,
        }
        let file: File = serde_json::from_str(text).with_context(|| format!("{name}.json"))?;
        let scenario = Self { name: name.to_owned(), about: file.about, steps: file.steps };
        scenario.check().with_context(|| format!("{name}.json"))?;
        Ok(scenario)
    }

    fn check(&self) -> Result<()> {
        ensure!(!self.about.trim().is_empty(), "about is empty; say what the scenario shows");
        let mut here: BTreeSet<&str> = BTreeSet::new();
        for (n, step) in self.steps.iter().enumerate() {
            step.check(&mut here).with_context(|| format!("step {} ({step})", n + 1))?;
        }
        let judges = |s: &Step| {
            matches!(
                s,
                Step::Allocatable(_) | Step::Refused { .. } | Step::Run { .. } | Step::Unchanged(_)
            )
        };
        ensure!(self.steps.iter().any(judges), "no step can fail");
        Ok(())
    }
}

impl Step {
    /// Pods are named before they are spoken of.
    fn check<'s>(&'s self, here: &mut BTreeSet<&'s str>) -> Result<()> {
        match self {
            Self::Delete(pods) => {
                for pod in pods {
                    ensure!(here.remove(pod.as_str()), "no pod {pod} runs here");
                }
            }
            Self::Refused { pod, because } => {
                pod.check()?;
                ensure!(!because.is_empty(), "because is empty; say a word of the refusal");
            }
            Self::Run { pod, sees } => {
                pod.check()?;
                ensure!(here.insert(&pod.name), "a pod {} runs already", pod.name);
                for (container, expected) in sees {
                    ensure!(pod.requests(container).is_some(), "it has no container {container}");
                    if let Some(other) = &expected.part_of {
                        let known = pod.requests(other).is_some() && other != container;
                        ensure!(known, "part_of names {other}, which is no other container of it");
                    }
                }
            }
            Self::Unchanged(pods) => {
                for pod in pods {
                    ensure!(here.contains(pod.as_str()), "no pod {pod} runs here");
                }
            }
            Self::Allocatable(_)
            | Self::Kill(_)
            | Self::Lose(_)
            | Self::Restore(_)
            | Self::Start(_) => {}
        }
        Ok(())
    }
}

impl Pod {
    /// What a container asks for; none if there is no such container.
    #[must_use]
    pub fn requests(&self, container: &str) -> Option<&Requests> {
        self.containers.get(container).or_else(|| self.init.get(container))
    }

    /// What the scheduler counts for the pod: init containers run one by one, the others together.
    #[must_use]
    pub fn total(&self) -> Requests {
        let mut total = Requests::new();
        for (resource, n) in self.containers.values().flatten() {
            *total.entry(resource.clone()).or_default() += n;
        }
        for (resource, n) in self.init.values().flatten() {
            let most = total.entry(resource.clone()).or_default();
            *most = (*most).max(*n);
        }
        total
    }

    fn check(&self) -> Result<()> {
        ensure!(!self.containers.is_empty(), "pod {} has no containers", self.name);
        for (name, requests) in self.init.iter().chain(&self.containers) {
            ensure!(
                !(self.init.contains_key(name) && self.containers.contains_key(name)),
                "two containers of {} are named {name}",
                self.name
            );
            ensure!(
                requests.len() <= 1,
                "container {name} asks for {} resources; one container has one of ours",
                requests.len()
            );
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allocatable(_) => write!(f, "allocatable"),
            Self::Delete(pods) => write!(f, "delete {}", pods.join(", ")),
            Self::Kill(program) => write!(f, "kill {program}"),
            Self::Lose(card) => write!(f, "lose card {card}"),
            Self::Refused { pod, .. } => write!(f, "refused {}", pod.name),
            Self::Restore(card) => write!(f, "restore card {card}"),
            Self::Run { pod, .. } => write!(f, "run {}", pod.name),
            Self::Start(program) => write!(f, "start {program}"),
            Self::Unchanged(pods) => write!(f, "unchanged {}", pods.join(", ")),
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "agent",
            Self::Kubelet => "kubelet",
        })
    }
}

/// Where the files lie.
#[must_use]
pub fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file, by name.
///
/// # Errors
/// A folder or file that cannot be read, and a file that is not as the README says.
pub fn all() -> Result<Vec<Scenario>> {
    let context = || format!("cannot list {}", folder().display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder()).with_context(context)? {
        let path: PathBuf = entry.with_context(context)?.path();
        if path.extension().is_some_and(|e| e == "json") {
            paths.push(path);
        }
    }
    paths.sort();
    let read = |path: PathBuf| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Scenario::parse(&name, &text)
    };
    paths.into_iter().map(read).collect()
}

/// The offers of `offers.yaml` for a machine with these cards.
///
/// # Errors
/// The file cannot be read, or names a card that is not there.
pub fn offers(cards: &[impl AsRef<str>]) -> Result<String> {
    let path = folder().join("offers.yaml");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let filled = cards
        .iter()
        .enumerate()
        .rev()
        .fold(text, |text, (n, card)| text.replace(&format!("$CARD{n}"), card.as_ref()));
    ensure!(!filled.contains("$CARD"), "{} names more than {} cards", path.display(), cards.len());
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"about": "x", "steps": [
        {"run": {"pod": {"name": "a", "init": {"i": {"r": 3}}, "containers": {"b": {"r": 1}, "c": {"r": 1}}},
                 "sees": {"b": {"scheme": "mig", "part_of": "i"}}}},
        {"unchanged": ["a"]}, {"delete": ["a"]}]}"#;

    #[test]
    fn every_file_is_read() {
        let all = all().expect("every file is as the README says");
        assert!(all.len() >= 8, "{} files", all.len());
    }

    #[test]
    fn a_file_is_read() {
        let scenario = Scenario::parse("good", GOOD).expect("reads");
        let Step::Run { pod, .. } = &scenario.steps[0] else { panic!("{:?}", scenario.steps[0]) };
        assert_eq!(pod.total(), Requests::from([("r".to_owned(), 3)]));
    }

    #[test]
    fn each_mistake_is_told_with_its_place() {
        for (from, to, word) in [
            ("\"about\"", "\"abuot\"", "unknown field `abuot`"),
            ("\"x\"", "\" \"", "about is empty"),
            ("{\"unchanged\"", "{\"unchagned\"", "unknown variant `unchagned`"),
            ("\"scheme\"", "\"sheme\"", "unknown field `sheme`"),
            ("\"init\"", "\"inti\"", "unknown field `inti`"),
            ("\"part_of\": \"i\"", "\"part_of\": \"b\"", "part_of names b"),
            ("\"sees\": {\"b\"", "\"sees\": {\"d\"", "no container d"),
            ("\"init\": {\"i\"", "\"init\": {\"b\"", "two containers of a"),
            ("{\"r\": 3}", "{\"r\": 3, \"s\": 1}", "asks for 2 resources"),
            ("{\"r\": 3}", "{\"r\": -3}", "invalid value"),
            ("{\"unchanged\": [\"a\"]}", "{\"unchanged\": [\"z\"]}", "step 2 (unchanged z)"),
            ("{\"delete\": [\"a\"]}", "{\"delete\": [\"z\"]}", "no pod z runs here"),
            ("{\"delete\": [\"a\"]}", "{\"kill\": \"etcd\"}", "unknown variant `etcd`"),
        ] {
            let text = GOOD.replace(from, to);
            assert_ne!(text, GOOD, "{from} is not there");
            let error = format!("{:#}", Scenario::parse("bad", &text).expect_err(word));
            assert!(error.contains(word) && error.contains("bad.json"), "{word}: {error}");
        }
        let idle = Scenario::parse("idle", r#"{"about": "x", "steps": [{"kill": "agent"}]}"#);
        assert!(format!("{:#}", idle.expect_err("it cannot fail")).contains("no step can fail"));
    }

    #[test]
    fn cards_are_filled_in() {
        let text = offers(&["GPU-a", "GPU-b"]).expect("two cards are named");
        assert!(text.contains("GPU-a") && text.contains("GPU-b"), "{text}");
        assert!(offers(&["GPU-a"]).is_err());
    }
}
